"""Data sets of VIA, the VGG Image Annotator: its projects and exports as JSON, and its export as CSV.

Of polygons, circles and ellipses the bounding box counts; points and lines are left out. The class is the attribute of
a region that is called label, class, name or type; else its only one.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sppnet.datasets.collecting import Collection, json_documents, split_of_place
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import Box, as_number, bounding_box, read_head, read_text, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.errors import DatasetError
from sppnet.storage.walking import files_near_top

__all__ = ["is_via", "is_via_table", "read_via", "via_files"]

_EXPECTED = "an export of VIA, images with regions that have shape_attributes"
_NAMES = ("label", "class", "name", "class_name", "category", "type", "object")
_NO_AREA = ("point", "polyline", "line", "extreme_points", "extreme_rect")
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
# VIA 3 numbers its shapes
_VIA3 = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon"}


def is_via(document: object) -> bool:
    """Whether parsed JSON looks like a project or an export of VIA 1 or 2."""
    images = _images_of(document)
    first = next(iter(images.values()), None) if images else None
    return isinstance(first, dict) and "filename" in first and "regions" in first


def _images_of(document: object) -> dict[str, Any] | None:
    if not isinstance(document, dict):
        return None
    images = document.get("_via_img_metadata", document)
    return images if isinstance(images, dict) else None


def is_via_table(file: Path) -> bool:
    """Whether the first lines of a file are those of VIA's CSV."""
    head = read_head(file, 4096)
    return all(name in head.partition("\n")[0] for name in _COLUMNS) or "CSV_HEADER = metadata_id,file_list" in head


def via_files(root: Path) -> list[Path]:
    """List the files of VIA in ``root`` and in the folders below it; of JSON files, what is in them isn't looked at."""
    if root.is_file():
        return [root]
    tables = [file for file in files_near_top(root, ".csv") if is_via_table(file)]
    return [*tables, *files_near_top(root, ".json")]


def read_via(root: Path, images: Path | None = None) -> RawDataset:
    """Read every file of VIA in a folder. A table counts only where there is no JSON file.

    Args:
        root: the folder of the data set, or the file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none, or a table can't be read.
    """
    home = home_of(root)
    collection = Collection(root, home, "via", ImageIndex(home, images))
    files = [file for file in via_files(root) if file.suffix.lower() == ".json"]
    exports = json_documents(files, is_via, _EXPECTED, lambda file: file == root)
    documents = [(file, list(_from_json(document))) for file, document in exports]
    if not documents:
        documents = [(file, list(_from_table(file))) for file in via_files(root) if is_via_table(file)]
    if not documents:
        raise DatasetError(f"{root}: no annotations of VIA; expected {_EXPECTED}")
    for file, found in documents:
        split = split_of_place(file, home) or (split_of_name(file.stem) if len(documents) > 1 else "")
        images_found = [(_read_image(file, name, regions, collection.extras), name) for name, regions in found]
        collection.add_located(images_found, folders_near(file.parent, home, split), split)
    return collection.finish()


# --- files -----------------------------------------------------------------------------------------------------------


def _from_json(document: object) -> Iterator[tuple[str, list[object]]]:
    """The name of each image, and its regions."""
    for item in (_images_of(document) or {}).values():
        if isinstance(item, dict) and "filename" in item:
            regions = item.get("regions")
            if isinstance(regions, dict):  # VIA 1
                regions = list(regions.values())
            name = item["filename"] if isinstance(item["filename"], str) else ""
            yield name, regions if isinstance(regions, list) else []


def _from_table(file: Path) -> Iterator[tuple[str, list[object]]]:
    text = read_text(file, _EXPECTED)
    lines = text.splitlines()
    reader = csv.reader(io.StringIO(text, newline=""), strict=False)
    images: dict[str, list[object]] = {}
    try:
        if lines and lines[0].startswith("#"):
            _rows_of_via3(reader, images)
        else:
            header = [name.strip() for name in next(reader, [])]
            places = {name: header.index(name) for name in _COLUMNS}
            for row in reader:
                if len(row) <= max(places.values()):
                    continue
                regions = images.setdefault(row[places["filename"]].strip(), [])
                shape, attributes = (_json_of(row[places[name]]) for name in _COLUMNS[1:])
                if shape:
                    regions.append({"shape_attributes": shape, "region_attributes": attributes})
    except (csv.Error, ValueError) as error:
        raise DatasetError(f"{file}: line {reader.line_num} can't be read ({error}); expected {_EXPECTED}") from None
    yield from images.items()


