"""Gradients of means on the CPU, and how gradients are written. One work item is a map and a line of channels.

An item owns its gradient: windows are added in their order by one thread, so the result doesn't depend on the number of
threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.lines import LINE_BYTES
from sppnet.kernels.scratch import release, scratch
from sppnet.kernels.vectors import add, divide, load, load_wide, store, subtract, zeros
from sppnet.pooling.cpu import column_edges

WIDE = LINE_BYTES // 8  # lanes of a vector of int64 or float64


@jit
def write_gradient(
    line: Any, pitch: int, lanes: int, out: Any, base: int, strides: Any, c0: int, nc: int, height: int, width: int
) -> None:
    """``line[y * pitch + x * lanes + c]`` to channels ``c0 .. c0 + nc`` of a map's gradient."""
    sc, sy, sx = strides[1], strides[2], strides[3]
    if sc == 1:
        for y in range(height):
            for x in range(width):
                for c in range(nc):
                    out[base + c0 + c + y * sy + x * sx] = line[y * pitch + x * lanes + c]
    else:
        for c in range(nc):
            for y in range(height):
                for x in range(width):
                    out[base + (c0 + c) * sc + y * sy + x * sx] = line[y * pitch + x * lanes + c]


@jit
def avg_backward(
    start: int, stop: int, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    grad: Any, grad_layout: Any, out: Any, out_strides: Any,
) -> None:  # fmt: skip
    """Each bin's gradient, divided by its cells, goes to all its cells: four corners of a difference array, then sums.

    Arguments as in :func:`sppnet.pooling.cpu.pool_max`. ``grad``: floats of the result's gradient, at ``grad_layout``:
    stride of a window, of a bin, of a channel, bins. ``out``: gradient of the map.
    """
    lanes = WIDE
    channels, height, width = shape[1], shape[2], shape[3]
    grad_window, grad_bin, grad_channel, bins = grad_layout[0], grad_layout[1], grad_layout[2], grad_layout[3]
    lines = (channels + lanes - 1) // lanes
    row = (width + 1) * lanes
    sums = scratch((height + 1) * row, np.float64)
    values = scratch(bins * lanes, grad.dtype)
    edges = scratch(2 * bins, np.int64)
    for item in range(start, stop):
        n = item // lines
        c0 = (item % lines) * lanes
        nc = min(lanes, channels - c0)
        exact = True
        for _attempt in range(2):
            sums[:] = 0
            for s in range(starts[n], starts[n + 1]):
                w = order[s]
                x0, y0 = cells[w, 0], cells[w, 1]
                window_width, window_height = cells[w, 2] - x0, cells[w, 3] - y0
                g = w * grad_window + c0 * grad_channel
                for b in range(bins):
                    for c in range(nc):
                        values[b * lanes + c] = grad[g + b * grad_bin + c * grad_channel]
                for level in range(plan.shape[0]):
                    rows, columns, first = plan[level, 0], plan[level, 1], plan[level, 2]
                    column_edges(edges, x0, window_width, columns)
                    for i in range(rows):
                        top = y0 + (i * window_height) // rows
                        bottom = y0 - ((-(i + 1) * window_height) // rows)
                        for j in range(columns):
                            left, right = edges[2 * j], edges[2 * j + 1]
                            area = float((bottom - top) * (right - left))
                            share = divide(load_wide(values, (first + i * columns + j) * lanes), area)
                            if exact:
                                p, q = top * row + left * lanes, top * row + right * lanes
                                store(sums, p, add(load(sums, p), share))
                                store(sums, q, subtract(load(sums, q), share))
                                p, q = bottom * row + left * lanes, bottom * row + right * lanes
                                store(sums, p, subtract(load(sums, p), share))
                                store(sums, q, add(load(sums, q), share))
                            else:
                                for y in range(top, bottom):
                                    for x in range(left, right):
                                        p = y * row + x * lanes
                                        store(sums, p, add(load(sums, p), share))
            if not exact:
                break
            for y in range(height + 1):
                total = zeros(sums)
                for x in range(width + 1):
                    p = y * row + x * lanes
                    total = add(total, load(sums, p))
                    if y > 0:
                        store(sums, p, add(total, load(sums, p - row)))
                    else:
                        store(sums, p, total)
            # An infinite or NaN gradient would spread over the map: then every bin is added cell by cell.
            for i in range(height * row, height * row + row):
                exact &= np.isfinite(sums[i])
            if exact:
                break
        write_gradient(sums, row, lanes, out, n * out_strides[0], out_strides, c0, nc, height, width)
    release(sums)
    release(values)
    release(edges)
