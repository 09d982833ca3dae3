"""Pooling and scoring in one kernel: pooled lines are multiplied with the weights while they are at hand.

One work item is a map and a part of its windows; it goes through all lines of channels and owns the scores of its
windows, so nothing is shared and no vector is ever written to memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.lines import LINE_BYTES
from sppnet.kernels.scratch import release, scratch
from sppnet.kernels.vectors import from_key, half_zeros, lane_sum, load, load_half, multiply_add, store
from sppnet.pooling.cpu import copy_line, make_sums, make_tables, max_of_window, mean_of_window

TOGETHER = 4  # windows


@jit
def add_scores(
    values: Any, bins: int, weights: Any, at: int, outputs: int, scores: Any, order: Any, s: int, number: int
) -> None:
    """Add products of the pooled lines of windows ``order[s : s + number]`` with the weights to the windows' scores.

    ``values``: (TOGETHER, bins, lanes); ``weights[at:]``: (outputs, bins, lanes), ``outputs`` a multiple of 2. The
    weights of a line are too many for the nearest cache, so they are read once for four windows, two outputs at a time:
    eight sums, in half lines, for which the registers of AVX2 suffice too. Of fewer windows the rest of ``values`` is
    whatever it is, and not used.
    """
    lanes = LINE_BYTES // values.itemsize
    step = bins * lanes
    for o in range(0, outputs, 2):
        a, b, c, d = half_zeros(weights), half_zeros(weights), half_zeros(weights), half_zeros(weights)
        e, f, g, h = half_zeros(weights), half_zeros(weights), half_zeros(weights), half_zeros(weights)
        p = at + o * step
        for i in range(0, step, lanes // 2):
            first, second = load_half(weights, p + i), load_half(weights, p + step + i)
            v = load_half(values, i)
            a, b = multiply_add(a, v, first), multiply_add(b, v, second)
            v = load_half(values, step + i)
            c, d = multiply_add(c, v, first), multiply_add(d, v, second)
            v = load_half(values, 2 * step + i)
            e, f = multiply_add(e, v, first), multiply_add(f, v, second)
            v = load_half(values, 3 * step + i)
            g, h = multiply_add(g, v, first), multiply_add(h, v, second)
        q = order[s] * outputs + o
        scores[q] += lane_sum(a)
        scores[q + 1] += lane_sum(b)
        if number > 1:
            q = order[s + 1] * outputs + o
            scores[q] += lane_sum(c)
            scores[q + 1] += lane_sum(d)
        if number > 2:
            q = order[s + 2] * outputs + o
            scores[q] += lane_sum(e)
            scores[q + 1] += lane_sum(f)
        if number > 3:
            q = order[s + 3] * outputs + o
            scores[q] += lane_sum(g)
            scores[q + 1] += lane_sum(h)


@jit
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
    values = scratch(TOGETHER * bins * lanes, flat.dtype)
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
            for s in range(begin, end, TOGETHER):
                number = min(TOGETHER, end - s)
                for k in range(number):
                    part = values[k * bins * lanes :]
                    max_of_window(table, cells, order[s + k], plan, tables, row, size, edges, part)
                    for i in range(0, bins * lanes, lanes):
                        store(part, i, from_key(load(part, i)))
                add_scores(values, bins, weights, at, outputs, scores, order, s, number)
    release(table)
    release(values)
    release(edges)


@jit
def score_avg(
    start: int, stop: int, flat: Any, strides: Any, shape: Any, cells: Any, order: Any, starts: Any, plan: Any,
    bins: int, weights: Any, outputs: int, scores: Any,
) -> None:  # fmt: skip
    """Scores of means; arguments as in :func:`score_max`, ``flat`` of floats."""
    lanes = LINE_BYTES // flat.itemsize
    channels, height, width, chunks = shape[1], shape[2], shape[3], shape[4]
    line = scratch(height * width * lanes, flat.dtype)
    sums = scratch((height + 1) * (width + 1) * lanes, np.float64)
    values = scratch(TOGETHER * bins * lanes, flat.dtype)
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
            for s in range(begin, end, TOGETHER):
                number = min(TOGETHER, end - s)
                for k in range(number):
                    part = values[k * bins * lanes :]
                    mean_of_window(line, sums, exact, cells, order[s + k], plan, width, edges, part)
                add_scores(values, bins, weights, at, outputs, scores, order, s, number)
    release(line)
    release(sums)
    release(values)
    release(edges)
