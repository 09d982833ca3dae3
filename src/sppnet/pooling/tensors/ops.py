"""Pooling as torch operators: ``torch.ops.sppnet.pyramid_pool`` and its gradient.

The operators take what is checked already (cells, not windows; levels as a flat list of rows and columns). They have
fake kernels and autograd, so ``torch.compile(fullgraph=True)``, ``torch.export`` and ``opcheck`` work on them. Users
call :func:`sppnet.pooling.pyramid.spatial_pyramid_pool` and :func:`sppnet.pooling.windows.pool_windows`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from sppnet.errors import ArgumentError
from sppnet.pooling import launch
from sppnet.pooling.bins import Level
from sppnet.pooling.tensors import cpu

_LARGE_BYTES = 4 << 20

_LIBRARY = torch.library.Library("sppnet", "FRAGMENT")
_ARGUMENTS = "Tensor[] maps, Tensor cells, Tensor? map_index, int[] levels, str reduction"
# Plain registrations: torch.library.custom_op would import torch._dynamo (over a second) at the first call.
_LIBRARY.define(f"pyramid_pool({_ARGUMENTS}) -> Tensor")
_LIBRARY.define(f"pyramid_pool_out({_ARGUMENTS}, Tensor(a!) out) -> ()")
_LIBRARY.define(f"pyramid_pool_backward(Tensor grad, {_ARGUMENTS}) -> Tensor[]")

__all__ = ["check_index", "flatten_levels", "pyramid_pool", "pyramid_pool_backward", "pyramid_pool_out"]


def flatten_levels(levels: Sequence[Level]) -> list[int]:
    """``[(r, c), ...]`` as ``[r, c, ...]``, as the operators take it."""
    return [n for level in levels for n in level]


def _levels(flat: Sequence[int]) -> list[Level]:
    return list(zip(flat[0::2], flat[1::2], strict=True))


def _bins(flat: Sequence[int]) -> int:
    return sum(r * c for r, c in _levels(flat))


def check_index(cells: Tensor, map_index: Tensor | None, maps: int) -> None:
    """Raises ArgumentError unless cells are int64 (K, 4) and the index (K,) is within the number of maps."""
    if cells.ndim != 2 or cells.shape[1] != 4 or cells.dtype != torch.int64:
        raise ArgumentError(f"cells: expected int64 (K, 4), got {cells.dtype} {tuple(cells.shape)}")
    if map_index is None or not cells.shape[0]:
        return
    if map_index.shape != cells.shape[:1] or not 0 <= int(map_index.min()) <= int(map_index.max()) < maps:
        low, high = int(map_index.min()), int(map_index.max())
        raise ArgumentError(f"map_index: expected 0 to {maps - 1} ({maps} maps), got {low} to {high}")


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """``like.new_empty(shape)``; large ones in memory that comes from the system 2 MB at a time, where possible."""
    count = math.prod(shape)
    if like.device.type != "cpu" or count * like.element_size() < _LARGE_BYTES:
        return like.new_empty(shape)
    memory = launch.aligned_empty((count * like.element_size(),), np.uint8)
    return torch.from_numpy(memory).view(like.dtype).view(shape)


def _pool_into(
    maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None, levels: Sequence[int], mode: str, out: Tensor
) -> None:
    check_index(cells, map_index, sum(m.shape[0] for m in maps))
    if out.is_cuda:
        from sppnet.pooling.tensors import cuda

        cuda.pool_cuda(maps, cells, map_index, _levels(levels), mode, out)
    else:
        cpu.pool_cpu(maps, cells, map_index, _levels(levels), mode, out)


def _empty_result(
    maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None, levels: Sequence[int], mode: str
) -> Tensor:
    return maps[0].new_empty((cells.shape[0], _bins(levels), maps[0].shape[1]))


def _pool(maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None, levels: Sequence[int], mode: str) -> Tensor:
    out = _empty((cells.shape[0], _bins(levels), maps[0].shape[1]), maps[0])
    _pool_into(maps, cells, map_index, levels, mode, out)
    return out


def _pool_backward(
    grad: Tensor,
    maps: Sequence[Tensor],
    cells: Tensor,
    map_index: Tensor | None,
    levels: Sequence[int],
    mode: str,
) -> list[Tensor]:
    check_index(cells, map_index, sum(m.shape[0] for m in maps))
    if grad.is_cuda:
        from sppnet.pooling.tensors import cuda

        return cuda.pool_cuda_backward(grad, maps, cells, map_index, _levels(levels), mode)
    return cpu.pool_cpu_backward(grad, maps, cells, map_index, _levels(levels), mode)


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("pyramid_pool", _pool, _device)
    _LIBRARY.impl("pyramid_pool_out", _pool_into, _device)
    _LIBRARY.impl("pyramid_pool_backward", _pool_backward, _device)

torch.library.register_fake("sppnet::pyramid_pool", _empty_result, lib=_LIBRARY)
torch.library.register_fake("sppnet::pyramid_pool_out", lambda *arguments: None, lib=_LIBRARY)
torch.library.register_fake(
    "sppnet::pyramid_pool_backward",
    lambda grad, maps, *arguments: [torch.empty_like(m) for m in maps],
    lib=_LIBRARY,
)


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    maps, cells, map_index, levels, mode = inputs
    ctx.save_for_backward(cells, map_index, *maps)
    ctx.levels, ctx.mode = levels, mode


def _gradient(ctx: Any, grad: Tensor) -> Any:
    cells, map_index, *maps = ctx.saved_tensors
    gradients = pyramid_pool_backward(grad, maps, cells, map_index, ctx.levels, ctx.mode)
    return gradients, None, None, None, None


torch.library.register_autograd("sppnet::pyramid_pool", _gradient, setup_context=_setup_context, lib=_LIBRARY)


def _setup_second(ctx: Any, inputs: Any, output: Any) -> None:
    _setup_context(ctx, inputs[1:], output)


def _second_gradient(ctx: Any, grads: Sequence[Tensor | None]) -> Any:
    """The gradient is linear in the one that comes from above; on the maps it depends by steps, so not at all here."""
    cells, map_index, *maps = ctx.saved_tensors
    seen = [torch.zeros_like(m) if g is None else g for g, m in zip(grads, maps, strict=True)]
    if ctx.mode == "avg":
        result = pyramid_pool(seen, cells, map_index, ctx.levels, "avg")
    else:
        result = _at_maxima(seen, maps, cells, map_index, ctx.levels)
    return result, [None] * len(maps), None, None, None, None


def _at_maxima(
    values: Sequence[Tensor], maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None, levels: Sequence[int]
) -> Tensor:
    """What ``values`` have where ``maps`` have the maximum of each bin, ``(K, bins, C)``. Slow: a loop over windows."""
    where = [(i, n) for i, m in enumerate(maps) for n in range(m.shape[0])]
    index = [0] * cells.shape[0] if map_index is None else map_index.tolist()
    rows = []
    for (x0, y0, x1, y1), number in zip(cells.tolist(), index, strict=True):
        i, n = where[number]
        window = maps[i][n, :, y0:y1, x0:x1].detach()
        window = window if window.dtype == torch.float64 else window.float()
        flat = values[i][n, :, y0:y1, x0:x1].flatten(1)
        places = [functional.adaptive_max_pool2d(window, size, return_indices=True)[1] for size in _levels(levels)]
        rows.append(torch.cat([flat.gather(1, place.flatten(1)) for place in places], 1).T)
    return torch.stack(rows) if rows else maps[0].new_zeros((0, _bins(levels), maps[0].shape[1]))


torch.library.register_autograd(
    "sppnet::pyramid_pool_backward", _second_gradient, setup_context=_setup_second, lib=_LIBRARY
)


def _check_no_forward_derivatives(maps: Sequence[Tensor]) -> None:
    """Refuse forward-mode derivatives, of which torch would make zeros.

    Raises:
        ArgumentError: one of the maps carries a tangent.
    """
    if not torch.compiler.is_compiling() and any(forward_ad.unpack_dual(m).tangent is not None for m in maps):
        raise ArgumentError(
            "features: got tensors of a forward-mode derivative (jvp), which pooling hasn't; take backward()"
        )


def pyramid_pool(
    maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None, levels: Sequence[int], mode: str
) -> Tensor:
    """Pool windows of maps.

    Args:
        maps: at least one ``(N_i, C, H_i, W_i)``; one floating dtype, device and C; any strides.
        cells: ``(K, 4)`` int64 ``(x0, y0, x1, y1)``, half-open, within the map, at least one cell each.
        map_index: ``(K,)`` int64, the map of each window, the N_i counted through; None: the first.
        levels: rows and columns of each level, in turn.
        mode: ``max`` or ``avg``.

    Returns:
        ``(K, bins, C)``, contiguous.

    Raises:
        ArgumentError: a map carries a tangent of forward-mode derivatives.
    """
    _check_no_forward_derivatives(maps)
    result: Tensor = torch.ops.sppnet.pyramid_pool(maps, cells, map_index, levels, mode)
    return result


def pyramid_pool_out(
    maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None, levels: Sequence[int], mode: str, out: Tensor
) -> None:
    """:func:`pyramid_pool` into ``out`` ``(K, bins, C)``, contiguous over C. No gradient."""
    torch.ops.sppnet.pyramid_pool_out(maps, cells, map_index, levels, mode, out)


def pyramid_pool_backward(
    grad: Tensor,
    maps: Sequence[Tensor],
    cells: Tensor,
    map_index: Tensor | None,
    levels: Sequence[int],
    mode: str,
) -> list[Tensor]:
    """Gradients of the maps from that of the result. ``max``: all of a bin's goes to its first maximum, row-major."""
    result: list[Tensor] = torch.ops.sppnet.pyramid_pool_backward(grad, maps, cells, map_index, levels, mode)
    return result
