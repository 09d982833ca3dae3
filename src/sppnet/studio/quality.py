"""How good the suggestions are, told by what a person did with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.boxes import box_iou
from sppnet.studio.project import Project

__all__ = ["quality_of"]

_LAST_IMAGES = 20
_MOST_DISAGREEMENTS = 24


def quality_of(project: Project, suggestions: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Count what became of suggestions, and find labels that the present head doubts.

    Args:
        project: images and labels.
        suggestions: of the present head, ``[x0, y0, x1, y1, class, confidence]`` by image.

    Returns:
        What :class:`sppnet.studio.teacher.Teacher.quality` says.
    """
    labels = project.all_labels()
    done = [key for key, known in labels.items() if known.done][-_LAST_IMAGES:]
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
        rows.append({"id": c["id"], **counts, "ap": None, "ap_low": None, "ap_high": None, "advice": ""})
    return {
        "classes": rows, "images": len(done), "folds": 0, "curve": [],
        "disagreements": _disagreements(project, suggestions),
    }  # fmt: skip


def _disagreements(project: Project, suggestions: dict[str, list[list[float]]]) -> list[dict[str, Any]]:
    """Sure suggestions on finished images where there is no box, or one of another class."""
    found: list[dict[str, Any]] = []
    for key, known in project.all_labels().items():
        if not known.done or key not in suggestions:
            continue
        boxes = np.array([[b.x0, b.y0, b.x1, b.y1] for b in known.boxes], np.float32).reshape(-1, 4)
        for row in suggestions[key]:
            if row[5] < 0.8:
                continue
            overlap = box_iou(np.array([row[:4]], np.float32), boxes)[0]
            best = int(overlap.argmax()) if len(overlap) else -1
            if best >= 0 and overlap[best] >= 0.5:
                other = known.boxes[best].class_id
                if other == int(row[4]):
                    continue
                why = f"labelled as another class, {round(row[5] * 100)} % sure"
            elif len(overlap) and overlap[best] > 0.1:
                continue
            else:
                why = f"no box there, {round(row[5] * 100)} % sure"
            name = project.image(key).name
            found.append({"image": key, "name": name, "box": row[:4], "class": int(row[4]), "why": why, "sure": row[5]})
    found.sort(key=lambda d: -d["sure"])
    return found[:_MOST_DISAGREEMENTS]
