"""Gradients of the CPU kernels. One work item is a map and a line of channels, as in the forward pass.

An item owns its gradient: windows are added in their order by one thread, so the result doesn't depend on the number of
threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sppnet.pooling.cpu import column_edges, copy_line
from sppnet.pooling.lines import LINE_BYTES
from sppnet.pooling.simd import add, divide, load, load_packed, load_wide, maximum, store, subtract, zeros

WIDE = LINE_BYTES // 8  # lanes of a vector of int64 or float64
_jit: Any = njit(nogil=True, cache=True, boundscheck=False)


@_jit
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


@_jit
def max_backward(
    start: int, stop: int, flat: Any, strides: Any, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    infinity: int, tables: int, grad: Any, grad_layout: Any, out: Any, out_strides: Any,
) -> None:  # fmt: skip
    """Each bin's gradient goes to its first maximum in row-major order.

    Values are packed with their places (:func:`load_packed`), so that the maximum of a bin is known together with the
    cell that it came from, and nested levels and running maxima serve here as in the forward pass.

    Arguments as in :func:`sppnet.pooling.cpu.pool_max`. ``flat``: int16 or int32. ``grad``: floats of the result's
    gradient, at ``grad_layout``: stride of a window, of a bin, of a channel, bins. ``out``: gradient of the map.
    """
    lanes = LINE_BYTES // flat.itemsize
    channels, height, width = shape[1], shape[2], shape[3]
    grad_window, grad_bin, grad_channel, bins = grad_layout[0], grad_layout[1], grad_layout[2], grad_layout[3]
    lines = (channels + lanes - 1) // lanes
    row = width * lanes
    size = height * row
    line = np.zeros(size, flat.dtype)
    table = np.zeros((tables + 1) * size, np.int64)
    values = np.zeros(bins * lanes, np.int64)
    sums = np.zeros(size, grad.dtype)
    edges = np.empty(2 * plan[:, 1].max(), np.int64)
    last_place = np.int64(0x7FFFFFFF)
    for item in range(start, stop):
        n = item // lines
        c0 = (item % lines) * lanes
        nc = min(lanes, channels - c0)
        sums[:] = 0
        if starts[n] < starts[n + 1]:
            copy_line(flat, n * strides[0], strides, c0, nc, height, width, line)
            for cell in range(height * width):
                for i in range(cell * lanes, (cell + 1) * lanes, WIDE):
                    store(table, i, load_packed(line, i, infinity, last_place - cell))
            for k in range(tables):
                source = k * size
                for i in range(source, source + size - (2 << k) * row + row, WIDE):
                    store(table, i + size, maximum(load(table, i), load(table, i + (row << k))))
        for s in range(starts[n], starts[n + 1]):
            w = order[s]
            x0, y0 = cells[w, 0], cells[w, 1]
            window_width, window_height = cells[w, 2] - x0, cells[w, 3] - y0
            for level in range(plan.shape[0]):
                rows, columns, first, parent = plan[level, 0], plan[level, 1], plan[level, 2], plan[level, 3]
                if parent < 0:
                    column_edges(edges, x0, window_width, columns)
                    for i in range(rows):
                        top = y0 + (i * window_height) // rows
                        bottom = y0 - ((-(i + 1) * window_height) // rows)
                        k = 0
                        while k < tables and (2 << k) <= bottom - top:
                            k += 1
                        q = k * size + (bottom - (1 << k)) * row
                        for j in range(columns):
                            left, right = edges[2 * j], edges[2 * j + 1]
                            for u in range(0, lanes, WIDE):
                                p = k * size + top * row
                                best = load(table, p + left * lanes + u)
                                while True:
                                    for x in range(left * lanes + u, right * lanes + u, lanes):
                                        best = maximum(best, maximum(load(table, p + x), load(table, q + x)))
                                    p += row << k
                                    if p >= q:
                                        break
                                store(values, (first + i * columns + j) * lanes + u, best)
                else:
                    high, wide = plan[parent, 0] // rows, plan[parent, 1] // columns
                    across = plan[parent, 1]
                    for i in range(rows):
                        for j in range(columns):
                            p = plan[parent, 2] + i * high * across + j * wide
                            for u in range(0, lanes, WIDE):
                                best = load(values, p * lanes + u)
                                for a in range(high):
                                    for b in range(wide):
                                        best = maximum(best, load(values, (p + a * across + b) * lanes + u))
                                store(values, (first + i * columns + j) * lanes + u, best)
            g = w * grad_window + c0 * grad_channel
            for b in range(bins):
                for c in range(nc):
                    place = last_place - (values[b * lanes + c] & last_place)
                    sums[place * lanes + c] += grad[g + b * grad_bin + c * grad_channel]
        write_gradient(sums, row, lanes, out, n * out_strides[0], out_strides, c0, nc, height, width)


@_jit
def avg_backward(
    start: int, stop: int, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    grad: Any, grad_layout: Any, out: Any, out_strides: Any,
) -> None:  # fmt: skip
    """Each bin's gradient, divided by its cells, goes to all its cells: four corners of a difference array, then sums.

    Arguments as in :func:`max_backward`.
    """
    lanes = WIDE
    channels, height, width = shape[1], shape[2], shape[3]
    grad_window, grad_bin, grad_channel, bins = grad_layout[0], grad_layout[1], grad_layout[2], grad_layout[3]
    lines = (channels + lanes - 1) // lanes
    row = (width + 1) * lanes
    sums = np.zeros((height + 1) * row, np.float64)
    values = np.zeros(bins * lanes, grad.dtype)
    edges = np.empty(2 * plan[:, 1].max(), np.int64)
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
