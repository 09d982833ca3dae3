"""The operations of :mod:`sppnet.kernels.vectors` in plain Numba, for versions in which a private interface is gone.

A vector is a small array here, so every operation takes memory: right, but some 50 times slower. Each function does
what its namesake in :mod:`sppnet.kernels.vectors_llvm` says; only ``multiply_add`` may round twice instead of once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from sppnet.kernels.jit import jit
from sppnet.kernels.lines import GROUP, LAST_PLACE, LINE_BYTES

WIDE = LINE_BYTES // 8


@jit
def load(array: Any, index: int) -> Any:
    """A line of ``array``."""
    return array[index : index + LINE_BYTES // array.itemsize].copy()


@jit
def load_group(array: Any, index: int) -> Any:
    """A group of ``array``."""
    return array[index : index + GROUP].copy()


def load_half(array: Any, index: int) -> Any:
    """Half a line as floats; integers are the bits of floats."""
    raise NotImplementedError  # compiled code takes the overload below


def _half_of(dtype: Any) -> Any:
    """The function for arrays of ``dtype``. A lambda: Numba compares names and annotations of arguments."""
    floats = {types.int32: np.float32, types.int64: np.float64}.get(dtype)
    if floats is None:
        return lambda array, index: array[index : index + LINE_BYTES // 2 // array.itemsize].copy()
    return lambda array, index: array[index : index + LINE_BYTES // 2 // array.itemsize].copy().view(floats)


overload(load_half)(lambda array, index: _half_of(array.dtype))


@jit
def store(array: Any, index: int, value: Any) -> None:
    """Write all lanes."""
    for i in range(len(value)):
        array[index + i] = value[i]


stream = store_narrow = store


@jit
def maximum(a: Any, b: Any) -> Any:
    """Lane by lane maximum."""
    return np.maximum(a, b)


@jit
def to_key(v: Any, infinity: int) -> Any:
    """Float bits to integers of the same order, NaN the largest; integers of 8 bits are their own keys."""
    out = v.copy()
    if v.itemsize > 1:
        mask = (np.int64(1) << (8 * v.itemsize - 1)) - 1
        for i in range(len(v)):
            bits = np.int64(v[i])
            size = bits & mask
            out[i] = size if size > infinity else (bits ^ mask if bits < 0 else bits)
    return out


@jit
def from_key(v: Any) -> Any:
    """Inverse of :func:`to_key`."""
    out = v.copy()
    if v.itemsize > 1:
        mask = (np.int64(1) << (8 * v.itemsize - 1)) - 1
        for i in range(len(v)):
            bits = np.int64(v[i])
            out[i] = bits ^ mask if bits < 0 else bits
    return out


@jit
def load_packed(array: Any, index: int, infinity: int, low: int) -> Any:
    """Keys above, ``low`` below, as int64."""
    out = np.empty(WIDE, np.int64)
    mask = (np.int64(1) << (8 * array.itemsize - 1)) - 1
    for i in range(WIDE):
        bits = np.int64(array[index + i])
        size = bits & mask
        key = size if size > infinity else (bits ^ mask if bits < 0 else bits)
        out[i] = ((np.int64(0) if key == -1 else key) << 32) | low
    return out


@jit
def load_wide(array: Any, index: int) -> Any:
    """Floats as float64."""
    return array[index : index + WIDE].astype(np.float64)


@jit
def add(a: Any, b: Any) -> Any:
    """Sum."""
    return a + b


@jit
def subtract(a: Any, b: Any) -> Any:
    """Difference."""
    return a - b


@jit
def divide(a: Any, divisor: float) -> Any:
    """A vector divided by a number."""
    return a / divisor


@jit
def zeros(array: Any) -> Any:
    """A line of zeros."""
    return np.zeros(LINE_BYTES // array.itemsize, array.dtype)


@jit
def half_zeros(array: Any) -> Any:
    """Half a line of zeros."""
    return np.zeros(LINE_BYTES // 2 // array.itemsize, array.dtype)


@jit
def multiply_add(total: Any, a: Any, b: Any) -> Any:
    """``total + a * b``."""
    return total + a * b


@jit
def lane_sum(v: Any) -> Any:
    """Sum of the lanes, halves added to each other."""
    lanes = len(v)
    while lanes > 1:
        lanes //= 2
        v = v[:lanes] + v[lanes : 2 * lanes]
    return v[0]


@jit
def keep_where_equal(a: Any, b: Any, v: Any) -> Any:
    """Lanes of ``v`` where ``a`` and ``b`` are equal, 0 elsewhere."""
    out = np.zeros_like(v)
    for i in range(len(v)):
        if a[i] == b[i]:
            out[i] = v[i]
    return out


@jit
def keep_where_different(a: Any, b: Any, v: Any) -> Any:
    """Lanes of ``v`` where ``a`` and ``b`` differ, 0 elsewhere."""
    out = np.zeros_like(v)
    for i in range(len(v)):
        if a[i] != b[i]:
            out[i] = v[i]
    return out


@jit
def add_at_places(sums: Any, packed: Any, values: Any, index: int) -> None:
    """``sums[place * GROUP + c] += values[index + c]``, place of ``packed[index + c]``."""
    for c in range(GROUP):
        place = LAST_PLACE - (packed[index + c] & LAST_PLACE)
        sums[place * GROUP + c] += values[index + c]


@jit
def prefetch(array: Any, index: int) -> None:
    """Nothing."""
