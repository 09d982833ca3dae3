"""Pooling and scoring of windows of tensors; see :mod:`sppnet.pooling.windows` for what the functions do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from sppnet.errors import ArgumentError
from sppnet.kernels.lines import LINE_BYTES
from sppnet.pooling.arguments import BLOCK_BYTES, FUSED_OUTPUTS, check_weight
from sppnet.pooling.bins import Levels, check_mode, normalise_levels, num_bins
from sppnet.pooling.tensors import cpu, ops
from sppnet.pooling.tensors.arguments import as_maps, check_out
from sppnet.pooling.tensors.cells import prepare_cells

__all__ = ["pool_tensor_windows", "score_tensor_windows"]


def pool_tensor_windows(
    features: Tensor | Sequence[Tensor],
    windows: Any,
    levels: Levels,
    mode: str,
    *,
    stride: Any,
    offset: Any,
    map_index: Any,
    out: Tensor | None,
) -> Tensor:
    """:func:`sppnet.pool_windows` of tensors."""
    pyramid = normalise_levels(levels)
    maps = as_maps(features, check_mode(mode))
    cells, index = prepare_cells(maps, windows, stride, offset, map_index)
    flat = ops.flatten_levels(pyramid)
    if out is None:
        return ops.pyramid_pool(maps, cells, index, flat, mode)
    check_out(out, (cells.shape[0], num_bins(pyramid), maps[0].shape[1]), maps)
    _refuse_gradient(maps)
    ops.pyramid_pool_out([m.detach() for m in maps], cells, index, flat, mode, out)
    return out


def score_tensor_windows(
    features: Tensor | Sequence[Tensor],
    windows: Any,
    weight: Tensor,
    bias: Tensor | None,
    levels: Levels,
    mode: str,
    *,
    stride: Any,
    offset: Any,
    map_index: Any,
    out: Tensor | None,
) -> Tensor:
    """:func:`sppnet.score_windows` of tensors."""
    pyramid = normalise_levels(levels)
    maps = as_maps(features, check_mode(mode))
    cells, index = prepare_cells(maps, windows, stride, offset, map_index)
    count, bins, channels = cells.shape[0], num_bins(pyramid), maps[0].shape[1]
    check_weight(weight, bias, bins, channels, maps[0].dtype)
    outputs = weight.shape[0]
    flat = ops.flatten_levels(pyramid)
    wanted = [*maps, weight] if bias is None else [*maps, weight, bias]
    with _without_autocast(maps[0].device):
        if torch.is_grad_enabled() and any(t.requires_grad for t in wanted):
            if out is not None:
                _refuse_gradient(wanted)
            pooled = ops.pyramid_pool(maps, cells, index, flat, mode)
            return torch.nn.functional.linear(pooled.flatten(1), weight, bias)
        if out is None:
            out = maps[0].new_empty((count, outputs))
        else:
            check_out(out, (count, outputs), maps)
        columns = weight.reshape(outputs, bins, channels)
        fused = maps[0].device.type == "cpu" and maps[0].dtype in (torch.float32, torch.float64)
        if fused and outputs <= FUSED_OUTPUTS and count and outputs and not torch.compiler.is_compiling():
            ops.check_index(cells, index, sum(m.shape[0] for m in maps))
            cpu.score_cpu(maps, cells, index, pyramid, mode, columns, bias, out)
            return out
        if bias is None:
            out.zero_()
        else:
            out.copy_(bias.expand(count, outputs))
        if count and outputs:
            _accumulate(maps, cells, index, flat, mode, columns, out)
    return out


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside ``torch.autocast`` products would be made in fewer bits, but the result must be the same as outside."""
    if device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _accumulate(
    maps: list[Tensor], cells: Tensor, index: Tensor | None, flat: list[int], mode: str, weight: Tensor, out: Tensor
) -> None:
    """Add the scores to ``out`` ``(K, O)``, a group of channels and a block of windows at a time."""
    outputs, bins, channels = weight.shape
    count = cells.shape[0]
    line = LINE_BYTES // out.element_size()
    group = min(channels, line)
    block = max(64, min(count, BLOCK_BYTES // (bins * group * out.element_size())))
    # Equal blocks; each makes its tables anew, so they shouldn't be smaller than the cache asks for.
    block = -(-count // -(-count // block))
    pooled = maps[0].new_empty((block, bins, group))
    for c in range(0, channels, group):
        some = [m[:, c : c + group] for m in maps]
        width = some[0].shape[1]
        part = weight[:, :, c : c + width].reshape(outputs, bins * width).t()
        buffer = pooled if width == group else maps[0].new_empty((block, bins, width))
        for k in range(0, count, block):
            end = min(count, k + block)
            vectors = buffer[: end - k]
            chosen = None if index is None else index[k:end]
            ops.pyramid_pool_out(some, cells[k:end], chosen, flat, mode, vectors)
            out[k:end].addmm_(vectors.view(end - k, bins * width), part)


def _refuse_gradient(tensors: Sequence[Tensor]) -> None:
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise ArgumentError("out: a result in a given buffer has no gradient; leave out `out` or use torch.no_grad()")
