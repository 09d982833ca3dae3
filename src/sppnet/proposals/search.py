"""Selective search (Uijlings, van de Sande, Gevers, Smeulders, IJCV 2013): windows that may hold an object.

An image is cut into small regions (graph segmentation), the two most similar neighbours are joined again and again,
and the bounding box of every region on the way is a window. Several colour spaces, region sizes and similarity
measures ("strategies") give different hierarchies; their windows are ranked together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError
from sppnet.proposals import compiled, tables
from sppnet.proposals.segmentation import as_rgb, check_scale, sorted_edges

__all__ = ["COLOUR", "FILL", "MODES", "SIZE", "TEXTURE", "Mode", "SelectiveSearch", "selective_search"]

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
        min_size: smallest region, in pixels of the working image.
        overlap: windows whose IoU with a better one is at or above this (in whole percent) are dropped, in [0.5, 1].

    Raises:
        ArgumentError: something out of range.
    """

    spaces: tuple[str, ...]
    ks: tuple[float, ...]
    mixes: tuple[int, ...]
    sigma: float = 0.8
    min_size: int = 100
    overlap: float = 0.9

    def __post_init__(self) -> None:
        unknown = [space for space in self.spaces if space not in SPACES]
        if unknown or not self.spaces:
            raise ArgumentError(f"spaces: expected some of {', '.join(SPACES)}, got {self.spaces!r}")
        if not self.ks:
            raise ArgumentError("ks: expected at least one scale of the segmentation, got none")
        for k in self.ks:
            check_scale(self.sigma, k, self.min_size)
        if not self.mixes or not all(isinstance(mix, int) and 1 <= mix <= ALL for mix in self.mixes):
            raise ArgumentError(f"mixes: expected sums of COLOUR, TEXTURE, SIZE and FILL, got {self.mixes!r}")
        if not 0.5 <= self.overlap <= 1:
            raise ArgumentError(f"overlap: expected an IoU in [0.5, 1], got {self.overlap!r}")


MODES: dict[str, Mode] = {
    "single": Mode(("hsv",), (150,), (ALL,)),
    "fast": Mode(("hsv", "lab"), (150, 200, 450), (ALL, ALL - COLOUR, SIZE | FILL, FILL)),
    "quality": Mode(SPACES, (100, 200, 300, 450), (ALL, ALL - COLOUR, SIZE | FILL, FILL), overlap=0.8),
}


class Segmented(NamedTuple):
    """The regions of one colour space at every k, as sets of atoms."""

    channels: int
    regions: I32  # (A, K): of each atom at each k
    counts: list[int]  # of regions at each k
    atoms: compiled.Regions


def segment_space(rgb: U8, space: str, sigma: float, ks: Sequence[float], min_size: int) -> Segmented:
    """Regions of ``rgb`` (H, W, 3) uint8 in one colour space for every k, which ascend."""
    height, width = rgb.shape[:2]
    number = SPACES.index(space)
    channels = tables.CHANNELS[number]
    planes = np.empty((channels, height, width), np.uint8)
    compiled.colour_planes(rgb, number, *tables.lab_tables(), planes)
    smoothed, order, starts = sorted_edges(planes, sigma)
    labels = np.empty(height * width, np.int32)
    regions, counts = compiled.segment(order, starts, width, [round(16 * k) for k in ks], min_size, labels)
    bins = np.empty((height * width, 2 * channels), np.uint8)
    compiled.pixel_bins(
        planes, smoothed, tables.colour_table(channels, space in ("hsv", "hue")), *tables.texture_tables(), bins
    )
    n = len(regions)
    atoms = compiled.Regions(
        np.empty((n, tables.CHANNEL_BINS * channels), np.int32), np.empty((n, 4), np.int32), np.empty(n, np.int32),
        compiled.neighbours(labels, width, n),
    )  # fmt: skip
    compiled.region_features(labels, width, bins, atoms.counts, atoms.boxes, atoms.sizes)
    return Segmented(channels, regions, counts, atoms)


def hierarchies(segmented: Segmented, scale: int, mixes: tuple[int, ...]) -> list[I32]:
    """Boxes ``(2 n - 1, 4)`` int32 of the hierarchy of each mix at one k; the whole image is the last."""
    found = compiled.join_atoms(segmented.regions, scale, segmented.counts[scale], segmented.atoms)
    return [
        compiled.group(found.pairs, found.counts, found.boxes, found.sizes, segmented.channels, mix)[0] for mix in mixes
    ]


