"""Data sets of Supervisely: ``meta.json``, and in each folder of the project ``img/*`` and ``ann/*.json``.

An annotation is called like its image with ``.json`` behind it. Of polygons and bitmaps the bounding box counts;
points and lines are left out. Folders called train, val or test are splits.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from sppnet.datasets.collecting import Collection, located, unreadable_image
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import Box, as_number, bounding_box, read_json, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_folders
from sppnet.errors import DatasetError
from sppnet.storage.walking import walk_files

__all__ = ["is_supervisely", "is_supervisely_meta", "read_supervisely", "supervisely_files"]

_EXPECTED = "an annotation of Supervisely, an object with size and objects"
_NO_AREA = ("point", "line", "polyline", "graph")
_PNG = b"\x89PNG\r\n\x1a\n"


def is_supervisely(document: object) -> bool:
    """Whether parsed JSON looks like an annotation of Supervisely."""
    return isinstance(document, dict) and isinstance(document.get("objects"), list) and "size" in document


def is_supervisely_meta(document: object) -> bool:
    """Whether parsed JSON looks like the ``meta.json`` of a project."""
    classes = document.get("classes") if isinstance(document, dict) else None
    return isinstance(classes, list) and any(isinstance(item, dict) and "title" in item for item in classes)


def supervisely_files(root: Path) -> list[Path]:
    """List the annotations of a project, by their folders; what is in them isn't looked at."""
    if root.is_file():
        root = root.parent
    return [file for file in walk_files(root) if file.parent.name == "ann" and file.suffix.lower() == ".json"]


def read_supervisely(root: Path, images: Path | None = None) -> RawDataset:
    """Read every annotation of a project.

    Args:
        root: the folder of the project, or a folder in it with ``img`` and ``ann``; or its ``meta.json``.
        images: a folder with its images, where they aren't in the project.

    Raises:
        DatasetError: there is none.
    """
    files = supervisely_files(root)
    if not files:
        raise DatasetError(f"{root}: no annotations of Supervisely in folders called ann; expected {_EXPECTED}")
    home = root if root.is_dir() else home_of(root)
    collection = Collection(root, home, "supervisely", ImageIndex(home, images))
    read: list[RawImage] = []
    for file in files:
        try:
            document = read_json(file, _EXPECTED)
            if not is_supervisely(document):
                raise DatasetError(f"{file}: holds {short(document)}; expected {_EXPECTED}")
            read.append(_read_image(file, document, collection.extras))
        except DatasetError as error:
            read.append(unreadable_image(file, error))
    requests = [
        (image.file.name[: -len(".json")], [image.file.parent.parent / "img", *folders_near(image.file.parent, home)])
        for image in read
    ]
    for image, place in zip(read, collection.index.locate(requests), strict=True):
        split = split_of_folders(image.file.relative_to(home).parts[:-2])
        collection.add(located(image, place) if image.readable else image, split)
    names = _declared(home)
    known = {item.name for image in read for item in image.objects}
    return collection.finish([*names, *sorted(known - set(names))], declared=bool(names))


def _declared(home: Path) -> list[str]:
    """The classes of ``meta.json``, of the project or of the folder above."""
    for file in (home / "meta.json", home.absolute().parent / "meta.json"):
        try:
            document = read_json(file, "meta.json of Supervisely")
        except DatasetError:
            continue
        if is_supervisely_meta(document):
            titles = [item.get("title") for item in document["classes"] if isinstance(item, dict)]
            return list(dict.fromkeys(title.strip() for title in titles if isinstance(title, str) and title.strip()))
    return []


def _read_image(file: Path, document: dict[str, Any], extras: Counter[str]) -> RawImage:
    objects: list[RawObject] = []
    problems: list[Problem] = []
    for position, item in enumerate(document["objects"], 1):
        name = item.get("classTitle") if isinstance(item, dict) else None
        where = f"object {position}" + (f" ({name[:80]})" if isinstance(name, str) else "")
        if isinstance(item, dict) and item.get("geometryType") in _NO_AREA:
            what = f"is a {item['geometryType']}, which has no area, and is left out"
            advice = "draw a rectangle if it is an object"
            problems.append(Problem("warning", "no box", str(file), what, advice, where))
            continue
        try:
            objects.append(_read_object(item, position, extras))
        except ValueError as error:
            problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
    size = document["size"] if isinstance(document["size"], dict) else {}
    sides = size.get("width"), size.get("height")
    usable = all(type(side) is int and 0 < side < 1 << 31 for side in sides)
    return RawImage("", file, file, sides if usable else None, tuple(objects), tuple(problems))  # type: ignore[arg-type]  # checked


def _read_object(item: object, position: int, extras: Counter[str]) -> RawObject:
    if not isinstance(item, dict):
        raise ValueError(f"is {short(item)}, expected an object")
    name = item.get("classTitle")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"has classTitle {short(name)}, expected the name of a class")
    kind = item.get("geometryType", "rectangle")
    box = _bitmap_box(item.get("bitmap")) if kind == "bitmap" else _points_box(item.get("points"))
    extras["outlines (segmentation)"] += kind != "rectangle"
    written = f"({box[0]:g}, {box[1]:g}, {box[2]:g}, {box[3]:g})"
    return RawObject(name.strip(), box, written, position)


def _points_box(points: object) -> Box:
    outline = points.get("exterior") if isinstance(points, dict) else None
    if (
        not isinstance(outline, list)
        or len(outline) < 2
        or not all(isinstance(point, list) and len(point) == 2 for point in outline)
    ):
        raise ValueError(f"has points {short(outline)}, expected at least two of [x, y] in exterior")
    return bounding_box([as_number(p[0], "x") for p in outline], [as_number(p[1], "y") for p in outline])


def _bitmap_box(bitmap: object) -> Box:
    """A bitmap is a packed PNG of the object alone, and the place of its upper left corner."""
    origin, data = (bitmap.get("origin"), bitmap.get("data")) if isinstance(bitmap, dict) else (None, None)
    if not isinstance(origin, list) or len(origin) != 2 or not isinstance(data, str):
        raise ValueError(f"has bitmap {short(bitmap)}, expected origin and data")
    x, y = as_number(origin[0], "x"), as_number(origin[1], "y")
    try:
        head = zlib.decompressobj().decompress(base64.b64decode(data), 64)  # only the header is unpacked
        if head[:8] != _PNG or head[12:16] != b"IHDR":
            raise ValueError
        width, height = struct.unpack(">II", head[16:24])
    except (binascii.Error, zlib.error, struct.error, ValueError):
        raise ValueError("has a bitmap that isn't a packed PNG") from None
    return x, y, x + width, y + height
