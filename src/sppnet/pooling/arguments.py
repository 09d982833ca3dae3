"""Checks of the arrays that the public pooling functions are given, and what arrays and tensors have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sppnet._types import I64
from sppnet.errors import ArgumentError

__all__ = [
    "BLOCK_BYTES",
    "EXPECTED_MAPS",
    "FUSED_OUTPUTS",
    "are_arrays",
    "as_array_index",
    "as_array_maps",
    "check_array_out",
    "check_channels",
    "check_strides",
    "check_tensors",
    "check_weight",
]

EXPECTED_MAPS = "an array or tensor (C, H, W) or (N, C, H, W), or a list of them (C, H_i, W_i)"
# Pooled vectors that score_windows holds at a time: they should stay in the cache of the processor.
BLOCK_BYTES = 13 << 20
# Up to so many outputs score_windows makes the products in the pooling kernel; above, a matrix product is faster.
FUSED_OUTPUTS = 64
ARRAY_DTYPES = ("int8", "uint8", "float16", "float32", "float64")


def are_arrays(features: Any) -> TypeGuard[NDArray[Any] | Sequence[NDArray[Any]]]:
    """Whether the maps are NumPy arrays, so that torch isn't needed."""
    if isinstance(features, np.ndarray):
        return True
    return isinstance(features, list | tuple) and bool(features) and all(isinstance(m, np.ndarray) for m in features)


def check_tensors(features: Any) -> None:
    """Raise ArgumentError if torch isn't installed: maps that are no arrays can't be tensors then."""
    try:
        import torch  # noqa: F401  # only whether it is there
    except ImportError:
        raise ArgumentError(
            f"features: expected {EXPECTED_MAPS}, got {type(features).__name__} (torch is not installed)"
        ) from None


def as_array_maps(features: NDArray[Any] | Sequence[NDArray[Any]], mode: str) -> list[NDArray[Any]]:
    """Maps as a list of ``(N_i, C, H_i, W_i)``.

    A map is copied only if the kernels can't read its memory: reversed, misaligned or of another byte order.

    Raises:
        ArgumentError: not ``(C, H, W)``, ``(N, C, H, W)`` or a list of ``(C, H_i, W_i)``; an empty side; a dtype other
            than int8, uint8 (both for ``max`` only), float16, float32, float64; maps of unequal channels or dtype.
    """
    maps = [features] if isinstance(features, np.ndarray) else list(features)
    if not isinstance(features, np.ndarray) and any(m.ndim != 3 for m in maps):
        raise ArgumentError(f"features: expected {EXPECTED_MAPS}, got shapes {[m.shape for m in maps]}")
    result = []
    for m in maps:
        if m.ndim not in (3, 4) or 0 in m.shape[-3:]:
            raise ArgumentError(f"features: expected {EXPECTED_MAPS} with C, H, W >= 1, got shape {m.shape}")
        if m.dtype.name not in ARRAY_DTYPES:
            raise ArgumentError(f"features: expected {', '.join(ARRAY_DTYPES)}, got {m.dtype}")
        if m.dtype.itemsize == 1 and mode != "max":
            raise ArgumentError(f"mode: expected max for maps of {m.dtype}, got {mode!r}; convert the maps to floats")
        check_channels(maps[0].shape[-3], str(maps[0].dtype), m.shape[-3], str(m.dtype))
        plain = m.dtype.isnative and m.flags.aligned and all(s >= 0 and s % m.itemsize == 0 for s in m.strides)
        m = m if plain else np.ascontiguousarray(m, m.dtype.newbyteorder("="))
        result.append(m[None] if m.ndim == 3 else m)
    return result


def check_channels(first_channels: int, first: str, channels: int, other: str) -> None:
    """Raise ArgumentError unless two maps have as many channels, and ``first`` and ``other`` (dtype, device) agree."""
    if channels != first_channels or other != first:
        raise ArgumentError(
            "features: expected maps of one number of channels, dtype and device, got "
            f"{first_channels} channels {first} and {channels} channels {other}"
        )


def as_array_index(map_index: Any, maps: int, windows: int) -> I64 | None:
    """``map_index`` as int64 ``(K,)``, or None if there is one map and it isn't given.

    Raises:
        ArgumentError: missing with several maps, another shape, not whole numbers, or a map that doesn't exist.
    """
    if map_index is None:
        if maps == 1 or windows == 0:
            return None
        raise ArgumentError(f"map_index: expected the map of each window, (K,), as there are {maps} maps; got None")
    index = np.asarray(map_index)
    if index.shape != (windows,) or not (np.issubdtype(index.dtype, np.integer) or not windows):
        raise ArgumentError(
            f"map_index: expected integers of shape ({windows},), got {index.dtype} of shape {index.shape}"
        )
    low, high = (int(index.min()), int(index.max())) if windows else (0, 0)
    if windows and not 0 <= low <= high < maps:
        raise ArgumentError(f"map_index: expected 0 to {maps - 1} ({maps} maps), got {low} to {high}")
    return np.ascontiguousarray(index, np.int64)


def check_array_out(out: Any, shape: tuple[int, ...], maps: Sequence[NDArray[Any]]) -> None:
    """Raise ArgumentError unless results of ``shape`` can be written into ``out``."""
    dtype = maps[0].dtype
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        got = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ArgumentError(f"out: expected an array of shape {shape}, {dtype}, got {got}")
    if not (out.flags.writeable and out.flags.aligned and all(s % out.itemsize == 0 for s in out.strides)):
        raise ArgumentError("out: expected an aligned array that can be written to")
    check_strides(out.shape, tuple(s // out.itemsize for s in out.strides))
    if any(np.may_share_memory(out, m) for m in maps):
        raise ArgumentError("out: expected memory of its own, got a part of the maps")


def check_strides(shape: Sequence[int], strides: Sequence[int]) -> None:
    """Raise ArgumentError unless ``out`` is contiguous over its last dimension, and no two elements share a place.

    Args:
        shape: of ``out``.
        strides: in elements.
    """
    if 0 in shape:
        return
    if strides[-1] != 1 and shape[-1] > 1:
        raise ArgumentError(f"out: expected its last dimension contiguous, got strides {tuple(strides)}")
    reach = 0  # of the dimensions with smaller strides, in elements
    for stride, n in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n > 1):
        if stride <= reach:
            raise ArgumentError(f"out: expected elements that don't overlap, got shape {shape}, strides {strides}")
        reach += stride * (n - 1)


def check_weight(weight: Any, bias: Any, bins: int, channels: int, dtype: Any) -> None:
    """Raise ArgumentError unless these weights can multiply vectors of so many bins and channels."""
    if "float" not in str(dtype):
        raise ArgumentError(f"features: expected floats, got {dtype}; pool integer maps with pool_windows")
    if getattr(weight, "ndim", 0) != 2 or weight.shape[1] != bins * channels or weight.dtype != dtype:
        raise ArgumentError(
            f"weight: expected shape (O, {bins * channels}) ({bins} bins of {channels} channels), {dtype}, "
            f"got {tuple(getattr(weight, 'shape', ()))}, {getattr(weight, 'dtype', type(weight).__name__)}"
        )
    if bias is not None and (tuple(getattr(bias, "shape", ())) != (len(weight),) or bias.dtype != dtype):
        got = f"{tuple(getattr(bias, 'shape', ()))}, {getattr(bias, 'dtype', type(bias).__name__)}"
        raise ArgumentError(f"bias: expected shape ({len(weight)},), {dtype}, got {got}")
