"""Gradients of maxima on the CPU. One work item is a map and a group of channels.

Values are packed with their places into integers that no two cells of a channel share, and whose maximum is the *first*
largest value. So the cell that a bin's maximum came from is the one whose integer equals it, and gradients are handed
down by comparing and adding vectors: from coarse bins to the finer ones that they are made of, from those to their
cells. Only those of bins of many cells are added by place, channel by channel.

An item owns its gradient: windows are added in their order by one thread, so the result doesn't depend on the number of
threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.lines import GROUP, LAST_PLACE
from sppnet.kernels.scratch import release, scratch
from sppnet.kernels.vectors import (
    add,
    add_at_places,
    keep_where_different,
    keep_where_equal,
    load_group,
    load_packed,
    maximum,
    prefetch,
    store,
)
from sppnet.pooling.cpu import column_edges
from sppnet.pooling.cpu_backward import WIDE, write_gradient

# Bins of more cells are added by place: 32 additions of one number cost about as much as 8 of a masked vector.
_MASKED_CELLS = 8


@jit
def copy_group(flat: Any, base: int, strides: Any, c0: int, nc: int, height: int, width: int, bits: Any) -> None:
    """Channels ``c0 .. c0 + nc`` of a map into ``bits[(y * width + x) * GROUP + c]``."""
    sc, sy, sx = strides[1], strides[2], strides[3]
    if sc == 1 and nc == GROUP:
        for y in range(height):
            for x in range(width):
                store(bits, (y * width + x) * GROUP, load_group(flat, base + c0 + y * sy + x * sx))
    else:
        for c in range(nc):
            for y in range(height):
                p, q = base + (c0 + c) * sc + y * sy, y * width * GROUP + c
                for x in range(width):
                    bits[q + x * GROUP] = flat[p + x * sx]


@jit
def pack_group(
    flat: Any, base: int, strides: Any, c0: int, nc: int, height: int, width: int, infinity: int, bits: Any, packed: Any
) -> None:
    """``packed[cell * GROUP + c]``: the value's key above, ``LAST_PLACE - cell`` in the 32 bits below."""
    copy_group(flat, base, strides, c0, nc, height, width, bits)
    for cell in range(height * width):
        for i in range(cell * GROUP, (cell + 1) * GROUP, WIDE):
            store(packed, i, load_packed(bits, i, infinity, LAST_PLACE - cell))


@jit
def make_row_tables(table: Any, tables: int, row: int, size: int) -> None:
    """After the integers in ``table[:size]`` their maxima over 2, 4, ... rows."""
    for k in range(tables):
        source = k * size
        for i in range(source, source + size - (2 << k) * row + row, GROUP):
            store(table, i + size, maximum(load_group(table, i), load_group(table, i + (row << k))))


@jit
def load_gradients(grad: Any, grad_layout: Any, w: int, c0: int, nc: int, grads: Any) -> None:
    """Gradients of all bins of window ``w`` into ``grads[bin * GROUP + c]``."""
    grad_bin, grad_channel, bins = grad_layout[1], grad_layout[2], grad_layout[3]
    g = w * grad_layout[0] + c0 * grad_channel
    if nc == GROUP and grad_channel == 1:
        for b in range(bins):
            store(grads, b * GROUP, load_group(grad, g + b * grad_bin))
    else:
        for b in range(bins):
            for c in range(nc):
                grads[b * GROUP + c] = grad[g + b * grad_bin + c * grad_channel]


@jit
def find_maxima(
    table: Any, tables: int, row: int, size: int, cells: Any, w: int, plan: Any, edges: Any, best: Any,
    grad: Any, ahead: int, grad_bin: int,
) -> None:  # fmt: skip
    """Maxima of all bins of window ``w`` into ``best[bin * GROUP + c]``.

    Meanwhile the next window's gradients are fetched, from ``grad[ahead + bin * grad_bin]`` on.
    """
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
                    left, right = edges[2 * j] * GROUP, edges[2 * j + 1] * GROUP
                    p = k * size + top * row
                    v = load_group(table, p + left)
                    while True:
                        for x in range(left, right, GROUP):
                            v = maximum(v, maximum(load_group(table, p + x), load_group(table, q + x)))
                        p += row << k
                        if p >= q:
                            break
                    store(best, (first + i * columns + j) * GROUP, v)
                    prefetch(grad, ahead + (first + i * columns + j) * grad_bin)
        else:
            high, wide, across = plan[parent, 0] // rows, plan[parent, 1] // columns, plan[parent, 1]
            for i in range(rows):
                for j in range(columns):
                    p = plan[parent, 2] + i * high * across + j * wide
                    v = load_group(best, p * GROUP)
                    for a in range(high):
                        for b in range(p + a * across, p + a * across + wide):
                            v = maximum(v, load_group(best, b * GROUP))
                    store(best, (first + i * columns + j) * GROUP, v)
                    prefetch(grad, ahead + (first + i * columns + j) * grad_bin)


