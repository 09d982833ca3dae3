"""What the kernels compute, in plain slow lines: the oracle of the tests. Nothing else imports this module."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["group", "neighbours", "segment", "smooth", "sorted_edges"]

I64 = NDArray[np.int64]
Edge = tuple[int, int, int, int]  # weight, number, pixel, other pixel


def smooth(plane: NDArray[np.uint8], weights: Sequence[int]) -> I64:
    """Gaussian smoothing of ``(H, W)`` in 1/8 grey level; ``weights`` of the middle and one side, in 1/1024."""
    full = [*reversed(weights[1:]), *weights]
    radius = len(weights) - 1
    height, width = plane.shape
    padded = np.pad(plane.astype(np.int64), ((0, 0), (radius, radius)), "edge")
    across = np.sum([w * padded[:, i : i + width] for i, w in enumerate(full)], axis=0)
    across = (across + 8) // 16  # 1/64 grey level
    padded = np.pad(across, ((radius, radius), (0, 0)), "edge")
    down = np.sum([w * padded[i : i + height] for i, w in enumerate(full)], axis=0)
    return np.asarray((down + 4096) // 8192)


def sorted_edges(planes: I64) -> list[Edge]:
    """Edges to the right, below, below right and below left of ``(C, H, W)`` values in 1/8 level, lightest first."""
    _, height, width = planes.shape
    edges = []
    for y in range(height):
        for x in range(width):
            for d, (dy, dx) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
                if y + dy < height and 0 <= x + dx < width:
                    square = int(((planes[:, y, x] - planes[:, y + dy, x + dx]) ** 2).sum())
                    p = y * width + x
                    edges.append((math.isqrt(4 * square), 4 * p + d, p, p + dy * width + dx))
    return sorted(edges)


def segment(edges: Sequence[Edge], pixels: int, k: int, min_size: int) -> I64:
    """Region number of each pixel (P,). ``k`` in the unit of the weights (1/16 level). Regions are sets of pixels."""
    member = {p: {p} for p in range(pixels)}
    inside = dict.fromkeys(range(pixels), 0)  # by the smallest pixel of a region: its greatest weight joined

    def join(a: set[int], b: set[int]) -> None:
        a |= b
        for p in b:
            member[p] = a

    for w, _, p, q in edges:
        a, b = member[p], member[q]
        if a is b:
            continue
        # w <= Int + k / |C|, without the division
        if all((w - inside[min(c)]) * len(c) <= k for c in (a, b)):
            join(a, b)
            inside[min(a)] = w
    for _, _, p, q in edges:
        a, b = member[p], member[q]
        if a is not b and min(len(a), len(b)) < min_size:
            join(a, b)
    firsts = sorted({min(member[p]) for p in range(pixels)})
    number = {first: i for i, first in enumerate(firsts)}
    return np.array([number[min(member[p])] for p in range(pixels)])


def neighbours(labels: I64) -> set[tuple[int, int]]:
    """Pairs of regions that touch, also at a corner, the smaller number first, of ``(H, W)`` labels."""
    height, width = labels.shape
    pairs = set()
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if y + dy < height and 0 <= x + dx < width and labels[y, x] != labels[y + dy, x + dx]:
                    a, b = int(labels[y, x]), int(labels[y + dy, x + dx])
                    pairs.add((min(a, b), max(a, b)))
    return pairs


def group(
    pairs: set[tuple[int, int]], counts: I64, boxes: I64, sizes: I64, channels: int, mix: int
) -> tuple[list[tuple[int, int]], I64]:
    """Join the two most similar neighbours until one region is left.

    ``counts`` (n, D): histograms, colour (25 bins a channel) before texture. Returns the merges and all boxes.
    """
    colour = 25 * channels
    living = {r: (counts[r].copy(), boxes[r].copy(), int(sizes[r])) for r in range(len(sizes))}
    links: dict[int, set[int]] = {r: set() for r in living}
    for a, b in pairs:
        links[a].add(b)
        links[b].add(a)
    pixels = int(sizes.sum())

    def similarity(a: int, b: int) -> int:
        (ca, ba, sa), (cb, bb, sb) = living[a], living[b]
        shares_a = np.floor(ca * (32768.0 / (sa * channels)))
        shares_b = np.floor(cb * (32768.0 / (sb * channels)))
        common = np.minimum(shares_a, shares_b)
        w, h = np.maximum(ba[2:], bb[2:]) - np.minimum(ba[:2], bb[:2])
        return int(
            (mix & 1 > 0) * common[:colour].sum()
            + (mix & 2 > 0) * common[colour:].sum()
            + (mix & 4 > 0) * (32768 - 32768 * (sa + sb) // pixels)
            + (mix & 8 > 0) * (32768 - 32768 * (int(w) * int(h) - sa - sb) // pixels)
        )

    merges = []
    all_boxes = [box for _, box, _ in living.values()]
    scores = {(a, b): similarity(a, b) for a, b in pairs}
    while len(living) > 1:
        # the most similar pair; of equal ones that with the smallest numbers
        a, b = min(scores, key=lambda pair: (-scores[pair], pair))
        new = len(all_boxes)
        merges.append((a, b))
        (ca, ba, sa), (cb, bb, sb) = living.pop(a), living.pop(b)
        box = np.concatenate([np.minimum(ba[:2], bb[:2]), np.maximum(ba[2:], bb[2:])])
        living[new] = (ca + cb, box, sa + sb)
        all_boxes.append(box)
        links[new] = (links.pop(a) | links.pop(b)) - {a, b}
        for other in links[new]:
            links[other] = (links[other] - {a, b}) | {new}
        scores = {pair: score for pair, score in scores.items() if not {a, b} & set(pair)}
        scores |= {(other, new): similarity(other, new) for other in links[new]}
    return merges, np.array(all_boxes)
