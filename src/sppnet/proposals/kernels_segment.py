"""Graph segmentation (Felzenszwalb and Huttenlocher, 2004) at several scales in one pass over the edges, compiled.

While regions are small, which is most of the work, all scales join the same ones. So pixels are joined to atoms: sets
of pixels that lie in one region at every scale. An atom is open as long as it is a whole region at every scale. Where
the scales decide differently, the atoms concerned are closed: each becomes a node in a forest of its own for each
scale, and from then on the scales are looked at one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.scratch import release, scratch
from sppnet.proposals.tables import BUCKETS

BLOCK = 256
NODE = 3  # numbers of a node: the node above it; of a root: greatest weight that may join it, size
PLACES = 16384  # of pairs of atoms, a power of 2
LAST = -1  # instead of a weight: small regions are joined, at any weight


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
def slack(k: Any, size: Any) -> Any:
    """By how much a weight may exceed the greatest one inside a region of ``size`` pixels: ``k / size``."""
    return np.int32(np.float64(k) / np.float64(size))


@jit
def may_join(w: Any, limit_a: Any, limit_b: Any, size_a: Any, size_b: Any, min_size: int) -> Any:
    """Whether an edge of weight ``w`` joins two regions, or ``LAST`` a small one to another."""
    if w == LAST:
        return min(size_a, size_b) < min_size
    return w <= min(limit_a, limit_b)


@jit
def root_of(nodes: Any, number: Any, scale: int, scales: int) -> Any:
    """Where in ``nodes`` the region begins that holds closed atom ``number`` at a scale."""
    at = (number * scales + scale) * NODE
    while True:
        above = (np.int64(nodes[at]) * scales + scale) * NODE
        if above == at:
            return at
        nodes[at] = nodes[above]
        at = above


@jit
def unite_nodes(nodes: Any, a: Any, b: Any, w: Any, k: Any) -> None:
    """Make one region of two, given by their roots."""
    size = nodes[a + 2] + nodes[b + 2]
    root = a if nodes[a + 2] >= nodes[b + 2] else b
    number = nodes[root]
    nodes[a] = number
    nodes[b] = number
    nodes[root + 1] = w + slack(k, size)
    nodes[root + 2] = size


@jit
def close(atom: Any, number: Any, ks: Any, state: Any, nodes: Any) -> None:
    """Make an open atom node ``number`` of every scale's forest."""
    size = state[2 * atom + 1]
    inside = state[2 * atom] - slack(ks[0], size)
    for j in range(len(ks)):
        at = (number * len(ks) + j) * NODE
        nodes[at] = number
        nodes[at + 1] = inside + slack(ks[j], size)
        nodes[at + 2] = size
    state[2 * atom] = -1 - number


@jit
def join_by_scale(
    a: Any, b: Any, w: Any, min_size: int, ks: Any, parent: Any, state: Any, nodes: Any, count: Any, roots: Any
) -> Any:
    """Join two atoms at the scales that an edge of weight ``w`` (or ``LAST``) joins them at.

    Returns whether they are one atom now, and how many atoms are closed. ``roots`` (K,) is to work in.
    """
    scales = len(ks)
    if state[2 * a] >= 0:  # if one of them is open, it's b
        a, b = b, a
    size_a = state[2 * a + 1]
    size_b = state[2 * b + 1]
    number = np.int64(-1 - state[2 * a])
    if number < 0:
        limit_a = state[2 * a] - slack(ks[0], size_a) + slack(ks[scales - 1], size_a)
        limit_b = state[2 * b] - slack(ks[0], size_b) + slack(ks[scales - 1], size_b)
        if not may_join(w, limit_a, limit_b, size_a, size_b, min_size):
            return False, count
        number = count
        close(a, number, ks, state, nodes)
        count += 1
    other = np.int64(-1 - state[2 * b])
    together = 0
    if other < 0:
        inside = state[2 * b] - slack(ks[0], size_b)
        for j in range(scales):
            root = root_of(nodes, number, j, scales)
            limit = inside + slack(ks[j], size_b)
            if may_join(w, nodes[root + 1], limit, nodes[root + 2], size_b, min_size):
                roots[j] = root
                together += 1
            else:
                roots[j] = -1
        if together == scales:  # b is taken up by a
            for j in range(scales):
                root = roots[j]
                size = nodes[root + 2] + size_b
                nodes[root + 1] = w + slack(ks[j], size)
                nodes[root + 2] = size
        elif together > 0:
            other = count
            close(b, other, ks, state, nodes)
            count += 1
            for j in range(scales):
                if roots[j] >= 0:
                    unite_nodes(nodes, roots[j], (other * scales + j) * NODE, w, ks[j])
    else:
        for j in range(scales):
            root = root_of(nodes, number, j, scales)
            root_b = root_of(nodes, other, j, scales)
            if root == root_b:
                together += 1
            elif may_join(w, nodes[root + 1], nodes[root_b + 1], nodes[root + 2], nodes[root_b + 2], min_size):
                unite_nodes(nodes, root, root_b, w, ks[j])
                together += 1
    if together < scales:
        return False, count
    kept = a if size_a >= size_b else b
    parent[a] = kept
    parent[b] = kept
    state[2 * kept] = -1 - number
    state[2 * kept + 1] = size_a + size_b
    return True, count