@jit
def push_to_finer(plan: Any, best: Any, grads: Any) -> None:
    """Gradients of bins that finer ones tile are added to that of the first finer bin with the same maximum.

    Two finer bins may share a row or column, and have one maximum: it must be counted once.
    """
    for level in range(plan.shape[0] - 1, -1, -1):
        rows, columns, first, parent = plan[level, 0], plan[level, 1], plan[level, 2], plan[level, 3]
        if parent < 0:
            continue
        high, wide, across = plan[parent, 0] // rows, plan[parent, 1] // columns, plan[parent, 1]
        for i in range(rows):
            for j in range(columns):
                d = (first + i * columns + j) * GROUP
                v, rest = load_group(best, d), load_group(grads, d)
                p = plan[parent, 2] + i * high * across + j * wide
                for a in range(high):
                    q = p + a * across
                    for b in range(q * GROUP, (q + wide) * GROUP, GROUP):
                        u = load_group(best, b)
                        store(grads, b, add(load_group(grads, b), keep_where_equal(u, v, rest)))
                        rest = keep_where_different(u, v, rest)


@jit
def push_to_cells(
    table: Any, row: int, cells: Any, w: int, plan: Any, edges: Any, best: Any, grads: Any, sums: Any
) -> None:
    """Gradients of bins that nothing tiles to the cells ``sums[cell * GROUP + c]`` that hold their maxima."""
    x0, y0 = cells[w, 0], cells[w, 1]
    window_width, window_height = cells[w, 2] - x0, cells[w, 3] - y0
    for level in range(plan.shape[0]):
        rows, columns, first, parent = plan[level, 0], plan[level, 1], plan[level, 2], plan[level, 3]
        if parent >= 0:
            continue
        column_edges(edges, x0, window_width, columns)
        for i in range(rows):
            top = y0 + (i * window_height) // rows
            bottom = y0 - ((-(i + 1) * window_height) // rows)
            for j in range(columns):
                left, right = edges[2 * j], edges[2 * j + 1]
                b = (first + i * columns + j) * GROUP
                if (bottom - top) * (right - left) > _MASKED_CELLS:
                    add_at_places(sums, best, grads, b)
                    continue
                v, share = load_group(best, b), load_group(grads, b)
                for y in range(top, bottom):
                    for x in range(y * row + left * GROUP, y * row + right * GROUP, GROUP):
                        here = keep_where_equal(load_group(table, x), v, share)
                        store(sums, x, add(load_group(sums, x), here))


@jit
def max_backward(
    start: int, stop: int, flat: Any, strides: Any, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    infinity: int, tables: int, grad: Any, grad_layout: Any, out: Any, out_strides: Any,
) -> None:  # fmt: skip
    """Each bin's gradient goes to its first maximum in row-major order.

    Arguments as in :func:`sppnet.pooling.cpu.pool_max`. ``flat``: int16 or int32. ``grad``: floats of the result's
    gradient, at ``grad_layout``: stride of a window, of a bin, of a channel, bins. ``out``: gradient of the map.
    """
    channels, height, width = shape[1], shape[2], shape[3]
    bins = grad_layout[3]
    groups = (channels + GROUP - 1) // GROUP
    row = width * GROUP
    size = height * row
    bits = scratch(size, flat.dtype)
    table = scratch((tables + 1) * size, np.int64)
    best, grads = scratch(bins * GROUP, np.int64), scratch(bins * GROUP, grad.dtype)
    sums = scratch(size, grad.dtype)
    edges = scratch(2 * bins, np.int64)
    for item in range(start, stop):
        n = item // groups
        c0 = (item % groups) * GROUP
        nc = min(GROUP, channels - c0)
        sums[:] = 0
        if starts[n] < starts[n + 1]:
            pack_group(flat, n * strides[0], strides, c0, nc, height, width, infinity, bits, table)
            make_row_tables(table, tables, row, size)
            for s in range(starts[n], starts[n + 1]):
                w = order[s]
                load_gradients(grad, grad_layout, w, c0, nc, grads)
                ahead = order[min(s + 1, starts[n + 1] - 1)] * grad_layout[0] + c0 * grad_layout[2]
                find_maxima(table, tables, row, size, cells, w, plan, edges, best, grad, ahead, grad_layout[1])
                push_to_finer(plan, best, grads)
                push_to_cells(table, row, cells, w, plan, edges, best, grads, sums)
        write_gradient(sums, row, GROUP, out, n * out_strides[0], out_strides, c0, nc, height, width)
    release(bits)
    release(table)
    release(best)
    release(grads)
    release(sums)
    release(edges)
