"""Images that look alike: a perceptual hash of 256 bits, and the pairs that differ in a few of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.errors import ImageError
from sppnet.images import load_image

__all__ = ["MAX_DISTANCE", "duplicate_groups", "hash_images", "look_alikes", "perceptual_hash"]

U64 = NDArray[np.uint64]
MAX_DISTANCE = 10
"""Bits in which two hashes may differ. An image saved again as JPEG, or resized, differs in fewer."""

# An image with almost no structure (a blank page) hashes to noise: it is alike to nothing
_MIN_CONTRAST = 2.0


def perceptual_hash(pixels: NDArray[np.uint8]) -> U64:
    """Return the difference hash ``(4,)`` of an image ``(H, W, 3)``.

    Of 17 x 16 gray cells, is each brighter than the next?

    All zeros stands for an image without structure.
    """
    small = Image.fromarray(pixels).convert("L").resize((17, 16), Image.Resampling.BOX)
    cells = np.asarray(small, np.int16)
    if cells.std() < _MIN_CONTRAST:
        return np.zeros(4, np.uint64)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).view(np.uint64).copy()


def look_alikes(hashes: U64, max_distance: int = MAX_DISTANCE) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each hash of ``(n, 4)`` that later ones are like, and these: they differ in few bits.

    Every pair is compared, as many images against all at a time as fit into about 64 MB.

    Args:
        hashes: of images; all zeros are alike to nothing.
        max_distance: in bits.
    """
    useful = np.asarray(hashes.any(axis=1))
    step = max(1, min(256, 2_000_000 // max(1, len(hashes))))
    for start in range(0, len(hashes), step):
        block = hashes[start : start + step]
        # Only those from here on: each pair once
        distance = np.bitwise_count(block[:, None] ^ hashes[None, start:]).sum(2, dtype=np.int64)
        near = (distance <= max_distance) & useful[start : start + step, None] & useful[None, start:]
        for row in np.flatnonzero(near.any(1)):
            others = np.flatnonzero(near[row, row + 1 :]) + start + int(row) + 1
            if len(others):
                yield start + int(row), others


def duplicate_groups(hashes: U64, max_distance: int = MAX_DISTANCE) -> list[int]:
    """Return a number for each hash ``(n, 4)``: images that look alike, also by way of others, have the same."""
    group = np.arange(len(hashes))
    for i, others in look_alikes(hashes, max_distance):
        together = np.unique(group[others])
        if len(together) > 1 or together[0] != group[i]:
            together = np.append(together, group[i])
            group[np.isin(group, together)] = together.min()
    return list(map(int, group))


def hash_images(
    paths: Sequence[Path],
    *,
    threads: int = 2,
    progress: Callable[[Iterable[Path], int], Iterable[Path]] | None = None,
) -> U64:
    """Return the hashes ``(n, 4)`` of images; of one that can't be decoded all zeros.

    Args:
        paths: of the images.
        threads: that decode.
        progress: wraps the images and gets their number, to show how far it is.
    """
    hashes = np.zeros((len(paths), 4), np.uint64)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        results = pool.map(_hash, paths)
        for k, _ in enumerate(progress(paths, len(paths)) if progress else paths):
            hashes[k] = next(results)
    return hashes


def _hash(path: Path) -> U64:
    try:
        return perceptual_hash(load_image(path))
    except ImageError:
        return np.zeros(4, np.uint64)
