"""Data sets as a table: ``image,x0,y0,x1,y1,label``, one object a row, boxes 0-based and half-open as everywhere here.

Further columns are understood: ``split``, ``difficult`` (0 or 1). A row without a box and label is a picture without
objects. Commas, semicolons and tabs separate; ``xmin, ymin, xmax, ymax``, ``filename`` and ``class`` are read as well.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from sppnet.datasets.parsing import as_number, find_picture, read_text, short, sorted_names, unique_ids
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, order_lost, plain_objects
from sppnet.errors import DatasetError

__all__ = ["csv_files", "is_table", "read_csv", "write_csv"]

_EXPECTED = "a table with the columns image, x0, y0, x1, y1, label"
_COLUMNS = {
    "image": ("image", "filename", "file_name", "image_path", "path"),
    "x0": ("x0", "xmin", "x_min"),
    "y0": ("y0", "ymin", "y_min"),
    "x1": ("x1", "xmax", "x_max"),
    "y1": ("y1", "ymax", "y_max"),
    "label": ("label", "class", "class_name"),
}
_BOX = ("x0", "y0", "x1", "y1")


def is_table(file: Path) -> bool:
    """Whether the first line of a file names the columns that are needed."""
    try:
        with file.open("rb") as stream:
            first = stream.readline(4096).decode("utf-8-sig")
    except (OSError, ValueError):
        return False
    return _columns(_split_header(first)[0]) is not None


def csv_files(root: Path) -> list[Path]:
    """The tables of a data set: ``root`` itself, or those in it whose first line names the columns.

    Or those of its folders train, valid and test.
    """
    if root.is_file():
        return [root]
    found = [path for path in sorted([*root.glob("*.csv"), *root.glob("*.tsv")]) if is_table(path)]
    named = [path for path in found if split_of_name(path.stem)]
    below = [path for path in sorted(root.glob("*/*.csv")) if split_of_name(path.parent.name) and is_table(path)]
    return named or found or below


def _split(file: Path) -> str:
    """``val`` for ``val.csv``; ``train`` for ``train/_annotations.csv``."""
    return split_of_name(file.stem) or split_of_name(file.parent.name)


def read_csv(root: str | os.PathLike[str]) -> RawDataset:
    """A table, or the tables ``train.csv``, ``val.csv`` of a folder. Names of pictures are relative to it.

    Raises:
        DatasetError: no table, several that aren't splits, a column that is missing, or no text.
    """
    root = Path(root)
    files = csv_files(root)
    if not files:
        raise DatasetError(f"{root}: no such table; expected {_EXPECTED}")
    if len(files) > 1 and not all(_split(file) for file in files):
        raise DatasetError(f"{root}: holds several tables ({', '.join(f.name for f in files)}); name one of them")
    images: list[RawImage] = []
    splits: list[str] = []
    for file in files:
        for image, split in _read_table(file):
            images.append(image)
            splits.append(split or _split(file) * (len(files) > 1))
    ids = unique_ids([image.path for image in images], root if root.is_dir() else root.parent)
    parts: dict[str, list[str]] = {}
    for image_id, split in zip(ids, splits, strict=True):
        parts.setdefault(split, []).append(image_id)
    return RawDataset(
        root, "csv", root.name if root.is_dir() else root.stem,
        {i: RawImage(**{**vars(image), "image_id": i}) for i, image in zip(ids, images, strict=True)},
        sorted_names(item.name for image in images for item in image.objects),
        splits={name: tuple(items) for name, items in parts.items() if name},
    )  # fmt: skip


def _split_header(line: str) -> tuple[list[str], str]:
    """The names in the first line, and what separates them."""
    separator = max(",;\t", key=line.count)
    return [name.strip().strip('"').lower() for name in line.strip().split(separator)], separator


def _columns(header: list[str]) -> dict[str, int] | None:
    """Where each column is; None where one is missing."""
    found = {}
    for name, spellings in _COLUMNS.items():
        place = next((header.index(spelling) for spelling in spellings if spelling in header), None)
        if place is None:
            return None
        found[name] = place
    return found | {name: header.index(name) for name in ("split", "difficult") if name in header}


def _read_table(file: Path) -> list[tuple[RawImage, str]]:
    text = read_text(file, _EXPECTED)
    first = text.partition("\n")[0]
    header, separator = _split_header(first)
    columns = _columns(header)
    if columns is None:
        raise DatasetError(f"{file}: the first line is {short(first)}, expected {_EXPECTED}")
    objects: dict[str, list[RawObject]] = {}
    problems: dict[str, list[Problem]] = {}
    split_of: dict[str, str] = {}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader][1:]
    except csv.Error as error:
        raise DatasetError(f"{file}: line {reader.line_num} can't be read ({error}); expected {_EXPECTED}") from None
    for number, row in rows:
        if not any(map(str.strip, row)):
            continue
        cells = {name: row[place].strip() if place < len(row) else "" for name, place in columns.items()}
        picture = cells["image"]
        flaws = problems.setdefault(picture, [])
        found = objects.setdefault(picture, [])
        where = f"line {number}"
        if split_of.setdefault(picture, cells.get("split", "")) != cells.get("split", ""):
            what = f"puts {short(picture)} into split {cells['split']!r}, an earlier line into {split_of[picture]!r}"
            flaws.append(Problem("error", "split", str(file), what, "a picture belongs to one", where))
        if not picture:
            flaws.append(Problem("error", "malformed object", str(file), "has no image", "name the picture", where))
            continue
        if not cells["label"] and not any(cells[name] for name in _BOX):
            continue  # a picture without objects
        try:
            found.append(_read_object(cells, number))
        except ValueError as error:
            flaws.append(
                Problem("error", "malformed object", str(file), str(error), "correct or remove the line", where)
            )
    return [(_image(file, name, objects[name], problems[name]), split_of[name]) for name in objects]


def _image(file: Path, name: str, objects: list[RawObject], problems: list[Problem]) -> RawImage:
    path = find_picture(name, [file.parent, file.parent / "images"])
    expected = file.parent / (name.replace("\0", "?")[-200:] or "?")
    return RawImage(
        "", path or expected, file, None, tuple(objects), tuple(problems), found=path is not None, readable=bool(name)
    )  # fmt: skip


def _read_object(cells: dict[str, str], position: int) -> RawObject:
    if not cells["label"]:
        raise ValueError("has no label")
    x0, y0, x1, y1 = (as_number(cells[name], name) for name in _BOX)
    flag = cells.get("difficult", "").lower()
    if flag not in ("", "0", "1", "true", "false"):
        raise ValueError(f"has difficult {short(flag)}, expected 0 or 1")
    written = f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    return RawObject(cells["label"], (x0, y0, x1, y1), written, position, flag in ("1", "true"))


# --- writing ----------------------------------------------------------------------------------------------------------


def write_csv(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    flagged = any(record.difficult.any() for record in job.dataset)
    header = ["image", "x0", "y0", "x1", "y1", "label"]
    header += ["difficult"] * flagged + ["split"] * job.split
    order = [(split, i) for split, items in job.splits.items() for i in items]
    with (job.root / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for k in progress(range(len(order))):
            split, i = order[k]
            job.place(i, job.root / "images")
            picture = f"images/{job.names[i]}"
            tail = [split] * job.split
            for label, box, difficult in plain_objects(job.dataset[i]):
                numbers = [f"{v:.12g}" for v in box]
                name = job.dataset.class_names[label]
                writer.writerow([picture, *numbers, name, *[int(difficult)] * flagged, *tail])
            if not len(job.dataset[i]):
                writer.writerow([picture, *[""] * 5, *[""] * flagged, *tail])
    return order_lost(job, ())
