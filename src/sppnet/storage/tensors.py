"""Torch tensors in, and from, the arrays of an envelope. Torch is loaded at the first call only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from sppnet.storage.envelope import Array

__all__ = ["to_arrays", "to_tensors"]


def to_arrays(tensors: Mapping[str, Tensor | Array]) -> dict[str, Array]:
    """Give tensors (of any device, dtype and layout) as NumPy arrays; arrays stay as they are."""
    return {
        name: value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()
        for name, value in tensors.items()
    }


def to_tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Give arrays as tensors of the same memory."""
    import torch

    return {name: torch.from_numpy(value) for name, value in arrays.items()}
