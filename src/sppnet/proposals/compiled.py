"""The compiled kernels of selective search, as the rest calls them: arrays in, arrays out, Numba not needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppnet.kernels.ahead import compile_ahead
from sppnet.kernels.native import NativeKernel

__all__ = [
    "Regions",
    "colour_planes",
    "compile_in_two_processes",
    "distinct",
    "edge_weights",
    "group",
    "join_atoms",
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


class Regions(NamedTuple):
    """What grouping has to know of regions.

    Attributes:
        counts: (n, D) histograms.
        boxes: (n, 4) bounding boxes.
        sizes: (n,) pixels.
        pairs: (m, 2), those that touch, each once, the smaller number first.
    """

    counts: I32
    boxes: I32
    sizes: I32
    pairs: I32


_SOURCES = ("kernels_colour", "kernels_graph", "kernels_segment", "kernels_grouping", "kernels_ranking", "tables")


def _kernel(module: str, function: str, *kinds: str, ranged: bool = False) -> NativeKernel:
    return NativeKernel(f"sppnet.proposals.kernels_{module}", function, _SOURCES, ranged, kinds)


_I1, _I2, _PIXELS = "int32 1", "int32 2", "uint8 3"
shrink = _kernel("colour", "shrink", _PIXELS, _PIXELS, ranged=True)
colour_planes = _kernel("colour", "colour_planes", _PIXELS, "int64", _I1, _I1, _PIXELS)
smooth = _kernel("graph", "smooth", _PIXELS, "float32 1", "float32 3")
edge_weights = _kernel("graph", "edge_weights", "float32 3", "uint16 3")
sort_edges = _kernel("graph", "sort_edges", "uint16 2", _I1, _I1)
pixel_bins = _kernel("grouping", "pixel_bins", _PIXELS, "float32 3", "uint8 2", "uint8 1", "uint8 2", "uint8 2")
region_features = _kernel("grouping", "region_features", _I1, "int64", "uint8 2", _I2, _I2, _I1)
rank_keys = _kernel("ranking", "rank_keys", "int64", "int64", "uint64 1")
_segment = _kernel("segment", "segment", _I1, _I1, "int64", _I1, "int64", _I1, _I1, "int64 1")
_neighbours = _kernel("grouping", "neighbours", _I1, "int64", "int64", _I2, "int64 1")
_join_atoms = _kernel(
    "grouping", "join_atoms", _I2, "int64", _I2, _I2, _I1, _I2, _I2, _I2, _I1, _I2, "int64 1"
)  # fmt: skip
_group = _kernel("grouping", "group", _I2, _I2, _I2, _I1, "int64", "int64", _I2, _I2, _I2, _I2)
_distinct = _kernel("ranking", "distinct", _I2, "int64 1", *["int64"] * 6, "int64 1", "int64 1")


def compile_in_two_processes() -> None:
    """Have half of the kernels compiled by a process beside this one, if they aren't on disk yet.

    Both halves take about as long (``segment`` and ``group`` most); the order is that in which they are needed.
    """
    beside = ("edge_weights", "sort_edges", "pixel_bins", "_neighbours", "region_features", "_join_atoms", "_group")
    compile_ahead(__name__, beside)


def segment(
    order: I32, starts: I32, width: int, ks: Sequence[int], min_size: int, labels: I32
) -> tuple[I32, list[int]]:
    """Fill ``labels`` with atoms; returns the region of each at each scale ``(A, K)``, and how many regions these have.

    See ``kernels_segment.segment``.
    """
    scales = len(ks)
    # most of this is never touched, so no memory is taken for it
    regions, found = np.empty(len(labels) * scales, np.int32), np.zeros(1 + scales, np.int64)
    _segment(order, starts, width, np.array(ks, np.int32), min_size, labels, regions, found)
    return regions[: int(found[0]) * scales].reshape(-1, scales).copy(), found[1:].tolist()


def neighbours(labels: I32, width: int, n: int) -> I32:
    """Pairs ``(m, 2)`` of the ``n`` labelled regions that touch. See ``kernels_grouping.neighbours``."""
    found = np.zeros(1, np.int64)
    pairs = np.empty((min(4 * len(labels), n * (n - 1) // 2), 2), np.int32)
    _neighbours(labels, width, n, pairs, found)
    return pairs[: int(found[0])]


def join_atoms(regions: I32, scale: int, n: int, atoms: Regions) -> Regions:
    """Features of the ``n`` regions that are made of ``atoms`` at a scale. See ``kernels_grouping.join_atoms``."""
    found = np.zeros(1, np.int64)
    counts, boxes = np.empty((n, atoms.counts.shape[1]), np.int32), np.empty((n, 4), np.int32)
    sizes, pairs = np.empty(n, np.int32), np.empty_like(atoms.pairs)
    _join_atoms(regions, scale, *atoms, counts, boxes, sizes, pairs, found)
    return Regions(counts, boxes, sizes, pairs[: int(found[0])])


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
