"""Kernels of suppression: the same numbers as the functions of :mod:`sppnet.boxes`, ten times as fast.

Why: with every detection wanted, as evaluation needs them, suppression took a fifth of an image's time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.scratch import release, scratch


@jit
def suppress(boxes: Any, iou: Any, kept: Any) -> None:
    """Greedy suppression, as :func:`sppnet.boxes.nms` defines it.

    ``boxes``: float32 (K, 4), best first. ``iou``: float64 (1,). ``kept``: int64 (K + 1,); gets the rows that stay and,
    last of all, how many there are.
    """
    count = len(boxes)
    threshold = iou[0]
    area = scratch(count, np.float64)
    for i in range(count):
        w = np.float64(boxes[i, 2]) - np.float64(boxes[i, 0])
        h = np.float64(boxes[i, 3]) - np.float64(boxes[i, 1])
        area[i] = max(w, 0.0) * max(h, 0.0)
    dropped = scratch(count, np.uint8)
    stay = 0
    for i in range(count):
        if dropped[i]:
            continue
        kept[stay] = i
        stay += 1
        x0, y0 = np.float64(boxes[i, 0]), np.float64(boxes[i, 1])
        x1, y1 = np.float64(boxes[i, 2]), np.float64(boxes[i, 3])
        for j in range(i + 1, count):
            w = min(x1, np.float64(boxes[j, 2])) - max(x0, np.float64(boxes[j, 0]))
            h = min(y1, np.float64(boxes[j, 3])) - max(y0, np.float64(boxes[j, 1]))
            overlap = max(w, 0.0) * max(h, 0.0)
            if not overlap <= threshold * (area[i] + area[j] - overlap):
                dropped[j] = 1
    kept[count] = stay
    release(dropped)
    release(area)


@jit
def overlaps(a: Any, b: Any, iou: Any) -> None:
    """Intersection over union of every pair, as :func:`sppnet.boxes.box_iou` defines it.

    ``a``: float32 (A, 4). ``b``: float32 (4, B), a row for each side, so that many are compared at once. ``iou``:
    float32 (A, B).
    """
    zero = np.float32(0)
    count = b.shape[1]
    area = scratch(count, np.float32)
    for j in range(count):
        area[j] = max(b[2, j] - b[0, j], zero) * max(b[3, j] - b[1, j], zero)
    for i in range(len(a)):
        x0, y0, x1, y1 = a[i, 0], a[i, 1], a[i, 2], a[i, 3]
        own = max(x1 - x0, zero) * max(y1 - y0, zero)
        for j in range(count):
            w = max(min(x1, b[2, j]) - max(x0, b[0, j]), zero)
            h = max(min(y1, b[3, j]) - max(y0, b[1, j]), zero)
            overlap = w * h
            union = own + area[j] - overlap
            iou[i, j] = overlap / union if union > zero else zero
    release(area)
