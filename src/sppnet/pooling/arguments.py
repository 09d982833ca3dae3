"""Checks of what the public pooling functions are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sppnet.errors import ArgumentError

__all__ = ["as_map_index", "as_maps", "check_out", "map_sizes"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_maps(features: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Maps as a list of ``(N_i, C, H_i, W_i)``, without a copy.

    Raises:
        ArgumentError: not ``(C, H, W)``, ``(N, C, H, W)`` or a list of ``(C, H_i, W_i)``; an empty side; a dtype other
            than float16, bfloat16, float32, float64; maps of unequal channels, dtype or device.
    """
    expected = "a tensor (C, H, W) or (N, C, H, W), or a list of tensors (C, H_i, W_i)"
    if isinstance(features, Tensor):
        maps = [features]
    elif isinstance(features, list | tuple) and all(isinstance(m, Tensor) for m in features):
        maps = list(features)
        if any(m.ndim != 3 for m in maps):
            raise ArgumentError(f"features: expected {expected}, got shapes {[tuple(m.shape) for m in maps]}")
        if not maps:
            raise ArgumentError("features: expected at least one map, got an empty list")
    else:
        raise ArgumentError(f"features: expected {expected}, got {type(features).__name__}")
    first = maps[0]
    for m in maps:
        if m.ndim not in (3, 4) or 0 in m.shape[-3:]:
            raise ArgumentError(f"features: expected {expected} with C, H, W >= 1, got shape {tuple(m.shape)}")
        if m.dtype not in _DTYPES:
            raise ArgumentError(f"features: expected float16, bfloat16, float32 or float64, got {m.dtype}")
        if m.shape[-3] != first.shape[-3] or m.dtype != first.dtype or m.device != first.device:
            raise ArgumentError(
                "features: expected maps of one number of channels, dtype and device, got "
                f"{first.shape[-3]} channels {first.dtype} on {first.device} and "
                f"{m.shape[-3]} channels {m.dtype} on {m.device}"
            )
    return [m.unsqueeze(0) if m.ndim == 3 else m for m in maps]


def as_map_index(map_index: Any, maps: int, windows: int, device: torch.device) -> Tensor | None:
    """``map_index`` as int64 ``(K,)``, or None if there is one map and it isn't given.

    Raises:
        ArgumentError: missing with several maps, another shape, not whole numbers. (The range is checked where the
            windows are pooled.)
    """
    if map_index is None:
        if maps == 1 or windows == 0:
            return None
        raise ArgumentError(f"map_index: expected the map of each window, (K,), as there are {maps} maps; got None")
    index = torch.as_tensor(map_index, device=device)
    if index.shape != (windows,) or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ArgumentError(
            f"map_index: expected integers of shape ({windows},), got {index.dtype} of shape {tuple(index.shape)}"
        )
    return index.to(torch.int64)


def map_sizes(maps: Sequence[Tensor], map_index: Tensor | None) -> tuple[Any, Any]:
    """Height and width of the map of each window: ints if all are equal, else tensors ``(K,)``."""
    if map_index is None or len(maps) == 1:
        return maps[0].shape[2], maps[0].shape[3]
    sizes = torch.tensor([m.shape[2:] for m in maps for _ in range(m.shape[0])], device=map_index.device)
    # An index that is out of range is reported by the operator; here it must only not fail.
    height, width = sizes[map_index.clamp(0, len(sizes) - 1)].unbind(1)
    return height, width


def check_out(out: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Raises ArgumentError unless results of ``shape`` can be written into ``out``."""
    if tuple(out.shape) != shape or out.dtype != like.dtype or out.device != like.device:
        raise ArgumentError(
            f"out: expected shape {shape}, {like.dtype} on {like.device}, "
            f"got shape {tuple(out.shape)}, {out.dtype} on {out.device}"
        )
    if out.numel() and (out.stride(-1) != 1 and out.shape[-1] > 1):
        raise ArgumentError(f"out: expected its last dimension contiguous, got strides {out.stride()}")
