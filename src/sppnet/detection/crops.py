"""R-CNN's way (Girshick et al., 2014): every window is cut out, warped, and sent through the convolutions by itself.

It is the baseline that SPP-net is measured against: same backbone, same windows, same layers behind them, but about
2000 passes an image instead of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sppnet._types import F32, U8
from sppnet.backbones.engines.engine import MapEngine
from sppnet.detection.features import WindowFeatures
from sppnet.detection.maps import ImageMaps
from sppnet.errors import ArgumentError
from sppnet.pooling.windows import pool_windows

if TYPE_CHECKING:
    from sppnet.backbones.base import Backbone
    from sppnet.detection.features import Vectors

__all__ = ["CropFeatures"]

_BATCH = 16


class CropFeatures(WindowFeatures):
    """As :class:`sppnet.detection.features.WindowFeatures`, with one pass of the convolutions a window.

    Args:
        engine, levels: as there; the map of each crop is pooled as a whole, so that vectors have the same length.
        crop_px: side of the warped square, in pixels.
        context_px: as many of them, on each side, show what lies around the window (R-CNN: 16 of 227). Where that is
            outside the image there is mid-grey.
    """

    def __init__(
        self,
        engine: MapEngine | Backbone,
        levels: Sequence[int] = (4, 2, 1),
        *,
        crop_px: int = 224,
        context_px: int = 16,
    ) -> None:
        super().__init__(engine, levels, ())
        self.crop_px = crop_px
        self.context_px = context_px

    def settings(self) -> tuple[object, ...]:
        """What tells these features from others."""
        return "rcnn", *self.engine.identity, self.levels, self.mode, self.crop_px, self.context_px

    def map_settings(self) -> tuple[object, ...]:
        """What is kept of an image, its pixels, depends on nothing."""
        return ("pixels",)

    @property
    def stored_dtype(self) -> str:
        """What is kept of an image is its pixels."""
        return "uint8"

    def estimated_bytes(self, height: int, width: int) -> int:
        """Size of what is kept of an image: its pixels."""
        return height * width * 3

    def inputs(self, image: U8, *, flip: bool = False) -> list[U8]:
        """The pixels of ``image (H, W, 3)``, or of its mirror image: here the convolutions come after the windows."""
        return [np.ascontiguousarray(image[:, ::-1] if flip else image)]

    def maps_of_inputs(self, inputs: Sequence[U8], height: int, width: int) -> ImageMaps:
        """The pixels themselves."""
        (pixels,) = inputs
        return ImageMaps((pixels.transpose(2, 0, 1),), np.ones((1, 2), np.float32), height, width, self.quantised)

    def accepted(self, maps: ImageMaps) -> ImageMaps:
        """Give ``maps``, which are the pixels of an image.

        Raises:
            ArgumentError: they aren't.
        """
        if not isinstance(maps, ImageMaps) or [m.shape[0] for m in maps.maps] != [3]:
            raise ArgumentError("maps: expected the pixels of an image, as feature_maps(image) of this detector gives")
        return maps

    def pool(self, maps: ImageMaps, windows: F32, out: Vectors | None = None) -> Vectors:
        """Vectors ``(K, dims)`` of ``windows (K, 4)`` in image pixels, of the type of the network's maps."""
        if out is None:
            out = self.buffer(len(windows), "float32" if self.quantised is None else "uint8")
        source = Image.fromarray(np.ascontiguousarray(np.asarray(maps.maps[0]).transpose(1, 2, 0)))
        channels, out = self.engine.channels, out[: len(windows)]
        for start in range(0, len(windows), _BATCH):
            crops = np.stack([self.warp(source, window) for window in windows[start : start + _BATCH]])
            found = self.engine(crops)
            first: Any = found.transpose(0, 3, 1, 2) if isinstance(found, np.ndarray) else found.permute(0, 3, 1, 2)
            whole = np.tile(np.array([[0, 0, first.shape[3], first.shape[2]]], np.float32), (len(crops), 1))
            rows: Any = out[start : start + len(crops)].reshape(len(crops), sum(n * n for n in self.levels), channels)
            pool_windows(first, whole, self.levels, self.mode, map_index=np.arange(len(crops)), out=rows)
        return out

    def warp(self, source: Image.Image, window: F32) -> U8:
        """``window (4,)`` and its context as ``(crop_px, crop_px, 3)``."""
        side, inner = self.crop_px, self.crop_px - 2 * self.context_px
        x0, y0, x1, y1 = (float(v) for v in window)
        grow_x, grow_y = (max(v, 1.0) * self.context_px / inner for v in (x1 - x0, y1 - y0))
        wanted = (x0 - grow_x, y0 - grow_y, max(x1, x0 + 1) + grow_x, max(y1, y0 + 1) + grow_y)
        inside = (
            max(wanted[0], 0.0),
            max(wanted[1], 0.0),
            min(wanted[2], source.width),
            min(wanted[3], source.height),
        )
        canvas = np.full((side, side, 3), 127, np.uint8)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            return canvas
        to_x, to_y = side / (wanted[2] - wanted[0]), side / (wanted[3] - wanted[1])
        left, top = round((inside[0] - wanted[0]) * to_x), round((inside[1] - wanted[1]) * to_y)
        right = max(left + 1, round((inside[2] - wanted[0]) * to_x))
        bottom = max(top + 1, round((inside[3] - wanted[1]) * to_y))
        part = source.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=inside)
        canvas[top:bottom, left:right] = np.asarray(part)[: side - top, : side - left]
        return canvas
