"""How many threads sppnet uses, for kernels and for ONNX Runtime. torch's own operations keep torch's setting."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from sppnet.errors import ArgumentError

__all__ = ["num_threads", "set_num_threads", "threads_limited"]

_chosen: int | None = None
# Blocks of threads_limited that run, in the order in which they began, perhaps in several threads at once; and what was
# set before the first of them
_blocks: list[tuple[object, int, bool]] = []
_before: list[int | None] = [None, None]
_lock = threading.RLock()


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


@contextlib.contextmanager
def threads_limited(threads: int | None, *, torch_too: bool) -> Iterator[None]:
    """Use so many threads while the block runs.

    Of blocks that overlap, in several threads of the process, the one that began last says how many; when the last one
    has ended it is as it was before the first.

    Args:
        threads: at least 1. None: as before.
        torch_too: set torch's own threads, too. This imports torch.

    Raises:
        ArgumentError: not a whole number >= 1.
    """
    if threads is None:
        yield
        return
    block = (object(), threads, torch_too)
    torch: Any = importlib.import_module("torch") if torch_too else None
    with _lock:
        before = _chosen
        set_num_threads(threads)
        if not _blocks:
            _before[:] = before, None
        if torch_too:
            if _before[1] is None:
                _before[1] = torch.get_num_threads()
            torch.set_num_threads(threads)
        _blocks.append(block)
    try:
        yield
    finally:
        with _lock:
            _blocks.remove(block)
            set_num_threads(_blocks[-1][1] if _blocks else _before[0])
            if torch_too:
                of_torch = [count for _, count, too in _blocks if too]
                torch.set_num_threads(of_torch[-1] if of_torch else _before[1])
                _before[1] = _before[1] if of_torch else None


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
