"""Boxes of each class in figures, and boxes that look wrong by their size, shape or place."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from sppnet.boxes import box_iou
from sppnet.studio.labels import BoxLabel, ImageLabels
from sppnet.studio.project import Project

__all__ = ["statistics_of"]

_SMALL_PX = 8.0  # a side below this, where the class is much larger elsewhere
_TIMES = 4.0  # smaller, larger, longer than the class's median by this factor
_SAME_IOU = 0.8
_LEAST_BOXES = 5  # of a class, before any of them can be unusual
_MOST = 100


def statistics_of(project: Project) -> dict[str, Any]:
    """Count boxes, and list those that look wrong.

    Args:
        project: images and labels.

    Returns:
        ``classes``: of each class ``boxes``, ``images``, and the median ``width`` and ``height`` in pixels. ``odd``: of
        each odd box ``image``, ``name``, ``box``, ``class`` and ``kind``: ``twice`` (another box of the class is in
        the same place), ``small``, ``large`` (than others of its class) or ``shape`` (longer or flatter than they).
    """
    labels = {key: known for key, known in project.all_labels().items() if known.boxes}
    sides: dict[int, list[tuple[float, float]]] = {}
    images: Counter[int] = Counter()
    for known in labels.values():
        for box in known.boxes:
            sides.setdefault(box.class_id, []).append((box.x1 - box.x0, box.y1 - box.y0))
        images.update({box.class_id for box in known.boxes})
    medians = {c: np.median(np.array(s), 0) for c, s in sides.items()}
    rows = []
    for c in project.class_list():
        width, height = (float(v) for v in medians.get(c["id"], (0.0, 0.0)))
        rows.append({
            "id": c["id"], "boxes": len(sides.get(c["id"], ())), "images": images[c["id"]],
            "width": round(width, 1), "height": round(height, 1),
        })  # fmt: skip
    typical = {c: (float(m[0]), float(m[1])) for c, m in medians.items() if len(sides[c]) >= _LEAST_BOXES}
    odd = []
    for key, known in labels.items():
        name = project.image(key).name
        for box, kind in _odd_ones(known, typical):
            place = [box.x0, box.y0, box.x1, box.y1]
            odd.append({"image": key, "name": name, "box": place, "class": box.class_id, "kind": kind})
    order = ("twice", "small", "large", "shape")
    odd.sort(key=lambda o: (order.index(o["kind"]), o["name"]))
    return {"classes": rows, "odd": odd[:_MOST]}


def _odd_ones(known: ImageLabels, typical: dict[int, tuple[float, float]]) -> list[tuple[BoxLabel, str]]:
    found = []
    boxes = np.array([[b.x0, b.y0, b.x1, b.y1] for b in known.boxes], np.float64)
    overlap = np.triu(box_iou(boxes, boxes), 1)
    for i, box in enumerate(known.boxes):
        earlier = np.flatnonzero(overlap[:, i] >= _SAME_IOU)
        if any(known.boxes[int(k)].class_id == box.class_id for k in earlier):
            found.append((box, "twice"))
        elif box.class_id in typical:
            kind = _unusual(box.x1 - box.x0, box.y1 - box.y0, *typical[box.class_id])
            if kind:
                found.append((box, kind))
    return found


def _unusual(width: float, height: float, usual_width: float, usual_height: float) -> str | None:
    size, usual = np.sqrt(width * height), np.sqrt(usual_width * usual_height)
    if usual > _TIMES * size or (min(width, height) < _SMALL_PX and usual > 2 * _SMALL_PX):
        return "small"
    if size > _TIMES * usual:
        return "large"
    longer = (width / height) / (usual_width / usual_height)
    return "shape" if max(longer, 1 / longer) > _TIMES else None
