"""Graph segmentation (Felzenszwalb and Huttenlocher, 2004), compiled.

Every sum is exact: float32 holds whole numbers below 2**24 only, so neither fused multiply-add nor vectorisation can
change a bit, and the same image gives the same regions on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.scratch import release, scratch
from sppnet.proposals.tables import BUCKETS

NO_EDGE = 65535
BLOCK = 256
HALF = np.float32(0.5)
TWO = np.float32(2.0)
TO_64THS = np.float32(1 / 16)
TO_8THS = np.float32(1 / 8192)


@jit
def smooth(planes: Any, weights: Any, out: Any) -> None:
    """Gaussian smoothing of ``planes`` (C, H, W) uint8 into ``out`` float32, whole numbers in 1/8 grey level.

    ``weights`` (r + 1,) float32: the middle and one side of the filter, whole numbers in 1/1024 that sum (both sides)
    to 1024. Border pixels are repeated.
    """
    channels, height, width = planes.shape
    radius = len(weights) - 1
    padded = scratch(width + 2 * radius, np.float32)
    rows = scratch(height * width, np.float32)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                padded[radius + x] = np.float32(planes[c, y, x])
            for x in range(radius):
                padded[x] = padded[radius]
                padded[radius + width + x] = padded[radius + width - 1]
            row = rows[y * width : (y + 1) * width]
            for x in range(width):
                row[x] = padded[radius + x] * weights[0]
            for i in range(1, radius + 1):
                weight = weights[i]
                for x in range(width):
                    row[x] += weight * (padded[radius + x - i] + padded[radius + x + i])
            for x in range(width):
                row[x] = np.floor(row[x] * TO_64THS + HALF)
        for y in range(height):
            row = out[c, y]
            middle = rows[y * width : (y + 1) * width]
            for x in range(width):
                row[x] = middle[x] * weights[0]
            for i in range(1, radius + 1):
                weight = weights[i]
                above = rows[max(0, y - i) * width :]
                below = rows[min(height - 1, y + i) * width :]
                for x in range(width):
                    row[x] += weight * (above[x] + below[x])
            for x in range(width):
                row[x] = np.floor(row[x] * TO_8THS + HALF)
    release(padded)
    release(rows)


@jit
def edge_weights(smoothed: Any, weights: Any) -> None:
    """Fill ``weights`` (4, H, W) uint16: distance to the pixel right, below, below right, below left, in 1/16 level.

    ``NO_EDGE`` where that neighbour is outside.
    """
    channels, height, width = smoothed.shape
    for d in range(4):
        dy = 0 if d == 0 else 1
        dx = 1 if d == 0 or d == 2 else (-1 if d == 3 else 0)
        first = 1 if dx < 0 else 0
        count = width - abs(dx)
        for y in range(height):
            if y + dy == height:
                count = 0
            if dx < 0:
                weights[d, y, 0] = NO_EDGE
            out = weights[d, y, first:]
            for x in range(count, len(out)):
                out[x] = NO_EDGE
            if count <= 0:
                continue
            if channels == 3:
                a0 = smoothed[0, y, first:]
                a1 = smoothed[1, y, first:]
                a2 = smoothed[2, y, first:]
                b0 = smoothed[0, y + dy, first + dx :]
                b1 = smoothed[1, y + dy, first + dx :]
                b2 = smoothed[2, y + dy, first + dx :]
                for x in range(count):
                    d0 = a0[x] - b0[x]
                    d1 = a1[x] - b1[x]
                    d2 = a2[x] - b2[x]
                    out[x] = np.uint16(np.int32(np.sqrt(d0 * d0 + d1 * d1 + d2 * d2) * TWO))
            else:
                a0 = smoothed[0, y, first:]
                b0 = smoothed[0, y + dy, first + dx :]
                for x in range(count):
                    out[x] = np.uint16(np.int32(abs(a0[x] - b0[x]) * TWO))


@jit
def sort_edges(weights: Any, order: Any, starts: Any) -> None:
    """Counting sort: ``order`` (E,) int32 gets edges ``4 * pixel + direction`` by weight, equal ones by number.

    ``weights`` (4, P) uint16. ``starts`` (BUCKETS + 1,) int32: edges of weight ``w`` are
    ``order[starts[w] : starts[w + 1]]``.
    """
    pixels = weights.shape[1]
    place = scratch(BUCKETS + 1, np.int32)
    for d in range(4):
        for p in range(pixels):
            w = weights[d, p]
            if w != NO_EDGE:
                place[w + 1] += 1
    starts[0] = 0
    for w in range(BUCKETS):
        place[w + 1] += place[w]
        starts[w + 1] = place[w + 1]
    for p in range(pixels):
        for d in range(4):
            w = weights[d, p]
            if w != NO_EDGE:
                order[place[w]] = 4 * p + d
                place[w] += 1
    release(place)


@jit
def find(parent: Any, i: int) -> int:
    """The root above node ``i``."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def step_table(width: int) -> Any:
    """Steps from a pixel to its four neighbours in 16 bits each: a table in a register."""
    return (np.int64(width - 1) << 48) | (np.int64(width + 1) << 32) | (np.int64(width) << 16) | 1


