"""Tables and filters of whole numbers that the kernels compute with (no Numba here)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BUCKETS",
    "CHANNELS",
    "CHANNEL_BINS",
    "COLOUR_BINS",
    "TEXTURE_BINS",
    "colour_table",
    "gaussian_weights",
    "lab_tables",
    "texture_tables",
]

CHANNELS = (3, 3, 3, 1, 1)  # of the colour spaces
BUCKETS = 7072  # of edge weights in 1/16 grey level; the greatest is floor(2 * sqrt(3 * 2040**2)) = 7066
DIRECTIONS = 8
STRENGTHS = (4, 12, 32, 96)  # least steepness of levels 1, 2, ..., in 1/16 grey level a pixel
COLOUR_BINS = 25
TEXTURE_BINS = DIRECTIONS * (len(STRENGTHS) + 1)
CHANNEL_BINS = COLOUR_BINS + TEXTURE_BINS


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


@lru_cache(maxsize=8)
def colour_table(channels: int, hue_first: bool) -> NDArray[np.uint8]:
    """``(C, 256)`` uint8: the colour bin of each 8-bit value, numbered through all channels."""
    table = np.empty((channels, 256), np.uint8)
    for c in range(channels):
        for value in range(256):
            inside = min(value, 179) * COLOUR_BINS // 180 if hue_first and c == 0 else value * COLOUR_BINS // 256
            table[c, value] = COLOUR_BINS * c + inside
    return table


@lru_cache(maxsize=1)
def texture_tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Tables that turn the differences to left and right and to above and below into a texture bin.

    Returns:
        ``steepness`` (4081,) uint8: one of 31 steps of the difference -2040 .. 2040 (1/16 grey level a pixel);
        ``textures`` (32, 32) uint8: the bin of two such steps, ``levels * direction + level`` of the gradient.
    """
    bounds = [2]  # least difference of steps 1 .. 15, about a factor of 1.5 each
    while len(bounds) < 15:
        bounds.append(bounds[-1] + (bounds[-1] + 1) // 2)
    difference = np.arange(-2040, 2041)
    steps = np.searchsorted(bounds, np.abs(difference), side="right")  # bounds that it reaches
    steepness = (15 + np.sign(difference) * steps).astype(np.uint8)
    middles = [0, *[(low + high) // 2 for low, high in zip(bounds, [*bounds[1:], 1500], strict=True)]]
    textures = np.zeros((32, 32), np.uint8)
    for i in range(31):
        for j in range(31):
            dx = middles[abs(i - 15)] * (1 if i >= 15 else -1)
            dy = middles[abs(j - 15)] * (1 if j >= 15 else -1)
            # sectors of 45 degrees around the axes and diagonals; tan(22.5 degrees) is 12 / 29
            if 29 * abs(dy) < 12 * abs(dx):
                direction = 0 if dx > 0 else 4
            elif 29 * abs(dx) < 12 * abs(dy):
                direction = 2 if dy > 0 else 6
            elif dx > 0:
                direction = 1 if dy > 0 else 7
            else:
                direction = 3 if dy > 0 else 5
            level = sum(max(abs(dx), abs(dy)) >= bound for bound in STRENGTHS)
            textures[i, j] = (len(STRENGTHS) + 1) * direction + level
    return steepness, textures
