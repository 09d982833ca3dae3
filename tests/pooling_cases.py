"""Windows and maps that every pooling test draws from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LAYOUTS = ["first", "last", "strided", "expanded"]


def random_cells(rng: np.random.Generator, count: int, height: int, width: int) -> NDArray[np.int64]:
    """``(count, 4)`` half-open windows inside the map, at least one cell each."""
    x = np.sort(rng.integers(0, width + 1, (count, 2)), 1)
    y = np.sort(rng.integers(0, height + 1, (count, 2)), 1)
    x0, y0 = np.minimum(x[:, 0], width - 1), np.minimum(y[:, 0], height - 1)
    return np.stack([x0, y0, np.maximum(x[:, 1], x0 + 1), np.maximum(y[:, 1], y0 + 1)], 1).astype(np.int64)


def random_map(rng: np.random.Generator, shape: tuple[int, int, int], dtype: torch.dtype, layout: str) -> Tensor:
    """``(C, H, W)`` with many equal values and both signs, in one of :data:`LAYOUTS`."""
    c, h, w = shape
    values = torch.from_numpy(rng.integers(-8, 8, shape) / 4).to(dtype)
    if layout == "last":
        return values.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    if layout == "strided":
        big = torch.full((2 * c, h, w + 3), 99.0, dtype=dtype)
        big[::2, :, 1 : w + 1] = values
        return big[::2, :, 1 : w + 1]
    if layout == "expanded":
        return values[:, :1].expand(c, h, w)
    return values