@jit
def ends(edge: Any, steps: Any) -> Any:
    """The two pixels of an edge."""
    p = edge >> 2
    return p, p + ((steps >> ((edge & 3) << 4)) & 0xFFFF)


@jit
def segment(order: Any, starts: Any, width: int, k: int, min_size: int, labels: Any, found: Any) -> None:
    """Fill ``labels`` (P,) int32 with region numbers ``0 .. n - 1`` in reading order, and ``found[0]`` with n.

    ``k`` is in 1/16 grey level. Two regions are joined over an edge of weight ``w`` if ``w <= Int(C) + k / |C|`` for
    both; then regions below ``min_size`` pixels are joined over the lightest edges. ``width`` is below 65535.

    Most edges lie inside a region, but which do is unpredictable. So a block of edges of equal weight is sifted first
    without a branch (an edge is left out if a short look upwards finds the same node), then the rest is done exactly.
    """
    pixels = len(labels)
    parent = scratch(pixels, np.int32)
    state = scratch(2 * pixels, np.int32)  # of a root: greatest weight that may join, size
    for p in range(pixels):
        parent[p] = p
        state[2 * p] = k
        state[2 * p + 1] = 1
    steps = step_table(width)
    refused = scratch(len(order), np.int32)
    refusals = 0
    block = scratch(BLOCK + 1, np.int64)
    for w in range(BUCKETS):
        low: Any = np.int64(starts[w])
        stop = np.int64(starts[w + 1])
        while low < stop:
            high = min(stop, low + BLOCK)
            left: Any = 0
            for i in range(low, high):
                edge = np.int64(order[i])
                p, q = ends(edge, steps)
                a = parent[parent[p]]
                b = parent[parent[q]]
                parent[p] = a
                parent[q] = b
                block[left] = edge
                left += np.int64(a != b)
            low = high
            for i in range(left):
                edge = block[i]
                p, q = ends(edge, steps)
                a = find(parent, p)
                b = find(parent, q)
                if a == b:
                    continue
                if w <= min(state[2 * a], state[2 * b]):
                    size_a = state[2 * a + 1]
                    size_b = state[2 * b + 1]
                    size = size_a + size_b
                    root = a if size_a >= size_b else b
                    parent[a] = root
                    parent[b] = root
                    state[2 * root + 1] = size
                    state[2 * root] = w + np.int32(np.float64(k) / np.float64(size))
                else:
                    refused[refusals] = edge
                    refusals += 1
    for i in range(refusals):
        p, q = ends(np.int64(refused[i]), steps)
        a = find(parent, p)
        b = find(parent, q)
        if a != b and min(state[2 * a + 1], state[2 * b + 1]) < min_size:
            size = state[2 * a + 1] + state[2 * b + 1]
            root = a if state[2 * a + 1] >= state[2 * b + 1] else b
            parent[a] = root
            parent[b] = root
            state[2 * root + 1] = size
    count: Any = 0
    for p in range(pixels):
        state[2 * p] = -1
    for p in range(pixels):
        a = find(parent, p)
        if state[2 * a] < 0:
            state[2 * a] = count
            count += 1
        labels[p] = state[2 * a]
    found[0] = count
    release(parent)
    release(state)
    release(refused)
    release(block)
