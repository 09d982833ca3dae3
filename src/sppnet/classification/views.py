"""From a photo to what a classifier looks at: the whole photo at its own aspect, a crop, or a warp.

The paper compares the three (sections 3.1.4 and 3.3): a network without pyramid pooling needs one size, and so cuts
the photo (losing what is outside) or distorts it; with the pyramid it may see all of it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.errors import ArgumentError

__all__ = ["View", "full_size"]

_HOWS = ("full", "crop", "warp")


@dataclass(frozen=True)
class View:
    """One look at a photo.

    Attributes:
        side_px: the short side of a ``full`` view, or both sides of the others.
        how: ``full``: all of the photo at its own aspect. ``crop``: the square in the middle, after the short side
            became ``side_px * 256 / 224``. ``warp``: all of the photo, made square.
        flip: its mirror image.
        max_aspect: of a ``full`` view: the long side gets at most this many times ``side_px``, and the short side
            fewer pixels then. It bounds time and memory for panoramas.

    Raises:
        ArgumentError: an unknown ``how``, or numbers out of range.
    """

    side_px: int = 224
    how: Literal["full", "crop", "warp"] = "full"
    flip: bool = False
    max_aspect: float = 3.0

    def __post_init__(self) -> None:
        if self.how not in _HOWS:
            raise ArgumentError(f"how: got {self.how!r}, expected one of {', '.join(_HOWS)}")
        if self.side_px < 1 or not self.max_aspect >= 1:
            raise ArgumentError(f"expected side_px >= 1 and max_aspect >= 1, got {self.side_px}, {self.max_aspect}")

    def apply(self, image: NDArray[np.uint8], multiple: int = 1) -> NDArray[np.uint8]:
        """The view of ``image (H, W, 3)``: uint8 ``(h, w, 3)``, both sides multiples of ``multiple`` pixels."""
        height, width = image.shape[:2]
        side = max(multiple, round(self.side_px / multiple) * multiple)
        box: tuple[float, float, float, float] | None = None
        if self.how == "full":
            h, w = full_size(height, width, self.side_px, multiple, self.max_aspect)
        else:
            h = w = side
            if self.how == "crop":
                edge = min(height, width) * 224 / 256
                left, top = (width - edge) / 2, (height - edge) / 2
                box = (left, top, left + edge, top + edge)
        if (h, w) != (height, width) or box is not None:
            image = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR, box))
        return np.ascontiguousarray(image[:, ::-1]) if self.flip else image

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; ``View(**d)`` gives it back."""
        return {"side_px": self.side_px, "how": self.how, "flip": self.flip, "max_aspect": self.max_aspect}


def full_size(height: int, width: int, side_px: int, multiple: int, max_aspect: float = 3.0) -> tuple[int, int]:
    """Height and width of a photo whose short side becomes ``side_px``, rounded to multiples of ``multiple``."""
    factor = min(side_px / min(height, width), max_aspect * side_px / max(height, width))
    h, w = (max(multiple, round(side * factor / multiple) * multiple) for side in (height, width))
    return h, w
