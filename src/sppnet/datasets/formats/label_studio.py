"""Data sets of Label Studio in its own JSON (also JSON-MIN): a list of tasks, each with an image and its regions.

Boxes are in percent of the image's sides; a turned box is turned about its corner. Of polygons and ellipses the
bounding box counts; key points are left out. Of several annotations of one task, the last that wasn't cancelled counts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from math import cos, radians, sin
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import Element, SubElement

from sppnet.datasets.collecting import Collection
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import Box, as_number, bounding_box, read_json, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.datasets.write_job import xml_text
from sppnet.errors import DatasetError
from sppnet.storage.walking import files_near_top

__all__ = ["image_url", "is_label_studio", "label_studio_task", "labelling_config", "read_label_studio"]

_EXPECTED = "Label Studio's JSON, a list of tasks with data and annotations"
_RULE = "x, y, width, height in percent with width > 0 and height > 0"
_FRAME = ("x", "y", "width", "height")
_IMAGE = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp|jfif|avif|heic|heif|jp2|ppm|pgm|mpo)($|[?#&])", re.IGNORECASE)


def is_label_studio(document: object) -> bool:
    """Whether parsed JSON looks like an export of Label Studio."""
    first = document[0] if isinstance(document, list) and document else None
    if not isinstance(first, dict):
        return False
    if isinstance(first.get("data"), dict):
        return any(key in first for key in ("annotations", "completions", "predictions"))
    return "annotation_id" in first or any(_regions_of_min(value) for value in first.values())


def read_label_studio(root: Path, images: Path | None = None) -> RawDataset:
    """Read every export of Label Studio in a folder.

    Args:
        root: the folder of the data set, or the JSON file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none.
    """
    files = [root] if root.is_file() else files_near_top(root, ".json")
    documents = [(file, document) for file in files if is_label_studio(document := _read(file, root))]
    if not documents:
        raise DatasetError(f"{root}: no export of Label Studio; expected {_EXPECTED}")
    home = home_of(root)
    collection = Collection(root, home, "label-studio", ImageIndex(home, images))
    for file, document in documents:
        guesses = not any(isinstance(task, dict) and _annotation(task, False) is not None for task in document)
        found, waiting = [], 0
        for position, task in enumerate(document, 1):
            item = _read_task(file, task, position, guesses, collection.extras)
            if item is not None:
                found.append(item)
            else:
                waiting += 1
        if guesses and found:
            what = "holds predictions and no annotations: they are taken for the truth"
            advice = "correct them in Label Studio and export the annotations"
            collection.problems.append(Problem("warning", "predictions", str(file), what, advice))
        if waiting:
            what = f"{waiting} tasks have no annotation and aren't used"
            collection.problems.append(Problem("warning", "not annotated", str(file), what, "annotate them"))
        split = split_of_name(file.stem) if len(documents) > 1 else ""
        collection.add_located(found, folders_near(file.parent, home), split)
    return collection.finish(rule=_RULE)


def _read(file: Path, root: Path) -> Any:
    try:
        return read_json(file, _EXPECTED)
    except DatasetError:
        if file == root:
            raise
        return None


def _annotation(task: dict[str, Any], guesses: bool) -> list[Any] | None:
    """The regions of a task; None where it isn't annotated."""
    if not isinstance(task.get("data"), dict):  # JSON-MIN
        regions = next((found for value in task.values() if (found := _regions_of_min(value))), None)
        return regions if regions is not None or "annotation_id" not in task else []
    keys = ("predictions",) if guesses else ("annotations", "completions")
    listed: list[Any] = next((task[key] for key in keys if isinstance(task.get(key), list) and task[key]), [])
    good = [item for item in listed if isinstance(item, dict) and not item.get("was_cancelled")]
    chosen = next((item for item in good if item.get("ground_truth")), good[-1] if good else None)
    result = chosen.get("result") if chosen is not None else None
    return result if isinstance(result, list) else None


