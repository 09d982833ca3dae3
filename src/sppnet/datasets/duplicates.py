"""Pictures that look alike: a perceptual hash of 256 bits, and the pairs that differ in a few of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["MAX_DISTANCE", "find_duplicates", "perceptual_hash"]

U64 = NDArray[np.uint64]
MAX_DISTANCE = 10
"""Bits in which two hashes may differ. A picture saved again as JPEG, or resized, differs in fewer."""

# A picture with almost no structure (a blank page) hashes to noise: it is alike to nothing
_MIN_CONTRAST = 2.0


def perceptual_hash(pixels: NDArray[np.uint8]) -> U64:
    """The difference hash ``(4,)`` of a picture ``(H, W, 3)``: of 17 x 16 gray cells, is each brighter than the next?

    All zeros stands for a picture without structure.
    """
    small = Image.fromarray(pixels).convert("L").resize((17, 16), Image.Resampling.BOX)
    cells = np.asarray(small, np.int16)
    if cells.std() < _MIN_CONTRAST:
        return np.zeros(4, np.uint64)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).view(np.uint64).copy()


def find_duplicates(hashes: U64, max_distance: int = MAX_DISTANCE) -> list[tuple[int, int]]:
    """Pairs ``(i, j)``, i < j, of hashes ``(n, 4)`` that differ in at most ``max_distance`` bits, sorted.

    Every pair is compared, 256 pictures against all at a time.
    """
    pairs = []
    useful = np.asarray(hashes.any(axis=1))
    for start in range(0, len(hashes), 256):
        block = hashes[start : start + 256]
        # Only those from here on: each pair once
        distance = np.bitwise_count(block[:, None] ^ hashes[None, start:]).sum(2, dtype=np.int64)
        rows, columns = np.nonzero(distance <= max_distance)
        for i, j in zip(rows + start, columns + start, strict=True):
            if i < j and useful[i] and useful[j]:
                pairs.append((int(i), int(j)))
    return pairs
