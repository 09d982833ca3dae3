"""How good the suggestions are, told by what a person did with them and by heads that did not learn from an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sppnet.boxes import box_iou
from sppnet.studio.labels import BoxLabel
from sppnet.studio.project import Project

__all__ = ["likely_mistakes", "quality_of"]

_LAST_IMAGES = 20
_MOST_MISTAKES = 24
_SURE = 0.8  # a detection without a box, above this, is worth a look
_NOTHING = 0.1  # a box where nothing is found above this is worth a look
_TRUSTED_AP = 0.5  # below this the heads' opinion of a class is worth nothing

Row = Sequence[float]


def quality_of(project: Project, measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """Count what became of suggestions, and find labels that are likely wrong.

    Args:
        project: images and labels.
        measured: the newest message of :func:`sppnet.studio.measured.quality_event`, or None.

    Returns:
        What :class:`sppnet.studio.teacher.Teacher.quality` says.
    """
    labels = project.all_labels()
    done = [key for key, known in labels.items() if known.done and known.version][-_LAST_IMAGES:]
    about = measured["classes"] if measured else {}
    rows = []
    for c in project.class_list():
        counts = dict.fromkeys(("kept", "moved", "deleted", "added", "boxes"), 0)
        for key in done:
            for box in labels[key].boxes:
                if box.class_id == c["id"]:
                    kind = {"accepted": "kept", "corrected": "moved"}.get(box.origin, "added")
                    counts[kind] += 1
                    counts["boxes"] += 1
            counts["deleted"] += sum(box.class_id == c["id"] for box in labels[key].rejected)
        nothing = dict.fromkeys(("ap", "ap_low", "ap_high", "half_ap", "trend", "more"))
        rows.append({"id": c["id"], **counts, **nothing, **about.get(c["id"], {})})
    mistakes: list[dict[str, Any]] = []
    for image, found in (measured["found"] if measured else {}).items():
        if image in labels and labels[image].done:
            trusted = {row["id"] for row in rows if (row["ap"] or 0) >= _TRUSTED_AP}
            name = project.image(image).name
            mistakes += [
                {"image": image, "name": name, **m} for m in likely_mistakes(labels[image].boxes, found, trusted)
            ]
    mistakes.sort(key=lambda m: -m["sure"])
    return {
        "classes": rows, "images": len(done), "folds": measured["folds"] if measured else 0,
        "measured": measured["measured"] if measured else 0, "curve": measured["curve"] if measured else [],
        "disagreements": mistakes[:_MOST_MISTAKES],
    }  # fmt: skip


def likely_mistakes(boxes: Sequence[BoxLabel], found: Sequence[Row], trusted: set[int]) -> list[dict[str, Any]]:
    """Labels of an image that a head which did not learn from it doubts.

    Args:
        boxes: the labels.
        found: ``[x0, y0, x1, y1, class, probability]`` of all that the head found, also where it is unsure.
        trusted: classes that it finds well.

    Returns:
        Of each doubt: ``kind`` (``missing``: there is no box; ``class``: the box is of another class; ``nothing``:
        nothing of the kind is there), ``box``, ``class`` (what the head says, or what the label says), ``sure``.
    """
    truth = np.array([[b.x0, b.y0, b.x1, b.y1] for b in boxes], np.float32).reshape(-1, 4)
    seen = np.array([row[:4] for row in found], np.float32).reshape(-1, 4)
    overlap = box_iou(seen, truth) if len(seen) and len(truth) else np.zeros((len(seen), len(truth)))
    doubts: list[dict[str, Any]] = []
    for i, row in enumerate(found):
        number, sure = int(row[4]), float(row[5])
        if sure < _SURE or number not in trusted:
            continue
        best = int(overlap[i].argmax()) if len(truth) else -1
        if best < 0 or overlap[i, best] < 0.1:
            kind = "missing"
        elif overlap[i, best] >= 0.5 and number not in {
            boxes[int(k)].class_id for k in np.flatnonzero(overlap[i] >= 0.5)
        }:
            kind = "class"
        else:
            continue
        doubts.append({"kind": kind, "box": [float(v) for v in row[:4]], "class": number, "sure": round(sure, 4)})
    for k, box in enumerate(boxes):
        if box.class_id not in trusted or any(d["kind"] == "class" and _same_place(d["box"], truth[k]) for d in doubts):
            continue
        near = [float(row[5]) for i, row in enumerate(found) if overlap[i, k] >= 0.3]
        most = max(near, default=0.0)
        if most < _NOTHING:
            place = [box.x0, box.y0, box.x1, box.y1]
            doubts.append({"kind": "nothing", "box": place, "class": box.class_id, "sure": round(1 - most, 4)})
    return doubts


def _same_place(box: Sequence[float], other: np.ndarray) -> bool:
    """Whether two boxes mean the same place."""
    return bool(box_iou(np.array([box], np.float32), other[None])[0, 0] >= 0.5)
