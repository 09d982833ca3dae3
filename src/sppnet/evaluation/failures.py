"""Failures of a detector by kind: box too loose, another class, nothing there, found twice, missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sppnet._types import F32, I64, BoolArray
from sppnet.boxes import box_area, box_iou
from sppnet.datasets.records import DetectionDataset
from sppnet.evaluation.voc import DetectionsLike

__all__ = ["Failure", "FailureKind", "find_failures", "format_failures", "judge_detections", "recall_by_size"]

FailureKind = Literal["loose", "confused", "background", "twice", "missed"]
"""Kinds of failure, after Hoiem, Chodpathumwan and Dai (2012), whose similar and other classes are one kind here.

- ``loose``: the detection has an IoU from 0.1 to 0.5 with an object of its class.
- ``confused``: it has an IoU of 0.1 or more with an object of another class.
- ``background``: neither.
- ``twice``: it lies on an object that a detection of higher confidence has found.
- ``missed``: an object that no detection has found.
"""

# A detection with a lower IoU has nothing to do with the object
_TOUCHES = 0.1
# Borders between the sizes by which objects are counted: root of their area in pixels of the image
SIZES_PX = (32, 64, 128)


@dataclass(frozen=True)
class Failure:
    """One wrong detection, or one missed object.

    Attributes:
        kind: see :data:`FailureKind`.
        image: index of the image in the data set.
        box: float32 ``(4,)``, of the detection, or of the missed object.
        class_id: class of the detection, or of the missed object.
        confidence: of the detection, in [0, 1]; NaN for a missed object.
        other: class of the object that a ``confused`` detection lies on; otherwise -1.
        iou: of the detection with the object that it is compared with; 0 where there is none. For a missed object, the
            largest IoU of a detection of its class (above 0.5 where that detection found another object).
    """

    kind: FailureKind
    image: int
    box: F32
    class_id: int
    confidence: float
    other: int = -1
    iou: float = 0.0


def judge_detections(
    found: DetectionsLike,
    boxes: F32,
    labels: I64,
    difficult: BoolArray,
    iou: float = 0.5,
) -> NDArray[np.int8]:
    """Decide for each detection of an image whether it is right, by the rules of PASCAL VOC.

    Args:
        found: ``n`` detections of one image.
        boxes: ``(k, 4)``, of its objects.
        labels: ``(k,)``, class indices of its objects.
        difficult: ``(k,)``, whether an object is difficult.
        iou: a detection is right when its IoU with an object of its class is larger.

    Returns:
        int8 ``(n,)``: 1 right; 0 wrong, or an object found twice; -1 a difficult object, which counts neither way.

    >>> from types import SimpleNamespace
    >>> boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], np.float32)
    >>> found = SimpleNamespace(xyxy=boxes, confidence=np.array([0.9, 0.8, 0.7]), class_id=np.array([2, 2, 2]))
    >>> judge_detections(found, boxes[:1], np.array([2]), np.array([False])).tolist()  # right, again, nothing there
    [1, 0, 0]
    """
    verdict = np.zeros(len(found.confidence), np.int8)
    overlap = box_iou(found.xyxy, boxes) if len(boxes) else np.zeros((len(found.confidence), 0), np.float32)
    overlap[found.class_id[:, None] != labels[None, :]] = 0
    taken = np.zeros(len(boxes), bool)
    for k in np.argsort(-found.confidence, kind="stable"):
        best = int(overlap[k].argmax()) if len(boxes) else -1
        if best < 0 or overlap[k, best] <= iou:
            continue
        if difficult[best]:
            verdict[k] = -1
        elif not taken[best]:
            verdict[k], taken[best] = 1, True
    return verdict


def find_failures(
    found: Sequence[DetectionsLike], dataset: DetectionDataset, thresholds: Mapping[str, float], iou: float = 0.5
) -> tuple[list[Failure], int]:
    """Find all failures, image by image.

    Args:
        found: detections of each image of ``dataset``.
        dataset: the ground truth.
        thresholds: confidence by class name; less sure detections are left out.
        iou: a detection is right when its IoU with an object of its class is larger.

    Returns:
        The failures, and the number of right detections.
    """
    failures: list[Failure] = []
    right = 0
    least = np.array([thresholds[name] for name in dataset.class_names])
    for i, (item, record) in enumerate(zip(found, dataset, strict=True)):
        shown = np.flatnonzero(item.confidence >= least[item.class_id])
        mine = _Shown(item.xyxy[shown], item.confidence[shown], item.class_id[shown])
        verdict = judge_detections(mine, record.boxes, record.labels, record.difficult, iou)
        right += int((verdict == 1).sum())
        overlap = box_iou(mine.xyxy, record.boxes)
        same = np.where(mine.class_id[:, None] == record.labels[None], overlap, 0)
        others = overlap - same
        for k in np.flatnonzero(verdict == 0):
            own, other = float(same[k].max(initial=0)), float(others[k].max(initial=0))
            on = int(record.labels[others[k].argmax()]) if other else -1
            kind: FailureKind
            if own > iou:
                kind, with_iou, on = "twice", own, -1
            elif own >= _TOUCHES:
                kind, with_iou, on = "loose", own, -1
            elif other >= _TOUCHES:
                kind, with_iou = "confused", other
            else:
                kind, with_iou, on = "background", max(own, other), -1
            failures.append(
                Failure(kind, i, mine.xyxy[k], int(mine.class_id[k]), float(mine.confidence[k]), on, with_iou)
            )
        best = same.max(0, initial=0)
        lost = ~record.difficult
        lost[[int(same[k].argmax()) for k in np.flatnonzero(verdict == 1)]] = False
        for j in np.flatnonzero(lost):
            label = int(record.labels[j])
            failures.append(Failure("missed", i, record.boxes[j], label, float("nan"), -1, float(best[j])))
    return failures, right


def recall_by_size(failures: Sequence[Failure], dataset: DetectionDataset) -> list[tuple[str, int, int]]:
    """Count objects and found objects by size, difficult ones left out.

    Args:
        failures: what :func:`find_failures` returned.
        dataset: the ground truth.

    Returns:
        ``(size, objects, found)`` for each size from small to large; see :data:`SIZES_PX`.
    """
    sides = [box_area(r.boxes[~r.difficult]) ** 0.5 for r in dataset]
    everything = np.searchsorted(SIZES_PX, np.concatenate([np.zeros(0), *sides]), side="right")
    missed = [float(box_area(f.box[None])[0]) ** 0.5 for f in failures if f.kind == "missed"]
    lost = np.searchsorted(SIZES_PX, np.array(missed), side="right")
    names = [f"under {SIZES_PX[0]}", *(f"{a} to {b}" for a, b in pairwise(SIZES_PX))]
    names.append(f"{SIZES_PX[-1]} and more")
    total, gone = (np.bincount(v, minlength=len(names)) for v in (everything, lost))
    return [(name, int(t), int(t - g)) for name, t, g in zip(names, total, gone, strict=True)]


def format_failures(failures: Sequence[Failure], right: int, dataset: DetectionDataset) -> str:
    """Format the failures as text: counts by kind with the classes that have most, and objects found by size.

    Args:
        failures: what :func:`find_failures` returned.
        right: number of right detections.
        dataset: the ground truth.

    Returns:
        Several lines.
    """
    names = dataset.class_names
    words = {
        "loose": f"box too loose (IoU {_TOUCHES} to 0.5)",
        "confused": "another class",
        "background": "nothing there",
        "twice": "found twice",
        "missed": "objects missed",
    }
    wrong = sum(f.kind != "missed" for f in failures)
    lines = [f"{right} detections right, {wrong} wrong, {len(failures) - wrong} objects missed"]
    for kind in get_args(FailureKind):
        mine = [f for f in failures if f.kind == kind]
        most = Counter(names[f.class_id] if f.other < 0 else f"{names[f.class_id]} on {names[f.other]}" for f in mine)
        top = ", ".join(f"{name} {n}" for name, n in sorted(most.items(), key=lambda v: (-v[1], v[0]))[:4])
        lines.append(f"  {words[kind]:<29} {len(mine):>6}" + (f"  most: {top}" if top else ""))
    lines.append("objects found, by the root of their area in pixels:")
    for name, total, found in recall_by_size(failures, dataset):
        lines.append(f"  {name:<29} {f'{100 * found / total:.0f} %' if total else '-':>6}  of {total}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Shown:
    xyxy: F32
    confidence: F32
    class_id: I64