def _regions_of_min(value: object) -> list[Any] | None:
    """The regions of JSON-MIN: a list, or a list as text, of boxes with names of classes."""
    if isinstance(value, str) and value[:2] == "[{" and len(value) < 1 << 24:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return None
    labelled = any(key.endswith("labels") for key in value[0] if isinstance(key, str))
    return value if labelled else None


def _read_task(
    file: Path, task: object, position: int, guesses: bool, extras: Counter[str]
) -> tuple[RawImage, str] | None:
    if not isinstance(task, dict):
        flaw = f"task {position} is {short(task)}, expected an object"
        problem = Problem("error", "malformed image", str(file), flaw, "correct it")
        return RawImage("", file / str(position), file, problems=(problem,), found=False, readable=False), ""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    regions = _annotation(task, guesses)
    if regions is None:
        return None
    objects: list[RawObject] = []
    problems: list[Problem] = []
    size: tuple[int, int] | None = None
    named: set[object] = {r["id"] for r in regions if isinstance(r, dict) and r.get("type") == "labels"
                          and isinstance(r.get("id"), str)}  # fmt: skip
    for number, region in enumerate(regions, 1):
        where = f"task {position}, object {number}"
        try:
            found = _read_region(region, number, named, extras)
        except ValueError as error:
            problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
            continue
        if isinstance(found, list):
            objects += found
        elif found:
            advice = "draw a rectangle if it is an object"
            problems.append(Problem("warning", "no box", str(file), found, advice, where))
        size = size or _size(region)
    name = _image_of(data)
    image = RawImage("", file, file, size, tuple(objects), tuple(problems), fractions=True, readable=bool(name))
    if not name:
        problem = Problem("error", "malformed image", str(file), f"task {position} names no image", "correct it")
        image = RawImage("", file / str(position), file, problems=(problem,), found=False, readable=False)
    return image, name


