"""The compiled kernels of selective search, as the rest calls them: arrays in, arrays out, Numba not needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sppnet.native.loader import NativeKernel

__all__ = [
    "colour_planes",
    "distinct",
    "edge_weights",
    "group",
    "neighbours",
    "pixel_bins",
    "rank_keys",
    "region_features",
    "segment",
    "shrink",
    "smooth",
    "sort_edges",
]

I32 = NDArray[np.int32]

_SOURCES = ("kernels_colour", "kernels_graph", "kernels_grouping", "kernels_ranking", "tables")


def _kernel(module: str, function: str, ranged: bool = False) -> NativeKernel:
    return NativeKernel(f"sppnet.proposals.kernels_{module}", function, _SOURCES, ranged)


shrink = _kernel("colour", "shrink", ranged=True)
colour_planes = _kernel("colour", "colour_planes")
smooth = _kernel("graph", "smooth")
edge_weights = _kernel("graph", "edge_weights")
sort_edges = _kernel("graph", "sort_edges")
pixel_bins = _kernel("grouping", "pixel_bins")
region_features = _kernel("grouping", "region_features")
rank_keys = _kernel("ranking", "rank_keys")
_segment = _kernel("graph", "segment")
_neighbours = _kernel("grouping", "neighbours")
_group = _kernel("grouping", "group")
_distinct = _kernel("ranking", "distinct")


def segment(order: I32, starts: I32, width: int, k: int, min_size: int, labels: I32) -> int:
    """Fill ``labels`` with region numbers; returns how many there are. See ``kernels_graph.segment``."""
    found = np.zeros(1, np.int64)
    _segment(order, starts, width, k, min_size, labels, found)
    return int(found[0])


def neighbours(labels: I32, width: int, n: int) -> I32:
    """Pairs ``(m, 2)`` of the ``n`` labelled regions that touch. See ``kernels_grouping.neighbours``."""
    found = np.zeros(1, np.int64)
    pairs = np.empty((min(4 * len(labels), n * (n - 1) // 2), 2), np.int32)
    _neighbours(labels, width, n, pairs, found)
    return pairs[: int(found[0])]


def group(pairs: I32, counts: I32, boxes: I32, sizes: I32, channels: int, mix: int) -> tuple[I32, I32]:
    """Boxes ``(2 n - 1, 4)`` of the hierarchy and merges ``(n - 1, 2)``. See ``kernels_grouping.group``."""
    n, dims = counts.shape
    work, shares = np.empty((2 * n - 1, dims), np.int32), np.empty((2 * n - 1, dims), np.int32)
    all_boxes, merges = np.empty((2 * n - 1, 4), np.int32), np.empty((n - 1, 2), np.int32)
    _group(pairs, counts, boxes, sizes, channels, mix, work, shares, all_boxes, merges)
    return all_boxes, merges


def distinct(
    boxes: I32, order: NDArray[np.int64], limit: int, iou_percent: int, width: int, height: int, min_width: int,
    min_height: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Indices of at most ``limit`` boxes that differ from each other. See ``kernels_ranking.distinct``."""
    kept, found = np.empty(limit, np.int64), np.zeros(1, np.int64)
    _distinct(boxes, order, limit, iou_percent, width, height, min_width, min_height, kept, found)
    return kept[: int(found[0])]
