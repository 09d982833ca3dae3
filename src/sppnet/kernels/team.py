"""Kernels on the threads that torch itself works with.

After every parallel operation torch's OpenMP threads wait for the next one by spinning, for some milliseconds. Threads
of our own would meanwhile compete with them for the cores, and would have to be woken up first. A team of the same
library takes the very threads that spin.

Only GNU's OpenMP (``libgomp``, in torch's wheels for Linux) is used; elsewhere there is a thread pool (see ``run.py``).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache
from typing import Any

__all__ = ["run_team"]


def run_team(region: int, count: int, chunks: int, threads: int, block: int) -> bool:
    """Let a team of ``threads`` call ``region`` (see ``compiler.py``) with a common counter; False without OpenMP.

    Args:
        region: address of the compiled function. block: address of the kernel's arguments.
        count: of items, shared out in ``chunks``; whoever is free takes the next one.
    """
    library = _openmp()
    if library is None:
        return False
    shared = (ctypes.c_int64 * 4)(0, count, chunks, block)
    library.GOMP_parallel(
        ctypes.c_void_p(region), ctypes.c_void_p(ctypes.addressof(shared)), ctypes.c_uint(threads), ctypes.c_uint(0)
    )
    return True


@lru_cache(maxsize=1)
def _openmp() -> Any:
    """The OpenMP library that torch has loaded, if it is GNU's; another copy would have threads of its own."""
    if sys.platform != "linux" or "torch" not in sys.modules:
        return None
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            paths = {line.split(maxsplit=5)[5].strip() for line in file if "libgomp" in line}
    except (OSError, IndexError):
        return None
    home = os.path.dirname(str(sys.modules["torch"].__file__))
    mine = [path for path in paths if path.startswith(home)] or list(paths)
    if len(mine) != 1:
        return None
    try:
        library = ctypes.CDLL(mine[0])
        library.GOMP_parallel.restype = None
    except (OSError, AttributeError):
        return None
    return library
