"""How compiled kernels are run: ranges shared out over threads, and a notice while they compile.

A kernel is a Numba function ``kernel(start, stop, *args)`` that works on items ``start .. stop - 1``, releases the GIL
and writes only to places that belong to those items. So the result does not depend on the number of threads, and
``parallel=True`` (which takes 10 times longer to compile) is not needed.

Threads that wait sleep. They are not torch's own (a team of its OpenMP library): that gained 1 ms of 7 ms after a
convolution with ``OMP_WAIT_POLICY=passive``, nothing otherwise, and depended on the ABI of libgomp.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sppnet.threads import num_threads

__all__ = ["first_run_notice", "run_ranges", "thread_pool"]

_logger = logging.getLogger("sppnet")
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_compiled: set[str] = set()  # what has run once in this process


def thread_pool() -> ThreadPoolExecutor:
    """The shared pool, with one worker fewer than :func:`num_threads` (the caller works too), at least one."""
    global _pool, _pool_size
    size = max(1, num_threads() - 1)
    with _lock:
        if _pool is None or _pool_size < size:
            # A smaller pool may still be running somebody's work: it is left to finish and be collected.
            _pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix="sppnet")
            _pool_size = size
        return _pool


def _after_fork() -> None:
    """A child process has none of its parent's threads."""
    global _lock, _pool, _pool_size
    _lock = threading.Lock()
    _pool, _pool_size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run_ranges(kernel: Callable[..., Any], count: int, *args: Any, chunks_per_thread: int = 1, grain: int = 1) -> None:
    """Call ``kernel(start, stop, *args)`` over ``range(count)``, cut into contiguous ranges, on all threads.

    Args:
        kernel: releases the GIL; writes only to what belongs to its range.
        count: number of items, >= 0. With 0 the kernel is not called.
        args: given to the kernel.
        chunks_per_thread: more than 1 evens out items of unequal cost.
        grain: smallest number of items worth a thread; below it the caller does everything itself.
    """
    if count <= 0:
        return
    threads = min(num_threads(), -(-count // max(1, grain)))
    if threads <= 1:
        kernel(0, count, *args)
        return
    chunks = min(count, threads * chunks_per_thread)
    edges = [count * i // chunks for i in range(chunks + 1)]
    take = iter(range(chunks))
    take_lock = threading.Lock()

    def work() -> None:
        while True:
            with take_lock:
                i = next(take, None)
            if i is None:
                return
            kernel(edges[i], edges[i + 1], *args)

    futures: list[Future[None]] = []
    try:
        pool = thread_pool()
        futures += [pool.submit(work) for _ in range(threads - 1)]
    except RuntimeError:  # no threads any more (the interpreter is ending), or no more of them: the caller does it all
        pass
    try:
        work()
    finally:
        for future in futures:
            # Not started (the pool is busy with another caller): the work is done already, so it isn't waited for.
            if not future.cancel():
                future.result()


@contextmanager
def first_run_notice(what: str, after_s: float = 1.0) -> Iterator[None]:
    """Log that ``what`` is being compiled, if the block takes longer than ``after_s`` seconds.

    Loading compiled kernels takes well under that, so the notice shows only when a compilation really happens: once a
    machine and version. After the first time in a process the block runs unwatched: it may be slow for other reasons.

    Args:
        what: what is compiled, such as "pooling kernels".
        after_s: seconds.
    """
    if what in _compiled:
        yield
        return
    text = "compiling %s for this machine (first run only, a few seconds)..."
    timer = threading.Timer(after_s, _logger.warning, (text, what))
    timer.daemon = True
    timer.start()
    try:
        yield
        _compiled.add(what)
    finally:
        timer.cancel()
