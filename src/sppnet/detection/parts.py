"""Things that are built once from parameters and built again when those parameters change; safe to use from threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["Parts", "survives_fork"]

P = ParamSpec("P")
T = TypeVar("T")


class Parts:
    """A memory of built things by name, each with the key that it was built for.

    Copies of the owner may share what is built already, so built things must not change. A pickle holds none of it.
    """

    def __init__(self, start: dict[str, tuple[object, Any]] | None = None) -> None:
        self._lock = threading.RLock()
        self._built: dict[str, tuple[object, Any]] = dict(start or {})
        _all_parts.add(self)

    def get(self, name: str, key: object, build: Callable[[], T]) -> T:
        """Return the thing called ``name``, built by ``build()`` unless it is there for an equal ``key``.

        Of several threads that ask at once, one builds it and the others wait.
        """
        with self._lock:
            known = self._built.get(name)
            if known is not None and known[0] == key:
                built: T = known[1]
            else:
                built = build()
                self._built[name] = key, built
            return built

    def renew_lock(self) -> None:
        """Take a lock that nobody holds, in a child process where the holder of the old one isn't."""
        self._lock = threading.RLock()

    def __copy__(self) -> Parts:
        with self._lock:
            return Parts(self._built)

    def __deepcopy__(self, memo: object) -> Parts:
        return Parts()

    def __reduce__(self) -> tuple[type[Parts], tuple[()]]:
        return Parts, ()


_all_parts: weakref.WeakSet[Parts] = weakref.WeakSet()
_forked_thread: int | None = None  # in a child process: the thread that came through the fork
_fresh: ThreadPoolExecutor | None = None


def _after_fork() -> None:
    global _forked_thread, _fresh
    _forked_thread, _fresh = threading.get_ident(), None
    for parts in _all_parts:  # a lock that another thread of the parent held would be held for ever
        parts.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def survives_fork(function: Callable[P, T]) -> Callable[P, T]:
    """Run ``function`` in a fresh thread where its own came through a fork.

    OpenMP keeps the helpers of each thread. After a fork they are gone, but the thread that came through still waits
    for them, forever. A thread that was started since then gets helpers of its own. What can't be mended here: a fork
    at the moment in which another thread computes may leave a lock of the matrix library held for ever in the child
    (use the start method ``spawn`` then).
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        global _fresh
        if _forked_thread is None or threading.get_ident() != _forked_thread:
            return function(*args, **kwargs)
        if _fresh is None:
            _fresh = ThreadPoolExecutor(1, "sppnet-after-fork")
        return _fresh.submit(function, *args, **kwargs).result()

    return run
