"""The spatial pyramid pooling layer of the paper (section 2.2): any map in, a vector of fixed length out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sppnet.pooling import ops
from sppnet.pooling.arguments import as_maps
from sppnet.pooling.bins import DEFAULT_LEVELS, Level, Levels, check_mode, normalise_levels, num_bins, parents

__all__ = ["SpatialPyramidPool", "by_channel", "spatial_pyramid_pool"]


def spatial_pyramid_pool(
    features: Tensor | Sequence[Tensor], levels: Levels = DEFAULT_LEVELS, mode: str = "max"
) -> Tensor:
    """Pool whole maps into vectors of one length, whatever their size.

    The order is ``cat([adaptive_max_pool2d(x, n).flatten(1) for n in levels], 1)``: level by level, channel by
    channel in a level, bins row by row in a channel. ``max`` equals that to the bit, except that of a negative and a
    positive zero the positive one is greater.

    Args:
        features: a batch ``(N, C, H, W)``, one map ``(C, H, W)``, or a list of maps ``(C, H_i, W_i)`` of any sizes >=
            1; float16, bfloat16, float32 or float64; any strides.
        levels: ints or (rows, columns), each from 1 to 1024; also larger than the map.
        mode: ``max`` or ``avg``.

    Returns:
        ``(N, bins * C)``, or ``(bins * C,)`` for one map. Differentiable once; see
        :func:`sppnet.pooling.windows.pool_windows`.

    Raises:
        ArgumentError: another shape or dtype, an unknown mode, a level out of range.
    """
    return _pool(features, normalise_levels(levels), check_mode(mode))


def _pool(features: Tensor | Sequence[Tensor], pyramid: tuple[Level, ...], mode: str) -> Tensor:
    maps = as_maps(features)
    single = isinstance(features, Tensor) and features.ndim == 3
    if not torch.compiler.is_compiling() and _torch_is_faster(maps, mode):
        parts = [_compose(m, pyramid, mode) for m in maps]
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts)
        return vectors[0] if single else vectors
    ends = [[0, 0, m.shape[3], m.shape[2]] for m in maps for _ in range(m.shape[0])]
    cells = torch.tensor(ends, dtype=torch.int64, device=maps[0].device).reshape(-1, 4)
    index = torch.arange(len(ends), device=maps[0].device)
    pooled = ops.pyramid_pool(maps, cells, index, ops.flatten_levels(pyramid), mode)
    vectors = by_channel(pooled, pyramid)
    return vectors[0] if single else vectors


def _torch_is_faster(maps: Sequence[Tensor], mode: str) -> bool:
    """Whether torch's own adaptive pooling, one call a level, takes less time (benchmarks/bench_pooling.py).

    Its calls cost less to start, so it is better for little work, and they read channels-last maps well, with more than
    one thread at least.
    """
    if maps[0].device.type != "cpu":
        return False
    channels_last = maps[0].stride(1) == 1
    if channels_last and torch.get_num_threads() > 1:
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


class SpatialPyramidPool(nn.Module):
    """:func:`spatial_pyramid_pool` as a layer, between the last convolution and the first fully connected layer.

    ``nn.Sequential(convolutions, SpatialPyramidPool(), nn.Linear(SpatialPyramidPool().out_features(256), 10))`` takes
    images of any size. It has no parameters.

    Args:
        levels: ints or (rows, columns).
        mode: ``max`` or ``avg``.
    """

    def __init__(self, levels: Levels = DEFAULT_LEVELS, mode: str = "max") -> None:
        super().__init__()
        self.levels = normalise_levels(levels)
        self.mode = check_mode(mode)

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """See :func:`spatial_pyramid_pool`."""
        return _pool(features, self.levels, self.mode)

    def out_features(self, channels: int) -> int:
        """Length of the vector of one map of ``channels`` channels."""
        return num_bins(self.levels) * channels

    def extra_repr(self) -> str:
        return f"levels={self.levels}, mode={self.mode!r}"
