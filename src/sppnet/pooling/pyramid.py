"""The spatial pyramid pooling layer of the paper (section 2.2): any map in, a vector of fixed length out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from sppnet.pooling.arguments import are_arrays, as_array_maps, check_tensors
from sppnet.pooling.bins import DEFAULT_LEVELS, Level, Levels, check_mode, normalise_levels
from sppnet.pooling.windows import pool_windows

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["by_channel", "spatial_pyramid_pool"]

Array = NDArray[Any]


@overload
def spatial_pyramid_pool(
    features: Tensor | Sequence[Tensor], levels: Levels = DEFAULT_LEVELS, mode: str = "max"
) -> Tensor: ...
@overload
def spatial_pyramid_pool(
    features: Array | Sequence[Array], levels: Levels = DEFAULT_LEVELS, mode: str = "max"
) -> Array: ...
def spatial_pyramid_pool(features: Any, levels: Levels = DEFAULT_LEVELS, mode: str = "max") -> Any:
    """Pool whole maps into vectors of one length, whatever their size.

    The order is ``cat([adaptive_max_pool2d(x, n).flatten(1) for n in levels], 1)``: level by level, channel by
    channel in a level, bins row by row in a channel. ``max`` equals that to the bit, except that of a negative and a
    positive zero the positive one is greater.

    Args:
        features: a batch ``(N, C, H, W)``, one map ``(C, H, W)``, or a list of maps ``(C, H_i, W_i)`` of any sizes >=
            1. Arrays or tensors, dtypes as in :func:`sppnet.pool_windows`; any strides.
        levels: ints or (rows, columns), each from 1 to 1024; also larger than the map.
        mode: ``max`` or ``avg``.

    Returns:
        ``(N, bins * C)``, or ``(bins * C,)`` for one map: an array of arrays, a tensor of tensors, then differentiable
        once (see :func:`sppnet.pool_windows`).

    Raises:
        ArgumentError: another shape or dtype, an unknown mode, a level out of range.

    Examples:
        >>> import numpy as np
        >>> spatial_pyramid_pool(np.zeros((256, 13, 17), np.float32), levels=(6, 3, 2, 1)).shape
        (12800,)
    """
    pyramid = normalise_levels(levels)
    if not are_arrays(features):
        check_tensors(features)
        from sppnet.pooling.tensors.pyramid import pool_tensors

        return pool_tensors(features, pyramid, check_mode(mode))
    maps = as_array_maps(features, check_mode(mode))
    windows = [np.tile([[0, 0, m.shape[3], m.shape[2]]], (len(m), 1)) for m in maps]
    index = np.arange(sum(map(len, windows)))
    several = [one for m in maps for one in m]
    pooled = pool_windows(several or features, np.concatenate(windows), pyramid, mode, map_index=index)
    vectors = by_channel(pooled, pyramid)
    return vectors[0] if isinstance(features, np.ndarray) and features.ndim == 3 else vectors


def by_channel(pooled: Array, levels: Sequence[Level]) -> Array:
    """Order pooled windows ``(K, bins, C)`` as the layer does: level by level, channel by channel in a level.

    Args:
        pooled: of :func:`sppnet.pool_windows`.
        levels: of the pyramid.

    Returns:
        ``(K, bins * C)``.
    """
    parts = np.split(pooled, np.cumsum([r * c for r, c in levels])[:-1], axis=1)
    return np.concatenate([p.transpose(0, 2, 1).reshape(len(p), p.shape[1] * p.shape[2]) for p in parts], axis=1)
