"""The pooling layers in networks that torch exports to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from sppnet.errors import ArgumentError, MissingDependencyError
from sppnet.export.windows import agrees

__all__ = ["onnx_translations"]

# Levels whose bins MaxRoiPool has up to this many cells are pooled in one go, others bin by bin
_LONGEST = 1024
_FLOAT = 1  # of onnx.proto


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """Tell ``torch.onnx.export`` what the pooling layers are in ONNX, opset 18 or later.

    Networks with :class:`sppnet.SpatialPyramidPool`, :class:`sppnet.WindowPyramidPool` or :func:`sppnet.pool_windows`
    are exported with mode ``max``, one map or a batch of them, fixed or dynamic sizes; lists of maps are not.

    >>> import torch, sppnet
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), sppnet.SpatialPyramidPool((2, 1)))
    >>> program = torch.onnx.export(  # doctest: +SKIP
    ...     network, (torch.zeros(1, 3, 32, 32),), dynamo=True, opset_version=18,
    ...     custom_translation_table=sppnet.onnx_translations(),
    ... )

    Returns:
        For the argument ``custom_translation_table``. The functions in it raise ArgumentError for what has no
        translation, which ``torch.onnx.export`` reports as the cause of its own error.

    Raises:
        MissingDependencyError: onnxscript isn't installed.
    """
    try:
        import onnxscript  # noqa: F401 - torch needs it, too
    except ImportError as error:
        raise MissingDependencyError("export of torch's networks needs onnxscript: pip install onnxscript") from error
    import torch

    from sppnet.pooling.tensors import ops  # noqa: F401 - registers the operator

    return {torch.ops.sppnet.pyramid_pool.default: _pyramid_pool, torch.ops.prims.fmax.default: _fmax}


def _fmax(a: Any, b: Any) -> Any:
    """The larger one; of a number and NaN the number."""
    from onnxscript import opset18 as op

    return op.Where(op.IsNaN(a), b, op.Where(op.IsNaN(b), a, op.Max(a, b)))


def _pyramid_pool(
    maps: Sequence[Any],
    cells: Any,
    map_index: Any = None,
    levels: Sequence[int] = (),
    reduction: str = "max",
) -> Any:
    """``sppnet::pyramid_pool`` in ONNX; see :func:`sppnet.pooling.tensors.ops.pyramid_pool`."""
    from onnxscript import opset18 as op

    if reduction != "max":
        raise ArgumentError(f"mode: got {reduction!r}; only 'max' can be exported to ONNX")
    if len(maps) != 1:
        raise ArgumentError(f"features: got a list of {len(maps)} maps; one map or a batch can be exported to ONNX")
    if maps[0].dtype.name == "DOUBLE":
        raise ArgumentError("features: got float64, which MaxRoiPool lacks in ONNX Runtime; expected float32")
    values = op.Cast(maps[0], to=_FLOAT)
    low, high = (op.Gather(cells, op.Constant(value_ints=which), axis=1) for which in ([0, 1], [2, 3]))
    if map_index is None:
        map_index = op.Mul(op.Gather(cells, op.Constant(value_int=0), axis=1), op.Constant(value_int=0))
    which = op.Unsqueeze(op.Cast(map_index, to=_FLOAT), op.Constant(value_ints=[1]))
    last = op.Sub(op.Cast(high, to=_FLOAT), op.Constant(value_float=1.0))  # MaxRoiPool takes the last cell, not the end
    rois = op.Concat(which, op.Cast(low, to=_FLOAT), last, axis=1)
    parts = []
    for rows, columns in zip(levels[0::2], levels[1::2], strict=True):
        if _exact(rows) and _exact(columns):
            pooled = op.MaxRoiPool(values, rois, pooled_shape=[rows, columns], spatial_scale=1.0)
            shape = op.Concat(op.Shape(pooled, start=0, end=2), op.Constant(value_ints=[rows * columns]), axis=0)
            parts.append(op.Transpose(op.Reshape(pooled, shape), perm=[0, 2, 1]))
        else:
            parts.append(_bin_by_bin(values, which, low, high, rows, columns))
    return op.CastLike(op.Concat(*parts, axis=1), maps[0])


@cache
def _exact(n: int) -> bool:
    return agrees(n, _LONGEST)


def _bin_by_bin(values: Any, which: Any, low: Any, high: Any, rows: int, columns: int) -> Any:
    """Pool each bin as a window of its own: slower, and exact at any level. Gives ``(K, rows * columns, C)``."""
    from onnxscript import opset18 as op

    bins = rows * columns
    column, row = np.meshgrid(np.arange(columns), np.arange(rows))
    number = np.stack([column.ravel(), row.ravel()], 1)

    def constant(array: Any) -> Any:
        flat = op.Constant(value_ints=array.ravel().tolist())
        return op.Reshape(flat, op.Constant(value_ints=[1, *array.shape]))

    one, count = op.Constant(value_ints=[1]), constant(np.array([[columns, rows]]))
    length, start = op.Unsqueeze(op.Sub(high, low), one), op.Unsqueeze(low, one)
    first = op.Add(start, op.Div(op.Mul(length, constant(number)), count))
    # the end rounded up, less one: MaxRoiPool takes the last cell
    end = op.Div(op.Sub(op.Mul(length, constant(number + 1)), one), count)
    last = op.Add(start, end)
    windows = op.Shape(which, start=0, end=1)
    maps_of = op.Expand(
        op.Unsqueeze(which, op.Constant(value_ints=[2])), op.Concat(windows, op.Constant(value_ints=[bins, 1]), axis=0)
    )
    rois = op.Concat(maps_of, op.Cast(first, to=_FLOAT), op.Cast(last, to=_FLOAT), axis=2)
    pooled = op.MaxRoiPool(
        values, op.Reshape(rois, op.Constant(value_ints=[-1, 5])), pooled_shape=[1, 1], spatial_scale=1.0
    )
    shape = op.Concat(windows, op.Constant(value_ints=[bins]), op.Shape(values, start=1, end=2), axis=0)
    return op.Reshape(pooled, shape)
