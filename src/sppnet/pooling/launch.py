"""From arrays to the CPU kernels: views, work items, the choice of how many tables to make. No torch here.

Numba is imported when a kernel must be compiled, not when sppnet is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppnet._types import I64
from sppnet.errors import ArgumentError
from sppnet.kernels.lines import GROUP, LINE_BYTES
from sppnet.kernels.native import NativeKernel
from sppnet.kernels.run import first_run_notice, run_ranges
from sppnet.pooling.bins import Level, parents
from sppnet.threads import num_threads

__all__ = ["Strided", "Work", "aligned_empty", "make_plan", "pool", "pool_backward", "score", "strided"]

# dtype -> (integer whose order is compared, bits of infinity). Integers of 8 bits are compared as they are.
_KEYS: dict[str, tuple[type[np.integer[Any]], int]] = {
    "int8": (np.int8, 0),
    "uint8": (np.uint8, 0),
    "float16": (np.int16, 0x7C00),
    "bfloat16": (np.int16, 0x7F80),
    "float32": (np.int32, 0x7F800000),
    "float64": (np.int64, 0x7FF0000000000000),
}
_SOURCES = ("cpu", "cpu_backward", "cpu_backward_max", "cpu_score")
_pool_max = NativeKernel("sppnet.pooling.cpu", "pool_max", _SOURCES)
_pool_avg = NativeKernel("sppnet.pooling.cpu", "pool_avg", _SOURCES)
_score_max = NativeKernel("sppnet.pooling.cpu_score", "score_max", _SOURCES)
_score_avg = NativeKernel("sppnet.pooling.cpu_score", "score_avg", _SOURCES)
_max_backward = NativeKernel("sppnet.pooling.cpu_backward_max", "max_backward", _SOURCES)
_avg_backward = NativeKernel("sppnet.pooling.cpu_backward", "avg_backward", _SOURCES)

# Results above this leave the cache before anybody reads them.
_STREAM_BYTES = 16 << 20
_ALIGNMENT = 64
_seen: set[tuple[str, str]] = set()


class Strided(NamedTuple):
    """An array of any strides as the memory that it spans: element (i, j, ...) is ``flat[i * strides[0] + ...]``.

    Attributes:
        flat: 1-D, contiguous. Of bfloat16, which NumPy doesn't have, the bits as int16.
        shape: of the array.
        strides: in elements, >= 0.
        dtype: name of the dtype.
    """

    flat: NDArray[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    def bits(self) -> NDArray[Any]:
        """``flat`` as integers that maxima are taken of."""
        return self.flat.view(_KEYS[self.dtype][0])


def strided(array: NDArray[Any]) -> Strided:
    """A view of an array, whose strides must be multiples of the item's size and >= 0."""
    strides = tuple(s // array.itemsize for s in array.strides)
    extent = 1 + sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True))
    flat = np.lib.stride_tricks.as_strided(array, (extent,), (array.itemsize,))
    return Strided(flat, array.shape, strides, array.dtype.name)


class Work(NamedTuple):
    """Which windows of which maps are pooled into which bins.

    Attributes:
        cells: ``(K, 4)`` int64, contiguous: ``(x0, y0, x1, y1)``, within the maps, at least one cell each.
        map_index: ``(K,)`` int64, the map of each window, batches counted through; None: the first.
        levels: (rows, columns) each.
        mode: ``max`` or ``avg``.
    """

    cells: I64
    map_index: I64 | None
    levels: Sequence[Level]
    mode: str


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Make an uninitialised array at a multiple of 64 bytes.

    Above 4 MB NumPy asks Linux for pages of 2 MB, which torch doesn't: the 25,000 page faults of 100 MB took 45 ms,
    four times as long as pooling into them.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    result: NDArray[Any] = memory[start : start + size].view(dtype).reshape(shape)
    return result


@lru_cache(maxsize=64)
def make_plan(levels: tuple[Level, ...], nested: bool) -> I64:
    """A row a level: rows, columns, first bin, row of the parent in this plan or -1; parents come first."""
    sizes = [r * c for r, c in levels]
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parent = parents(levels) if nested else [-1] * len(levels)
    order = sorted(range(len(levels)), key=lambda i: (-sizes[i], i))
    place = {i: at for at, i in enumerate(order)}
    rows = [(*levels[i], first[i], place[parent[i]] if parent[i] >= 0 else -1) for i in order]
    return np.array(rows, np.int64)


