"""Data sets for Apple's Create ML: a JSON list of images, each with annotations.

``coordinates`` are the centre and the size of a box in pixels, 0-based. Folders called train, valid and test are
splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sppnet.datasets.collecting import Collection, json_documents, split_of_place
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import as_number, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.errors import DatasetError
from sppnet.storage.walking import files_near_top

__all__ = ["createml_files", "is_createml", "read_createml"]

_EXPECTED = "JSON of Create ML, a list of objects with image and annotations"
_RULE = "x, y (of the centre), width, height with width > 0 and height > 0"
_IMAGE = ("image", "imagefilename", "filename")
_LISTS = ("annotations", "annotation")


def is_createml(document: object) -> bool:
    """Whether parsed JSON looks like that of Create ML."""
    if not isinstance(document, list) or not document:
        return False
    first = next((item for item in document if isinstance(item, dict) and _list_of(item)), document[0])
    if not isinstance(first, dict) or not any(isinstance(first.get(key), str) for key in _IMAGE):
        return False
    listed = _list_of(first)
    return listed is not None and all(isinstance(item, dict) and "coordinates" in item for item in listed[:1])


def _list_of(item: dict[str, Any]) -> list[Any] | None:
    return next((item[key] for key in _LISTS if isinstance(item.get(key), list)), None)


def createml_files(root: Path) -> list[Path]:
    """List the JSON files in ``root`` and in the folders below it; what is in them isn't looked at."""
    if root.is_file():
        return [root]
    return files_near_top(root, ".json")


def read_createml(root: Path, images: Path | None = None) -> RawDataset:
    """Read every file of Create ML in a folder.

    Args:
        root: the folder of the data set, or the JSON file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none.
    """
    home = home_of(root)
    collection = Collection(root, home, "createml", ImageIndex(home, images))
    documents = json_documents(
        createml_files(root), is_createml, _EXPECTED,
        lambda file: file == root or file.name.startswith("_annotations"),
    )  # fmt: skip
    if not documents:
        raise DatasetError(f"{root}: no annotations of Create ML; expected {_EXPECTED}")
    for file, document in documents:
        split = split_of_place(file, home) or (split_of_name(file.stem) if len(documents) > 1 else "")
        found = list(_read_images(file, document))
        collection.add_located(found, folders_near(file.parent, home, split), split)
    return collection.finish(rule=_RULE)


def _read_images(file: Path, document: list[object]) -> Iterator[tuple[RawImage, str]]:
    for position, item in enumerate(document, 1):
        entry = item if isinstance(item, dict) else {}
        name = next((entry[key] for key in _IMAGE if isinstance(entry.get(key), str) and entry[key]), "")
        if not name:
            problem = Problem(
                "error", "malformed image", str(file), f"image {position} is {short(item)}, without a name", "name it"
            )
            yield RawImage("", file / str(position), file, problems=(problem,), found=False, readable=False), ""
            continue
        objects: list[RawObject] = []
        problems: list[Problem] = []
        for number, annotation in enumerate(_list_of(entry) or [], 1):
            try:
                objects.append(_read_object(annotation, number))
            except ValueError as error:
                where = f"{name[-80:]}, object {number}"
                problems.append(
                    Problem("error", "malformed object", str(file), str(error), "correct or remove it", where)
                )
        yield RawImage("", file, file, None, tuple(objects), tuple(problems)), name


def _read_object(annotation: object, position: int) -> RawObject:
    if not isinstance(annotation, dict):
        raise ValueError(f"is {short(annotation)}, expected an object")
    label, box = annotation.get("label"), annotation.get("coordinates")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"has label {short(label)}, expected the name of a class")
    if not isinstance(box, dict):
        raise ValueError(f"has coordinates {short(box)}, expected x, y, width, height")
    x, y, w, h = (as_number(box.get(key), key) for key in ("x", "y", "width", "height"))
    written = f"({x:g}, {y:g}, {w:g}, {h:g})"
    corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    return RawObject(label.strip(), corners, written, position, flat=w == 0 or h == 0)
