"""From margins to probabilities: a sigmoid for each class (Platt, 1999), fitted on detections known right or wrong.

And the probability from which on a detection is worth being shown: the threshold of the best F1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sppnet.boxes import box_iou
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.detections import Detections
from sppnet.detection.weights import DetectorWeights
from sppnet.evaluation.failures import judge_detections

__all__ = [
    "DEFAULT_THRESHOLD",
    "Calibration",
    "best_f1_threshold",
    "calibrate_scores",
    "fit_sigmoids",
    "rescore",
]

F64 = NDArray[np.float64]

# Boxes that overlap by less leave each other's scores as they are, to a few per cent
_TRIFLE = 0.1
DEFAULT_THRESHOLD = 0.5
"""Of a class for which none was tuned: more likely right than wrong."""


@dataclass(frozen=True)
class Calibration:
    """One number a class: ``slope`` and ``offset`` float32 ``(c,)``, ``thresholds`` float64 ``(c,)`` in [0, 1]."""

    slope: NDArray[np.float32]
    offset: NDArray[np.float32]
    thresholds: F64


def calibrate_scores(
    found: Sequence[Detections],
    dataset: DetectionDataset,
    slope: NDArray[np.float32],
    offset: NDArray[np.float32],
    centre: tuple[float, float] | None = None,
) -> Calibration:
    """Sigmoids and thresholds of all classes, from detections (threshold 0) of annotated images.

    The sigmoids are fitted on detections that hardly overlap a better one of their class: soft suppression has lowered
    the scores of the others, so that they don't tell the margin any more. The thresholds are tuned on all.

    Args:
        found: one for each image of ``dataset``, with the same classes.
        dataset: the annotated images.
        slope: ``(c,)``, of the sigmoids that gave the confidences of ``found``.
        offset: ``(c,)``, of the same.
        centre: see :func:`fit_sigmoids`.
    """
    classes = len(slope)
    margins: list[list[F64]] = [[np.zeros(0)] for _ in range(classes)]
    verdicts: list[list[NDArray[np.int8]]] = [[np.zeros(0, np.int8)] for _ in range(classes)]
    alone: list[list[NDArray[np.bool_]]] = [[np.zeros(0, bool)] for _ in range(classes)]
    objects = np.zeros(classes, np.int64)
    for d, record, verdict in zip(found, dataset, verdicts_of(found, dataset), strict=True):
        margin = _margins(d.confidence, slope[d.class_id], offset[d.class_id])
        for c in np.unique(d.class_id):
            margins[c].append(margin[d.class_id == c])
            verdicts[c].append(verdict[d.class_id == c])
            alone[c].append(_alone(d.xyxy[d.class_id == c], d.confidence[d.class_id == c]))
        objects += np.bincount(record.labels[~record.difficult], minlength=classes)
    all_margins, all_verdicts = [np.concatenate(m) for m in margins], [np.concatenate(v) for v in verdicts]
    kept = [np.concatenate(a) for a in alone]
    some_margins = [m[k] for m, k in zip(all_margins, kept, strict=True)]
    some_verdicts = [v[k] for v, k in zip(all_verdicts, kept, strict=True)]
    new_slope, new_offset = fit_sigmoids(some_margins, some_verdicts, centre=centre)
    thresholds = [
        best_f1_threshold(1 / (1 + np.exp(-(float(a) * m + float(b)))), v, int(n))
        for a, b, m, v, n in zip(new_slope, new_offset, all_margins, all_verdicts, objects, strict=True)
    ]
    return Calibration(new_slope, new_offset, np.array(thresholds))


def rescore(found: Detections, before: DetectorWeights, after: DetectorWeights) -> Detections:
    """Give detections (threshold 0) the confidences of other sigmoids, best first.

    Args:
        found: of a detector with the sigmoids ``before``, in the order that it gave them.
        before: weights whose ``slope`` and ``offset`` (classes,) gave the confidences.
        after: weights with the new ``slope`` and ``offset``.
    """
    order = np.argsort(found.class_id, kind="stable")  # as suppression leaves them: class by class
    label = found.class_id[order]
    old_slope, old_offset, slope, offset = (
        v.astype(np.float64)[label] for v in (before.slope, before.offset, after.slope, after.offset)
    )
    z = slope * _margins(found.confidence[order], old_slope, old_offset) + offset
    confidence = (1 / (1 + np.exp(-z))).astype(np.float32)
    best = np.argsort(-confidence, kind="stable")
    boxes = found.xyxy[order]
    return replace(found, xyxy=boxes[best], confidence=confidence[best], class_id=label[best])


def _margins(confidence: NDArray[np.float32], slope: NDArray[np.floating], offset: NDArray[np.floating]) -> F64:
    """Margins whose calibrated confidence this is: the inverse of :meth:`DetectorWeights.probability`."""
    p = np.clip(confidence.astype(np.float64), 1e-45, 1 - 2.0**-24)
    most = np.log((1 - 1e-7) / 1e-7)
    margins: F64 = np.clip((np.log(p / (1 - p)) - offset) / slope, -most, most)
    return margins


def _alone(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each box of a class overlaps no box with a better score by more than a trifle."""
    order = np.argsort(-scores, kind="stable")
    overlap = np.triu(box_iou(boxes[order], boxes[order]), 1).max(0, initial=0)
    out = np.zeros(len(boxes), bool)
    out[order] = overlap <= _TRIFLE
    return out


