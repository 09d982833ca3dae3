"""Labels of the studio as JSON: the COCO document beside the images, and the entries of the log.

The COCO document holds everything that the studio knows; what COCO has no place for is in fields called ``sppnet`` that
other tools skip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sppnet.errors import ArgumentError, DatasetError
from sppnet.studio.labels import BoxLabel, ClassTable, ImageLabels, StudioClass, check_name

__all__ = ["coco_document", "entry_of_labels", "labels_of_entry", "load_document", "parse_document"]

_LIMIT_BYTES = 1 << 30


def coco_document(
    entries: Iterable[tuple[str, tuple[int, int], ImageLabels]], classes: ClassTable, sequence: int
) -> dict[str, Any]:
    """Make the COCO document of the finished images.

    Images with boxes that are not finished are no data set: what has no box there may be an object. They are kept in
    ``info``, where other programs do not look.

    Args:
        entries: name, size (width, height) in pixels and labels of each image, those changed last at the end; (0, 0)
            where the size is not known.
        classes: all classes.
        sequence: number of the last entry of the log that the labels hold.

    Returns:
        The document, with the images in the order of their names.
    """
    finished: dict[str, list[Any]] = {"images": [], "annotations": []}
    unfinished: dict[str, list[Any]] = {"images": [], "annotations": []}
    number = 0
    in_order = sorted(enumerate(entries), key=lambda e: e[1][0])
    for place, (turn, (name, (width, height), labels)) in enumerate(in_order, 1):
        if not labels.touched:
            continue
        group = finished if labels.done else unfinished
        extra = {
            "version": labels.version, "done": labels.done, "rejected": [b.as_list() for b in labels.rejected],
            "turn": turn,
        }  # fmt: skip
        group["images"].append({"id": place, "file_name": name, "width": width, "height": height, "sppnet": extra})
        for b in labels.boxes:
            number += 1
            group["annotations"].append({
                "id": number, "image_id": place, "category_id": b.class_id + 1,
                "bbox": [b.x0, b.y0, round(b.x1 - b.x0, 2), round(b.y1 - b.y0, 2)],
                "area": round((b.x1 - b.x0) * (b.y1 - b.y0), 2), "iscrowd": 0, "segmentation": [],
                "sppnet": {"origin": b.origin},
            })  # fmt: skip
    categories = [
        {"id": c.class_id + 1, "name": c.name, "supercategory": "", "sppnet": {"color": c.color, "key": c.key}}
        for c in classes.classes.values()
    ]
    state = {"studio": 1, "seq": sequence, "next_class": classes.next_id, "unfinished": unfinished}
    info = {"description": "labels made in sppnet studio", "sppnet": state}
    return {"info": info, **finished, "categories": categories}


def parse_document(document: dict[str, Any]) -> tuple[ClassTable, dict[str, ImageLabels]]:
    """Read what :func:`coco_document` made.

    Returns:
        The classes, and the labels by name of the image, those changed last at the end.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is something else.
        ArgumentError: its classes make no sense.
    """
    table = ClassTable(next_id=int(document["info"]["sppnet"].get("next_class", 0)))
    for category in document["categories"]:
        extra = category.get("sppnet", {})
        name = check_name(category["name"], (c.name for c in table.classes.values()))
        class_id = int(category["id"]) - 1
        table.put(StudioClass(class_id, name, str(extra.get("color", "")), str(extra.get("key", ""))))
    boxes: dict[int, list[BoxLabel]] = {}
    more = document["info"]["sppnet"].get("unfinished", {"images": [], "annotations": []})
    for annotation in (*document["annotations"], *more["annotations"]):
        x, y, width, height = (float(v) for v in annotation["bbox"])
        class_id = int(annotation["category_id"]) - 1
        table.get(class_id)
        origin = str(annotation.get("sppnet", {}).get("origin", "imported"))
        box = BoxLabel(x, y, round(x + width, 2), round(y + height, 2), class_id, origin)
        boxes.setdefault(int(annotation["image_id"]), []).append(box)
    labels = {}
    for image in sorted((*document["images"], *more["images"]), key=lambda i: int(i.get("sppnet", {}).get("turn", 0))):
        extra = image.get("sppnet", {})
        labels[str(image["file_name"])] = ImageLabels(
            int(extra.get("version", 1)), bool(extra.get("done", True)), tuple(boxes.get(int(image["id"]), ())),
            tuple(_box_of(r) for r in extra.get("rejected", [])),
        )  # fmt: skip
    return table, labels


def load_document(path: Path) -> tuple[ClassTable, dict[str, ImageLabels], int]:
    """Read the file of a COCO document.

    Returns:
        Classes and labels as :func:`parse_document` gives them, and the number of the last entry of the log in them.

    Raises:
        DatasetError: the file is too large, or the studio did not write it.
    """
    if path.stat().st_size > _LIMIT_BYTES:
        raise DatasetError(f"{path}: is larger than {_LIMIT_BYTES >> 30} GB; move it away")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        table, labels = parse_document(document)
        return table, labels, int(document["info"]["sppnet"]["seq"])
    except (ValueError, KeyError, TypeError, AttributeError, ArgumentError) as error:
        raise DatasetError(
            f"{path}: is not a file that sppnet studio wrote ({error}); move it away, then start again"
        ) from None


def entry_of_labels(labels: ImageLabels) -> dict[str, Any]:
    """Labels of an image as they are written to the log."""
    return {
        "version": labels.version, "done": labels.done, "boxes": [b.as_list() for b in labels.boxes],
        "rejected": [b.as_list() for b in labels.rejected],
    }  # fmt: skip


def labels_of_entry(entry: dict[str, Any]) -> ImageLabels:
    """Read what :func:`entry_of_labels` made."""
    groups = [tuple(_box_of(b) for b in entry.get(key, [])) for key in ("boxes", "rejected")]
    return ImageLabels(int(entry["version"]), bool(entry["done"]), groups[0], groups[1])


def _box_of(values: list[Any]) -> BoxLabel:
    x0, y0, x1, y1 = (float(v) for v in values[:4])
    return BoxLabel(x0, y0, x1, y1, int(values[4]), str(values[5]) if len(values) > 5 else "imported")