def _json_of(text: str) -> object:
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return text


def _rows_of_via3(reader: Iterator[list[str]], images: dict[str, list[object]]) -> None:
    for row in reader:
        if len(row) < 6 or row[0].startswith("#"):
            continue
        names, shape, attributes = (_json_of(row[k]) for k in (1, 4, 5))
        name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
        regions = images.setdefault(name, [])
        if isinstance(shape, list) and shape:
            regions.append({"shape_attributes": _shape_of_via3(shape), "region_attributes": attributes})


def _shape_of_via3(values: list[object]) -> dict[str, object]:
    kind = _VIA3.get(values[0] if type(values[0]) is int else 0, "unknown")
    keys = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
    if kind == "polygon":
        return {"name": kind, "all_points_x": values[1::2], "all_points_y": values[2::2]}
    return {"name": kind, **dict(zip(keys.get(kind, ()), values[1:], strict=False))}


# --- regions ---------------------------------------------------------------------------------------------------------


def _read_image(file: Path, name: str, regions: list[object], extras: Counter[str]) -> RawImage:
    objects: list[RawObject] = []
    problems: list[Problem] = []
    for position, region in enumerate(regions, 1):
        where = f"{name[-80:]}, object {position}"
        try:
            found = _read_region(region, position, extras)
        except ValueError as error:
            problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
            continue
        if isinstance(found, RawObject):
            objects.append(found)
        else:
            advice = "draw a rectangle if it is an object"
            problems.append(Problem("warning", "no box", str(file), found, advice, where))
    if not name:
        problems.append(Problem("error", "malformed image", str(file), "has an image without a name", "name it"))
    return RawImage("", file, file, None, tuple(objects), tuple(problems), readable=bool(name))


def _read_region(region: object, position: int, extras: Counter[str]) -> RawObject | str:
    """The object, or why there is none.

    Raises:
        ValueError: it is malformed.
    """
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(region, dict) or not isinstance(shape, dict):
        raise ValueError(f"has shape_attributes {short(shape)}, expected an object")
    kind = shape.get("name")
    if kind in _NO_AREA:
        return f"is a {kind}, which has no area, and is left out"
    label = _label_of(region.get("region_attributes"))
    box = _box_of(kind, shape)
    extras["outlines (segmentation)"] += kind != "rect"
    written = f"({box[0]:g}, {box[1]:g}, {box[2]:g}, {box[3]:g})"
    return RawObject(label, box, written, position)


def _box_of(kind: object, shape: dict[str, Any]) -> Box:
    if kind == "rect":
        x, y, w, h = (as_number(shape.get(key), key) for key in ("x", "y", "width", "height"))
        return x, y, x + w, y + h
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or not xs or len(xs) != len(ys):
            raise ValueError(f"has all_points_x {short(xs)} and all_points_y {short(ys)}, expected as many of each")
        return bounding_box([as_number(x, "x") for x in xs], [as_number(y, "y") for y in ys])
    if kind in ("circle", "ellipse"):
        cx, cy = as_number(shape.get("cx"), "cx"), as_number(shape.get("cy"), "cy")
        keys = ("r", "r") if kind == "circle" else ("rx", "ry")
        rx, ry = (as_number(shape.get(key), key) for key in keys)
        return cx - rx, cy - ry, cx + rx, cy + ry
    raise ValueError(f"is a {short(kind)}, expected rect, polygon, circle or ellipse")


def _label_of(attributes: object) -> str:
    if isinstance(attributes, dict):
        known = {str(key).lower(): value for key, value in attributes.items()}
        names = [name for name in _NAMES if name in known] or (list(known) if len(known) == 1 else [])
        for name in names:
            value = known[name]
            if isinstance(value, dict):  # of a checkbox: those that are set
                value = next((key for key, chosen in value.items() if chosen), None)
            if isinstance(value, int | float) and not isinstance(value, bool):
                value = str(value)
            if isinstance(value, str) and value.strip():
                return value.strip()
    raise ValueError(f"has region_attributes {short(attributes)}, expected the class, as label")