def working_image(rgb: U8, side: int) -> U8:
    """``rgb`` scaled down (never up) by area averages so that the longest side is ``side`` pixels."""
    height, width = rgb.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return rgb
    from sppnet.kernels.run import run_ranges

    rows = max(1, (height * side + longest // 2) // longest)
    columns = max(1, (width * side + longest // 2) // longest)
    out = np.empty((rows, columns, 3), np.uint8)
    run_ranges(compiled.shrink, rows, rgb, out, chunks_per_thread=2, grain=64)
    return out


def selective_search(
    image: Any,
    mode: str | Mode = "fast",
    max_windows: int = 2000,
    min_side: int = 16,
    seed: int = 0,
    *,
    working_side: int = 500,
) -> F32:
    """Windows that may hold an object, best first; the same on every machine, with any number of threads.

    Args:
        image: path, PIL image or array, as :func:`sppnet.images.load_image` takes it.
        mode: ``single`` (1 hierarchy, about 400 windows), ``fast`` (24), ``quality`` (80), or a :class:`Mode`.
        max_windows: most windows to return, >= 1. Fewer are the first of more: any prefix is the best prefix.
        min_side: minimum width and height in pixels of the image, >= 1. Where the image itself is smaller, its side is
            the limit, so the window of the whole image always stays.
        seed: of the random numbers in the ranking, in [0, 2**24).
        working_side: an image with a longer side is scaled down to it, in pixels, in [16, 8192]. Bounds time and
            memory; windows are in pixels of the image all the same.

    Returns:
        ``(K, 4)`` float32, 1 <= K <= ``max_windows``: ``(x0, y0, x1, y1)`` in pixels of the image, half-open.

    Raises:
        ArgumentError: an argument out of its range.
        ImageError: the image can't be read.

    Source: Uijlings et al., "Selective Search for Object Recognition", IJCV 2013. A window's rank is its position in
    the hierarchy (the whole image is 1) times a random number; the lowest come first.
    """
    return SelectiveSearch(mode, max_windows, min_side, seed, working_side)(image)


@dataclass(frozen=True)
class SelectiveSearch:
    """:func:`selective_search` with its options fixed, as a :class:`sppnet.proposals.Proposer`.

    Attributes: as the arguments of :func:`selective_search`; ``ArgumentError`` if one is out of range.
    """

    mode: str | Mode = "fast"
    max_windows: int = 2000
    min_side: int = 16
    seed: int = 0
    working_side: int = 500

    def __post_init__(self) -> None:
        if not isinstance(self.mode, Mode) and self.mode not in MODES:
            raise ArgumentError(f"mode: expected one of {', '.join(MODES)} or a Mode, got {self.mode!r}")
        for name, low, high in (
            ("max_windows", 1, 2**31),
            ("min_side", 1, 2**31),
            ("seed", 0, 2**24 - 1),
            ("working_side", 16, 8192),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
                raise ArgumentError(f"{name}: expected a whole number in [{low}, {high}], got {value!r}")

    def __call__(self, image: Any, /) -> F32:
        """Windows of ``image``, ``(K, 4)`` float32, best first."""
        rgb = as_rgb(image)
        from sppnet.kernels.run import first_run_notice

        with first_run_notice("selective search"):
            compiled.compile_in_two_processes()
            small = working_image(rgb, int(self.working_side))
            mode = MODES[self.mode] if isinstance(self.mode, str) else self.mode
            boxes = rank(all_hierarchies(small, mode), small.shape[:2], rgb.shape[:2], self, mode.overlap)
        scale = (rgb.shape[1] / small.shape[1], rgb.shape[0] / small.shape[0])
        windows: F32 = (boxes * (scale + scale)).astype(np.float32)
        return windows


def all_hierarchies(rgb: U8, mode: Mode) -> list[I32]:
    """Boxes of every strategy of ``mode``, by k, colour space and mix; shared out over threads."""
    from sppnet.kernels.run import run_ranges

    ks = sorted(mode.ks)
    segmented: list[Any] = [None] * len(mode.spaces)
    tasks = [(space, scale) for scale in range(len(ks)) for space in range(len(mode.spaces))]
    found: list[Any] = [None] * len(tasks)

    def segment_range(start: int, stop: int) -> None:
        for i in range(start, stop):
            segmented[i] = segment_space(rgb, mode.spaces[i], mode.sigma, ks, mode.min_size)

    def group_range(start: int, stop: int) -> None:
        for i in range(start, stop):
            space, scale = tasks[i]
            found[i] = hierarchies(segmented[space], scale, mode.mixes)

    run_ranges(segment_range, len(segmented), chunks_per_thread=len(segmented))
    run_ranges(group_range, len(tasks), chunks_per_thread=len(tasks))
    return [boxes for of_task in found for boxes in of_task]


def rank(
    strategies: list[I32], small: tuple[int, ...], full: tuple[int, ...], options: SelectiveSearch, overlap: float
) -> I32:
    """The best distinct boxes ``(K, 4)`` int32 of all hierarchies, in pixels of the working image.

    ``small`` and ``full`` are the sizes (height, width) of the working image and the image.
    """
    boxes = np.concatenate(strategies)
    keys = np.empty(len(boxes), np.uint64)
    start = 0
    for number, of_strategy in enumerate(strategies):
        stop = start + len(of_strategy)
        compiled.rank_keys(len(of_strategy), (int(options.seed) << 40) + (number << 24), keys[start:stop])
        start = stop
    height, width = small
    min_w, min_h = (
        min(side, -(-int(options.min_side) * side // whole)) for side, whole in ((width, full[1]), (height, full[0]))
    )
    limit = min(len(boxes), int(options.max_windows))
    order = np.argsort(keys, kind="stable")
    return boxes[compiled.distinct(boxes, order, limit, round(100 * overlap), width, height, min_w, min_h)]
