"""Kernels that a second process compiles while this one compiles others.

Why: the first selective search on a machine takes half the time on two cores. Threads would not help: Numba compiles
one function at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module

__all__ = ["compile_ahead"]

_MARK = "SPPNET_COMPILES_AHEAD"  # in the environment of the process that does


@lru_cache(maxsize=64)  # once in a process
def compile_ahead(module: str, names: Sequence[str]) -> None:
    """Start a process that compiles kernels of ``module`` by name, unless they are on disk or there is one core only.

    Whoever needs one of them before it is done waits for it. A process that fails costs nothing but its time: what it
    should have compiled is compiled here then.

    Args:
        module: where the kernels are.
        names: of :class:`~sppnet.kernels.native.NativeKernel` in that module, all with known ``kinds``.
    """
    kernels = [getattr(import_module(module), name) for name in names]
    missing = [name for name, kernel in zip(names, kernels, strict=True) if not kernel.on_disk()]
    if len(missing) < 2 or (os.cpu_count() or 1) < 2:
        return
    # In a frozen or embedding program sys.executable may be that program: it must not start itself again and again
    if getattr(sys, "frozen", False) or not sys.executable or _MARK in os.environ:
        return
    try:  # -P: nothing is imported from the folder in which the program happens to run
        process = subprocess.Popen(  # noqa: S603  # this Python, names of our own modules
            [sys.executable, "-P", "-m", __name__, module, *missing],
            env=os.environ | {_MARK: "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return
    for name, kernel in zip(names, kernels, strict=True):
        if name in missing:
            kernel.compile_beside(process)


def main(module: str, *names: str) -> None:
    """Compile them, one after the other."""
    for name in names:
        getattr(import_module(module), name).load()


if __name__ == "__main__":
    main(*sys.argv[1:])
