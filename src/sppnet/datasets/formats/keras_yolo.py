"""Data sets in the text format of YOLO for Keras and of YOLOv4 for PyTorch: ``image.jpg x0,y0,x1,y1,class ...`` a line.

Corners are in pixels, 0-based. The names of the classes are in ``_classes.txt`` or ``classes.txt``, one a line, beside
the file or in a folder above it. An image without objects stands by itself on its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sppnet.datasets.collecting import Collection, split_of_place
from sppnet.datasets.formats.yolo_yaml import read_names
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import as_number, read_head, read_text, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.errors import DatasetError
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.walking import files_in, files_near_top

__all__ = ["is_box_list", "keras_yolo_files", "read_keras_yolo"]

_EXPECTED = "lines of image.jpg x0,y0,x1,y1,class x0,y0,x1,y1,class ..."
_CLASSES = ("_classes.txt", "classes.txt", "class_names.txt", "classes.names", "obj.names")
_TITLES = ("x0", "y0", "x1", "y1", "class")
_BOX = re.compile(r"[-+.\d]+,[-+.\d]+,[-+.\d]+,[-+.\d]+,\d+")
_LINES = 50


def is_box_list(file: Path) -> bool:
    """Whether the first lines of a file are images, one of them at least with boxes."""
    head = read_head(file, 16_384)
    lines = [line for line in map(str.strip, head.splitlines()[:_LINES]) if line]
    found = [_parts(line) for line in lines[: len(lines) if len(head) < 8_000 else -1]]
    return any(boxes and all(map(_BOX.fullmatch, boxes)) for _, boxes in found) and all(
        Path(name.replace("\\", "/")).suffix.lower() in IMAGE_EXTENSIONS for name, _ in found
    )


def keras_yolo_files(root: Path) -> list[Path]:
    """List such files in ``root`` and in the folders right below it."""
    if root.is_file():
        return [root]
    return [file for file in files_near_top(root, ".txt") if is_box_list(file)]


def read_keras_yolo(root: Path, images: Path | None = None) -> RawDataset:
    """Read every such file of a data set.

    Args:
        root: the folder of the data set, or the file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none, or one can't be read.
    """
    files = keras_yolo_files(root)
    if not files:
        raise DatasetError(f"{root}: no list of images and boxes; expected {_EXPECTED}")
    home = home_of(root)
    collection = Collection(root, home, "keras-yolo", ImageIndex(home, images))
    known: list[str] = []
    read: list[tuple[list[tuple[RawImage, str]], tuple[Path, ...], str]] = []
    declared = True
    for file in files:
        names = _names(file, home)
        declared = declared and names is not None
        known += [] if names is None else names.values()
        split = split_of_place(file, home) or split_of_name(file.stem)
        near = folders_near(file.parent, home, split)
        lines = _read_lines(file, names, partial(collection.index.has, folders=near))
        collection.index.note([(name, near) for _, name in lines])
        read.append((lines, near, split))
    for lines, near, split in read:
        collection.add_located(lines, near, split)
    if not declared:
        what = "nothing names the classes (_classes.txt): they are called by their numbers"
        collection.problems.append(
            Problem("warning", "no class names", str(home), what, "write their names into _classes.txt, one a line")
        )
        known += sorted({o.name for image, _ in collection.entries for o in image.objects} - set(known), key=_order)
    return collection.finish(list(dict.fromkeys(known)), declared=True)


def _order(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else -1), name


def _names(file: Path, home: Path) -> dict[int, str] | None:
    """The classes by number: of the list that is nearest to a file."""
    folder = file.parent
    while True:
        there = {file.name.lower(): file for file in files_in(folder, ".txt", ".names")}
        for name in _CLASSES:
            if name in there:
                return read_names(there[name])
        if folder == home or not folder.is_relative_to(home):
            return None
        folder = folder.parent


def _parts(line: str) -> tuple[str, list[str]]:
    """The name of the image, which may hold blanks, and the texts behind it."""
    fields = re.split(r"\s+", line)
    boxes: list[str] = []
    while len(fields) > 1 and Path(fields[-1]).suffix.lower() not in IMAGE_EXTENSIONS and "," in fields[-1]:
        boxes.insert(0, fields.pop())
        line = line[: line.rindex(boxes[0])].rstrip()
    return line, boxes


def _read_lines(
    file: Path, names: dict[int, str] | None, is_image: Callable[[str], bool]
) -> list[tuple[RawImage, str]]:
    found = []
    for number, line in enumerate(read_text(file, _EXPECTED).splitlines(), 1):
        name, boxes = _parts(line.strip())
        if not line.strip() or (name.startswith("#") and not is_image(name)):
            continue
        objects: list[RawObject] = []
        problems: list[Problem] = []
        for position, text in enumerate(boxes, 1):
            try:
                objects.append(_read_box(text, position, names))
            except ValueError as error:
                where = f"line {number}, object {position}"
                problems.append(
                    Problem("error", "malformed object", str(file), str(error), "correct or remove it", where)
                )
        found.append((RawImage("", file, file, None, tuple(objects), tuple(problems)), name))
    return found


def _read_box(text: str, position: int, names: dict[int, str] | None) -> RawObject:
    fields = text.split(",")
    if len(fields) != 5:
        raise ValueError(f"is {short(text)}, expected x0,y0,x1,y1,class")
    x0, y0, x1, y1, label = (as_number(field, title) for field, title in zip(fields, _TITLES, strict=True))
    if label != int(label) or label < 0 or (names is not None and int(label) not in names):
        raise ValueError(f"has class {short(fields[4])}, expected {_numbers(names)}")
    name = names[int(label)] if names is not None else str(int(label))
    return RawObject(name, (x0, y0, x1, y1), f"({', '.join(fields[:4])})", position)


def _numbers(names: dict[int, str] | None) -> str:
    return "a number" if names is None else f"a number from 0 to {len(names) - 1}, as there are {len(names)} classes"
