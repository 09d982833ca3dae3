"""Memory inside kernels from Numba, for versions in which :mod:`sppnet.kernels.scratch_llvm` doesn't work."""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit


@jit
def scratch(count: int, dtype: Any) -> Any:
    """``count`` zeros."""
    return np.zeros(count, dtype)


@jit
def release(array: Any) -> None:
    """Nothing: Numba counts references."""
