"""Spatial pyramid pooling of many windows of one or several maps (paper, sections 2.2 and 4.1).

The detector of the paper pools about 2000 windows of one map: the convolutions ran once for all of them. NumPy arrays
are pooled without torch; tensors go to :mod:`sppnet.pooling.tensors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from sppnet._types import I64
from sppnet.errors import ArgumentError
from sppnet.kernels.lines import LINE_BYTES
from sppnet.pooling import launch
from sppnet.pooling.arguments import (
    BLOCK_BYTES,
    FUSED_OUTPUTS,
    are_arrays,
    as_array_index,
    as_array_maps,
    check_array_out,
    check_tensors,
    check_weight,
)
from sppnet.pooling.bins import DEFAULT_LEVELS, Level, Levels, check_mode, normalise_levels, num_bins
from sppnet.pooling.cells import PerAxis, Windows, check_geometry, map_sizes, split_windows, to_cells, window_to_cells

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pool_windows", "score_windows", "window_to_cells"]

Array = NDArray[Any]


@overload
def pool_windows(
    features: Tensor | Sequence[Tensor],
    windows: Windows,
    levels: Levels = ...,
    mode: str = ...,
    *,
    stride: PerAxis | None = ...,
    offset: PerAxis = ...,
    map_index: Any = ...,
    out: Tensor | None = ...,
) -> Tensor: ...
@overload
def pool_windows(
    features: Array | Sequence[Array],
    windows: Windows,
    levels: Levels = ...,
    mode: str = ...,
    *,
    stride: PerAxis | None = ...,
    offset: PerAxis = ...,
    map_index: Any = ...,
    out: Array | None = ...,
) -> Array: ...
def pool_windows(
    features: Any,
    windows: Windows,
    levels: Levels = DEFAULT_LEVELS,
    mode: str = "max",
    *,
    stride: PerAxis | None = None,
    offset: PerAxis = 0.0,
    map_index: Any = None,
    out: Any = None,
) -> Any:
    """Pool the pyramid of every window.

    Bins are ordered level by level, in the order of ``levels``, row by row in a level. ``result.reshape(K, -1)`` is a
    vector a window (bin-major, channels innermost).

    Args:
        features: one map ``(C, H, W)``, a batch ``(N, C, H, W)``, or a list of maps ``(C, H_i, W_i)`` (several scales).
            NumPy arrays or tensors of float16, bfloat16 (tensors only), float32, float64, int8 or uint8 (``max`` only,
            a quarter of the memory traffic). Any strides; nothing is copied. Fastest: channels-last.
        windows: ``(K, 4)`` of ``(x0, y0, x1, y1)``, tensor or array; or ``(K, 5)`` with the number of the map first,
            or a list of ``(K_i, 4)``, one a map, as torchvision's RoI operators take them. With ``stride`` they are in
            pixels of the image that the map was made from (with several scales: the image of that scale, so multiply a
            window of the original image by the scale's factor), otherwise in cells, half-open; fractions are rounded
            outwards. A window is clipped to its map. One that is outside, reversed, or thinner than a cell gets the
            one cell (a row or column of cells, if it is only thin) that is nearest to its middle.
        levels: ints or (rows, columns); any number of bins, also more than the window has cells.
        mode: ``max`` (NaN if the bin has one) or ``avg``.
        stride: pixels between the centres of neighbouring units of the map, > 0; a number or (x, y).
        offset: coordinate of the centre of unit 0, counted from the image's edge as boxes are (0.5 is the centre of
            pixel 0); a number or (x, y). Both come from :func:`sppnet.backbones.receptive_field.receptive_field`.
        map_index: ``(K,)`` integers, the map of each window; must be given if there are several maps, unless
            ``windows`` say it.
        out: where to write: ``(K, bins, C)`` of the features' kind and dtype, contiguous over C, no part of the maps.
            Not differentiable.

    Returns:
        ``(K, bins, C)`` (``out`` if it was given): an array of arrays, a tensor of tensors. That is differentiable with
        respect to the features: ``max`` sends a bin's gradient to its first maximum in row-major order, ``avg`` in
        equal shares to all its cells; second derivatives are slow. The result and the gradient do not depend on the
        number of threads, nor on ``torch.autocast``.

    Raises:
        ArgumentError: see :mod:`sppnet.errors`; the message names the argument.

    Examples:
        >>> import numpy as np
        >>> features = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
        >>> pool_windows(features, [[0, 0, 4, 3], [1, 0, 3, 2]], levels=(1,)).ravel().tolist()
        [11.0, 6.0]
    """
    if not are_arrays(features):
        check_tensors(features)
        from sppnet.pooling.tensors.windows import pool_tensor_windows

        return pool_tensor_windows(
            features, windows, levels, mode, stride=stride, offset=offset, map_index=map_index, out=out
        )
    maps, work = _prepare(features, windows, levels, mode, stride, offset, map_index)
    shape = (len(work.cells), num_bins(work.levels), maps[0].shape[1])
    if out is None:
        out = launch.aligned_empty(shape, maps[0].dtype)
    else:
        check_array_out(out, shape, maps)
    _pool(maps, work, out)
    return out


@overload
def score_windows(
    features: Tensor | Sequence[Tensor],
    windows: Windows,
    weight: Tensor,
    bias: Tensor | None = ...,
    levels: Levels = ...,
    mode: str = ...,
    *,
    stride: PerAxis | None = ...,
    offset: PerAxis = ...,
    map_index: Any = ...,
    out: Tensor | None = ...,
) -> Tensor: ...
@overload
def score_windows(
    features: Array | Sequence[Array],
    windows: Windows,
    weight: Array,
    bias: Array | None = ...,
    levels: Levels = ...,
    mode: str = ...,
    *,
    stride: PerAxis | None = ...,
    offset: PerAxis = ...,
    map_index: Any = ...,
    out: Array | None = ...,
) -> Array: ...
def score_windows(
    features: Any,
    windows: Windows,
    weight: Any,
    bias: Any = None,
    levels: Levels = DEFAULT_LEVELS,
    mode: str = "max",
    *,
    stride: PerAxis | None = None,
    offset: PerAxis = 0.0,
    map_index: Any = None,
    out: Any = None,
) -> Any:
    """Compute ``linear(pool_windows(...).flatten(1), weight, bias)`` without ever holding all vectors. For inference.

    With up to 64 outputs (a linear layer of classes, float32 or float64 on the CPU) the pooling kernel itself
    multiplies what it pooled; beyond inputs and result, a copy of the weights and a few tables of 128 bytes a cell of
    the map are held. With more (a first fc layer) 32 channels of a block of windows at a time are pooled into a
    buffer of 13 MB, which a matrix product reads; the product dominates then, and what is saved is the memory.

    Args:
        features: as in :func:`pool_windows`, of a float dtype.
        windows: as in :func:`pool_windows`.
        weight: ``(O, bins * C)``, columns ordered as ``pool_windows(...).flatten(1)``; dtype of the features.
        bias: ``(O,)`` or None.
        levels: as in :func:`pool_windows`.
        mode: as in :func:`pool_windows`.
        stride: as in :func:`pool_windows`.
        offset: as in :func:`pool_windows`.
        map_index: as in :func:`pool_windows`.
        out: where to write: ``(K, O)``, rows contiguous.

    Returns:
        ``(K, O)``. If a gradient is asked for, it is the plain composition above, differentiable.

    Raises:
        ArgumentError: see :mod:`sppnet.errors`; the message names the argument.
    """
    if not are_arrays(features):
        check_tensors(features)
        from sppnet.pooling.tensors.windows import score_tensor_windows

        return score_tensor_windows(
            features, windows, weight, bias, levels, mode, stride=stride, offset=offset, map_index=map_index, out=out
        )
    maps, work = _prepare(features, windows, levels, mode, stride, offset, map_index)
    count, bins, channels = len(work.cells), num_bins(work.levels), maps[0].shape[1]
    check_weight(weight, bias, bins, channels, maps[0].dtype)
    outputs = len(weight)
    if out is None:
        out = np.empty((count, outputs), maps[0].dtype)
    else:
        check_array_out(out, (count, outputs), maps)
    columns = weight.reshape(outputs, bins, channels)
    if maps[0].itemsize >= 4 and outputs <= FUSED_OUTPUTS:
        launch.score([launch.strided(m) for m in maps], work, columns, bias, out)
    else:
        out[:] = 0 if bias is None else bias
        _accumulate(maps, work, columns, out)
    return out


def _pool(maps: list[Array], work: launch.Work, out: Array) -> None:
    if work.mode == "avg" and out.itemsize < 4:
        wide = np.empty(out.shape, np.float32)
        _pool([m.astype(np.float32) for m in maps], work, wide)
        out[:] = wide
    else:
        launch.pool([launch.strided(m) for m in maps], work, launch.strided(out))


def _accumulate(maps: list[Array], work: launch.Work, weight: Array, out: Array) -> None:
    """Add the scores to ``out`` ``(K, O)``, a line of channels and a block of windows at a time."""
    outputs, bins, channels = weight.shape
    lanes = LINE_BYTES // out.itemsize
    block = max(64, BLOCK_BYTES // (bins * lanes * out.itemsize))
    for c in range(0, channels, lanes):
        some = [m[:, c : c + lanes] for m in maps]
        columns = weight[:, :, c : c + lanes].reshape(outputs, -1).T
        for k in range(0, len(out), block):
            index = None if work.map_index is None else work.map_index[k : k + block]
            part = work._replace(cells=work.cells[k : k + block], map_index=index)
            pooled = np.empty((len(part.cells), bins, some[0].shape[1]), out.dtype)
            _pool(some, part, pooled)
            out[k : k + block] += pooled.reshape(len(pooled), -1) @ columns


def _prepare(
    features: Array | Sequence[Array],
    windows: Any,
    levels: Levels,
    mode: str,
    stride: Any,
    offset: Any,
    map_index: Any,
) -> tuple[list[Array], launch.Work]:
    """Checked maps, and which cells of them are pooled into which bins."""
    pyramid: tuple[Level, ...] = normalise_levels(levels)
    maps = as_array_maps(features, check_mode(mode))
    pair, start = check_geometry(1.0 if stride is None else stride, offset)
    number = sum(len(m) for m in maps)
    array, told = split_windows(windows, number, map_index)
    index = as_array_index(told, number, len(array))
    if len(array) and not number:
        raise ArgumentError("features: expected at least one map, got a batch of none")
    height, width = map_sizes([m.shape[2:4] for m in maps for _ in range(len(m))], index)
    cells: I64 = to_cells(np, array, None if stride is None else pair, start, height, width)
    return maps, launch.Work(cells, index, pyramid, mode)
