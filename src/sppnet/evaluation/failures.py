"""What a detector gets wrong, and in which way: too loose a box, another class, nothing there, found twice, missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sppnet.boxes import box_area, box_iou
from sppnet.datasets.records import DetectionDataset
from sppnet.evaluation.voc import DetectionsLike

__all__ = ["Failure", "FailureKind", "find_failures", "format_failures", "recall_by_size", "right_or_wrong"]

FailureKind = Literal["loose", "confused", "background", "twice", "missed"]
"""``loose``: IoU with an object of its class in [0.1, 0.5]; ``confused``: with one of another class, 0.1 or more;
``background``: neither; ``twice``: an object that a better detection has found; ``missed``: an object without detection
(Hoiem, Chodpathumwan and Dai, 2012, whose similar and other classes are one kind here)."""

# A detection that overlaps an object by less has nothing to do with it
_TOUCHES = 0.1
# Objects are counted by the root of their area, in pixels of the photo, up to these
SIZES_PX = (32, 64, 128)


@dataclass(frozen=True)
class Failure:
    """One wrong detection, or one missed object.

    Attributes:
        kind: see :data:`FailureKind`.
        image: index of the picture in the data set.
        box: float32 ``(4,)``, of the detection, or of the object that was missed.
        class_id: its class. confidence: of the detection, in [0, 1]; NaN where an object was missed.
        other: class of the object it lies on, where that is another one; -1 otherwise.
        iou: with the object that it is compared with; 0 where there is none. Of a missed object: with the best
            detection of its class (above 0.5 where that one is another object's).
    """

    kind: FailureKind
    image: int
    box: NDArray[np.float32]
    class_id: int
    confidence: float
    other: int = -1
    iou: float = 0.0


def right_or_wrong(
    found: DetectionsLike,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    difficult: NDArray[np.bool_],
    iou: float = 0.5,
) -> NDArray[np.int8]:
    """Of each detection of an image: 1 found an object, 0 is wrong or a repetition, -1 found a difficult object."""
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
    """All failures, picture by picture, and the number of right detections.

    Args:
        found: detections of each picture of ``dataset``. thresholds: by class; what scores less isn't looked at.
        iou: a right detection has more.
    """
    failures: list[Failure] = []
    right = 0
    least = np.array([thresholds[name] for name in dataset.class_names])
    for i, (item, record) in enumerate(zip(found, dataset, strict=True)):
        shown = np.flatnonzero(item.confidence >= least[item.class_id])
        mine = _Shown(item.xyxy[shown], item.confidence[shown], item.class_id[shown])
        verdict = right_or_wrong(mine, record.boxes, record.labels, record.difficult, iou)
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
    """``(sizes, objects, found)`` for small to large objects that aren't difficult; see :data:`SIZES_PX`."""
    sides = [box_area(r.boxes[~r.difficult]) ** 0.5 for r in dataset]
    everything = np.searchsorted(SIZES_PX, np.concatenate([np.zeros(0), *sides]), side="right")
    missed = [float(box_area(f.box[None])[0]) ** 0.5 for f in failures if f.kind == "missed"]
    lost = np.searchsorted(SIZES_PX, np.array(missed), side="right")
    names = [f"under {SIZES_PX[0]}", *(f"{a} to {b}" for a, b in pairwise(SIZES_PX))]
    names.append(f"{SIZES_PX[-1]} and more")
    total, gone = (np.bincount(v, minlength=len(names)) for v in (everything, lost))
    return [(name, int(t), int(t - g)) for name, t, g in zip(names, total, gone, strict=True)]


def format_failures(failures: Sequence[Failure], right: int, dataset: DetectionDataset) -> str:
    """Counts by kind, with the classes that have most of each, and the share of objects found by size, as text."""
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
    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int64]
