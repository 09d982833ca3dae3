"""From fc features of windows to detections: box regression, a second look at the best, suppression, box voting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.boxes import box_iou, decode_deltas, nms
from sppnet.detection.weights import DetectorWeights

__all__ = ["find_objects"]

F32 = NDArray[np.float32]

# Windows of a class that go into non-maximum suppression, and detections that come out (the paper keeps 100)
_BEFORE_NMS, _AFTER_NMS = 400, 100
# A second look is taken at boxes that are at least this probable, at most so many a class
_LOOK_AGAIN, _LOOK_AT_MOST = 0.02, 40
# Boxes that overlap a detection by this much have a say in where it is (Gidaris and Komodakis, 2015)
_VOTING_IOU = 0.5


def find_objects(
    weights: DetectorWeights,
    fc: Callable[[F32], Tensor],
    windows: F32,
    height: int,
    width: int,
    *,
    context: Tensor | float = 0.0,
    threshold: float = 0.0,
    nms_iou: float = 0.3,
    second_look: bool = True,
    voting: bool = True,
    lap: Callable[[str], None] = lambda stage: None,
) -> tuple[F32, F32, NDArray[np.int64]]:
    """Detections in one image.

    Args:
        fc: gives fc features ``(K, H)`` of windows ``(K, 4)``; it's called once, and once more for the second look.
        windows: ``(K, 4)`` in image pixels.
        height, width: of the image; boxes are clipped to it.
        context: ``(classes,)``, added to the margins of every window.
        threshold: least probability.
        second_look: the most probable regressed boxes are pooled, scored and regressed once more.
        voting: a detection's box is the mean of all boxes of its class that overlap it, weighted by probability.
        lap: called at the end of each stage.

    Returns:
        boxes ``(n, 4)``, probabilities ``(n,)``, best first, and classes ``(n,)``.
    """
    limit = np.array([width, height] * 2, np.float32)
    h = fc(windows)
    lap("fc")
    probability = weights.probability(weights.margins(h) + context)
    top, rows = probability.topk(min(_BEFORE_NMS, len(probability)), dim=0)
    chosen = [rows[top[:, c] >= threshold, c] for c in range(probability.shape[1])]
    needed = torch.cat(chosen).unique()
    deltas = weights.box_deltas(h[needed])
    place = torch.zeros(len(h), dtype=torch.int64)
    place[needed] = torch.arange(len(needed))
    found: list[tuple[F32, F32]] = []
    for c, mine in enumerate(chosen):
        moved = decode_deltas(windows[mine.numpy()], deltas[place[mine], c].numpy())
        found.append((np.clip(moved, 0, limit), probability[mine, c].numpy()))
    lap("classes")
    if second_look:
        found = _look_again(weights, fc, found, limit, context, nms_iou)
        lap("second look")
    parts: list[tuple[F32, F32, NDArray[np.int64]]] = []
    for c, (boxes, score) in enumerate(found):
        kept = nms(boxes, score, nms_iou)[:_AFTER_NMS]
        final = _vote(boxes, score, kept) if voting else boxes[kept]
        parts.append((final, score[kept], np.full(len(kept), c, np.int64)))
    score = np.concatenate([p[1] for p in parts])
    order = np.argsort(-score, kind="stable")
    lap("NMS")
    return np.concatenate([p[0] for p in parts])[order], score[order], np.concatenate([p[2] for p in parts])[order]


def _look_again(
    weights: DetectorWeights,
    fc: Callable[[F32], Tensor],
    found: list[tuple[F32, F32]],
    limit: F32,
    context: Tensor | float,
    nms_iou: float,
) -> list[tuple[F32, F32]]:
    """``found`` with the boxes added that a second round of scoring and regression makes of its best."""
    picked = []
    for boxes, score in found:
        worth = np.flatnonzero(score >= _LOOK_AGAIN)
        worth = worth[nms(boxes[worth], score[worth], 0.7)[:_LOOK_AT_MOST]]
        side = boxes[worth, 2:] - boxes[worth, :2]
        picked.append(worth[(side >= 4).all(1)])
    again = np.concatenate([boxes[worth] for (boxes, _), worth in zip(found, picked, strict=True)])
    if not len(again):
        return found
    h = fc(again)
    label = torch.from_numpy(np.repeat(np.arange(len(found)), [len(worth) for worth in picked]))
    score = weights.probability(weights.margins(h) + context).gather(1, label[:, None])[:, 0].numpy()
    moved = np.clip(decode_deltas(again, weights.box_deltas(h)[torch.arange(len(h)), label].numpy()), 0, limit)
    out, start = [], 0
    for (boxes, old), worth in zip(found, picked, strict=True):
        rows = slice(start, start := start + len(worth))
        out.append((np.concatenate([boxes, moved[rows]]), np.concatenate([old, score[rows]])))
    return out


def _vote(boxes: F32, score: F32, kept: NDArray[np.int64]) -> F32:
    overlap = box_iou(boxes[kept], boxes)
    weight = np.where(overlap >= _VOTING_IOU, score[None], 0).astype(np.float64)
    weight[np.arange(len(kept)), kept] += 1e-12  # a box without area overlaps nothing, not even itself
    return (weight @ boxes.astype(np.float64) / weight.sum(1, keepdims=True)).astype(np.float32)
