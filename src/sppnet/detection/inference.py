"""From fc features of windows to detections: box regression, a second look at the best, suppression, box voting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.boxes import box_iou, decode_deltas, nms, soft_nms
from sppnet.detection.options import SuppressionOptions
from sppnet.detection.weights import BOX_BLOCK, DetectorWeights

__all__ = ["decode_detections"]

F32 = NDArray[np.float32]

# Windows of a class that go into non-maximum suppression, and detections that come out (the paper keeps 100)
_BEFORE_NMS, _AFTER_NMS = 400, 100
# So many windows of a class have their boxes regressed for themselves
_FEW = 32
# A second look is taken at boxes that are at least this probable, at most so many a class
_LOOK_AGAIN, _LOOK_AT_MOST = 0.02, 40
# Boxes that overlap a detection by this much have a say in where it is (Gidaris and Komodakis, 2015)
_VOTING_IOU = 0.5


def decode_detections(
    weights: DetectorWeights,
    fc: Callable[[F32], Tensor],
    windows: F32,
    height: int,
    width: int,
    options: SuppressionOptions,
    *,
    threshold: Tensor | float = 0.0,
    lap: Callable[[str], None] = lambda stage: None,
) -> tuple[F32, F32, NDArray[np.int64]]:
    """Turn the windows of one image into detections.

    Confidence is calibrated at the very end, so that another calibration changes neither boxes nor their order. What is
    found of a class doesn't depend on the other classes, to the last bit: none shares a matrix product whose shape
    depends on the others.

    Args:
        weights: of the layers behind the fc features.
        fc: gives fc features ``(K, H)`` of windows ``(K, 4)``. It is called once, and once a class for the second look.
        windows: ``(K, 4)`` in image pixels.
        height: of the image in pixels; boxes are clipped to it.
        width: of the image in pixels.
        options: of suppression, second look and voting.
        threshold: minimum confidence, or ``(classes,)`` of them.
        lap: called at the end of each stage.

    Returns:
        boxes ``(n, 4)``, confidences ``(n,)``, highest first, and classes ``(n,)``.
    """
    limit = np.array([width, height] * 2, np.float32)
    h = fc(windows)
    lap("fc")
    scores = weights.scores(weights.margins(h))
    top, rows = (v.cpu() for v in scores.topk(min(_BEFORE_NMS, len(scores)), dim=0))
    wanted = torch.as_tensor(threshold, dtype=torch.float32).expand(scores.shape[1]).tolist()
    least = [weights.least_score(p, c) for c, p in enumerate(wanted)]
    found: list[tuple[F32, F32]] = []
    blocks: dict[int, Tensor] = {}
    for c in range(scores.shape[1]):
        chosen = top[:, c] >= least[c]
        mine = rows[chosen, c]
        if len(mine) <= _FEW:
            deltas = weights.box_deltas(h[mine.to(h.device)], c).cpu()
        else:  # then it is quicker to regress every window for several classes at once
            block = c // BOX_BLOCK
            if block not in blocks:
                blocks[block] = weights.box_deltas_of_block(h, block).cpu()
            deltas = blocks[block][mine, c % BOX_BLOCK]
        moved = decode_deltas(windows[mine.numpy()], deltas.numpy())
        found.append((np.clip(moved, 0, limit), top[chosen, c].numpy()))
    lap("classes")
    if options.second_look:
        found = [_look_again(weights, fc, c, boxes, score, limit) for c, (boxes, score) in enumerate(found)]
        lap("second look")
    parts: list[tuple[F32, F32, NDArray[np.int64]]] = []
    for c, (boxes, score) in enumerate(found):
        kept = nms(boxes, score, options.nms_iou)
        if options.soft_sigma > 0:
            taken, new = soft_nms(boxes[kept], score[kept], options.soft_sigma, _AFTER_NMS)
            kept = kept[taken]
        else:
            kept = kept[:_AFTER_NMS]
            new = score[kept]
        new = weights.probability(new, c)
        shown = new >= wanted[c]  # a second look may have found less
        kept, new = kept[shown], new[shown]
        final = _vote(boxes, score, kept) if options.box_voting else boxes[kept]
        parts.append((final, new, np.full(len(kept), c, np.int64)))
    score = np.concatenate([p[1] for p in parts])
    order = np.argsort(-score, kind="stable")
    lap("NMS")
    return np.concatenate([p[0] for p in parts])[order], score[order], np.concatenate([p[2] for p in parts])[order]


def _look_again(
    weights: DetectorWeights,
    fc: Callable[[F32], Tensor],
    c: int,
    boxes: F32,
    score: F32,
    limit: F32,
) -> tuple[F32, F32]:
    """What was found of class ``c``, and what a second round of scoring and regression makes of the best of it."""
    worth = np.flatnonzero(score >= _LOOK_AGAIN)
    worth = worth[nms(boxes[worth], score[worth], 0.7)[:_LOOK_AT_MOST]]
    side = boxes[worth, 2:] - boxes[worth, :2]
    again = boxes[worth[(side >= 4).all(1)]]
    if not len(again):
        return boxes, score
    h = fc(again)
    new = weights.scores(weights.margins(h))[:, c].cpu().numpy()
    moved = np.clip(decode_deltas(again, weights.box_deltas(h, c).cpu().numpy()), 0, limit)
    return np.concatenate([boxes, moved]), np.concatenate([score, new])


def _vote(boxes: F32, score: F32, kept: NDArray[np.int64]) -> F32:
    overlap = box_iou(boxes[kept], boxes)
    weight = np.where(overlap >= _VOTING_IOU, score[None], 0).astype(np.float64)
    weight[np.arange(len(kept)), kept] += 1e-12  # a box without area overlaps nothing, not even itself
    mean: F32 = (weight @ boxes.astype(np.float64) / weight.sum(1, keepdims=True)).astype(np.float32)
    return mean
