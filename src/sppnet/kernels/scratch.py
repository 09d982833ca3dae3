"""Memory inside kernels: ``scratch(count, dtype)`` gives zeros, aligned to 64 bytes; ``release(array)`` returns them.

Why: with memory from C's ``calloc`` compiled code needs nothing of Numba at run time, so it can be kept on disk and
loaded alone (:mod:`sppnet.kernels.native`; saves half a second a process). Where Numba's private interfaces have
changed, the memory is Numba's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.fallback import first_that_works
from sppnet.kernels.jit import jit

__all__ = ["release", "scratch"]


def _works(made: Any) -> bool:
    """Whether memory can be had, is zero, and can be given back."""
    scratch, release = made.scratch, made.release

    @jit
    def trial(count: int) -> float:
        array = scratch(count, np.float32)
        total = array.sum() + len(array)
        release(array)
        return float(total)

    return trial(7) == 7


_made = first_that_works("sppnet.kernels.scratch_llvm", "sppnet.kernels.scratch_plain", _works)
scratch, release = _made.scratch, _made.release
