"""The unit in which the CPU kernels take channels."""

from __future__ import annotations

__all__ = ["LINE_BYTES"]

# Two cache lines. With one, the branches for each bin cost as much as its maxima; with four, tables outgrow the cache.
LINE_BYTES = 128
