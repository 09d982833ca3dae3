"""A budget of memory for images that several threads read ahead, in order."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading

__all__ = ["READ_AHEAD_BYTES", "MemoryBudget", "give_back_memory"]

READ_AHEAD_BYTES = 800_000_000
"""Memory for the images that are being decoded, or wait to be looked at and drawn."""


class MemoryBudget:
    """Memory that is handed out in the order of the images, so that the first ones never wait for later ones.

    An image that needs more than the whole budget gets it when nothing else is in memory.

    Args:
        limit_bytes: the budget.
    """

    def __init__(self, limit_bytes: int = READ_AHEAD_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._taken: dict[int, int] = {}
        self._turn = 0
        self._passed: set[int] = set()
        self._closed = False
        self._changed = threading.Condition()

    def take(self, index: int, size: int) -> None:
        """Wait until it is the turn of image ``index``, and ``size`` bytes are free, and take them.

        Every index from 0 on must be taken, or given up by :meth:`release`, once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._turn == index and self._fits(size)))
            self._taken[index] = size
            self._pass(index)

    def shrink(self, index: int, size: int) -> None:
        """Give back all but ``size`` bytes of image ``index``."""
        with self._changed:
            self._taken[index] = min(size, self._taken.get(index, 0))
            self._changed.notify_all()

    def release(self, index: int) -> None:
        """Give back all that image ``index`` has; if it has taken nothing yet, its turn is over."""
        with self._changed:
            self._taken.pop(index, None)
            self._pass(index)

    def close(self) -> None:
        """Let everybody go on who waits: the run is at its end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._taken or sum(self._taken.values()) + size <= self.limit_bytes

    def _pass(self, index: int) -> None:
        if index >= self._turn:
            self._passed.add(index)
        while self._turn in self._passed:
            self._passed.remove(self._turn)
            self._turn += 1
        self._changed.notify_all()


def give_back_memory() -> None:
    """Give memory that was freed back to the system.

    The C library of Linux keeps what a thread frees for that thread. Of four threads that decode one large image after
    the other, each would keep the memory of one: measured 3.0 GB instead of 1.4 GB.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)
