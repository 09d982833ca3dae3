"""What the detector takes as a source of windows."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Proposer"]


@runtime_checkable
class Proposer(Protocol):
    """Anything that turns an image into windows: a function will do.

    Called with ``image``, uint8 ``(H, W, 3)`` RGB, it returns windows as float32 ``(K, 4)``: ``(x0, y0, x1, y1)`` in
    pixels of the image, 0-based, half-open, inside the image, best first. ``K`` may be 0.
    """

    def __call__(self, image: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Windows of ``image``."""
        ...
