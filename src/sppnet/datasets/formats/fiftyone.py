"""Data sets of FiftyOne in its own JSON (FiftyOneImageDetectionDataset): ``labels.json`` beside the folder ``data``.

Boxes are ``[x, y, width, height]`` in fractions of the image. FiftyOne's exports in other formats are read as those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sppnet.datasets.collecting import Collection, json_documents, split_of_place
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import as_number, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.errors import DatasetError
from sppnet.storage.walking import files_near_top

__all__ = ["is_fiftyone", "read_fiftyone"]

_EXPECTED = "FiftyOne's labels.json, an object with classes, and labels by the name of the image"
_TITLES = ("x", "y", "width", "height")


def is_fiftyone(document: object) -> bool:
    """Whether parsed JSON looks like the labels of detections that FiftyOne exports."""
    labels = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(labels, dict) or not labels:
        return False
    some = next((value for value in labels.values() if value), None)
    return isinstance(some, list) and isinstance(some[0], dict) and "bounding_box" in some[0]


def read_fiftyone(root: Path, images: Path | None = None) -> RawDataset:
    """Read every such file of a folder.

    Args:
        root: the folder of the data set, or the JSON file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none.
    """
    files = [root] if root.is_file() else files_near_top(root, ".json")
    documents = json_documents(files, is_fiftyone, _EXPECTED, lambda file: file == root)
    if not documents:
        raise DatasetError(f"{root}: no labels of FiftyOne; expected {_EXPECTED}")
    home = home_of(root)
    collection = Collection(root, home, "fiftyone", ImageIndex(home, images))
    known: list[str] = []
    for file, document in documents:
        listed = document.get("classes")
        names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        known += names
        split = split_of_place(file, home)
        found = [(_read_image(file, name, items, names), name) for name, items in document["labels"].items()]
        collection.add_located(found, [file.parent / "data", *folders_near(file.parent, home, split)], split)
    used = {item.name for image, _ in collection.entries for item in image.objects}
    return collection.finish([*dict.fromkeys(known), *sorted(used - set(known))], declared=bool(known))


def _read_image(file: Path, name: str, items: object, names: list[str]) -> RawImage:
    objects: list[RawObject] = []
    problems: list[Problem] = []
    for position, item in enumerate(items if isinstance(items, list) else [], 1):
        try:
            objects.append(_read_object(item, position, names))
        except ValueError as error:
            where = f"{name[-80:]}, object {position}"
            problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
    return RawImage("", file, file, None, tuple(objects), tuple(problems), fractions=True, readable=bool(name))


def _read_object(item: object, position: int, names: list[str]) -> RawObject:
    if not isinstance(item, dict):
        raise ValueError(f"is {short(item)}, expected an object")
    box: Any = item.get("bounding_box")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"has bounding_box {short(box)}, expected [x, y, width, height]")
    x, y, w, h = (as_number(value, title) for value, title in zip(box, _TITLES, strict=True))
    label = item.get("label")
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        label = names[label]
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"has label {short(label)}, expected the name or number of a class")
    written = f"({x:g}, {y:g}, {w:g}, {h:g})"
    return RawObject(label.strip(), (x, y, x + w, y + h), written, position, flat=w == 0 or h == 0)
