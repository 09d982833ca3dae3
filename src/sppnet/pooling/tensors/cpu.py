"""Pooling of CPU tensors: their memory as arrays, and what NumPy can't do (bfloat16, order of float64)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.errors import ArgumentError
from sppnet.pooling import launch
from sppnet.pooling.bins import Level

__all__ = ["flat_view", "pool_cpu", "pool_cpu_backward", "score_cpu", "strided_tensor"]

_HALVES = (torch.float16, torch.bfloat16)


def flat_view(tensor: Tensor) -> Tensor:
    """The memory that the tensor spans, as one dimension (no copy)."""
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((extent,), (1,))


def strided_tensor(tensor: Tensor) -> launch.Strided:
    """The same tensor for the kernels."""
    flat = flat_view(tensor.detach())
    array: NDArray[Any] = (flat.view(torch.int16) if tensor.dtype == torch.bfloat16 else flat).numpy()
    return launch.Strided(array, tuple(tensor.shape), tensor.stride(), str(tensor.dtype).removeprefix("torch."))


def _work(cells: Tensor, map_index: Tensor | None, levels: Sequence[Level], mode: str) -> launch.Work:
    index = None if map_index is None else map_index.numpy()
    return launch.Work(np.ascontiguousarray(cells.numpy()), index, levels, mode)


def pool_cpu(
    maps: Sequence[Tensor], cells: Tensor, map_index: Tensor | None, levels: Sequence[Level], mode: str, out: Tensor
) -> None:
    """Pool into ``out`` ``(K, bins, C)``, which is contiguous over C.

    Args:
        maps: each ``(N_i, C, H_i, W_i)``, one dtype, any strides.
        cells: ``(K, 4)`` int64, within the maps, at least one cell each.
        map_index: ``(K,)`` int64 into the N_i counted through, or None if there is one map.
        levels: (rows, columns) each.
        mode: ``max`` or ``avg``.
        out: of the maps' dtype.
    """
    if not out.numel():
        return
    if mode == "avg" and maps[0].dtype in _HALVES:
        wide = torch.empty(out.shape, dtype=torch.float32)
        pool_cpu([m.float() for m in maps], cells, map_index, levels, mode, wide)
        out.copy_(wide)
        return
    if mode == "avg" and not maps[0].is_floating_point():
        raise ArgumentError(f"mode: expected max for maps of {maps[0].dtype}, got {mode!r}; convert the maps to floats")
    work = _work(cells, map_index, levels, mode)
    launch.pool([strided_tensor(m) for m in maps], work, strided_tensor(out))


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
    """Write products of all pooled vectors with ``weight`` ``(O, bins, C)`` into ``out`` ``(K, O)``.

    ``bias`` ``(O,)`` is added. For float32 or float64 and few outputs. The other arguments as in :func:`pool_cpu`.
    """
    vector = None if bias is None else bias.detach().numpy()
    work = _work(cells, map_index, levels, mode)
    launch.score([strided_tensor(m) for m in maps], work, weight.detach().numpy(), vector, out.detach().numpy())


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
    targets = [r if dtype == work else torch.empty_like(r, dtype=work) for r in results]
    ordered = [_ranks(m.detach()) if mode == "max" and dtype == torch.float64 else m for m in maps]
    unused = launch.pool_backward(
        strided_tensor(grad.to(work)),
        [strided_tensor(m) for m in ordered],
        _work(cells, map_index, levels, mode),
        [strided_tensor(t) for t in targets],
    )
    for number, (target, result) in enumerate(zip(targets, results, strict=True)):
        if number in unused:
            result.zero_()
        elif target is not result:
            result.copy_(target)
    return results


def _ranks(tensor: Tensor) -> Tensor:
    """int32 of the order of the values of each channel; equal values have equal ranks."""
    flat = tensor.flatten(2)
    ordered, place = flat.sort(dim=2, stable=True)
    step = torch.ones_like(ordered, dtype=torch.int32)
    step[..., 1:] = (ordered[..., 1:] != ordered[..., :-1]).to(torch.int32)
    return torch.empty_like(step).scatter_(2, place, step.cumsum(2, dtype=torch.int32)).view(tensor.shape)
