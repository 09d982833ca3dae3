"""From tensors to the CPU kernels: views, work items, the choice of how many tables to make.

Numba is imported when the first kernel is needed, not when sppnet is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.errors import ArgumentError
from sppnet.kernels.loader import NativeKernel
from sppnet.kernels.run import first_run_notice, num_threads, run_ranges
from sppnet.pooling.bins import Level, parents
from sppnet.pooling.lines import GROUP, LINE_BYTES

__all__ = ["make_plan", "pool_cpu", "pool_cpu_backward"]

I64 = NDArray[np.int64]

# dtype -> (integer of the same size, bits of infinity)
_BITS: dict[torch.dtype, tuple[torch.dtype, int]] = {
    torch.float16: (torch.int16, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7F80),
    torch.float32: (torch.int32, 0x7F800000),
    torch.float64: (torch.int64, 0x7FF0000000000000),
}


_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


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


def split_by_map(map_index: Tensor | None, windows: int, maps: int) -> tuple[I64, I64]:
    """Windows in the order of their maps, and where each map's begin: ``(K,)``, ``(maps + 1,)``."""
    if map_index is None or maps == 1:
        starts = np.full(maps + 1, windows, np.int64)
        starts[0] = 0
        return np.arange(windows), starts
    index = map_index.numpy()
    return np.argsort(index, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(index, minlength=maps))])


_SOURCES = ("lines", "simd", "simd_groups", "cpu", "cpu_backward", "cpu_backward_max", "cpu_score")
_pool_max = NativeKernel("sppnet.pooling.cpu", "pool_max", _SOURCES)
_pool_avg = NativeKernel("sppnet.pooling.cpu", "pool_avg", _SOURCES)
_score_max = NativeKernel("sppnet.pooling.cpu_score", "score_max", _SOURCES)
_score_avg = NativeKernel("sppnet.pooling.cpu_score", "score_avg", _SOURCES)
_max_backward = NativeKernel("sppnet.pooling.cpu_backward_max", "max_backward", _SOURCES)
_avg_backward = NativeKernel("sppnet.pooling.cpu_backward", "avg_backward", _SOURCES)

# Results above this leave the cache before anybody reads them.
_STREAM_BYTES = 16 << 20