def split_by_map(map_index: I64 | None, windows: int, maps: int) -> tuple[I64, I64]:
    """Windows in the order of their maps, and where each map's begin: ``(K,)``, ``(maps + 1,)``."""
    if map_index is None or maps == 1:
        starts = np.full(maps + 1, windows, np.int64)
        starts[0] = 0
        return np.arange(windows), starts
    counts = np.bincount(map_index, minlength=maps)
    return np.argsort(map_index, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def _count_chunks(items: int, windows: int) -> int:
    """In how many chunks to cut the windows of a map, so that every thread has work; each chunk copies the map anew."""
    threads = num_threads()
    if items % threads == 0 or items >= 4 * threads:
        return 1
    return max(1, min(threads, windows // 100))


def _notice(kernel: str, dtype: str) -> AbstractContextManager[None]:
    """The notice of a first compilation, only when a kernel is called for the first time in this process."""
    if (kernel, dtype) in _seen:
        return nullcontext()
    _seen.add((kernel, dtype))
    return first_run_notice("pooling kernels")


def _check_cells(cells: I64, height: int, width: int) -> None:
    """The kernels don't check where they read: a caller of the bare operator must not be able to crash the process."""
    x0, y0, x1, y1 = cells.T
    inside = x0.min() >= 0 and y0.min() >= 0 and x1.max() <= width and y1.max() <= height
    if not (inside and (x1 > x0).all() and (y1 > y0).all()):
        raise ArgumentError(f"cells: expected windows of at least one cell inside the map of {height} x {width} cells")


def count_tables(cells: I64, plan: I64, height: int, width: int) -> int:
    """How many tables of running maxima pay: reads of the map that they save against the reads to make them."""
    roots = plan[plan[:, 3] < 0]
    if not len(roots) or not len(cells):
        return 0
    bin_height = (cells[:, 3] - cells[:, 1]).mean() / roots[:, 0].min()
    reads = float(((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])).sum()) * len(roots)
    if reads < 8 * height * width or bin_height < 1.5:
        return 0
    return 1 if bin_height < 3 else 2


class _Part(NamedTuple):
    """One batch of maps and its windows."""

    number: int  # of the batch in the list
    starts: I64  # (maps of the batch + 1,): where the windows of each begin in `order`
    chosen: I64  # cells of its windows
    windows: int  # of a map, on average

    def tables(self, plan: I64, maps: Strided) -> int:
        return count_tables(self.chosen, plan, *maps.shape[2:])


def _parts(maps: Sequence[Strided], cells: I64, order: I64, starts: I64) -> Iterator[_Part]:
    """Batches that have windows, with these; checks that they lie inside."""
    at = 0
    for number, batch in enumerate(maps):
        count, _, height, width = batch.shape
        begin = starts[at : at + count + 1]
        at += count
        if begin[0] < begin[-1]:
            chosen = cells if len(maps) == 1 else cells[order[begin[0] : begin[-1]]]
            _check_cells(chosen, height, width)
            yield _Part(number, begin, chosen, int(begin[-1] - begin[0]) // count)


def pool(maps: Sequence[Strided], work: Work, out: Strided) -> None:
    """Pool into ``out``, ``(K, bins, C)``, which is contiguous over C.

    Args:
        maps: each ``(N_i, C, H_i, W_i)``, one dtype; means of float32 and float64 only.
        work: windows and bins.
        out: of the maps' dtype.
    """
    cells, levels = work.cells, tuple(work.levels)
    if not len(cells) or 0 in out.shape:
        return
    largest, dtype = work.mode == "max", maps[0].dtype
    order, starts = split_by_map(work.map_index, len(cells), sum(m.shape[0] for m in maps))
    plan = make_plan(levels, nested=largest)
    channels, size = maps[0].shape[1], maps[0].flat.itemsize
    lines = -(-channels * size // LINE_BYTES)
    flat_out = out.bits() if largest else out.flat
    streamed = math.prod(out.shape) * size > _STREAM_BYTES and flat_out.ctypes.data % 64 == 0
    streamed = streamed and all(s * size % 64 == 0 for s in out.strides[:2])
    layout = np.array([*out.strides[:2], streamed, out.shape[1]], np.int64)
    with _notice(work.mode, dtype):
        for part in _parts(maps, cells, order, starts):
            batch = maps[part.number]
            items = batch.shape[0] * lines
            chunks = _count_chunks(items, part.windows)
            shape, strides = np.array([*batch.shape, chunks], np.int64), np.array(batch.strides, np.int64)
            tail = (strides, shape, cells, order, part.starts, plan, flat_out, layout)
            if largest:
                tables = part.tables(plan, batch)
                run_ranges(_pool_max, items * chunks, batch.bits(), *tail, _KEYS[dtype][1], tables)
            else:
                run_ranges(_pool_avg, items * chunks, batch.flat, *tail)


def score(
    maps: Sequence[Strided], work: Work, weight: NDArray[Any], bias: NDArray[Any] | None, out: NDArray[Any]
) -> None:
    """Products of all pooled vectors with the weights into ``out``, ``(K, O)``. For few outputs.

    Args:
        maps: as in :func:`pool`; float32 or float64.
        work: windows and bins.
        weight: ``(O, bins, C)``.
        bias: ``(O,)`` or None.
        out: any strides.
    """
    cells, levels, largest = work.cells, tuple(work.levels), work.mode == "max"
    dtype = maps[0].dtype
    lanes = LINE_BYTES // maps[0].flat.itemsize
    outputs, bins, channels = weight.shape
    lines, padded = -(-channels // lanes), -(-outputs // 2) * 2
    packed = np.zeros((lines, padded, bins, lanes), dtype)
    for line in range(lines):
        columns = weight[:, :, line * lanes : (line + 1) * lanes]
        packed[line, :outputs, :, : columns.shape[2]] = columns
    scores = np.zeros((len(cells), padded), dtype)
    order, starts = split_by_map(work.map_index, len(cells), sum(m.shape[0] for m in maps))
    plan = make_plan(levels, nested=largest)
    weights = (bins, packed.reshape(-1), padded, scores.reshape(-1))
    with _notice(work.mode + " scores", dtype):
        for part in _parts(maps, cells, order, starts):
            batch = maps[part.number]
            chunks = _count_chunks(batch.shape[0], part.windows)
            shape, strides = np.array([*batch.shape, chunks], np.int64), np.array(batch.strides, np.int64)
            tail = (strides, shape, cells, order, part.starts, plan, *weights)
            if largest:
                tables = part.tables(plan, batch)
                run_ranges(_score_max, batch.shape[0] * chunks, batch.bits(), *tail, _KEYS[dtype][1], tables)
            else:
                run_ranges(_score_avg, batch.shape[0] * chunks, batch.flat, *tail)
    if bias is not None:
        scores[:, :outputs] += bias
    out[:] = scores[:, :outputs]


def pool_backward(grad: Strided, maps: Sequence[Strided], work: Work, targets: Sequence[Strided]) -> list[int]:
    """Gradients of the maps from that of the result.

    Args:
        grad: ``(K, bins, C)``, float32 or float64.
        maps: as in :func:`pool`. Of ``max`` not float64, which is too wide to be packed with places: "int32" of the
            same order.
        work: windows and bins.
        targets: where to write the gradient of each map; its shape, dtype of ``grad``.

    Returns:
        Numbers of the maps without windows, into whose targets nothing was written.
    """
    cells, largest = work.cells, work.mode == "max"
    order, starts = split_by_map(work.map_index, len(cells), sum(m.shape[0] for m in maps))
    plan = make_plan(tuple(work.levels), nested=largest)
    layout = np.array([*grad.strides, grad.shape[1]], np.int64)
    unused = set(range(len(maps)))
    with _notice(work.mode + " backward", grad.dtype):
        for part in _parts(maps, cells, order, starts):
            unused.discard(part.number)
            batch, target = maps[part.number], targets[part.number]
            count, channels = batch.shape[:2]
            shape = np.array(batch.shape, np.int64)
            tail = (grad.flat, layout, target.flat, np.array(target.strides, np.int64))
            if largest:
                flat, infinity = (batch.flat, 0x7FFFFFFF) if batch.dtype == "int32" else _keyed(batch)
                strides = np.array(batch.strides, np.int64)
                arguments = (flat, strides, shape, cells, order, part.starts, plan, infinity, part.tables(plan, batch))
                run_ranges(_max_backward, count * -(-channels // GROUP), *arguments, *tail)
            else:
                lines = -(-channels // (LINE_BYTES // 8))
                run_ranges(_avg_backward, count * lines, shape, cells, order, part.starts, plan, *tail)
    return sorted(unused)


def _keyed(batch: Strided) -> tuple[NDArray[Any], int]:
    return batch.bits(), _KEYS[batch.dtype][1]
