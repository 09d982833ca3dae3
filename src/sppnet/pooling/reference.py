"""The definition of spatial pyramid pooling, in a few obvious lines. Slow; the oracle of the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sppnet.pooling.bins import Level, bin_edges

__all__ = ["pool_reference", "pool_reference_backward"]


def pool_reference(
    features: NDArray[np.floating], cells: NDArray[np.int64], levels: Sequence[Level], mode: str = "max"
) -> NDArray[np.floating]:
    """Windows ``cells`` ``(K, 4)`` (half-open, inside the map) of a map ``(C, H, W)``: ``(K, bins, C)``."""
    reduce = np.max if mode == "max" else np.mean
    result = [
        [reduce(features[:, y0 + t : y0 + b, x0 + left : x0 + right], axis=(1, 2)) for t, b, left, right in bins]
        for x0, y0, x1, y1 in cells.tolist()
        for bins in [_bins(y1 - y0, x1 - x0, levels)]
    ]
    count = sum(r * c for r, c in levels)
    return np.array(result, features.dtype).reshape(len(cells), count, features.shape[0])


def pool_reference_backward(
    grad: NDArray[np.floating],
    features: NDArray[np.floating],
    cells: NDArray[np.int64],
    levels: Sequence[Level],
    mode: str = "max",
) -> NDArray[np.floating]:
    """Gradient ``(C, H, W)`` of the map from that of the result ``(K, bins, C)``."""
    result = np.zeros_like(features)
    for k, (x0, y0, x1, y1) in enumerate(cells.tolist()):
        for i, (t, b, left, right) in enumerate(_bins(y1 - y0, x1 - x0, levels)):
            crop = features[:, y0 + t : y0 + b, x0 + left : x0 + right]
            target = result[:, y0 + t : y0 + b, x0 + left : x0 + right]
            for c in range(len(features)):
                if mode == "max":
                    target[c][np.unravel_index(np.argmax(crop[c]), crop[c].shape)] += grad[k, i, c]
                else:
                    target[c] += grad[k, i, c] / crop[c].size
    return result


def _bins(height: int, width: int, levels: Sequence[Level]) -> list[tuple[int, int, int, int]]:
    """Top, bottom, left, right of every bin."""
    return [(*rows, *columns) for r, c in levels for rows in bin_edges(height, r) for columns in bin_edges(width, c)]
