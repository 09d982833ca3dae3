"""Pyramids of whole maps that are tensors: by our kernels, or by torch's own layers where those are faster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sppnet.pooling.bins import Level, parents
from sppnet.pooling.tensors import ops
from sppnet.pooling.tensors.arguments import as_maps
from sppnet.threads import num_threads

__all__ = ["by_channel", "pool_tensors"]


def pool_tensors(features: Tensor | Sequence[Tensor], pyramid: tuple[Level, ...], mode: str) -> Tensor:
    """:func:`sppnet.pooling.pyramid.spatial_pyramid_pool` of tensors; levels and mode are checked already."""
    maps = as_maps(features, mode)
    single = isinstance(features, Tensor) and features.ndim == 3
    if not torch.compiler.is_compiling() and _torch_is_faster(maps, mode):
        parts = [_compose(m, pyramid, mode) for m in maps]
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts)
        return vectors[0] if single else vectors
    # of one batch without a list, so that its length may be dynamic where this is compiled or exported
    ends = [[0, 0, m.shape[3], m.shape[2]] for m in maps for _ in range(1 if len(maps) == 1 else m.shape[0])]
    cells = torch.tensor(ends, dtype=torch.int64, device=maps[0].device).reshape(-1, 4)
    cells = cells.expand(maps[0].shape[0], 4) if len(maps) == 1 else cells
    index = torch.arange(cells.shape[0], device=maps[0].device)
    pooled = ops.pyramid_pool(maps, cells, index, ops.flatten_levels(pyramid), mode)
    vectors = by_channel(pooled, pyramid)
    return vectors[0] if single else vectors


def _torch_is_faster(maps: Sequence[Tensor], mode: str) -> bool:
    """Whether torch's own adaptive pooling, one call a level, takes less time (benchmarks/bench_pooling.py).

    Its calls cost less to start, so it is better for little work, and they read channels-last maps well, with more than
    one thread at least.
    """
    if maps[0].device.type != "cpu" or not maps[0].is_floating_point():
        return False
    channels_last = maps[0].stride(1) == 1
    exact = mode == "max" and not (torch.is_grad_enabled() and any(m.requires_grad for m in maps))
    if exact and channels_last and num_threads() > 1:  # what is added up would depend on the number of threads
        return True
    work = maps[0].numel() if len(maps) == 1 else sum(m.numel() for m in maps) / len(maps)
    return work < (1 << 17 if mode == "max" and not channels_last else 1 << 20)


def _compose(features: Tensor, levels: tuple[Level, ...], mode: str) -> Tensor:
    """The definition by torch's own layers: ``(N, C, H, W)`` to ``(N, bins * C)``.

    Maxima of a level whose bins are unions of a finer level's come from those, if nobody asks for a gradient (which
    would go to another one of equal maxima).
    """
    functional = nn.functional
    nested = mode == "max" and not (features.requires_grad and torch.is_grad_enabled())
    order, above, sizes = _plan(levels, nested)
    if mode == "avg":
        return torch.cat([functional.adaptive_avg_pool2d(features, size).flatten(1) for size in sizes], 1)
    pooled: dict[int, Tensor] = {-1: features}
    for i in order:  # with the places, which are found anyway: the call that drops them takes longer to start
        pooled[i] = functional.adaptive_max_pool2d_with_indices(pooled[above[i]], sizes[i])[0]
    return torch.cat([pooled[i].flatten(1) for i in range(len(levels))], 1)


@lru_cache(maxsize=64)
def _plan(levels: tuple[Level, ...], nested: bool) -> tuple[list[int], list[int], list[Any]]:
    """Levels in an order in which each comes after the one it is pooled from, which that is (-1: the map), and sizes.

    Sizes as torch's functions take them: an int for a square starts faster than a pair.
    """
    above = parents(levels) if nested else [-1] * len(levels)
    order = sorted(range(len(levels)), key=lambda i: (-levels[i][0] * levels[i][1], i))
    return order, above, [rows if rows == columns else (rows, columns) for rows, columns in levels]


def by_channel(pooled: Tensor, levels: Sequence[Level]) -> Tensor:
    """``(N, bins, C)`` to ``(N, bins * C)`` with a level's bins of one channel next to each other."""
    sizes = [r * c for r, c in levels]
    return torch.cat([part.transpose(1, 2).flatten(1) for part in pooled.split(sizes, 1)], 1)
