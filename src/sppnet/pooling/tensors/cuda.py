"""Pooling on CUDA: Triton kernels, forward and backward.

One program works on one bin of one window and a block of channels, so that 2000 windows of 36 bins fill any GPU; the
map (a few MB, channels-last) stays in the second-level cache. A level that nests in a finer one is pooled from the
result of that one. One launch a level.

Gradients are summed in 64-bit integers (fixed point, 2^-40 of the largest gradient): integer addition doesn't depend on
the order in which programs run, so the result is deterministic although they use atomic operations. Where a gradient is
infinite or NaN, the cells that it reaches become NaN.

Triton is imported with this module only; set ``TRITON_INTERPRET=1`` before, and the kernels run on CPU tensors.
"""

# Kernels are Triton's language, not Python's types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, unused-ignore"

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sppnet.pooling.bins import Level, parents

__all__ = ["pool_cuda", "pool_cuda_backward"]

_FRACTION_BITS = 40


@triton.jit
def _bin(cells, map_index, rows, columns, program, indexed: tl.constexpr):
    """Window, place of the bin in its level, map, and first and end cell of the program's bin."""
    bins = rows * columns
    k = (program // bins).to(tl.int64)
    b = program % bins
    i, j = b // columns, b % columns
    x0 = tl.load(cells + k * 4).to(tl.int32)
    y0 = tl.load(cells + k * 4 + 1).to(tl.int32)
    width = tl.load(cells + k * 4 + 2).to(tl.int32) - x0
    height = tl.load(cells + k * 4 + 3).to(tl.int32) - y0
    n = tl.full((), 0, tl.int64)
    if indexed:
        n = tl.load(map_index + k)
    top = y0 + i * height // rows
    bottom = y0 + ((i + 1) * height + rows - 1) // rows
    left = x0 + j * width // columns
    right = x0 + ((j + 1) * width + columns - 1) // columns
    return k, b, n, top, bottom, left, right


@triton.jit
def _pool_kernel(
    features, cells, map_index, chosen, out, channels, s_n, s_y, s_x, o_k, o_b, rows, columns, first,
    indexed: tl.constexpr, maximum: tl.constexpr, accumulator: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    k, b, n, top, bottom, left, right = _bin(cells, map_index, rows, columns, tl.program_id(0), indexed)
    c = tl.program_id(1) * block + tl.arange(0, block)
    mask = c < channels
    base = features + n * s_n
    total = tl.full((block,), float("-inf") if maximum else 0.0, accumulator)
    for y in range(top, bottom):
        for x in range(left, right):
            value = tl.load(base + y * s_y + x * s_x + c, mask, 0).to(accumulator)
            if maximum:
                total = tl.where((value > total) | (value != value), value, total)
            else:
                total += value
    if not maximum:
        total = total / ((bottom - top) * (right - left)).to(accumulator)
    w = tl.load(chosen + k)
    tl.store(out + w * o_k + (first + b) * o_b + c, total.to(out.dtype.element_ty), mask)


@triton.jit
def _nest_kernel(
    out, chosen, channels, o_k, o_b, rows, columns, first, high, wide, parent,
    accumulator: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A level's maxima from those of a finer level, whose ``high`` x ``wide`` bins tile each bin."""
    program = tl.program_id(0)
    bins = rows * columns
    w = tl.load(chosen + program // bins)
    b = program % bins
    c = tl.program_id(1) * block + tl.arange(0, block)
    mask = c < channels
    corner = out + w * o_k + (parent + (b // columns) * high * columns * wide + (b % columns) * wide) * o_b
    total = tl.full((block,), float("-inf"), accumulator)
    for i in range(high):
        for j in range(wide):
            value = tl.load(corner + (i * columns * wide + j) * o_b + c, mask, 0).to(accumulator)
            total = tl.where((value > total) | (value != value), value, total)
    tl.store(out + w * o_k + (first + b) * o_b + c, total.to(out.dtype.element_ty), mask)


@triton.jit
def _quantise(gradient, scale, mask):
    """Gradient in fixed point, and where it is not finite (``g - g`` is 0 for finite numbers only)."""
    bad = mask & (gradient - gradient != 0)
    scaled = tl.where(bad | (mask == 0), 0.0, gradient.to(tl.float64) * scale)
    return tl.floor(scaled + 0.5).to(tl.int64), bad


@triton.jit
def _max_backward_kernel(
    features, cells, map_index, chosen, grad, sums, flags, scale_pointer, channels, width, size, s_n, s_y, s_x,
    g_k, g_b, rows, columns, first, indexed: tl.constexpr, accumulator: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    k, b, n, top, bottom, left, right = _bin(cells, map_index, rows, columns, tl.program_id(0), indexed)
    c = tl.program_id(1) * block + tl.arange(0, block)
    mask = c < channels
    base = features + n * s_n
    best = tl.load(base + top * s_y + left * s_x + c, mask, 0).to(accumulator)
    place = tl.full((block,), 0, tl.int32) + top * width + left
    for y in range(top, bottom):
        for x in range(left, right):
            value = tl.load(base + y * s_y + x * s_x + c, mask, 0).to(accumulator)
            # Only a greater value (or the first NaN) replaces what was found: the first maximum stays.
            better = (value > best) | ((value != value) & (best == best))
            best = tl.where(better, value, best)
            place = tl.where(better, y * width + x, place)
    w = tl.load(chosen + k)
    gradient = tl.load(grad + w * g_k + (first + b) * g_b + c, mask, 0)
    fixed, bad = _quantise(gradient, tl.load(scale_pointer), mask)
    target = (n * size + place) * channels + c
    tl.atomic_add(sums + target, fixed, mask)
    tl.atomic_add(flags + target, tl.full((block,), 1, tl.int32), bad)


@triton.jit
def _avg_backward_kernel(
    cells, map_index, chosen, grad, sums, flags, scale_pointer, channels, width, size, g_k, g_b,
    rows, columns, first, indexed: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Four corners of a difference array (one row and column larger than the map), summed up afterwards."""
    k, b, n, top, bottom, left, right = _bin(cells, map_index, rows, columns, tl.program_id(0), indexed)
    c = tl.program_id(1) * block + tl.arange(0, block)
    mask = c < channels
    w = tl.load(chosen + k)
    gradient = tl.load(grad + w * g_k + (first + b) * g_b + c, mask, 0)
    scale = tl.load(scale_pointer) / ((bottom - top) * (right - left)).to(tl.float64)
    fixed, bad = _quantise(gradient, scale, mask)
    one = tl.full((block,), 1, tl.int32)
    corner = n * size * channels + c
    tl.atomic_add(sums + corner + (top * width + left) * channels, fixed, mask)
    tl.atomic_add(sums + corner + (top * width + right) * channels, -fixed, mask)
    tl.atomic_add(sums + corner + (bottom * width + left) * channels, -fixed, mask)
    tl.atomic_add(sums + corner + (bottom * width + right) * channels, fixed, mask)
    tl.atomic_add(flags + corner + (top * width + left) * channels, one, bad)
    tl.atomic_add(flags + corner + (top * width + right) * channels, -one, bad)
    tl.atomic_add(flags + corner + (bottom * width + left) * channels, -one, bad)
    tl.atomic_add(flags + corner + (bottom * width + right) * channels, one, bad)


def _split(
    maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None
) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
    """For each tensor of maps: its place, itself channels-last, the numbers of its windows, their cells and maps in it.

    One tensor (a map or a batch) needs no choice of windows, which would wait for the GPU.
    """
    everything = torch.arange(cells.shape[0], device=cells.device)
    index = torch.zeros_like(everything) if map_index is None else map_index
    first = 0
    for place, tensor in enumerate(maps):
        last = first + tensor.shape[0]
        chosen = everything if len(maps) == 1 else everything[(index >= first) & (index < last)]
        flat = tensor.detach().contiguous(memory_format=torch.channels_last)
        if flat.stride(1) != 1:  # one channel or one cell: torch leaves the strides open
            flat = flat.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        if len(maps) == 1:
            yield place, flat, chosen, cells.contiguous(), index
        elif len(chosen):
            yield place, flat, chosen, cells[chosen], index[chosen] - first
        first = last


def _first_bins(levels: Sequence[Level]) -> list[int]:
    return [sum(r * c for r, c in levels[:i]) for i in range(len(levels))]


def _block(channels: int) -> int:
    return min(256, max(16, int(triton.next_power_of_2(channels))))


def pool_cuda(
    maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None, levels: Sequence[Level], mode: str, out: Tensor
) -> None:
    """As :func:`sppnet.pooling.launch.pool_cpu`, on the GPU. Maps that aren't channels-last are copied."""
    if out.numel() == 0:
        return
    channels = maps[0].shape[1]
    block = _block(channels)
    blocks = triton.cdiv(channels, block)
    accumulator = tl.float64 if maps[0].dtype == torch.float64 else tl.float32
    first = _first_bins(levels)
    parent = parents(levels) if mode == "max" else [-1] * len(levels)
    order = sorted(range(len(levels)), key=lambda i: (-levels[i][0] * levels[i][1], i))
    for _, tensor, chosen, some, index in _split(maps, cells, map_index):
        s_n, _, s_y, s_x = tensor.stride()
        for i in order:
            rows, columns = levels[i]
            grid = (len(chosen) * rows * columns, blocks)
            if parent[i] < 0:
                _pool_kernel[grid](
                    tensor, some, index, chosen, out, channels, s_n, s_y, s_x, out.stride(0), out.stride(1),
                    rows, columns, first[i], map_index is not None, mode == "max", accumulator, block,
                )  # fmt: skip
            else:
                fine = levels[parent[i]]
                _nest_kernel[grid](
                    out, chosen, channels, out.stride(0), out.stride(1), rows, columns, first[i],
                    fine[0] // rows, fine[1] // columns, first[parent[i]], accumulator, block,
                )  # fmt: skip


def pool_cuda_backward(
    grad: Tensor,
    maps: Sequence[Tensor],
    cells: Tensor,
    map_index: Tensor | None,
    levels: Sequence[Level],
    mode: str,
) -> list[Tensor]:
    """As :func:`sppnet.pooling.launch.pool_cpu_backward`, on the GPU."""
    results = [torch.zeros_like(m) for m in maps]
    if grad.numel() == 0:
        return results
    channels = maps[0].shape[1]
    block = _block(channels)
    blocks = triton.cdiv(channels, block)
    accumulator = tl.float64 if maps[0].dtype == torch.float64 else tl.float32
    grad = grad if grad.stride(2) == 1 else grad.contiguous()
    largest = torch.nan_to_num(grad.abs().double(), nan=0.0, posinf=0.0).amax()
    scale = torch.exp2(_FRACTION_BITS - torch.ceil(torch.log2(largest.clamp(min=1e-300))))
    border = int(mode == "avg")
    first = _first_bins(levels)
    for place, tensor, chosen, some, index in _split(maps, cells, map_index):
        count, _, height, width = tensor.shape
        shape = (count, height + border, width + border, channels)
        sums = torch.zeros(shape, dtype=torch.int64, device=grad.device)
        flags = torch.zeros(shape, dtype=torch.int32, device=grad.device)
        size = shape[1] * shape[2]
        s_n, _, s_y, s_x = tensor.stride()
        for i, (rows, columns) in enumerate(levels):
            grid = (len(chosen) * rows * columns, blocks)
            if mode == "max":
                _max_backward_kernel[grid](
                    tensor, some, index, chosen, grad, sums, flags, scale, channels, shape[2], size, s_n, s_y, s_x,
                    grad.stride(0), grad.stride(1), rows, columns, first[i], map_index is not None, accumulator, block,
                )  # fmt: skip
            else:
                _avg_backward_kernel[grid](
                    some, index, chosen, grad, sums, flags, scale, channels, shape[2], size,
                    grad.stride(0), grad.stride(1), rows, columns, first[i], map_index is not None, block,
                )  # fmt: skip
        if border:
            sums, flags = (t.cumsum(1).cumsum(2)[:, :height, :width] for t in (sums, flags))
        total = torch.where(flags > 0, float("nan"), sums.double() / scale)
        results[place].copy_(total.permute(0, 3, 1, 2))
    return results
