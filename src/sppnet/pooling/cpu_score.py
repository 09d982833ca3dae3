"""Pooling and scoring in one kernel: pooled lines are multiplied with the weights while they are at hand.

One work item is a map and a part of its windows; it goes through all lines of channels and owns the scores of its
windows, so nothing is shared and no vector is ever written to memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sppnet.pooling.cpu import copy_line, make_sums, make_tables, max_of_window, mean_of_window
from sppnet.pooling.lines import LINE_BYTES
from sppnet.pooling.scratch import release, scratch
from sppnet.pooling.simd import as_floats, from_key, lane_sum, load, multiply_add, store, zeros

_jit: Any = njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")


@_jit
def add_scores(values: Any, bins: int, weights: Any, at: int, outputs: int, scores: Any, base: int) -> None:
    """Add the products of ``values`` ``(bins, lanes)`` with ``weights[at:]`` ``(outputs, bins, lanes)`` to the scores.

    ``outputs`` is a multiple of 4: four sums at a time, so that each value is loaded once for four products.
    """
    lanes = LINE_BYTES // values.itemsize
    step = bins * lanes
    for o in range(0, outputs, 4):
        a, b, c, d = zeros(weights), zeros(weights), zeros(weights), zeros(weights)
        p = at + o * step
        for i in range(0, step, lanes):
            v = as_floats(load(values, i))
            a = multiply_add(a, v, load(weights, p + i))
            b = multiply_add(b, v, load(weights, p + step + i))
            c = multiply_add(c, v, load(weights, p + 2 * step + i))
            d = multiply_add(d, v, load(weights, p + 3 * step + i))
        scores[base + o] += lane_sum(a)
        scores[base + o + 1] += lane_sum(b)
        scores[base + o + 2] += lane_sum(c)
        scores[base + o + 3] += lane_sum(d)


@_jit
def score_max(
    start: int, stop: int, flat: Any, strides: Any, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    bins: int, weights: Any, outputs: int, scores: Any, infinity: int, tables: int,
) -> None:  # fmt: skip
    """Scores of maxima, for items ``start .. stop`` (map-major, then parts of the windows).

    ``weights``: (lines, outputs, bins, lanes), of zero for channels that aren't there. ``scores``: (K, outputs), added
    to. The others as in :func:`sppnet.pooling.cpu.pool_max`.
    """
    lanes = LINE_BYTES // flat.itemsize
    channels, height, width, chunks = shape[1], shape[2], shape[3], shape[4]
    row = width * lanes
    size = height * row
    table = scratch((tables + 1) * size, flat.dtype)
    values = scratch(bins * lanes, flat.dtype)
    edges = scratch(2 * bins, np.int64)
    for item in range(start, stop):
        n, share = item // chunks, item % chunks
        begin = starts[n] + (starts[n + 1] - starts[n]) * share // chunks
        end = starts[n] + (starts[n + 1] - starts[n]) * (share + 1) // chunks
        if begin == end:
            continue
        for c0 in range(0, channels, lanes):
            nc = min(lanes, channels - c0)
            table[:size] = 0
            copy_line(flat, n * strides[0], strides, c0, nc, height, width, table)
            make_tables(table, infinity, tables, row, size)
            at = c0 * outputs * bins
            for s in range(begin, end):
                w = order[s]
                max_of_window(table, cells, w, plan, tables, row, size, edges, values)
                for i in range(0, bins * lanes, lanes):
                    store(values, i, from_key(load(values, i)))
                add_scores(values, bins, weights, at, outputs, scores, w * outputs)
    release(table)
    release(values)
    release(edges)


@_jit
def score_avg(
    start: int, stop: int, flat: Any, strides: Any, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    bins: int, weights: Any, outputs: int, scores: Any,
) -> None:  # fmt: skip
    """Scores of means; arguments as in :func:`score_max`, ``flat`` of floats."""
    lanes = LINE_BYTES // flat.itemsize
    channels, height, width, chunks = shape[1], shape[2], shape[3], shape[4]
    line = scratch(height * width * lanes, flat.dtype)
    sums = scratch((height + 1) * (width + 1) * lanes, np.float64)
    values = scratch(bins * lanes, flat.dtype)
    edges = scratch(2 * bins, np.int64)
    for item in range(start, stop):
        n, share = item // chunks, item % chunks
        begin = starts[n] + (starts[n + 1] - starts[n]) * share // chunks
        end = starts[n] + (starts[n + 1] - starts[n]) * (share + 1) // chunks
        if begin == end:
            continue
        for c0 in range(0, channels, lanes):
            nc = min(lanes, channels - c0)
            line[:] = 0
            copy_line(flat, n * strides[0], strides, c0, nc, height, width, line)
            exact = make_sums(line, sums, height, width)
            at = c0 * outputs * bins
            for s in range(begin, end):
                w = order[s]
                mean_of_window(line, sums, exact, cells, w, plan, width, edges, values)
                add_scores(values, bins, weights, at, outputs, scores, w * outputs)
    release(line)
    release(sums)
    release(values)
    release(edges)
