"""Vectors inside kernels: load, store, maximum, add and so on of 128 bytes of channels at a time.

The gain: pooling 2000 windows takes a tenth of the time of the same loops without vectors. What each operation does is
said in :mod:`sppnet.kernels.vectors_llvm`. That module uses private interfaces of Numba; where they have changed, the
slow twin :mod:`sppnet.kernels.vectors_plain` is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.fallback import first_that_works
from sppnet.kernels.jit import jit
from sppnet.kernels.lines import LAST_PLACE

__all__ = [
    "add",
    "add_at_places",
    "divide",
    "from_key",
    "half_zeros",
    "keep_where_different",
    "keep_where_equal",
    "lane_sum",
    "load",
    "load_group",
    "load_half",
    "load_packed",
    "load_wide",
    "maximum",
    "multiply_add",
    "prefetch",
    "store",
    "store_narrow",
    "stream",
    "subtract",
    "to_key",
    "zeros",
]


def _works(made: Any) -> bool:
    """Whether a kernel of all these operations compiles, and computes what it should."""
    add, subtract, divide, zeros, half_zeros = made.add, made.subtract, made.divide, made.zeros, made.half_zeros
    load, load_half, load_group, load_wide, load_packed = (
        made.load, made.load_half, made.load_group, made.load_wide, made.load_packed,
    )  # fmt: skip
    store, store_narrow, stream, prefetch, maximum = (
        made.store, made.store_narrow, made.stream, made.prefetch, made.maximum,
    )  # fmt: skip
    to_key, from_key, multiply_add, lane_sum = made.to_key, made.from_key, made.multiply_add, made.lane_sum
    equal, different, add_at_places = made.keep_where_equal, made.keep_where_different, made.add_at_places

    @jit
    def trial(bits: Any, values: Any, wide: Any, packed: Any, sums: Any, infinity: int, low: int) -> Any:
        prefetch(bits, 0)
        best = maximum(to_key(load(bits, 0), infinity), to_key(load(bits, 32), infinity))
        store(bits, 0, from_key(best))
        score = lane_sum(multiply_add(half_zeros(values), load_half(values, 0), load_half(bits, 0)))
        difference = subtract(load_wide(values, 16), load_wide(values, 0))
        store_narrow(wide, 0, divide(add(difference, zeros(wide)), 2.0))
        store(packed, 0, load_packed(bits, 0, infinity, low))
        store(packed, 16, load_packed(bits, 16, infinity, low))
        group = load_group(packed, 0)
        add_at_places(sums, packed, values, 0)
        stream(sums, 0, equal(group, maximum(group, load_group(packed, 32)), load_group(values, 0)))
        store(values, 0, different(group, load_group(packed, 32), load_group(values, 0)))
        return score

    first, second = np.arange(32, dtype=np.float32) - 40, -2 * np.arange(32, dtype=np.float32)
    first[20], second[3] = np.nan, -np.inf
    bits, values = np.concatenate([first, second]).view(np.int32), np.arange(32, dtype=np.float32)
    wide, packed, places = np.zeros(16), np.zeros(64, np.int64), _aligned_zeros(64)
    score = trial(bits, values, wide, packed, places, 0x7F800000, LAST_PLACE - 1)
    largest = np.maximum(first, second)
    return bool(
        np.array_equal(bits[:32].view(np.float32), largest, equal_nan=True)
        and score == (largest[:16] * np.arange(16)).sum()
        and (wide == 8).all()
        and (packed[:32] & LAST_PLACE == LAST_PLACE - 1).all()
        and (np.argsort(packed[:32], kind="stable") == np.argsort(largest, kind="stable")).all()
        and (places[:32] == np.where(packed[:32] >= 0, np.arange(32), 0)).all()
        and (places[32:] == np.arange(32)).all()
        and (values == np.arange(32)).all()
    )


def _aligned_zeros(count: int) -> Any:
    """``count`` float32 zeros at a multiple of 64 bytes."""
    memory = np.zeros(4 * count + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + 4 * count].view(np.float32)


_made = first_that_works("sppnet.kernels.vectors_llvm", "sppnet.kernels.vectors_plain", _works)
add = _made.add
add_at_places = _made.add_at_places
divide = _made.divide
from_key = _made.from_key
half_zeros = _made.half_zeros
keep_where_different = _made.keep_where_different
keep_where_equal = _made.keep_where_equal
lane_sum = _made.lane_sum
load = _made.load
load_group = _made.load_group
load_half = _made.load_half
load_packed = _made.load_packed
load_wide = _made.load_wide
maximum = _made.maximum
multiply_add = _made.multiply_add
prefetch = _made.prefetch
store = _made.store
store_narrow = _made.store_narrow
stream = _made.stream
subtract = _made.subtract
to_key = _made.to_key
zeros = _made.zeros
