"""Hierarchical grouping of regions (Uijlings et al., 2013, section 3), compiled, in integers.

Histograms are compared as shares in 1/32768, sizes as shares of the image in 1/32768, so a similarity is an int64 and
equal on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.scratch import release, scratch
from sppnet.proposals.tables import CHANNEL_BINS, COLOUR_BINS, TEXTURE_BINS

ONE = 32768
USE_COLOUR, USE_TEXTURE, USE_SIZE, USE_FILL = 1, 2, 4, 8


@jit
def pixel_bins(planes: Any, smoothed: Any, colours: Any, steepness: Any, textures: Any, bins: Any) -> None:
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


@jit
def region_features(labels: Any, width: int, bins: Any, counts: Any, boxes: Any, sizes: Any) -> None:
    """Histograms ``counts`` (n, D) int32, ``boxes`` (n, 4) int32 and ``sizes`` (n,) int32 of the labelled regions."""
    per_pixel = bins.shape[1]
    for r in range(len(sizes)):
        sizes[r] = 0
        boxes[r, 0] = boxes[r, 1] = 2**30
        boxes[r, 2] = boxes[r, 3] = 0
        for j in range(counts.shape[1]):
            counts[r, j] = 0
    height = len(labels) // width
    for y in range(height):
        start = 0
        for x in range(width):
            p = y * width + x
            r = labels[p]
            for j in range(per_pixel):
                counts[r, bins[p, j]] += 1
            if x + 1 == width or labels[p + 1] != r:  # the end of a run
                sizes[r] += x + 1 - start
                boxes[r, 0] = min(boxes[r, 0], start)
                boxes[r, 1] = min(boxes[r, 1], y)
                boxes[r, 2] = max(boxes[r, 2], x + 1)
                boxes[r, 3] = y + 1
                start = x + 1


@jit
def distinct_pairs(firsts: Any, seconds: Any, met: int, n: int, pairs: Any) -> Any:
    """Fill ``pairs`` with the distinct ones of the first ``met`` pairs of ``n`` regions, by their first; how many."""
    seen = scratch(n, np.int32)
    starts = scratch(n + 1, np.int32)
    for i in range(met):
        starts[firsts[i] + 1] += 1
    for r in range(n):
        seen[r] = -1
        starts[r + 1] += starts[r]
    others = scratch(met, np.int32)
    for i in range(met):
        others[starts[firsts[i]]] = seconds[i]
        starts[firsts[i]] += 1
    # starts[r] is the end of r now, and the end of r - 1 the start of r
    m = 0
    for r in range(n):
        for i in range(starts[r - 1] if r > 0 else 0, starts[r]):
            other = others[i]
            if seen[other] != r:
                seen[other] = r
                pairs[m, 0] = r
                pairs[m, 1] = other
                m += 1
    release(seen)
    release(starts)
    release(others)
    return m


@jit
def neighbours(labels: Any, width: int, n: int, pairs: Any, found: Any) -> None:
    """Pairs of regions that touch (also at a corner), each once, the smaller number first and sorted by it.

    ``pairs`` (at least as many as there can be, 2) int32 is filled; ``found[0]`` says how many there are.
    """
    height = len(labels) // width
    firsts = scratch(4 * len(labels), np.int32)
    seconds = scratch(4 * len(labels), np.int32)
    latest = scratch(n, np.int32)  # most pairs are those just seen
    for r in range(n):
        latest[r] = -1
    met = 0
    for y in range(height):
        for x in range(width):
            p = y * width + x
            a = labels[p]
            if (
                0 < x < width - 1
                and y + 1 < height
                and a == labels[p + 1]
                and a == labels[p + width - 1] == labels[p + width] == labels[p + width + 1]
            ):
                continue
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
                        met += 1
    found[0] = distinct_pairs(firsts, seconds, met, n, pairs)
    release(firsts)
    release(seconds)
    release(latest)


@jit
def join_atoms(
    regions: Any, scale: int, counts0: Any, boxes0: Any, sizes0: Any, pairs0: Any, counts: Any, boxes: Any, sizes: Any,
    pairs: Any, found: Any,
) -> None:  # fmt: skip
    """Features of regions from those of the atoms that they are made of.

    Args:
        regions: (A, K) int32, the region of each atom at each scale.
        scale: which of the K.
        counts0: (A, D) int32, histograms of the atoms.
        boxes0: (A, 4) int32, their bounding boxes.
        sizes0: (A,) int32, their pixels.
        pairs0: (m, 2) int32, those that touch, the smaller number first.
        counts: (n, D) int32, filled: histograms of the regions.
        boxes: (n, 4) int32, filled: their bounding boxes.
        sizes: (n,) int32, filled: their pixels.
        pairs: (m, 2) int32, filled: those that touch, each once, the smaller number first and sorted by it.
        found: (1,) int64, filled: how many pairs.
    """
    n, dims = counts.shape
    for r in range(n):
        sizes[r] = 0
    for i in range(len(regions)):
        r = regions[i, scale]
        if sizes[r] == 0:
            for j in range(dims):
                counts[r, j] = counts0[i, j]
            for j in range(4):
                boxes[r, j] = boxes0[i, j]
        else:
            for j in range(dims):
                counts[r, j] += counts0[i, j]
            for j in range(2):
                boxes[r, j] = min(boxes[r, j], boxes0[i, j])
                boxes[r, j + 2] = max(boxes[r, j + 2], boxes0[i, j + 2])
        sizes[r] += sizes0[i]
    firsts = scratch(len(pairs0), np.int32)
    seconds = scratch(len(pairs0), np.int32)
    met = 0
    for i in range(len(pairs0)):
        a = regions[pairs0[i, 0], scale]
        b = regions[pairs0[i, 1], scale]
        if a != b:
            firsts[met] = min(a, b)
            seconds[met] = max(a, b)
            met += 1
    found[0] = distinct_pairs(firsts, seconds, met, n, pairs)
    release(firsts)
    release(seconds)


@jit
def set_shares(counts: Any, shares: Any, channels: int, sizes: Any, r: Any) -> None:
    """Counts of region ``r`` as shares: colour and texture sum to at most ``ONE`` each over all channels."""
    scale = np.float64(ONE) / np.float64(np.int64(sizes[r]) * channels)
    for j in range(counts.shape[1]):
        shares[r, j] = np.int32(np.float64(counts[r, j]) * scale)


@jit
def similarity(a: Any, b: Any, shares: Any, boxes: Any, sizes: Any, channels: int, pixels: Any, mix: int) -> Any:
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


@jit
def before(heap: Any, i: int, j: int) -> Any:
    """Whether entry ``i`` leaves the heap before entry ``j``: greater similarity, then smaller region numbers."""
    if heap[2 * i] != heap[2 * j]:
        return heap[2 * i] > heap[2 * j]
    return heap[2 * i + 1] < heap[2 * j + 1]


@jit
def swap(heap: Any, i: int, j: int) -> None:
    """Exchange two entries, of two words each."""
    for c in range(2):
        kept = heap[2 * i + c]
        heap[2 * i + c] = heap[2 * j + c]
        heap[2 * j + c] = kept


@jit
def push(heap: Any, count: int, score: Any, a: Any, b: Any) -> None:
    """Add entry number ``count`` to the binary heap (similarity, ``a << 32 | b``), which has room for it."""
    heap[2 * count] = score
    heap[2 * count + 1] = (a << 32) | b
    i = count
    while i > 0 and before(heap, i, (i - 1) >> 1):
        swap(heap, i, (i - 1) >> 1)
        i = (i - 1) >> 1


@jit
def pop(heap: Any, count: int) -> None:
    """Move the first entry to place ``count - 1`` and restore the order of the others."""
    swap(heap, 0, count - 1)
    i = 0
    while True:
        first = i
        left = 2 * i + 1
        if left < count - 1 and before(heap, left, first):
            first = left
        if left + 1 < count - 1 and before(heap, left + 1, first):
            first = left + 1
        if first == i:
            return
        swap(heap, i, first)
        i = first


@jit
def group(
    pairs: Any, counts0: Any, boxes0: Any, sizes0: Any, channels: int, mix: int, counts: Any, shares: Any, boxes: Any,
    merges: Any,
) -> None:  # fmt: skip
    """Join the two most similar neighbours until one region is left.

    Args:
        pairs: (m, 2) int32 neighbours.
        counts0: (n, D) int32, histograms of the regions.
        boxes0: (n, 4) int32, their bounding boxes.
        sizes0: (n,) int32, their pixels.
        channels: of the colour space.
        mix: sum of ``USE_...``.
        counts: (2 n - 1, D) int32, to work in.
        shares: (2 n - 1, D) int32, to work in.
        boxes: (2 n - 1, 4) int32, filled: bounding boxes, regions first and then the unions in the order made.
        merges: (n - 1, 2) int32, filled: region ``n + i`` is the union of ``merges[i]``.
    """
    n, dims = counts0.shape
    total = 2 * n - 1
    sizes = scratch(total, np.int32)
    pixels = np.int64(0)
    histograms = mix & (USE_COLOUR | USE_TEXTURE) != 0
    for r in range(n):
        for j in range(4):
            boxes[r, j] = boxes0[r, j]
        sizes[r] = sizes0[r]
        if histograms:
            for j in range(dims):
                counts[r, j] = counts0[r, j]
            set_shares(counts, shares, channels, sizes, r)
        pixels += sizes[r]
    current = scratch(total, np.int64)  # union-find: the living region that holds a region
    seen = scratch(total, np.int64)
    head = scratch(total, np.int64)
    for r in range(total):
        current[r] = r
        seen[r] = -1
        head[r] = -1
    # neighbour lists: half edge h points at ``target[h]`` (perhaps joined since) and is followed by ``after[h]``
    after = scratch(2 * len(pairs), np.int64)
    target = scratch(2 * len(pairs), np.int64)
    room = max(16, 2 * len(pairs))
    heap = scratch(2 * room, np.int64)
    waiting = 0
    for i in range(len(pairs)):
        a = np.int64(pairs[i, 0])
        b = np.int64(pairs[i, 1])
        target[2 * i] = b
        after[2 * i] = head[a]
        head[a] = 2 * i
        target[2 * i + 1] = a
        after[2 * i + 1] = head[b]
        head[b] = 2 * i + 1
        push(heap, waiting, similarity(a, b, shares, boxes, sizes, channels, pixels, mix), a, b)
        waiting += 1
    new = np.int64(n)
    while waiting > 0 and new < total:
        pop(heap, waiting)
        waiting -= 1
        a = heap[2 * waiting + 1] >> 32
        b = heap[2 * waiting + 1] & 0xFFFFFFFF
        if current[a] != a or current[b] != b:
            continue  # one of them is part of a greater region by now
        current[a] = new
        current[b] = new
        merges[new - n, 0] = a
        merges[new - n, 1] = b
        sizes[new] = sizes[a] + sizes[b]
        if histograms:
            for j in range(dims):
                counts[new, j] = counts[a, j] + counts[b, j]
            set_shares(counts, shares, channels, sizes, new)
        for j in range(2):
            boxes[new, j] = min(boxes[a, j], boxes[b, j])
            boxes[new, j + 2] = max(boxes[a, j + 2], boxes[b, j + 2])
        seen[new] = new
        for side in range(2):
            h = head[a if side == 0 else b]
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
                    if waiting == room:
                        grown = scratch(4 * room, np.int64)
                        for i in range(2 * room):
                            grown[i] = heap[i]
                        release(heap)
                        heap = grown
                        room *= 2
                    push(heap, waiting, score, other, new)
                    waiting += 1
                h = following
        new += 1
    release(sizes)
    release(current)
    release(seen)
    release(head)
    release(after)
    release(target)
    release(heap)
