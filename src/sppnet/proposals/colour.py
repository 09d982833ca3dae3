"""Tables and filters of whole numbers that the kernels compute with (no Numba here)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaussian_weights", "lab_tables"]


@lru_cache(maxsize=1)
def lab_tables() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tables of the CIE Lab conversion.

    Returns:
        ``linear`` (256,) int32: the linear light of an 8-bit sRGB value, 0 .. 16383;
        ``root`` (16384,) int32: Lab's f of such a light, in 1/32768.
    """
    linear = []
    for i in range(256):
        v = i / 255
        linear.append(round(16383 * (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4)))
    root = []
    for i in range(16384):
        t = i / 16383
        root.append(round(32768 * (t ** (1 / 3) if t > (6 / 29) ** 3 else t * (29 / 6) ** 2 / 3 + 4 / 29)))
    return np.array(linear, np.int32), np.array(root, np.int32)


@lru_cache(maxsize=32)
def gaussian_weights(sigma: float) -> NDArray[np.float32]:
    """One half of a Gaussian filter: ``(r + 1,)`` float32, whole numbers in 1/1024, the middle first.

    The middle and twice the others sum to 1024. ``sigma`` is in pixels, >= 0; 0 gives ``[1024]``.
    """
    if sigma == 0:
        return np.array([1024], np.float32)
    values = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(math.ceil(4 * sigma) + 1)]
    total = values[0] + 2 * sum(values[1:])
    sides = [round(1024 * v / total) for v in values[1:]]
    while sides and sides[-1] == 0:
        sides.pop()
    return np.array([1024 - 2 * sum(sides), *sides], np.float32)
