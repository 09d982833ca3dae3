"""Spatial pyramid pooling of many windows of one or several maps (paper, sections 2.2 and 4.1).

The detector of the paper pools about 2000 windows of one map: the convolutions ran once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sppnet.errors import ArgumentError
from sppnet.pooling import ops
from sppnet.pooling.arguments import as_map_index, as_maps, check_out, map_sizes
from sppnet.pooling.bins import DEFAULT_LEVELS, Level, Levels, check_mode, normalise_levels, num_bins
from sppnet.pooling.cells import PerAxis, Windows, as_window_tensor, clip_windows, window_to_cells
from sppnet.pooling.lines import LINE_BYTES

__all__ = ["pool_windows", "score_windows", "window_to_cells"]

# Pooled vectors that score_windows holds at a time: they should stay in the cache of the processor.
_BLOCK_BYTES = 13 << 20
_GROUP_LINES = 2 if LINE_BYTES == 64 else 1
# Up to so many outputs the products are made by the pooling kernel itself; above, a matrix product is faster.
_FUSED_OUTPUTS = 64


def pool_windows(
    features: Tensor | Sequence[Tensor],
    windows: Windows,
    levels: Levels = DEFAULT_LEVELS,
    mode: str = "max",
    *,
    stride: PerAxis | None = None,
    offset: PerAxis = 0.0,
    map_index: Any = None,
    out: Tensor | None = None,
) -> Tensor:
    """The pyramid of every window: ``(K, bins, C)``.

    Bins are ordered level by level, in the order of ``levels``, row by row in a level. ``result.flatten(1)`` is a
    vector a window (bin-major, channels innermost).

    Args:
        features: one map ``(C, H, W)``, a batch ``(N, C, H, W)``, or a list of maps ``(C, H_i, W_i)`` (several scales).
            float16, bfloat16, float32, float64; any strides, nothing is copied (fastest: channels-last).
        windows: ``(K, 4)`` of ``(x0, y0, x1, y1)``, tensor or array. With ``stride`` they are in pixels of the
            image that the map was made from (with several scales: the image of that scale, so multiply a window of the
            original image by the scale's factor), else in cells, half-open; fractions are rounded outwards.
            A window is clipped to its map. One that is outside, reversed, or thinner than a cell gets the one cell (a
            row or column of cells, if it is only thin) that is nearest to its middle.
        levels: ints or (rows, columns); any number of bins, also more than the window has cells.
        mode: ``max`` (NaN if the bin has one) or ``avg``.
        stride: pixels between the centres of neighbouring units of the map, > 0; a number or (x, y).
        offset: pixel at which unit 0 is centred; a number or (x, y). Both come from
            :func:`sppnet.backbones.receptive_field.receptive_field`.
        map_index: ``(K,)`` integers, the map of each window; must be given if there are several maps.
        out: where to write: ``(K, bins, C)`` of the features' dtype, contiguous over C. Not differentiable.

    Returns:
        ``(K, bins, C)`` (``out`` if it was given), differentiable with respect to the features: ``max`` sends a bin's
        gradient to its first maximum in row-major order, ``avg`` in equal shares to all its cells; no second
        derivatives. The result and the gradient do not depend on the number of threads.

    Raises:
        ArgumentError: see :mod:`sppnet.errors`; the message names the argument.
    """
    maps, cells, index, pyramid = _prepare(features, windows, levels, mode, stride, offset, map_index)
    flat = ops.flatten_levels(pyramid)
    if out is None:
        return ops.pyramid_pool(maps, cells, index, flat, mode)
    check_out(out, (cells.shape[0], num_bins(pyramid), maps[0].shape[1]), maps[0])
    _refuse_gradient(maps)
    ops.pyramid_pool_out([m.detach() for m in maps], cells, index, flat, mode, out)
    return out


def score_windows(
    features: Tensor | Sequence[Tensor],
    windows: Windows,
    weight: Tensor,
    bias: Tensor | None = None,
    levels: Levels = DEFAULT_LEVELS,
    mode: str = "max",
    *,
    stride: PerAxis | None = None,
    offset: PerAxis = 0.0,
    map_index: Any = None,
    out: Tensor | None = None,
) -> Tensor:
    """``linear(pool_windows(...).flatten(1), weight, bias)`` without ever holding all vectors. For inference.

    With up to 64 outputs (a linear layer of classes, float32 or float64 on the CPU) the pooling kernel itself
    multiplies what it pooled; beyond inputs and result, a copy of the weights and a few tables of 128 bytes a cell of
    the map are held. With more (a first fc layer) 32 channels of a block of windows at a time are pooled into a
    buffer of 13 MB, which a matrix product reads; the product dominates then, and what is saved is the memory.

    Args:
        features, windows, levels, mode, stride, offset, map_index: as in :func:`pool_windows`.
        weight: ``(O, bins * C)``, columns ordered as ``pool_windows(...).flatten(1)``; dtype of the features.
        bias: ``(O,)`` or None.
        out: where to write: ``(K, O)``, rows contiguous.

    Returns:
        ``(K, O)``. If a gradient is asked for, it is the plain composition above, differentiable.

    Raises:
        ArgumentError: see :mod:`sppnet.errors`; the message names the argument.
    """
    maps, cells, index, pyramid = _prepare(features, windows, levels, mode, stride, offset, map_index)
    count, bins, channels = cells.shape[0], num_bins(pyramid), maps[0].shape[1]
    if weight.ndim != 2 or weight.shape[1] != bins * channels or weight.dtype != maps[0].dtype:
        raise ArgumentError(
            f"weight: expected shape (O, {bins * channels}) ({bins} bins of {channels} channels), {maps[0].dtype}, "
            f"got {tuple(weight.shape)}, {weight.dtype}"
        )
    outputs = weight.shape[0]
    if bias is not None and (tuple(bias.shape) != (outputs,) or bias.dtype != weight.dtype):
        raise ArgumentError(f"bias: expected shape ({outputs},), {weight.dtype}, got {tuple(bias.shape)}, {bias.dtype}")
    flat = ops.flatten_levels(pyramid)
    wanted = [*maps, weight] if bias is None else [*maps, weight, bias]
    if torch.is_grad_enabled() and any(t.requires_grad for t in wanted):
        if out is not None:
            _refuse_gradient(wanted)
        pooled = ops.pyramid_pool(maps, cells, index, flat, mode)
        return torch.nn.functional.linear(pooled.flatten(1), weight, bias)
    if out is None:
        out = maps[0].new_empty((count, outputs))
    else:
        check_out(out, (count, outputs), maps[0])
    fused = maps[0].device.type == "cpu" and maps[0].dtype in (torch.float32, torch.float64)
    if fused and outputs <= _FUSED_OUTPUTS and count and outputs and not torch.compiler.is_compiling():
        from sppnet.pooling.launch import score_cpu

        ops.check_index(cells, index, sum(m.shape[0] for m in maps))
        columns = weight.view(outputs, bins, channels)
        score_cpu(maps, cells, index, pyramid, mode, columns, bias, out)
        return out
    if bias is None:
        out.zero_()
    else:
        out.copy_(bias.expand(count, outputs))
    if count and outputs:
        _accumulate(maps, cells, index, flat, mode, weight.view(outputs, bins, channels), out)
    return out


def _accumulate(
    maps: list[Tensor], cells: Tensor, index: Tensor | None, flat: list[int], mode: str, weight: Tensor, out: Tensor
) -> None:
    """Add the scores to ``out`` ``(K, O)``, a group of channels and a block of windows at a time."""
    outputs, bins, channels = weight.shape
    count = cells.shape[0]
    line = LINE_BYTES // out.element_size()
    group = min(channels, line * _GROUP_LINES)
    block = max(64, min(count, _BLOCK_BYTES // (bins * group * out.element_size())))
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


def _prepare(
    features: Tensor | Sequence[Tensor],
    windows: Windows,
    levels: Levels,
    mode: str,
    stride: PerAxis | None,
    offset: PerAxis,
    map_index: Any,
) -> tuple[list[Tensor], Tensor, Tensor | None, tuple[Level, ...]]:
    """Checked maps, cells ``(K, 4)``, map index and levels."""
    pyramid = normalise_levels(levels)
    check_mode(mode)
    maps = as_maps(features)
    tensor = as_window_tensor(windows, maps[0].device)
    number = sum(m.shape[0] for m in maps)
    index = as_map_index(map_index, number, tensor.shape[0], maps[0].device)
    if tensor.shape[0] and number == 0:
        raise ArgumentError("features: expected at least one map, got a batch of none")
    height, width = map_sizes(maps, index)
    if stride is not None:
        return maps, window_to_cells(tensor, stride, offset, height, width), index, pyramid
    return maps, clip_windows(tensor, height, width), index, pyramid


def _refuse_gradient(tensors: Sequence[Tensor]) -> None:
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise ArgumentError("out: a result in a given buffer has no gradient; leave out `out` or use torch.no_grad()")
