"""Windows in ONNX graphs: at which scale one is looked at, which cells it has there, and its pyramid.

The same rules as :mod:`sppnet.detection.features`, :mod:`sppnet.pooling.cells` and :mod:`sppnet.pooling.bins`, to the
last bit. Tests compare them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sppnet.detection.features import TARGET_AREA
from sppnet.export.arithmetic import Arithmetic
from sppnet.pooling.bins import bin_edges, parents

__all__ = ["add_cells", "add_input_size", "add_pyramid", "add_scale_choice", "agrees"]

_F32, _F64 = np.float32, np.float64


def add_input_size(steps: Arithmetic, sides: str, short_side_px: int, max_long_side_px: int, multiple: int) -> str:
    """Compute :func:`sppnet.detection.features.input_size`.

    Args:
        steps: writes into the graph.
        sides: float64 ``(2,)``: height and width of the image.
        short_side_px: as there.
        max_long_side_px: as there.
        multiple: as there.

    Returns:
        float64 ``(2,)``: height and width of what the convolutions see.
    """
    short, long = (steps(f"Reduce{which}", sides, keepdims=0) for which in ("Min", "Max"))
    factor = steps("Min", steps("Div", _F64(short_side_px), short), steps("Div", _F64(max_long_side_px), long))
    units = steps("Round", steps("Div", steps("Mul", sides, factor), _F64(multiple)))
    return steps("Max", steps("Mul", units, _F64(multiple)), _F64(multiple))


def add_scale_choice(steps: Arithmetic, windows: str, scales: str) -> str:
    """Choose the scale at which the area of each window is nearest to that of the paper, in ratio.

    Args:
        steps: writes into the graph.
        windows: float32 ``(K, 4)`` in pixels of the image.
        scales: float32 ``(S, 4)``: input pixels per image pixel, in x, y, x and y.

    Returns:
        int64 ``(K,)``.
    """
    size = steps("Sub", steps.columns(windows, [2, 3]), steps.columns(windows, [0, 1]))
    area = steps("Mul", steps.columns(size, [0]), steps.columns(size, [1]))
    factors = steps("Mul", steps.columns(scales, [0]), steps.columns(scales, [1]))
    scaled = steps("Max", steps("Mul", area, steps("Transpose", factors, perm=[1, 0])), _F32(1))
    distance = steps("Abs", steps("Log", steps("Div", scaled, _F32(TARGET_AREA))))
    return steps("ArgMin", distance, axis=1, keepdims=0)


def add_cells(
    steps: Arithmetic, windows: str, scales: str, limits: str, index: str, stride: float, offset: float
) -> tuple[str, str]:
    """Compute :func:`sppnet.pooling.cells.window_to_cells` at the scale of each window.

    Args:
        steps: writes into the graph.
        windows: float32 ``(K, 4)`` in pixels of the image.
        scales: float32 ``(S, 4)``: input pixels per image pixel, in x, y, x and y.
        limits: float64 ``(S, 2)``: width and height of each map in cells.
        index: int64 ``(K,)``: the scale of each window.
        stride: pixels between neighbouring cells.
        offset: pixel at which cell 0 is centred.

    Returns:
        First cells and ends (exclusive), float64 ``(K, 2)`` each, in x and y.
    """
    located = steps.cast(steps("Mul", windows, steps("Gather", scales, index, axis=0)), "float64")
    units = steps("Div", steps("Sub", located, _F64(offset)), _F64(stride))
    first, last = steps.columns(units, [0, 1]), steps.columns(units, [2, 3])
    limit = steps("Gather", limits, index, axis=0)
    low = steps("Min", steps("Max", steps("Add", steps("Floor", first), _F64(1)), _F64(0)), limit)
    high = steps("Min", steps("Max", steps("Ceil", last), _F64(0)), limit)
    middle = steps("Floor", steps("Add", steps("Div", steps("Add", first, last), _F64(2)), _F64(0.5)))
    middle = steps("Min", steps("Max", middle, _F64(0)), steps("Sub", limit, _F64(1)))
    empty = steps("Not", steps("Greater", high, low))
    return steps("Where", empty, middle, low), steps("Where", empty, steps("Add", middle, _F64(1)), high)


def add_pyramid(
    steps: Arithmetic, maps: str, cells: tuple[str, str], index: str, levels: Sequence[int], channels: int, longest: int
) -> str:
    """Pool the pyramid of each window.

    Args:
        steps: writes into the graph.
        maps: float32 ``(S, channels, h, w)``.
        cells: first cells and ends of the windows; see :func:`add_cells`.
        index: int64 ``(K,)``: the map of each window.
        levels: of the pyramid.
        channels: of the maps.
        longest: no map has more cells along a side.

    Returns:
        float32 ``(K, bins * channels)``, bins one after the other, channels innermost.
    """
    low, high = (steps.cast(tensor, "float32") for tensor in cells)
    which = steps("Unsqueeze", steps.cast(index, "float32"), np.array([1]))
    # MaxRoiPool takes the last cell, not the end
    rois = steps.joined(which, low, steps("Sub", high, _F32(1)), axis=1)
    above = parents([(n, n) for n in levels])
    pooled: dict[int, str] = {}  # by place in `levels`, (K, channels, n, n)
    vectors: dict[int, str] = {}  # (K, n * n, channels)
    for i in sorted(range(len(levels)), key=lambda i: (-levels[i], i)):
        n, parent = levels[i], above[i]
        if parent in pooled:
            ratio = levels[parent] // n
            pooled[i] = steps("MaxPool", pooled[parent], kernel_shape=[ratio] * 2, strides=[ratio] * 2)
        elif agrees(n, longest):
            pooled[i] = steps("MaxRoiPool", maps, rois, pooled_shape=[n, n], spatial_scale=1.0)
        else:
            vectors[i] = _pool_bin_by_bin(steps, maps, cells, which, n, channels)
            continue
        flat = steps("Reshape", pooled[i], np.array([0, channels, n * n]))
        vectors[i] = steps("Transpose", flat, perm=[0, 2, 1])
    whole = steps.joined(*(vectors[i] for i in range(len(levels))), axis=1)
    return steps("Reshape", whole, np.array([0, channels * sum(n * n for n in levels)]))


def agrees(n: int, longest: int) -> bool:
    """Whether MaxRoiPool, which computes in float32, has our bins at level ``n`` for all lengths up to ``longest``."""
    places = np.arange(n + 1, dtype=_F32)
    for length in range(1, longest + 1):
        edges = places * (_F32(length) / _F32(n))
        low, high = np.floor(edges[:-1]), np.ceil(edges[1:])
        if [(int(a), int(b)) for a, b in zip(low, high, strict=True)] != bin_edges(length, n):
            return False
    return True


def _pool_bin_by_bin(steps: Arithmetic, maps: str, cells: tuple[str, str], which: str, n: int, channels: int) -> str:
    """Pool each bin as a window of its own: slower, and exact at any level. Gives ``(K, n * n, channels)``."""
    low, high = (steps.cast(tensor, "int64") for tensor in cells)
    length = steps("Unsqueeze", steps("Sub", high, low), np.array([1]))  # (K, 1, 2)
    column, row = np.meshgrid(np.arange(n), np.arange(n))
    number = np.stack([column.ravel(), row.ravel()], 1)[None]  # (1, n * n, 2)
    start = steps("Div", steps("Mul", length, number), np.array(n))
    last = steps("Div", steps("Add", steps("Mul", length, number + 1), np.array(n - 1)), np.array(n))
    low = steps("Unsqueeze", low, np.array([1]))
    first, final = (steps("Add", low, edge) for edge in (start, steps("Sub", last, np.array(1))))
    count = steps("Shape", which, end=1)
    maps_of = steps("Expand", steps("Unsqueeze", which, np.array([2])), steps.joined(count, np.array([n * n, 1])))
    rois = steps.joined(maps_of, steps.cast(first, "float32"), steps.cast(final, "float32"), axis=2)
    pooled = steps(
        "MaxRoiPool", maps, steps("Reshape", rois, np.array([-1, 5])), pooled_shape=[1, 1], spatial_scale=1.0
    )
    return steps("Reshape", pooled, steps.joined(count, np.array([n * n, channels])))