def _image_of(data: dict[str, Any]) -> str:
    """The address of a task's image: the value called image, else the one that looks like a file of an image."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    for key in ("image", "img", "photo", "url", "file_upload"):
        if key in texts:
            return texts[key]
    return next((value for value in texts.values() if _IMAGE.search(value)), "")


def _size(region: object) -> tuple[int, int] | None:
    if not isinstance(region, dict) or region.get("image_rotation") not in (0, None):
        return None
    width, height = region.get("original_width"), region.get("original_height")
    if isinstance(width, int) and isinstance(height, int) and 0 < width < 1 << 31 and 0 < height < 1 << 31:
        return width, height
    return None


def _read_region(region: object, position: int, named: set[object], extras: Counter[str]) -> list[RawObject] | str:
    """The objects, one of each label, or why there is none (an empty text: it is no region).

    Raises:
        ValueError: it is malformed.
    """
    if not isinstance(region, dict):
        raise ValueError(f"is {short(region)}, expected an object")
    value = region.get("value", region)
    if not isinstance(value, dict):
        raise ValueError(f"has value {short(value)}, expected an object")
    kind = str(region.get("type") or next((k for k in value if isinstance(k, str) and k.endswith("labels")), ""))
    if not kind.endswith(("labels", "rectangle", "polygon", "ellipse")) or "start" in value:
        return ""  # choices, text, relations
    names = next((v for k, v in value.items() if isinstance(k, str) and k.endswith("labels")), None)
    name = names[0] if isinstance(names, list) and names else names
    if names is None and region.get("id") in named:
        return ""  # the label is in a region of its own
    if not isinstance(name, str) or not name.strip():
        raise ValueError("has no label")
    shapes = list(_outlines(value, _size(region)))
    if not shapes:
        return f"({name}) is of the kind {kind[:40]}, which has no box, and is left out"
    if region.get("image_rotation") not in (0, None):
        raise ValueError(f"({name}) was drawn on a turned image; turn it back in Label Studio")
    box, flat = shapes[0]
    extras["outlines (segmentation)"] += "points" in value or "radiusX" in value
    extras["turned boxes"] += bool(value.get("rotation")) and "width" in value
    written = f"({', '.join(f'{v:g} %' for v in box)})"
    x0, y0, x1, y1 = (v / 100 for v in box)
    labels = dict.fromkeys(names) if isinstance(names, list) else (name,)
    return [
        RawObject(label.strip(), (x0, y0, x1, y1), written, position, flat=flat)
        for label in labels if isinstance(label, str) and label.strip()
    ]  # fmt: skip


def _outlines(value: dict[str, Any], size: tuple[int, int] | None) -> Iterator[tuple[Box, bool]]:
    """The bounding box of a shape in percent, and whether it has no area; nothing where it has no box."""
    points = value.get("points")
    if isinstance(points, list) and points:
        if not all(isinstance(point, list) and len(point) == 2 for point in points):
            raise ValueError(f"has points {short(points)}, expected a list of [x, y]")
        yield bounding_box([as_number(p[0], "x") for p in points], [as_number(p[1], "y") for p in points]), False
    elif "radiusX" in value:
        x, y, rx, ry = (as_number(value.get(key), key) for key in ("x", "y", "radiusX", "radiusY"))
        yield (x - rx, y - ry, x + rx, y + ry), rx == 0 or ry == 0
    elif "width" in value and "height" in value and "x" in value:
        x, y, w, h = (as_number(value.get(key), key) for key in _FRAME)
        turn = as_number(value.get("rotation") or 0, "rotation")
        if turn % 360 == 0:
            yield (x, y, x + w, y + h), w == 0 or h == 0
        else:
            # Percents are of different sides: the turn is undone in pixels where the sides are known
            ratio = size[0] / size[1] if size is not None else 1.0
            c, s = cos(radians(turn)), sin(radians(turn))
            corners = [(w * c, w * s * ratio), (-h * s / ratio, h * c), (w * c - h * s / ratio, w * s * ratio + h * c)]
            xs, ys = [x, *(x + dx for dx, _ in corners)], [y, *(y + dy for _, dy in corners)]
            yield bounding_box(xs, ys), w == 0 or h == 0


# --- writing ----------------------------------------------------------------------------------------------------------


def label_studio_task(
    name: str, width: int, height: int, objects: Sequence[tuple[Sequence[float], str, float]], model: str,
    prefix: str,
) -> dict[str, Any]:  # fmt: skip
    """Return a task with predictions.

    Args:
        name: of the image.
        width: of the image in pixels.
        height: of the image in pixels.
        objects: box ``(x0, y0, x1, y1)`` in pixels, class and confidence of each.
        model: the version of the predictions.
        prefix: put before ``name``.
    """
    result = []
    for k, (box, label, confidence) in enumerate(objects, 1):
        x0, y0, x1, y1 = (100 * v / side for v, side in zip(box, (width, height) * 2, strict=True))
        frame = dict(zip(_FRAME, (round(v, 4) for v in (x0, y0, x1 - x0, y1 - y0)), strict=True))
        result.append(
            {
                "id": f"sppnet-{k}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": round(confidence, 4),
                "value": {**frame, "rotation": 0, "rectanglelabels": [label]},
            }
        )
    best = round(max((confidence for _, _, confidence in objects), default=0.0), 4)
    prediction = {"model_version": model, "score": best, "result": result}
    return {"data": {"image": image_url(prefix, name)}, "predictions": [prediction]}


def image_url(prefix: str, name: str) -> str:
    """Return where Label Studio gets an image: blanks and the like are escaped, but not in keys of cloud storage."""
    return prefix + (quote(name) if urlsplit(prefix).scheme in ("", "http", "https") else name)


def labelling_config(class_names: Sequence[str]) -> str:
    """Return the XML that tells Label Studio the classes."""
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image")
    labels = SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in class_names:
        SubElement(labels, "Label", value=name)
    return xml_text(view)
