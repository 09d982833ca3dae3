"""From margins to probabilities: a sigmoid for each class (Platt, 1999), fitted on detections known right or wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sppnet.boxes import box_iou
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.detections import Detections

__all__ = ["fit_sigmoids", "right_or_wrong"]

F64 = NDArray[np.float64]


def right_or_wrong(
    found: Detections,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    difficult: NDArray[np.bool_],
    iou: float = 0.5,
) -> NDArray[np.int8]:
    """Of each detection of an image: 1 found an object, 0 is wrong or a repetition, -1 found a difficult object."""
    verdict = np.zeros(len(found), np.int8)
    overlap = box_iou(found.xyxy, boxes) if len(boxes) else np.zeros((len(found), 0), np.float32)
    overlap[found.label[:, None] != labels[None, :]] = 0
    taken = np.zeros(len(boxes), bool)
    for k in np.argsort(-found.score, kind="stable"):
        best = int(overlap[k].argmax()) if len(boxes) else -1
        if best < 0 or overlap[k, best] <= iou:
            continue
        if difficult[best]:
            verdict[k] = -1
        elif not taken[best]:
            verdict[k], taken[best] = 1, True
    return verdict


def fit_sigmoids(
    margins: Sequence[NDArray[np.floating]], verdicts: Sequence[NDArray[np.int8]], strength: float = 20.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slope and offset ``(classes,)`` of P(right) = sigmoid(slope * margin + offset).

    A common sigmoid is fitted first; each class's own is drawn towards it with the weight of ``strength`` examples, so
    that a class with few detections doesn't get a wild one. Slopes stay positive: the order within a class is kept.

    Args:
        margins, verdicts: one array a class, from :func:`right_or_wrong`; -1 is left out.
    """
    kept = [
        (m[v >= 0].astype(np.float64), v[v >= 0].astype(np.float64)) for m, v in zip(margins, verdicts, strict=True)
    ]
    all_m = np.concatenate([m for m, _ in kept]) if kept else np.zeros(0)
    all_v = np.concatenate([v for _, v in kept]) if kept else np.zeros(0)
    start = np.array([2.0, 0.0])
    if len(all_m) and 0 < all_v.sum() < len(all_v):
        common = _fit(all_m, all_v, start, np.array([1e-3, 1e-3]))
    else:
        common = start
    own = []
    for m, v in kept:
        spread = np.array([float(m.var()) if len(m) else 1.0, 1.0])
        own.append(_fit(m, v, common, strength * 0.25 * np.maximum(spread, 1e-3)) if len(m) else common)
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
    """:func:`right_or_wrong` for every image of ``dataset``."""
    return [
        right_or_wrong(d, record.boxes, record.labels, record.difficult)
        for d, record in zip(found, dataset, strict=True)
    ]
