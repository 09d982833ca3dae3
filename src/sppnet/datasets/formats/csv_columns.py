"""Which column of a table is which, by the names that people and tools give them."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import Literal

from sppnet.images import IMAGE_EXTENSIONS

__all__ = ["Columns", "columns_of", "separator_named", "split_line"]

_IMAGE = (
    *("image", "filename", "file_name", "image_path", "path", "image_name", "img_name", "imagename", "img", "file"),
    *("filepath", "file_path", "img_path", "image_file", "image_id", "imageid", "img_id", "id"),
)
_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("x_1", "y_1", "x_2", "y_2"),
    ("left", "top", "right", "bottom"),
    ("bbox_xmin", "bbox_ymin", "bbox_xmax", "bbox_ymax"),
    ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"),
    ("roi.x1", "roi.y1", "roi.x2", "roi.y2"),  # traffic signs (GTSRB)
)
_CENTRE = (
    ("cx", "cy", "w", "h"),
    ("x_center", "y_center", "width", "height"),
    ("xcenter", "ycenter", "width", "height"),
    ("x_centre", "y_centre", "width", "height"),
)
_SIZED = (
    ("x", "y", "w", "h"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
    ("x", "y", "width", "height"),
    ("xmin", "ymin", "width", "height"),
    ("x_min", "y_min", "width", "height"),
    ("left", "top", "width", "height"),
)
_LIST = ("bbox", "box")
_LABEL = (
    *("label", "class", "class_name", "classname", "labelname", "label_name", "category", "category_name"),
    *("class_id", "classid", "category_id", "label_id", "cls"),
)
_OTHERS = {
    "split": ("split", "subset", "set", "ml_use", "dataset_split", "usage"),
    "difficult": ("difficult", "isgroupof"),
    "image_width": ("image_width", "img_width", "imagewidth", "width"),
    "image_height": ("image_height", "img_height", "imageheight", "height"),
}
_SEPARATOR = re.compile(r"\s*\"?sep=([,;\t])\"?[,;\s]*$", re.IGNORECASE)
_AUTOML = re.compile(r"(TRAIN|TRAINING|VALIDATION|VALIDATE|TEST|UNASSIGNED|)", re.IGNORECASE)
Kind = Literal["corners", "sized", "centre", "list"]


@dataclass(frozen=True)
class Columns:
    """Where the columns of a table are.

    Attributes:
        places: by name: image, label, split, difficult, image_width, image_height, and those of ``box``.
        box: names of the columns of the box. kind: what they hold.
        label: whether there is a column for the class.
        header: whether the first line names the columns.
        fractions: boxes are in fractions of the image's sides.
    """

    places: dict[str, int]
    box: tuple[str, ...]
    kind: Kind
    label: bool = True
    header: bool = True
    fractions: bool = False


def split_line(text: str) -> tuple[list[str], str]:
    """Return the cells of the first line, in lower case, and what separates them. Excel's line ``sep=;`` is skipped."""
    lines = (line for line in text.splitlines() if line.strip())
    first = next(lines, "")
    named = separator_named(first)
    if named:
        first = next(lines, "")
    separator = named or max(",;\t", key=first.count)
    try:
        cells = next(csv.reader([first], delimiter=separator), [])
    except csv.Error:
        cells = first.split(separator)
    return [cell.strip().lower() for cell in cells], separator


def separator_named(line: str) -> str:
    """Return the separator that Excel's line ``sep=;`` names; an empty text for every other line."""
    found = _SEPARATOR.match(line)
    return found[1] if found else ""


def columns_of(first: list[str]) -> Columns | None:
    """Find the columns by the cells of the first line; None where there are none of a box or an image."""
    if any(first.count(name) > 1 for name in first if name in _IMAGE[:3]):
        return None
    image = next((first.index(name) for name in _IMAGE if name in first), None)
    if image is None:
        return _without_header(first)
    kinds: tuple[tuple[Kind, tuple[tuple[str, ...], ...]], ...] = (
        ("corners", _CORNERS), ("centre", _CENTRE), ("sized", _SIZED), ("list", tuple((name,) for name in _LIST)),
    )  # fmt: skip
    for kind, groups in kinds:
        for group in groups:
            if all(name in first for name in group):
                places = {"image": image} | {name: first.index(name) for name in group}
                label = next((first.index(name) for name in _LABEL if name in first), None)
                if label is not None:
                    places["label"] = label
                for name, spellings in _OTHERS.items():
                    # the width of a box isn't that of its image
                    found = (first.index(spelling) for spelling in spellings if spelling in first)
                    place = next((place for place in found if place not in places.values()), None)
                    if place is not None:
                        places[name] = place
                return Columns(places, group, kind, label is not None)
    return None


def _without_header(first: list[str]) -> Columns | None:
    """Tables of keras-retinanet (image, four corners, class) and of Google's AutoML."""
    if len(first) == 6 and _is_image(first[0]):
        numbers = first[1:5]
        if (all(map(_is_number, numbers)) and first[5] and not _is_number(first[5])) or not any(first[1:]):
            return Columns(
                {"image": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "label": 5}, ("x1", "y1", "x2", "y2"), "corners",
                header=False,
            )  # fmt: skip
    if len(first) >= 9 and _AUTOML.fullmatch(first[0]) and _is_image(first[1]):
        numbers = [first[3], first[4], first[7], first[8]]
        if all(map(_is_number, numbers)):
            places = {"split": 0, "image": 1, "label": 2, "x_min": 3, "y_min": 4, "x_max": 7, "y_max": 8}
            return Columns(places, ("x_min", "y_min", "x_max", "y_max"), "corners", header=False, fractions=True)
    return None


def _is_image(text: str) -> bool:
    return "." in text and f".{text.rpartition('.')[2]}" in IMAGE_EXTENSIONS


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < 1e12
    except ValueError:
        return False
