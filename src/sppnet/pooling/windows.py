"""Spatial pyramid pooling of many windows of one or several maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sppnet.pooling.bins import DEFAULT_LEVELS, Levels, check_mode, normalise_levels, num_bins
from sppnet.pooling.cells import PerAxis, Windows, as_window_tensor, clip_cells, window_to_cells

__all__ = ["pool_windows", "score_windows", "window_to_cells"]


def pool_windows(
    features: Tensor | Sequence[Tensor],
    windows: Windows,
    levels: Levels = DEFAULT_LEVELS,
    mode: str = "max",
    *,
    stride: PerAxis | None = None,
    offset: PerAxis = 0.0,
    map_index: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    from sppnet.pooling.launch import pool_cpu

    maps = [features] if isinstance(features, Tensor) else list(features)
    maps = [m[None] if m.ndim == 3 else m for m in maps]
    pyramid = normalise_levels(levels)
    check_mode(mode)
    tensor = as_window_tensor(windows)
    if map_index is not None:
        map_index = torch.as_tensor(map_index, dtype=torch.int64)
    sizes = torch.tensor([(m.shape[2], m.shape[3]) for m in maps for _ in range(m.shape[0])], dtype=torch.int64)
    height, width = sizes[map_index if map_index is not None else torch.zeros(len(tensor), dtype=torch.int64)].unbind(1)
    if stride is None:
        edges = tensor.to(torch.float64)
        cells = clip_cells(edges, edges - 0.5, height, width)
    else:
        cells = window_to_cells(tensor, stride, offset, height, width)
    if out is None:
        out = torch.empty(len(tensor), num_bins(levels), maps[0].shape[1], dtype=maps[0].dtype)
    pool_cpu(maps, cells, map_index, pyramid, mode, out)
    return out


def score_windows(
    features: Tensor | Sequence[Tensor],
    windows: Windows,
    weight: Tensor,
    bias: Tensor | None = None,
    levels: Levels = DEFAULT_LEVELS,
    mode: str = "max",
    *,
    stride: PerAxis | None = None,
    offset: PerAxis = 0.0,
    map_index: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    pooled = pool_windows(features, windows, levels, mode, stride=stride, offset=offset, map_index=map_index)
    result = torch.nn.functional.linear(pooled.flatten(1), weight, bias)
    return result if out is None else out.copy_(result)