def _count_chunks(items: int, windows: int) -> int:
    """In how many chunks to cut the windows of a map, so that every thread has work; each chunk copies the map anew."""
    threads = num_threads()
    if items % threads == 0 or items >= 4 * threads:
        return 1
    return max(1, min(threads, windows // 100))


_seen: set[tuple[str, torch.dtype]] = set()


def _notice(kernel: str, dtype: torch.dtype) -> AbstractContextManager[None]:
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


def flat_view(tensor: Tensor) -> Tensor:
    """The memory that the tensor spans, as one dimension (no copy)."""
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((extent,), (1,))


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


def pool_cpu(
    maps: Sequence[Tensor],
    cells: Tensor,
    map_index: Tensor | None,
    levels: Sequence[Level],
    mode: str,
    out: Tensor,
) -> None:
    """Pool into ``out`` ``(K, bins, C)``, which is contiguous over C.

    Args:
        maps: each ``(N_i, C, H_i, W_i)``, one dtype, any strides.
        cells: ``(K, 4)`` int64, within the maps, at least one cell each.
        map_index: ``(K,)`` int64 into the N_i counted through, or None if there is one map.
    """
    windows = cells.shape[0]
    if windows == 0 or out.numel() == 0:
        return
    dtype = maps[0].dtype
    if mode == "avg" and dtype in (torch.float16, torch.bfloat16):
        wide = torch.empty(out.shape, dtype=torch.float32)
        pool_cpu([m.float() for m in maps], cells, map_index, levels, mode, wide)
        out.copy_(wide)
        return
    integer, infinity = _BITS[dtype]
    view = integer if mode == "max" else dtype
    order, starts = split_by_map(map_index, windows, sum(m.shape[0] for m in maps))
    plan = make_plan(tuple(levels), nested=mode == "max")
    channels = maps[0].shape[1]
    cell_array: Any = cells.contiguous().numpy()
    lines = -(-channels * dtype.itemsize // LINE_BYTES)
    streamed = out.numel() * out.element_size() > _STREAM_BYTES and out.data_ptr() % 64 == 0
    streamed = streamed and all(s * out.element_size() % 64 == 0 for s in out.stride()[:2])
    layout = np.array([out.stride(0), out.stride(1), streamed, out.shape[1]], np.int64)
    flat_out = flat_view(out).view(view).numpy()
    at = 0
    with _notice(mode, view):
        for tensor in maps:
            count, _, height, width = tensor.shape
            begin = starts[at : at + count + 1]
            at += count
            if begin[0] == begin[-1]:
                continue
            chosen = cell_array if len(maps) == 1 else cell_array[order[begin[0] : begin[-1]]]
            _check_cells(chosen, height, width)
            flat = flat_view(tensor.detach()).view(view).numpy()
            chunks = _count_chunks(count * lines, int(begin[-1] - begin[0]) // count)
            shape = np.array([count, channels, height, width, chunks], np.int64)
            strides = np.array(tensor.stride(), np.int64)
            arguments = (flat, strides, shape, cell_array, order, begin, plan, flat_out, layout)
            if mode == "max":
                tables = count_tables(chosen, plan, height, width)
                run_ranges(_pool_max, count * lines * chunks, *arguments, infinity, tables)
            else:
                run_ranges(_pool_avg, count * lines * chunks, *arguments)


def score_cpu(
    maps: Sequence[Tensor],
    cells: Tensor,
    map_index: Tensor | None,
    levels: Sequence[Level],
    mode: str,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    """Products of all pooled vectors with ``weight`` ``(O, bins, C)``, and ``bias`` ``(O,)``, into ``out`` ``(K, O)``;
    float32 or float64, few outputs.
    """
    dtype = maps[0].dtype
    lanes = LINE_BYTES // dtype.itemsize
    outputs, bins, channels = weight.shape
    lines, padded = -(-channels // lanes), -(-outputs // 2) * 2
    # In NumPy: torch's threads would go on spinning on the cores that the kernel needs.
    packed = np.zeros((lines, padded, bins, lanes), _NUMPY[dtype])
    columns = weight.detach().numpy()
    for line in range(lines):
        part = columns[:, :, line * lanes : (line + 1) * lanes]
        packed[line, :outputs, :, : part.shape[2]] = part
    scores = np.zeros((cells.shape[0], padded), _NUMPY[dtype])
    integer, infinity = _BITS[dtype]
    view = integer if mode == "max" else dtype
    order, starts = split_by_map(map_index, cells.shape[0], sum(m.shape[0] for m in maps))
    plan = make_plan(tuple(levels), nested=mode == "max")
    cell_array: Any = cells.contiguous().numpy()
    tail = (bins, packed.reshape(-1), padded, scores.reshape(-1))
    at = 0
    with _notice(mode + " scores", view):
        for tensor in maps:
            count, _, height, width = tensor.shape
            begin = starts[at : at + count + 1]
            at += count
            if begin[0] == begin[-1]:
                continue
            chosen = cell_array if len(maps) == 1 else cell_array[order[begin[0] : begin[-1]]]
            _check_cells(chosen, height, width)
            flat = flat_view(tensor.detach()).view(view).numpy()
            chunks = _count_chunks(count, int(begin[-1] - begin[0]) // count)
            shape = np.array([count, channels, height, width, chunks], np.int64)
            strides = np.array(tensor.stride(), np.int64)
            arguments = (flat, strides, shape, cell_array, order, begin, plan, *tail)
            if mode == "max":
                tables = count_tables(chosen, plan, height, width)
                run_ranges(_score_max, count * chunks, *arguments, infinity, tables)
            else:
                run_ranges(_score_avg, count * chunks, *arguments)
    if bias is not None:
        scores[:, :outputs] += bias.detach().numpy()
    out.detach().numpy()[:] = scores[:, :outputs]


def pool_cpu_backward(
    grad: Tensor,
    maps: Sequence[Tensor],
    cells: Tensor,
    map_index: Tensor | None,
    levels: Sequence[Level],
    mode: str,
) -> list[Tensor]:
    """Gradient of each map (its shape, dtype and memory order) from that of the result, ``(K, bins, C)``."""
    results = [torch.empty_like(m) for m in maps]
    if grad.numel() == 0:
        return [r.zero_() for r in results]
    dtype = maps[0].dtype
    work = torch.float64 if dtype == torch.float64 else torch.float32
    grad = grad.to(work)
    order, starts = split_by_map(map_index, cells.shape[0], sum(m.shape[0] for m in maps))
    plan = make_plan(tuple(levels), nested=mode == "max")
    cell_array: Any = cells.contiguous().numpy()
    grad_flat = flat_view(grad).numpy()
    layout = np.array([*grad.stride(), grad.shape[1]], np.int64)
    at = 0
    with _notice(mode + " backward", dtype):
        for tensor, result in zip(maps, results, strict=True):
            count, channels, height, width = tensor.shape
            begin = starts[at : at + count + 1]
            at += count
            if begin[0] == begin[-1]:
                result.zero_()
                continue
            chosen = cell_array if len(maps) == 1 else cell_array[order[begin[0] : begin[-1]]]
            _check_cells(chosen, height, width)
            target = result if dtype == work else torch.empty_like(tensor, dtype=work)
            shape = np.array([count, channels, height, width], np.int64)
            tail = (grad_flat, layout, flat_view(target).numpy(), np.array(target.stride(), np.int64))
            if mode == "avg":
                lines = -(-channels // (LINE_BYTES // 8))
                run_ranges(_avg_backward, count * lines, shape, cell_array, order, begin, plan, *tail)
            else:
                ordered, integer, infinity = tensor.detach(), *_BITS[dtype]
                if dtype == torch.float64:  # too wide to be packed with places
                    ordered, integer, infinity = _ranks(ordered), torch.int32, 0x7FFFFFFF
                flat = flat_view(ordered).view(integer).numpy()
                strides = np.array(ordered.stride(), np.int64)
                tables = count_tables(chosen, plan, height, width)
                arguments = (flat, strides, shape, cell_array, order, begin, plan, infinity, tables)
                run_ranges(_max_backward, count * -(-channels // GROUP), *arguments, *tail)
            if target is not result:
                result.copy_(target)
    return results


def _ranks(tensor: Tensor) -> Tensor:
    """int32 of the order of the values of each channel; equal values have equal ranks."""
    flat = tensor.flatten(2)
    ordered, place = flat.sort(dim=2, stable=True)
    step = torch.ones_like(ordered, dtype=torch.int32)
    step[..., 1:] = (ordered[..., 1:] != ordered[..., :-1]).to(torch.int32)
    return torch.empty_like(step).scatter_(2, place, step.cumsum(2, dtype=torch.int32)).view(tensor.shape)
