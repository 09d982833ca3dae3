"""Hierarchical grouping of regions (Uijlings et al., 2013, section 3), compiled, in integers.

Histograms are compared as shares in 1/32768, sizes as shares of the image in 1/32768, so a similarity is an int64 and
equal on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit

COLOUR_BINS = 25
TEXTURE_BINS = 40  # 8 directions x 5 strengths
CHANNEL_BINS = COLOUR_BINS + TEXTURE_BINS
ONE = 32768
USE_COLOUR, USE_TEXTURE, USE_SIZE, USE_FILL = 1, 2, 4, 8


@njit(nogil=True, cache=True)
def pixel_bins(planes, smoothed, colours, steepness, textures, bins):
    """Fill ``bins`` (P, 2 C) uint8: for each channel the colour bin, then for each channel the texture bin.

    Bin numbers count through all channels: first colour, then texture. Tables: ``colours`` (C, 256) uint8;
    ``steepness`` (4081,) uint8 and ``textures`` (32, 32) uint8 as made by ``tables.texture_tables()``.
    """
    channels, height, width = planes.shape
    for c in range(channels):
        base = COLOUR_BINS * channels + TEXTURE_BINS * c
        for y in range(height):
            up = smoothed[c, max(0, y - 1)]
            down = smoothed[c, min(height - 1, y + 1)]
            row = smoothed[c, y]
            for x in range(width):
                p = y * width + x
                bins[p, c] = colours[c, planes[c, y, x]]
                dx = np.int32(row[min(width - 1, x + 1)] - row[max(0, x - 1)])
                dy = np.int32(down[x] - up[x])
                bins[p, channels + c] = base + textures[steepness[dx + 2040], steepness[dy + 2040]]


@njit(nogil=True, cache=True)
def region_features(labels, width, bins, counts, boxes, sizes):
    """Histograms ``counts`` (n, D) int32, ``boxes`` (n, 4) int32 and ``sizes`` (n,) int32 of the labelled regions."""
    per_pixel = bins.shape[1]
    counts[:] = 0
    sizes[:] = 0
    boxes[:, :2] = 2**30
    boxes[:, 2:] = 0
    height = len(labels) // width
    for y in range(height):
        for x in range(width):
            p = y * width + x
            r = labels[p]
            sizes[r] += 1
            for j in range(per_pixel):
                counts[r, bins[p, j]] += 1
            boxes[r, 0] = min(boxes[r, 0], x)
            boxes[r, 1] = min(boxes[r, 1], y)
            boxes[r, 2] = max(boxes[r, 2], x + 1)
            boxes[r, 3] = max(boxes[r, 3], y + 1)


@njit(nogil=True, cache=True)
def neighbours(labels, width, n):
    """Pairs of regions that touch (also at a corner), each once, the smaller number first: ``(m, 2)`` int32, sorted
    by the smaller.
    """
    height = len(labels) // width
    firsts = np.empty(4 * len(labels), np.int32)
    seconds = np.empty(4 * len(labels), np.int32)
    latest = np.full(n, -1, np.int32)  # most pairs are those just seen
    starts = np.zeros(n + 1, np.int32)
    met = 0
    for y in range(height):
        for x in range(width):
            p = y * width + x
            a = labels[p]
            for d in range(4):
                if d == 0:
                    b = labels[p + 1] if x + 1 < width else a
                elif y + 1 == height:
                    b = a
                elif d == 1:
                    b = labels[p + width]
                elif d == 2:
                    b = labels[p + width + 1] if x + 1 < width else a
                else:
                    b = labels[p + width - 1] if x > 0 else a
                if a != b:
                    low = min(a, b)
                    high = max(a, b)
                    if latest[low] != high:
                        latest[low] = high
                        firsts[met] = low
                        seconds[met] = high
                        starts[low + 1] += 1
                        met += 1
    for r in range(n):
        starts[r + 1] += starts[r]
    others = np.empty(met, np.int32)
    place = starts[:-1].copy()
    for i in range(met):
        others[place[firsts[i]]] = seconds[i]
        place[firsts[i]] += 1
    pairs = np.empty((met, 2), np.int32)
    seen = np.full(n, -1, np.int32)
    m = 0
    for r in range(n):
        for i in range(starts[r], starts[r + 1]):
            other = others[i]
            if seen[other] != r:
                seen[other] = r
                pairs[m, 0] = r
                pairs[m, 1] = other
                m += 1
    return pairs[:m].copy()


@njit(nogil=True, cache=True)
def set_shares(counts, shares, channels, size):
    """Histogram counts of a region as shares that sum to at most ``ONE`` over all channels, colour and texture each."""
    scale = np.float64(ONE) / (np.float64(size) * channels)
    for j in range(len(counts)):
        shares[j] = np.int32(np.float64(counts[j]) * scale)


@njit(nogil=True, cache=True)
def similarity(a, b, shares, boxes, sizes, channels, pixels, mix):
    """Similarity of two regions in 1/32768: the sum of the measures in ``mix`` (a sum of ``USE_...``)."""
    total = np.int64(0)
    colours = COLOUR_BINS * channels
    if mix & USE_COLOUR:
        part = np.int32(0)
        for j in range(colours):
            part += min(shares[a, j], shares[b, j])
        total += part
    if mix & USE_TEXTURE:
        part = np.int32(0)
        for j in range(colours, CHANNEL_BINS * channels):
            part += min(shares[a, j], shares[b, j])
        total += part
    both = np.int64(sizes[a]) + sizes[b]
    if mix & USE_SIZE:
        total += ONE - ONE * both // pixels
    if mix & USE_FILL:
        w = np.int64(max(boxes[a, 2], boxes[b, 2])) - min(boxes[a, 0], boxes[b, 0])
        h = np.int64(max(boxes[a, 3], boxes[b, 3])) - min(boxes[a, 1], boxes[b, 1])
        total += ONE - ONE * (w * h - both) // pixels
    return total


@njit(nogil=True, cache=True)
def before(heap, i, j):
    """Whether entry ``i`` leaves the heap before entry ``j``: greater similarity, then smaller region numbers."""
    if heap[i, 0] != heap[j, 0]:
        return heap[i, 0] > heap[j, 0]
    return heap[i, 1] < heap[j, 1]


@njit(nogil=True, cache=True)
def swap(heap, i, j):
    for c in range(2):
        heap[i, c], heap[j, c] = heap[j, c], heap[i, c]


@njit(nogil=True, cache=True)
def push(heap, count, score, a, b):
    """Add an entry to the binary heap (similarity, ``a << 32 | b``); returns the heap, grown if it was full."""
    if count == len(heap):
        grown = np.empty((2 * count, 2), np.int64)
        grown[:count] = heap
        heap = grown
    heap[count, 0] = score
    heap[count, 1] = (np.int64(a) << 32) | np.int64(b)
    i = count
    while i > 0 and before(heap, i, (i - 1) >> 1):
        swap(heap, i, (i - 1) >> 1)
        i = (i - 1) >> 1
    return heap


@njit(nogil=True, cache=True)
def pop(heap, count):
    """Move the first entry to ``heap[count - 1]`` and restore the order of the others."""
    swap(heap, 0, count - 1)
    i = 0
    while True:
        first = i
        for child in range(2 * i + 1, min(2 * i + 3, count - 1)):
            if before(heap, child, first):
                first = child
        if first == i:
            return
        swap(heap, i, first)
        i = first


@njit(nogil=True, cache=True)
def group(pairs, counts0, boxes0, sizes0, channels, mix, boxes, merges):
    """Join the two most similar neighbours until one region is left.

    Args:
        pairs: (m, 2) int32 neighbours. counts0, boxes0, sizes0: features of the n regions.
        boxes: (2 n - 1, 4) int32, filled: bounding boxes, regions first and then the unions in the order made.
        merges: (n - 1, 2) int32, filled: region ``n + i`` is the union of ``merges[i]``.
    """
    n, dims = counts0.shape
    total = 2 * n - 1
    counts = np.empty((total, dims), np.int32)
    shares = np.empty((total, dims), np.int32)
    sizes = np.empty(total, np.int32)
    counts[:n] = counts0
    boxes[:n] = boxes0
    sizes[:n] = sizes0
    pixels = np.int64(0)
    for r in range(n):
        set_shares(counts[r], shares[r], channels, sizes[r])
        pixels += sizes[r]
    current = np.empty(total, np.int32)  # union-find: the living region that holds a region
    for r in range(total):
        current[r] = r
    # neighbour lists: half edge h points at ``target[h]`` (perhaps joined since) and is followed by ``after[h]``
    head = np.full(total, -1, np.int32)
    after = np.empty(2 * len(pairs), np.int32)
    target = np.empty(2 * len(pairs), np.int32)
    heap = np.empty((max(16, 4 * len(pairs)), 2), np.int64)
    waiting = 0
    for i in range(len(pairs)):
        a = pairs[i, 0]
        b = pairs[i, 1]
        target[2 * i] = b
        after[2 * i] = head[a]
        head[a] = 2 * i
        target[2 * i + 1] = a
        after[2 * i + 1] = head[b]
        head[b] = 2 * i + 1
        heap = push(heap, waiting, similarity(a, b, shares, boxes, sizes, channels, pixels, mix), a, b)
        waiting += 1
    seen = np.full(total, -1, np.int32)
    new = n
    while waiting > 0 and new < total:
        pop(heap, waiting)
        waiting -= 1
        a = np.int32(heap[waiting, 1] >> 32)
        b = np.int32(heap[waiting, 1] & 0xFFFFFFFF)
        if current[a] != a or current[b] != b:
            continue  # one of them is part of a greater region by now
        current[a] = new
        current[b] = new
        merges[new - n, 0] = a
        merges[new - n, 1] = b
        sizes[new] = sizes[a] + sizes[b]
        for j in range(dims):
            counts[new, j] = counts[a, j] + counts[b, j]
        set_shares(counts[new], shares[new], channels, sizes[new])
        for j in range(2):
            boxes[new, j] = min(boxes[a, j], boxes[b, j])
            boxes[new, j + 2] = max(boxes[a, j + 2], boxes[b, j + 2])
        seen[new] = new
        for old in (a, b):
            h = head[old]
            while h >= 0:
                following = after[h]
                other = target[h]
                while current[other] != other:
                    current[other] = current[current[other]]
                    other = current[other]
                if seen[other] != new:
                    seen[other] = new
                    target[h] = other
                    after[h] = head[new]
                    head[new] = h
                    score = similarity(new, other, shares, boxes, sizes, channels, pixels, mix)
                    heap = push(heap, waiting, score, other, new)
                    waiting += 1
                h = following
        new += 1
