"""The graph of an image's pixels (Felzenszwalb and Huttenlocher, 2004): smoothing, edges and their order, compiled.

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
