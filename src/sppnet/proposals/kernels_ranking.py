"""Ranking of windows and removal of near-duplicates, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.scratch import release, scratch

CELL = 16  # pixels of the working image


@jit
def scramble(x: Any) -> Any:
    """SplitMix64: a 64-bit number that looks random, from a 64-bit counter."""
    z = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@jit
def rank_keys(count: int, stream: int, keys: Any) -> None:
    """``keys`` (count,) uint64: position in the hierarchy (the whole image is 1) times a random number below 2**32.

    ``stream`` (uint64) sets the random numbers. Smaller is better.
    """
    for i in range(count):
        random = scramble(np.uint64(stream) + np.uint64(i)) >> np.uint64(32)
        keys[i] = np.uint64(count - i) * random


@jit
def distinct(
    boxes: Any,
    order: Any,
    limit: int,
    iou_percent: int,
    width: int,
    height: int,
    min_width: int,
    min_height: int,
    kept: Any,
    found: Any,
) -> None:
    """Greedy choice in the given order: indices of boxes whose IoU with every one chosen before is below a limit.

    Args:
        boxes: (N, 4) int32, non-empty, in an image of ``width`` x ``height``.
        order: (N,) int64.
        limit: most boxes to choose.
        iou_percent: a box at or above this IoU (in 1/100) with one chosen is dropped.
        width: of the image, in pixels.
        height: of the image.
        min_width: narrower boxes are dropped.
        min_height: lower boxes are dropped.
        kept: (limit,) int64, filled.
        found: (1,) int64, filled: how many.

    Chosen boxes hang in a grid of lists by their top left corner; corners of boxes with IoU >= t differ by at most
    (1 - t) / t of the width and height, so only few cells are looked at.
    """
    columns = width // CELL + 1
    rows = height // CELL + 1
    head = scratch(rows * columns, np.int32)
    for cell in range(rows * columns):
        head[cell] = -1
    after = scratch(limit, np.int32)
    count = 0
    for number in range(len(order)):
        candidate = order[number]
        if count == limit:
            break
        x0: Any = np.int64(boxes[candidate, 0])
        y0: Any = np.int64(boxes[candidate, 1])
        x1 = np.int64(boxes[candidate, 2])
        y1 = np.int64(boxes[candidate, 3])
        w = x1 - x0
        h = y1 - y0
        if w < min_width or h < min_height:
            continue
        reach_x: Any = w * (100 - iou_percent) // iou_percent
        reach_y: Any = h * (100 - iou_percent) // iou_percent
        taken = False
        for row in range(max(0, y0 - reach_y) // CELL, min(height, y0 + reach_y) // CELL + 1):
            for column in range(max(0, x0 - reach_x) // CELL, min(width, x0 + reach_x) // CELL + 1):
                i = head[row * columns + column]
                while i >= 0 and not taken:
                    k = kept[i]
                    overlap_w = np.int64(min(x1, boxes[k, 2]) - max(x0, boxes[k, 0]))
                    overlap_h = np.int64(min(y1, boxes[k, 3]) - max(y0, boxes[k, 1]))
                    if overlap_w > 0 and overlap_h > 0:
                        overlap = overlap_w * overlap_h
                        union = w * h + np.int64(boxes[k, 2] - boxes[k, 0]) * (boxes[k, 3] - boxes[k, 1]) - overlap
                        taken = 100 * overlap >= iou_percent * union
                    i = after[i]
                if taken:
                    break
            if taken:
                break
        if taken:
            continue
        kept[count] = candidate
        cell = y0 // CELL * columns + x0 // CELL
        after[count] = head[cell]
        head[cell] = count
        count += 1
    found[0] = count
    release(head)
    release(after)