def best_f1_threshold(scores: NDArray[np.floating], verdicts: NDArray[np.int8], objects: int) -> float:
    """The threshold in [0, 1] at which detections of a class have the best F1, midway to the next lower score.

    Args:
        scores: ``(n,)``.
        verdicts: ``(n,)``, as of :func:`judge_detections`.
        objects: how many there were to be found.

    Returns:
        ``DEFAULT_THRESHOLD`` where nothing was found, or nothing was there. Of equal F1 the highest threshold.
    """
    counts = verdicts >= 0
    order = np.argsort(-scores[counts], kind="stable")
    score, hit = scores[counts][order].astype(np.float64), verdicts[counts][order] > 0
    if not hit.any() or objects < 1:
        return DEFAULT_THRESHOLD
    # 2 * hits / (2 * hits + false alarms + missed), at every score below which another one lies
    f1 = 2 * np.cumsum(hit) / (np.arange(1, len(hit) + 1) + objects)
    below = np.append(score[1:], score[-1])
    f1[:-1][score[:-1] == below[:-1]] = -1
    best = int(f1.argmax())
    return float(np.clip((score[best] + below[best]) / 2, 0, 1))


def fit_sigmoids(
    margins: Sequence[NDArray[np.floating]],
    verdicts: Sequence[NDArray[np.int8]],
    strength: float = 20.0,
    centre: tuple[float, float] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slope and offset ``(classes,)`` of P(right) = sigmoid(slope * margin + offset).

    A common sigmoid is fitted first; each class's own is drawn towards it with the weight of ``strength`` examples, so
    that a class with few detections doesn't get a wild one. Slopes stay positive: the order within a class is kept.

    Args:
        margins: one array a class.
        verdicts: one array a class, from :func:`judge_detections`; -1 is left out.
        strength: weight of the common sigmoid, in examples.
        centre: slope and offset to use instead of the common sigmoid.
    """
    kept = [
        (m[v >= 0].astype(np.float64), v[v >= 0].astype(np.float64)) for m, v in zip(margins, verdicts, strict=True)
    ]
    all_m = np.concatenate([m for m, _ in kept]) if kept else np.zeros(0)
    all_v = np.concatenate([v for _, v in kept]) if kept else np.zeros(0)
    start = np.array([2.0, 0.0] if centre is None else centre)
    if centre is None and len(all_m) and 0 < all_v.sum() < len(all_v):
        common = _fit(all_m, all_v, start, np.array([1e-3, 1e-3]))
    else:
        common = start
    own = []
    for m, v in kept:
        spread = np.array([float(m.var()) if len(m) else 1.0, 1.0])
        own.append(_fit(m, v, common, strength * 0.25 * np.maximum(spread, 0.1)) if len(m) else common)
    table = np.array(own, np.float64).reshape(-1, 2)
    return np.maximum(table[:, 0], 0.05).astype(np.float32), table[:, 1].astype(np.float32)


def _fit(m: F64, v: F64, centre: F64, precision: F64) -> F64:
    """Newton's method for the logistic loss plus ``precision * (parameters - centre)^2 / 2``, with step halving."""
    x = np.stack([m, np.ones_like(m)], 1)

    def cost(p: F64) -> float:
        z = x @ p
        return float(np.logaddexp(0, z).sum() - v @ z + 0.5 * (precision * (p - centre) ** 2).sum())

    at = centre.copy()
    value = cost(at)
    for _ in range(50):
        q = 0.5 * (1 + np.tanh(0.5 * (x @ at)))
        gradient = x.T @ (q - v) + precision * (at - centre)
        hessian = (x * (q * (1 - q))[:, None]).T @ x + np.diag(precision)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and cost(at - size * step) > value:
            size /= 2
        new = cost(at - size * step)
        at = at - size * step
        if value - new < 1e-9 * max(1.0, abs(value)):
            break
        value = new
    return at


def verdicts_of(found: Sequence[Detections], dataset: DetectionDataset) -> list[NDArray[np.int8]]:
    """:func:`judge_detections` for every image of ``dataset``."""
    return [
        judge_detections(d, record.boxes, record.labels, record.difficult)
        for d, record in zip(found, dataset, strict=True)
    ]
