"""Checks of the tensors that the public pooling functions are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sppnet.errors import ArgumentError
from sppnet.pooling.arguments import EXPECTED_MAPS, check_channels, check_strides

__all__ = ["as_maps", "check_out"]

_DTYPES = (torch.int8, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_maps(features: Any, mode: str) -> list[Tensor]:
    """Maps as a list of ``(N_i, C, H_i, W_i)``, without a copy.

    Raises:
        ArgumentError: not ``(C, H, W)``, ``(N, C, H, W)`` or a list of ``(C, H_i, W_i)``; an empty side; a dtype other
            than int8, uint8 (both for ``max`` only), float16, bfloat16, float32, float64; maps of unequal channels,
            dtype or device.
    """
    if isinstance(features, Tensor):
        maps = [features]
    elif isinstance(features, list | tuple) and all(isinstance(m, Tensor) for m in features):
        maps = list(features)
        if any(m.ndim != 3 for m in maps):
            raise ArgumentError(f"features: expected {EXPECTED_MAPS}, got shapes {[tuple(m.shape) for m in maps]}")
        if not maps:
            raise ArgumentError("features: expected at least one map, got an empty list")
    else:
        raise ArgumentError(f"features: expected {EXPECTED_MAPS}, got {type(features).__name__}")
    first = maps[0]
    for m in maps:
        if m.ndim not in (3, 4) or 0 in m.shape[-3:]:
            raise ArgumentError(f"features: expected {EXPECTED_MAPS} with C, H, W >= 1, got shape {tuple(m.shape)}")
        if m.dtype not in _DTYPES:
            names = ", ".join(str(d).removeprefix("torch.") for d in _DTYPES)
            raise ArgumentError(f"features: expected {names}, got {m.dtype}")
        if not m.is_floating_point() and (mode != "max" or m.device.type == "cuda"):
            raise ArgumentError(
                f"features: maps of {m.dtype} are pooled on the CPU with mode max only, "
                f"got mode {mode!r} on {m.device}; convert the maps to floats"
            )
        check_channels(first.shape[-3], f"{first.dtype} on {first.device}", m.shape[-3], f"{m.dtype} on {m.device}")
    return [m.unsqueeze(0) if m.ndim == 3 else m for m in maps]


def check_out(out: Any, shape: tuple[int, ...], maps: Sequence[Tensor]) -> None:
    """Raise ArgumentError unless results of ``shape`` can be written into ``out``."""
    like = maps[0]
    if not isinstance(out, Tensor):
        raise ArgumentError(f"out: expected a tensor of shape {shape}, got {type(out).__name__}")
    if tuple(out.shape) != shape or out.dtype != like.dtype or out.device != like.device:
        raise ArgumentError(
            f"out: expected shape {shape}, {like.dtype} on {like.device}, "
            f"got shape {tuple(out.shape)}, {out.dtype} on {out.device}"
        )
    check_strides(out.shape, out.stride())
    if not torch.compiler.is_compiling() and any(_overlap(out, m) for m in maps):
        raise ArgumentError("out: expected memory of its own, got a part of the maps")


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether the stretches of memory that two tensors span meet."""
    if not a.numel() or not b.numel():
        return False
    ends = []
    for t in (a, b):
        last = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
        ends.append((t.data_ptr(), t.data_ptr() + last * t.element_size()))
    return ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1]
