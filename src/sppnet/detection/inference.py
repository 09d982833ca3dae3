"""From fc features of windows to detections: box regression, refinement of the best, suppression, box voting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sppnet._types import F32, I64
from sppnet.boxes import decode_deltas, soft_nms
from sppnet.detection.options import SuppressionOptions
from sppnet.detection.suppression import iou_of_pairs, suppressed
from sppnet.detection.weights import DetectorWeights

__all__ = ["AFTER_NMS", "decode_detections"]

Scorer = Callable[[F32], tuple[F32, F32]]

# Windows of a class that go into non-maximum suppression, and detections that come out (the paper keeps 100)
_BEFORE_NMS, AFTER_NMS = 400, 100
# Boxes are refined that are at least this probable, at most so many a class
_REFINE_FROM, _REFINE_AT_MOST = 0.02, 40
# Boxes that overlap a detection by this much have a say in where it is (Gidaris and Komodakis, 2015)
_VOTING_IOU = 0.5


def decode_detections(
    weights: DetectorWeights,
    score: Scorer,
    windows: F32,
    height: int,
    width: int,
    options: SuppressionOptions,
    *,
    threshold: NDArray[np.floating] | float = 0.0,
    lap: Callable[[str], None] = lambda stage: None,
) -> tuple[F32, F32, I64]:
    """Turn the windows of one image into detections.

    Confidence is calibrated at the very end, so that another calibration changes neither boxes nor their order. What is
    found of a class doesn't depend on the other classes, to the last bit: none shares a matrix product whose shape
    depends on the others.

    Args:
        weights: of the layers behind the fc features; their calibration is used here.
        score: gives margins ``(K, c)`` and box deltas ``(K, c, 4)`` of windows ``(K, 4)``. It is called once, and once
            a class for each refinement.
        windows: ``(K, 4)`` in image pixels.
        height: of the image in pixels; boxes are clipped to it.
        width: of the image in pixels.
        options: of suppression, refinement and voting.
        threshold: minimum confidence, or ``(classes,)`` of them.
        lap: called at the end of each stage.

    Returns:
        boxes ``(n, 4)``, confidences ``(n,)``, highest first, and classes ``(n,)``.
    """
    limit = np.array([width, height] * 2, np.float32)
    margins, deltas = score(windows)
    lap("fc")
    wanted = np.broadcast_to(np.asarray(threshold, np.float32), (weights.classes,)).tolist()
    found: list[tuple[F32, F32]] = []
    for c, at_least in enumerate(wanted):
        scores = _sigmoid(margins[:, c])
        mine = _best(scores, weights.least_score(at_least, c))
        moved = decode_deltas(windows[mine], np.ascontiguousarray(deltas[mine, c]))
        found.append((np.clip(moved, 0, limit), scores[mine]))
    lap("classes")
    if options.refinements:
        found = [_refine(score, c, boxes, own, limit, options.refinements) for c, (boxes, own) in enumerate(found)]
        lap("refinement")
    parts: list[tuple[F32, F32, I64]] = []
    for c, (boxes, own) in enumerate(found):
        kept = suppressed(boxes, own, options.nms_iou)
        if options.soft_sigma > 0:
            taken, new = soft_nms(boxes[kept], own[kept], options.soft_sigma, AFTER_NMS)
            kept = kept[taken]
        else:
            kept = kept[:AFTER_NMS]
            new = own[kept]
        new = weights.probability(new, c)
        shown = new >= wanted[c]  # a refined box may have a lower score
        kept, new = kept[shown], new[shown]
        final = _vote(boxes, own, kept) if options.box_voting else boxes[kept]
        there = (final[:, 2:] > final[:, :2]).all(1)  # clipping may leave a box outside without area
        parts.append((final[there], new[there], np.full(int(there.sum()), c, np.int64)))
    confidence = np.concatenate([p[1] for p in parts])
    order = np.argsort(-confidence, kind="stable")
    lap("NMS")
    return np.concatenate([p[0] for p in parts])[order], confidence[order], np.concatenate([p[2] for p in parts])[order]


def _sigmoid(margins: F32) -> F32:
    """Scores in (0, 1) of the margins of one class, before calibration."""
    # contiguous: NumPy's loops over arrays with gaps may round otherwise, and gaps depend on the other classes
    z = np.ascontiguousarray(margins)
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-z))).astype(np.float32)


def _best(scores: F32, least: float) -> I64:
    """Rows of the highest scores that are at least ``least``, best first; of equal ones the first row first."""
    rows = np.flatnonzero(scores >= least)
    if len(rows) > _BEFORE_NMS:
        cut = -np.partition(-scores[rows], _BEFORE_NMS - 1)[_BEFORE_NMS - 1]
        rows = rows[scores[rows] >= cut]
    return rows[np.argsort(-scores[rows], kind="stable")][:_BEFORE_NMS]


def _refine(score: Scorer, c: int, boxes: F32, scores: F32, limit: F32, rounds: int) -> tuple[F32, F32]:
    """What was found of class ``c``, and what rounds of scoring and regression make of the best of it.

    The first round starts from all boxes, each other one from those that the round before made.
    """
    found = [(boxes, scores)]
    for _ in range(rounds):
        boxes, scores = found[-1]
        worth = np.flatnonzero(scores >= _REFINE_FROM)
        worth = worth[suppressed(boxes[worth], scores[worth], 0.7)[:_REFINE_AT_MOST]]
        side = boxes[worth, 2:] - boxes[worth, :2]
        again = boxes[worth[(side >= 4).all(1)]]
        if not len(again):
            break
        margins, deltas = score(again)
        moved = np.clip(decode_deltas(again, np.ascontiguousarray(deltas[:, c])), 0, limit)
        found.append((moved, _sigmoid(margins[:, c])))
    return np.concatenate([b for b, _ in found]), np.concatenate([s for _, s in found])


def _vote(boxes: F32, score: F32, kept: NDArray[np.int64]) -> F32:
    overlap = iou_of_pairs(boxes[kept], boxes)
    weight = np.where(overlap >= _VOTING_IOU, score[None], 0).astype(np.float64)
    weight[np.arange(len(kept)), kept] += 1e-12  # a box without area overlaps nothing, not even itself
    mean: F32 = (weight @ boxes.astype(np.float64) / weight.sum(1, keepdims=True)).astype(np.float32)
    return mean
