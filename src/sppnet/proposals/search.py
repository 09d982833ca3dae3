"""Selective search (Uijlings, van de Sande, Gevers, Smeulders, IJCV 2013): windows that may hold an object.

A picture is cut into small regions (graph segmentation), the two most similar neighbours are joined again and again,
and the bounding box of every region on the way is a window. Several colour spaces, region sizes and similarity
measures ("strategies") give different hierarchies; their windows are ranked together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError
from sppnet.proposals import tables

__all__ = ["MODES", "Mode", "selective_search"]

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

COLOUR, TEXTURE, SIZE, FILL = 1, 2, 4, 8
ALL = COLOUR | TEXTURE | SIZE | FILL
SPACES = ("hsv", "lab", "rgi", "hue", "intensity")


@dataclass(frozen=True)
class Mode:
    """A set of strategies: every colour space with every k and every similarity mix.

    Attributes:
        spaces: of ``hsv``, ``lab``, ``rgi`` (normalised red and green, intensity), ``hue``, ``intensity``.
        ks: scale of the graph segmentation, in grey levels: greater gives greater regions.
        mixes: sums of ``COLOUR``, ``TEXTURE``, ``SIZE``, ``FILL``.
        sigma: smoothing before the segmentation, in pixels of the working image.
        min_size: least region, in pixels of the working image.
    """

    spaces: tuple[str, ...]
    ks: tuple[int, ...]
    mixes: tuple[int, ...]
    sigma: float = 0.8
    min_size: int = 100


MODES: dict[str, Mode] = {
    "single": Mode(("hsv",), (100,), (ALL,)),
    "fast": Mode(("hsv", "lab"), (150, 300, 450), (ALL, ALL - COLOUR)),
    "quality": Mode(SPACES, (100, 150, 300, 450), (ALL, ALL - COLOUR, FILL, SIZE)),
}


class Prepared(NamedTuple):
    """What all segmentations of one colour space share."""

    channels: int
    bins: NDArray[np.uint8]  # (P, 2 C): colour and texture bin of each pixel
    order: I32  # edges, lightest first
    starts: I32  # first edge of each weight


def prepare(rgb: U8, space: str, sigma: float) -> Prepared:
    """Convert, smooth, weigh and sort ``rgb`` (H, W, 3) uint8 for one colour space."""
    from sppnet.proposals import kernels_colour, kernels_graph, kernels_grouping

    height, width = rgb.shape[:2]
    number = SPACES.index(space)
    channels = kernels_colour.CHANNELS[number]
    planes = np.empty((channels, height, width), np.uint8)
    kernels_colour.colour_planes(rgb, number, *tables.lab_tables(), planes)
    edges = height * (width - 1) + (height - 1) * width + 2 * (height - 1) * (width - 1)
    order = np.empty(edges, np.int32)
    starts = np.empty(kernels_graph.BUCKETS + 1, np.int32)
    smoothed = np.empty(planes.shape, np.float32)
    kernels_graph.prepare(planes, tables.gaussian_weights(sigma), smoothed, order, starts)
    bins = np.empty((height * width, 2 * channels), np.uint8)
    kernels_grouping.pixel_bins(
        planes, smoothed, tables.colour_table(channels, space in ("hsv", "hue")), *tables.texture_tables(), bins
    )
    return Prepared(channels, bins, order, starts)


def hierarchies(ready: Prepared, width: int, k: int, min_size: int, mixes: tuple[int, ...]) -> list[I32]:
    """Boxes ``(2 n - 1, 4)`` int32 of the hierarchy of each mix; the whole image is the last."""
    from sppnet.proposals import kernels_graph, kernels_grouping

    pixels = len(ready.bins)
    labels = np.empty(pixels, np.int32)
    n = kernels_graph.segment(ready.order, ready.starts, width, 16 * k, min_size, labels)
    counts = np.empty((n, kernels_grouping.CHANNEL_BINS * ready.channels), np.int32)
    boxes = np.empty((n, 4), np.int32)
    sizes = np.empty(n, np.int32)
    kernels_grouping.region_features(labels, width, ready.bins, counts, boxes, sizes)
    pairs = kernels_grouping.neighbours(labels, width, n)
    found = []
    for mix in mixes:
        all_boxes = np.empty((2 * n - 1, 4), np.int32)
        merges = np.empty((n - 1, 2), np.int32)
        kernels_grouping.group(pairs, counts, boxes, sizes, ready.channels, mix, all_boxes, merges)
        found.append(all_boxes)
    return found


def working_image(rgb: U8, side: int) -> U8:
    """``rgb`` scaled down (never up) by area averages so that the longest side is ``side`` pixels."""
    height, width = rgb.shape[:2]
    if max(height, width) <= side:
        return rgb
    from sppnet.kernels import run_ranges
    from sppnet.proposals import kernels_colour

    longest = max(height, width)
    rows = max(1, (height * side + longest // 2) // longest)
    columns = max(1, (width * side + longest // 2) // longest)
    out = np.empty((rows, columns, 3), np.uint8)
    run_ranges(kernels_colour.shrink, rows, np.ascontiguousarray(rgb), out, grain=64)
    return out


def selective_search(
    image: Any,
    mode: str | Mode = "fast",
    max_windows: int = 2000,
    min_side: int = 20,
    seed: int = 0,
    *,
    working_side: int = 500,
    overlap: float = 0.95,
) -> F32:
    """Windows that may hold an object, best first; the same on every machine, with any number of threads.

    Args:
        image: path, PIL image, or array ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.
        mode: ``single``, ``fast`` or ``quality``, or a :class:`Mode`.
        max_windows: most windows to return, >= 1. Fewer are the first of more: any prefix is the best prefix.
        min_side: least width and height in pixels of the image, >= 1. Where the image itself is smaller, its side is
            the limit, so the window of the whole image always stays.
        seed: of the random numbers in the ranking, >= 0.
        working_side: an image with a longer side is scaled down to it, in pixels, >= 16. Bounds time and memory.
        overlap: windows whose IoU with a better one is at or above this are dropped, in [0.5, 1].

    Returns:
        ``(K, 4)`` float32, 1 <= K <= ``max_windows``: ``(x0, y0, x1, y1)`` in pixels of the image, half-open.

    Raises:
        ArgumentError: an argument out of its range.
        ImageError: the image can't be read.
    """
    if isinstance(mode, str):
        if mode not in MODES:
            raise ArgumentError(f"mode: expected one of {', '.join(MODES)} or a Mode, got {mode!r}")
        mode = MODES[mode]
    for name, value, low in (
        ("max_windows", max_windows, 1),
        ("min_side", min_side, 1),
        ("seed", seed, 0),
        ("working_side", working_side, 16),
    ):
        if not isinstance(value, int | np.integer) or value < low:
            raise ArgumentError(f"{name}: expected a whole number >= {low}, got {value!r}")
    if not 0.5 <= overlap <= 1:
        raise ArgumentError(f"overlap: expected an IoU in [0.5, 1], got {overlap!r}")
    rgb = as_rgb(image)
    from sppnet.kernels import first_run_notice

    with first_run_notice("selective search"):
        return search(rgb, mode, int(max_windows), int(min_side), int(seed), int(working_side), float(overlap))


def as_rgb(image: Any) -> U8:
    """``image`` as contiguous (H, W, 3) uint8."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        if image.size == 0:
            raise ArgumentError(f"image: expected at least one pixel, got shape {image.shape}")
        return np.ascontiguousarray(image)
    from sppnet.images import load_image

    return np.ascontiguousarray(load_image(Path(image) if isinstance(image, str) else image))