@jit
def place_of(a: Any, b: Any) -> Any:
    """Where a pair of atoms is remembered."""
    return ((np.uint32(a) * np.uint32(0x9E3779B1) ^ np.uint32(b) * np.uint32(0x85EBCA77)) >> np.uint32(16)) & np.uint32(
        PLACES - 1
    )


@jit
def segment(order: Any, starts: Any, width: int, ks: Any, min_size: int, labels: Any, regions: Any, found: Any) -> None:
    """Fill ``labels`` (P,) int32 with atoms, and ``regions`` with the region of each atom at each scale.

    Two regions are joined over an edge of weight ``w`` if ``w <= Int(C) + k / |C|`` for both; then regions below
    ``min_size`` pixels are joined over the lightest edges.

    Most edges lie inside an atom, but which do is unpredictable. So a block of edges of equal weight is sifted first
    without a branch (an edge is left out if a short look upwards finds the same node), then the rest is done exactly.

    Args:
        order: (E,) int32 edges, lightest first.
        starts: (BUCKETS + 1,) int32, where each weight starts.
        width: of the image in pixels, below 65535.
        ks: (K,) int32, in 1/16 grey level, ascending.
        min_size: smallest region in pixels.
        labels: (P,) int32, filled: atoms, numbered from 0 in reading order.
        regions: (P * K,) int32, filled: the regions of atom ``i`` are ``regions[i * K : (i + 1) * K]``, numbered from 0
            in reading order at each scale.
        found: (1 + K,) int64, filled: how many atoms there are, and how many regions at each scale.
    """
    pixels = len(labels)
    scales = len(ks)
    parent = scratch(pixels, np.int32)
    state = scratch(2 * pixels, np.int32)  # of a root: greatest weight that may join at the first scale, size
    for p in range(pixels):
        parent[p] = p
        state[2 * p] = ks[0]
        state[2 * p + 1] = 1
    steps = step_table(width)
    refused = scratch(len(order), np.int32)
    refusals = 0
    block = scratch(BLOCK + 1, np.int64)
    nodes = scratch(1024 * NODE * scales, np.int32)
    met = scratch(PLACES, np.int64)
    roots = scratch(scales, np.int64)
    closed: Any = np.int64(0)
    # After all weights come the edges that were refused, in the same loop: a large function that is called at one place
    # only becomes part of this one, and only then can the code be kept on disk
    for w in range(BUCKETS + 1):
        last = w == BUCKETS
        low: Any = np.int64(0) if last else np.int64(starts[w])
        stop = np.int64(refusals) if last else np.int64(starts[w + 1])
        while low < stop:
            high = min(stop, low + BLOCK)
            left: Any = 0
            for i in range(low, high):
                edge = np.int64(refused[i]) if last else np.int64(order[i])
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
                size_a = state[2 * a + 1]
                size_b = state[2 * b + 1]
                least = min(state[2 * a], state[2 * b])  # below 0 if one of them is closed
                if (least >= 0 and min(size_a, size_b) < min_size) if last else w <= least:
                    size = size_a + size_b
                    root = a if size_a >= size_b else b
                    parent[a] = root
                    parent[b] = root
                    state[2 * root + 1] = size
                    state[2 * root] = w + slack(ks[0], size)
                    continue
                pair = (np.int64(min(a, b)) << 32) | max(a, b)
                place = place_of(min(a, b), max(a, b))
                if (least >= 0) if last else met[place] == pair:
                    continue
                joined = False
                if scales > 1:
                    if (closed + 2) * NODE * scales > len(nodes):
                        grown = scratch(2 * len(nodes), np.int32)
                        for n in range(closed * NODE * scales):
                            grown[n] = nodes[n]
                        release(nodes)
                        nodes = grown
                    weight = LAST if last else w
                    joined, closed = join_by_scale(a, b, weight, min_size, ks, parent, state, nodes, closed, roots)
                if not joined and not last:
                    met[place] = pair
                    refused[refusals] = edge
                    refusals += 1
    for j in range(1 + scales):
        found[j] = 0
    for p in range(pixels):
        a = find(parent, p)
        if state[2 * a + 1] > 0:  # not numbered yet
            atom = found[0]
            for j in range(scales):
                at = atom * scales + j
                if state[2 * a] >= 0:
                    regions[at] = found[1 + j]
                    found[1 + j] += 1
                else:
                    root = root_of(nodes, np.int64(-1 - state[2 * a]), j, scales)
                    if nodes[root + 2] > 0:
                        nodes[root + 2] = -1 - found[1 + j]
                        found[1 + j] += 1
                    regions[at] = -1 - nodes[root + 2]
            state[2 * a + 1] = -1 - atom
            found[0] += 1
        labels[p] = -1 - state[2 * a + 1]
    release(parent)
    release(state)
    release(refused)
    release(block)
    release(nodes)
    release(met)
    release(roots)
