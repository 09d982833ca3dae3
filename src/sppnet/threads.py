"""How many threads sppnet uses, for kernels and for ONNX Runtime. torch's own operations keep torch's setting."""

from __future__ import annotations

import os
import sys
from typing import Any

from sppnet.errors import ArgumentError

__all__ = ["num_threads", "set_num_threads"]

_chosen: int | None = None


def set_num_threads(threads: int | None) -> None:
    """Set how many threads pooling, selective search and ONNX Runtime use. Results of ours don't depend on it.

    Args:
        threads: at least 1. None: as if this was never called (see :func:`num_threads`).

    Raises:
        ArgumentError: not a whole number >= 1.
    """
    global _chosen
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise ArgumentError(f"threads: expected a whole number >= 1 or None, got {threads!r}")
    _chosen = threads


def num_threads() -> int:
    """Find how many threads are used.

    The number given to :func:`set_num_threads`; otherwise torch's setting (``torch.set_num_threads``), if torch is
    imported; otherwise ``OMP_NUM_THREADS``; otherwise the processors that this process may use.
    """
    if _chosen is not None:
        return _chosen
    ask: Any = getattr(sys.modules.get("torch"), "get_num_threads", None)  # missing while torch is being imported
    if ask is not None:
        return max(1, int(ask()))
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return int(first)
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
