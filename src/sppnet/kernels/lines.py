"""The units in which kernels take channels. Apart from the vectors, so that reading them needs no Numba."""

from __future__ import annotations

__all__ = ["DEPTHWISE_BLOCK", "GROUP", "LAST_PLACE", "LINE_BYTES"]

# Two cache lines. With one, the branches for each bin cost as much as its maxima; with four, tables outgrow the cache.
LINE_BYTES = 128
# Channels that the gradient of maxima takes at a time, whatever the dtype.
GROUP = 32
# Channels that the gradient of depthwise kernels takes at a time: its sums, in float32, stay in the first cache.
DEPTHWISE_BLOCK = 8 * LINE_BYTES // 4
# The largest cell that can be packed with a value; places count down from it, so that the first cell is the largest.
LAST_PLACE = (1 << 31) - 1
