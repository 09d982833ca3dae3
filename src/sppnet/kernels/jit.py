"""The two decorators of everything that Numba compiles here, with types kept.

Numba's disk cache is not used (``cache=False``): :mod:`sppnet.kernels.native` keeps machine code itself. So nothing
of ours is unpickled, and a full disk can't stop a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from numba import njit
from numba.extending import intrinsic

__all__ = ["jit", "vector_operation"]

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel, or a function that kernels call: no bounds checks, no exceptions, the GIL released."""
    return cast(Callable[P, R], njit(nogil=True, boundscheck=False, error_model="numpy")(function))


def vector_operation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that returns a signature and a code generator callable in kernels."""
    return cast(Callable[..., Any], intrinsic(function))
