"""Views of an image, the input of a classifier: the whole image at its own aspect, a crop, or a warp.

The paper compares the three (sections 3.1.4 and 3.3). A network without pyramid pooling needs one size, so the image is
cropped (what is outside is lost) or warped (what is inside is distorted). With the pyramid, the network takes all of
the image as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from sppnet._types import U8
from sppnet.checking import check_number, check_one_of, check_whole

__all__ = ["MAX_ASPECT", "MAX_SIDE_PX", "View", "check_flip", "full_size"]

MAX_SIDE_PX, MAX_ASPECT = 1 << 14, 100
"""Of a view. A model file holds smaller ones only."""

_HOWS = ("full", "crop", "warp")


@dataclass(frozen=True)
class View:
    """One view of an image.

    Attributes:
        side_px: the short side of a ``full`` view; both sides of the others.
        how: ``full``: all of the image at its own aspect. ``crop``: the square in the middle, after the short side
            was resized to ``side_px * 256 / 224``. ``warp``: all of the image, resized to a square.
        flip: whether the view is mirrored.
        max_aspect: limit of a ``full`` view: its long side has at most this many times ``side_px``, and its short side
            fewer pixels then. It bounds time and memory for panoramas.

    Raises:
        ArgumentError: an unknown ``how``, or numbers out of range.
    """

    side_px: int = 224
    how: Literal["full", "crop", "warp"] = "full"
    flip: bool = False
    max_aspect: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "side_px", check_whole("side_px", self.side_px, 1, MAX_SIDE_PX))
        check_one_of("how", self.how, _HOWS)
        object.__setattr__(self, "flip", check_flip(self.flip))
        check_number("max_aspect", self.max_aspect, 1, MAX_ASPECT)
        object.__setattr__(self, "max_aspect", float(self.max_aspect))

    def apply(self, image: U8, multiple: int = 1) -> U8:
        """Make the view of an image.

        Args:
            image: uint8 ``(H, W, 3)``.
            multiple: both sides of the view are multiples of this many pixels.

        Returns:
            uint8 ``(h, w, 3)``.

        >>> View(64).apply(np.zeros((100, 150, 3), np.uint8), multiple=32).shape
        (64, 96, 3)
        >>> View(64, "crop").apply(np.zeros((100, 150, 3), np.uint8)).shape
        (64, 64, 3)
        """
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
        """Return the view as JSON can hold it; ``View(**d)`` makes it again."""
        return {"side_px": self.side_px, "how": self.how, "flip": self.flip, "max_aspect": self.max_aspect}


def check_flip(flip: object) -> bool:
    """Refuse what is neither true nor false; returns it as a bool.

    Raises:
        ArgumentError: something else.
    """
    plain = bool(flip) if isinstance(flip, np.bool_) else flip
    check_one_of("flip", plain, (False, True))
    return bool(plain)


def full_size(height: int, width: int, side_px: int, multiple: int, max_aspect: float = 3.0) -> tuple[int, int]:
    """Compute the size of an image whose short side becomes ``side_px``.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        side_px: the new short side.
        multiple: new sides are rounded to multiples of this many pixels.
        max_aspect: as of :class:`View`.

    Returns:
        New height and width.
    """
    factor = min(side_px / min(height, width), max_aspect * side_px / max(height, width))
    h, w = (max(multiple, round(side * factor / multiple) * multiple) for side in (height, width))
    return h, w
