"""Pooling on the CPU: Numba kernels over one line of channels (128 bytes) at a time.

One work item is a map and a line of channels. The item copies its line of the map (43 x 60 cells are 330 KB, which
fits the second-level cache) into a scratch array that is contiguous whatever the layout of the map, and then pools all
windows of the map from it. So every layout costs about the same, and two items never write to the same place.

Maxima are taken of *integers* that have the order of the floats (``to_key``): one kernel serves float16, bfloat16,
float32 and float64, NaN comes out as NaN, and the result doesn't depend on the order of comparison.

Large results go past the cache (``stream``) if they are aligned: reading their lines from memory first, as an ordinary
store does, takes longer than the pooling. Small ones stay in the cache for whoever reads them next.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.lines import LINE_BYTES
from sppnet.kernels.scratch import release, scratch
from sppnet.kernels.vectors import (
    add,
    divide,
    from_key,
    load,
    load_wide,
    maximum,
    store,
    store_narrow,
    stream,
    subtract,
    to_key,
    zeros,
)

WIDE = LINE_BYTES // 8  # lanes of a vector of int64 or float64


@jit
def copy_line(flat: Any, base: int, strides: Any, c0: int, nc: int, height: int, width: int, line: Any) -> None:
    """Channels ``c0 .. c0 + nc`` of a map into ``line[(y * width + x) * lanes + c]``."""
    lanes = LINE_BYTES // flat.itemsize
    sc, sy, sx = strides[1], strides[2], strides[3]
    if sc == 1 and nc == lanes:
        for y in range(height):
            for x in range(width):
                store(line, (y * width + x) * lanes, load(flat, base + c0 + y * sy + x * sx))
    else:
        for c in range(nc):
            for y in range(height):
                p = base + (c0 + c) * sc + y * sy
                q = y * width * lanes + c
                for x in range(width):
                    line[q + x * lanes] = flat[p + x * sx]


@jit
def write_line(values: Any, bins: int, out: Any, at: int, bin_stride: int, nc: int, streamed: bool) -> None:
    """``values[bin * lanes + c]`` to ``out[at + bin * bin_stride + c]``."""
    lanes = LINE_BYTES // values.itemsize
    if nc < lanes:
        for b in range(bins):
            for c in range(nc):
                out[at + b * bin_stride + c] = values[b * lanes + c]
    elif streamed:
        for b in range(bins):
            stream(out, at + b * bin_stride, load(values, b * lanes))
    else:
        for b in range(bins):
            store(out, at + b * bin_stride, load(values, b * lanes))


@jit
def write_keys(values: Any, bins: int, out: Any, at: int, bin_stride: int, nc: int, streamed: bool) -> None:
    """Floats of the keys ``values[bin * lanes + c]`` to ``out[at + bin * bin_stride + c]``."""
    lanes = LINE_BYTES // values.itemsize
    if nc < lanes:
        for i in range(0, bins * lanes, lanes):
            store(values, i, from_key(load(values, i)))
        for b in range(bins):
            for c in range(nc):
                out[at + b * bin_stride + c] = values[b * lanes + c]
    elif streamed:
        for b in range(bins):
            stream(out, at + b * bin_stride, from_key(load(values, b * lanes)))
    else:
        for b in range(bins):
            store(out, at + b * bin_stride, from_key(load(values, b * lanes)))


@jit
def column_edges(edges: Any, x0: int, width: int, n: int) -> None:
    """``edges[2 * j : 2 * j + 2]``: first cell and end of bin ``j`` of ``n`` over ``width`` cells from ``x0`` on."""
    for j in range(n):
        edges[2 * j] = x0 + (j * width) // n
        edges[2 * j + 1] = x0 - ((-(j + 1) * width) // n)


@jit
def make_tables(table: Any, infinity: int, tables: int, row: int, size: int) -> None:
    """Keys of the line in ``table[:size]``; after them its maxima over 2, 4, ... rows."""
    lanes = LINE_BYTES // table.itemsize
    for i in range(0, size, lanes):
        store(table, i, to_key(load(table, i), infinity))
    for k in range(tables):
        source = k * size
        for i in range(source, source + size - (2 << k) * row + row, lanes):
            store(table, i + size, maximum(load(table, i), load(table, i + (row << k))))


@jit
def max_of_window(
    table: Any, cells: Any, w: int, plan: Any, tables: int, row: int, size: int, edges: Any, values: Any
) -> None:
    """Keys of the maxima of all bins of window ``w`` into ``values[bin * lanes + c]``."""
    lanes = LINE_BYTES // table.itemsize
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
                last = bottom - (1 << k)
                for j in range(columns):
                    left, right = edges[2 * j], edges[2 * j + 1]
                    best = load(table, k * size + top * row + left * lanes)
                    # Two entries of the table at a time; the last two may overlap.
                    p = k * size + top * row
                    q = k * size + last * row
                    while True:
                        for x in range(left, right):
                            pair = maximum(load(table, p + x * lanes), load(table, q + x * lanes))
                            best = maximum(best, pair)
                        p += row << k
                        if p >= q:
                            break
                    store(values, (first + i * columns + j) * lanes, best)
        else:
            high, wide = plan[parent, 0] // rows, plan[parent, 1] // columns
            across = plan[parent, 1]
            for i in range(rows):
                for j in range(columns):
                    p = plan[parent, 2] + i * high * across + j * wide
                    best = load(values, p * lanes)
                    for a in range(high):
                        for b in range(wide):
                            best = maximum(best, load(values, (p + a * across + b) * lanes))
                    store(values, (first + i * columns + j) * lanes, best)


@jit
def pool_max(
    start: int, stop: int, flat: Any, strides: Any, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    out: Any, out_layout: Any, infinity: int, tables: int,
) -> None:  # fmt: skip
    """Maxima of every window, for items ``start .. stop`` (map-major, then lines of channels).

    ``flat``: the maps' memory as integers; element (n, c, y, x) at ``strides`` . (n, c, y, x). ``shape``:
    maps, channels, height, width, chunks (the windows of a map and line are shared out over so many items).
    ``cells``: (K, 4); windows of map n are ``order[starts[n] : starts[n + 1]]``.
    ``plan``: a row a level: rows, columns, first bin, parent or -1, in an order in which parents come first.
    ``out_layout``: stride of a window, of a bin, 1 if lines are to be streamed, bins.
    ``tables``: how many running maxima, over 2, 4, ... rows, are made first.
    """
    lanes = LINE_BYTES // flat.itemsize
    channels, height, width, chunks = shape[1], shape[2], shape[3], shape[4]
    out_window, out_bin, streamed, bins = out_layout[0], out_layout[1], out_layout[2] != 0, out_layout[3]
    lines = (channels + lanes - 1) // lanes
    row = width * lanes
    size = height * row
    table = scratch((tables + 1) * size, flat.dtype)
    values = scratch(bins * lanes, flat.dtype)
    edges = scratch(2 * bins, np.int64)
    for item in range(start, stop):
        n = item // (lines * chunks)
        share = item % chunks
        begin = starts[n] + (starts[n + 1] - starts[n]) * share // chunks
        end = starts[n] + (starts[n + 1] - starts[n]) * (share + 1) // chunks
        if begin == end:
            continue
        c0 = (item // chunks % lines) * lanes
        nc = min(lanes, channels - c0)
        copy_line(flat, n * strides[0], strides, c0, nc, height, width, table)
        make_tables(table, infinity, tables, row, size)
        for s in range(begin, end):
            w = order[s]
            max_of_window(table, cells, w, plan, tables, row, size, edges, values)
            write_keys(values, bins, out, w * out_window + c0, out_bin, nc, streamed)
    release(table)
    release(values)
    release(edges)


@jit
def make_sums(line: Any, sums: Any, height: int, width: int) -> bool:
    """Running sums of the line over rows and columns, with a border of zeros; whether all of them are finite."""
    lanes = LINE_BYTES // line.itemsize
    row = (width + 1) * lanes
    for u in range(0, lanes, WIDE):
        for y in range(height):
            total = zeros(sums)
            for x in range(width):
                total = add(total, load_wide(line, (y * width + x) * lanes + u))
                p = (y + 1) * row + (x + 1) * lanes + u
                store(sums, p, add(total, load(sums, p - row)))
    exact = True
    for c in range(lanes):
        exact &= np.isfinite(sums[height * row + width * lanes + c])
    return exact


@jit
def mean_of_window(
    line: Any, sums: Any, exact: bool, cells: Any, w: int, plan: Any, width: int, edges: Any, values: Any
) -> None:
    """Means of all bins of window ``w`` into ``values[bin * lanes + c]``."""
    lanes = LINE_BYTES // line.itemsize
    row = (width + 1) * lanes
    x0, y0 = cells[w, 0], cells[w, 1]
    window_width, window_height = cells[w, 2] - x0, cells[w, 3] - y0
    for level in range(plan.shape[0]):
        rows, columns, first = plan[level, 0], plan[level, 1], plan[level, 2]
        column_edges(edges, x0, window_width, columns)
        for i in range(rows):
            top = y0 + (i * window_height) // rows
            bottom = y0 - ((-(i + 1) * window_height) // rows)
            for j in range(columns):
                left, right = edges[2 * j], edges[2 * j + 1]
                area = float((bottom - top) * (right - left))
                d = (first + i * columns + j) * lanes
                for u in range(0, lanes, WIDE):
                    if exact:
                        p, q = top * row + u, bottom * row + u
                        low = subtract(load(sums, q + right * lanes), load(sums, q + left * lanes))
                        high = subtract(load(sums, p + right * lanes), load(sums, p + left * lanes))
                        total = subtract(low, high)
                    else:  # infinities and NaN must not reach bins that don't hold them
                        total = zeros(sums)
                        for y in range(top, bottom):
                            for x in range(left, right):
                                total = add(total, load_wide(line, (y * width + x) * lanes + u))
                    store_narrow(values, d + u, divide(total, area))


@jit
def pool_avg(
    start: int, stop: int, flat: Any, strides: Any, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    out: Any, out_layout: Any,
) -> None:  # fmt: skip
    """Means of every window, from running sums in float64; arguments as in :func:`pool_max`, ``flat`` of floats."""
    lanes = LINE_BYTES // flat.itemsize
    channels, height, width, chunks = shape[1], shape[2], shape[3], shape[4]
    out_window, out_bin, streamed, bins = out_layout[0], out_layout[1], out_layout[2] != 0, out_layout[3]
    lines = (channels + lanes - 1) // lanes
    row = (width + 1) * lanes
    line = scratch(height * width * lanes, flat.dtype)
    sums = scratch((height + 1) * row, np.float64)
    values = scratch(bins * lanes, flat.dtype)
    edges = scratch(2 * bins, np.int64)
    for item in range(start, stop):
        n = item // (lines * chunks)
        share = item % chunks
        begin = starts[n] + (starts[n + 1] - starts[n]) * share // chunks
        end = starts[n] + (starts[n + 1] - starts[n]) * (share + 1) // chunks
        if begin == end:
            continue
        c0 = (item // chunks % lines) * lanes
        nc = min(lanes, channels - c0)
        copy_line(flat, n * strides[0], strides, c0, nc, height, width, line)
        exact = make_sums(line, sums, height, width)
        for s in range(begin, end):
            w = order[s]
            mean_of_window(line, sums, exact, cells, w, plan, width, edges, values)
            write_line(values, bins, out, w * out_window + c0, out_bin, nc, streamed)
    release(line)
    release(sums)
    release(values)
    release(edges)
