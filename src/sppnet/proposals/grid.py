"""The cheapest proposer: windows on a regular grid, in several sizes and shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError

__all__ = ["GridProposer"]


@dataclass(frozen=True)
class GridProposer:
    """Dense windows: for every size and shape, positions a fixed share of the window apart.

    Sizes go from the image's shorter side down by ``scale_step``. A call takes a few milliseconds, and the windows
    depend on nothing but the size of the image. Calling it gives float32 ``(K, 4)``, greatest windows first.

    Attributes:
        max_windows: most windows, >= 1. Small windows are left out first, evenly over the image.
        min_side: minimum width and height, in pixels, >= 1 (or the image's side, where that is less).
        aspects: width by height of the windows, each > 0. Areas are equal within a size.
        scale_step: from one size to the next, > 1.
        stride: from one window to the next, as a share of its side, in (0, 1].
    """

    max_windows: int = 2000
    min_side: int = 16
    aspects: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0)
    scale_step: float = 1.5
    stride: float = 0.25

    def __post_init__(self) -> None:
        if self.max_windows < 1:
            raise ArgumentError(f"max_windows: expected a whole number >= 1, got {self.max_windows!r}")
        if self.min_side < 1:
            raise ArgumentError(f"min_side: expected pixels >= 1, got {self.min_side!r}")
        if not self.aspects or min(self.aspects) <= 0 or not all(map(math.isfinite, self.aspects)):
            raise ArgumentError(f"aspects: expected at least one number > 0, got {self.aspects!r}")
        if not 1 < self.scale_step < math.inf:
            raise ArgumentError(f"scale_step: expected a number > 1, got {self.scale_step!r}")
        if not 0 < self.stride <= 1:
            raise ArgumentError(f"stride: expected a share in (0, 1], got {self.stride!r}")

    def __call__(self, image: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Windows of ``image`` (H, W, ...), of which only the size is looked at."""
        height, width = image.shape[:2]
        if min(height, width) < 1:
            raise ArgumentError(f"image: expected at least one pixel, got shape {image.shape}")
        found = [np.array([[0, 0, width, height]], np.float32)]
        room = self.max_windows - 1
        side = float(min(height, width))
        while room > 0 and side >= min(self.min_side, height, width):
            level = np.concatenate([self._positions(width, height, side, aspect) for aspect in self.aspects])
            level = np.unique(level, axis=0)
            level = level[~(level == found[0]).all(1)]
            if len(level) > room:
                level = level[np.arange(room) * len(level) // room]
            found.append(level)
            room -= len(level)
            side /= self.scale_step
        return np.concatenate(found)

    def _positions(self, width: int, height: int, side: float, aspect: float) -> NDArray[np.float32]:
        """All windows ``(n, 4)`` of one size and shape, spread evenly from edge to edge."""
        w = min(float(width), max(side * math.sqrt(aspect), min(self.min_side, width)))
        h = min(float(height), max(side / math.sqrt(aspect), min(self.min_side, height)))
        x = np.linspace(0, width - w, 1 + math.ceil((width - w) / (self.stride * w)))
        y = np.linspace(0, height - h, 1 + math.ceil((height - h) / (self.stride * h)))
        y0, x0 = (a.ravel() for a in np.meshgrid(y, x, indexing="ij"))
        boxes = np.stack([x0, y0, x0 + w, y0 + h], 1).astype(np.float32)
        return np.minimum(boxes, np.array([width, height, width, height], np.float32))