def search(rgb: U8, mode: Mode, max_windows: int, min_side: int, seed: int, side: int, overlap: float) -> F32:
    """:func:`selective_search` of checked arguments."""
    from sppnet.kernels import run_ranges
    from sppnet.proposals import kernels_ranking

    small = working_image(rgb, side)
    height, width = small.shape[:2]
    ready: list[Any] = [None] * len(mode.spaces)
    tasks = [(s, k) for k in sorted(mode.ks) for s in range(len(mode.spaces))]
    found: list[Any] = [None] * len(tasks)

    def prepare_range(start: int, stop: int) -> None:
        for i in range(start, stop):
            ready[i] = prepare(small, mode.spaces[i], mode.sigma)

    def group_range(start: int, stop: int) -> None:
        for i in range(start, stop):
            found[i] = hierarchies(ready[tasks[i][0]], width, tasks[i][1], mode.min_size, mode.mixes)

    run_ranges(prepare_range, len(ready), chunks_per_thread=len(ready))
    run_ranges(group_range, len(tasks), chunks_per_thread=len(tasks))
    strategies = [boxes for of_task in found for boxes in of_task]
    keys = []
    for number, boxes in enumerate(strategies):
        key = np.empty(len(boxes), np.uint64)
        kernels_ranking.rank_keys(len(boxes), ((seed << 40) + (number << 24)) % 2**64, key)
        keys.append(key)
    boxes = np.concatenate(strategies)
    order = np.argsort(np.concatenate(keys), kind="stable")
    scale_x, scale_y = rgb.shape[1] / width, rgb.shape[0] / height
    min_w = min(int(np.ceil(min_side / scale_x)), width)
    min_h = min(int(np.ceil(min_side / scale_y)), height)
    kept = np.empty(max_windows, np.int64)
    count = kernels_ranking.distinct(boxes, order, max_windows, round(100 * overlap), width, height, min_w, min_h, kept)
    chosen = boxes[kept[:count]].astype(np.float64)
    return (chosen * (scale_x, scale_y, scale_x, scale_y)).astype(np.float32)
