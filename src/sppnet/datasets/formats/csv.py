"""Data sets as a table: ``image,x0,y0,x1,y1,label``, one object a row, boxes 0-based and half-open as everywhere here.

Further columns are understood: ``split``, ``difficult`` (0 or 1), ``width`` and ``height`` of the image. A row without
a box and label is an image without objects. Commas, semicolons and tabs separate. Many other names of columns are known
(:mod:`sppnet.datasets.formats.csv_columns`), and tables without a first line that keras-retinanet and AutoML write.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sppnet.datasets.collecting import Collection, located
from sppnet.datasets.formats.csv_columns import Columns, columns_of, separator_named, split_line
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import Box, as_number, read_head, read_text, short
from sppnet.datasets.raw import CONFIDENCES, Problem, RawDataset, RawImage, RawObject, left_alone
from sppnet.datasets.splits import canonical_split, split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, order_lost, plain_objects
from sppnet.errors import DatasetError
from sppnet.storage.names import spreadsheet_safe, spreadsheet_text
from sppnet.storage.walking import files_in, files_near_top

__all__ = ["COUNTS_COLUMNS", "CSV_COLUMNS", "csv_files", "is_table", "read_csv", "write_csv"]

CSV_COLUMNS = ("image", "x0", "y0", "x1", "y1", "label")
"""The columns that every table has that is written here; others follow."""
COUNTS_COLUMNS = ("image", "objects found")
"""The first columns of a table of counts, which are no labels. No table of somebody's own counts begins so."""
_EXPECTED = "a table with the columns image, x0, y0, x1, y1, label"
_NO_CLASS = "object"  # the class of tables without a column for it
_NO_SPLIT = ("", "unassigned", "none", "null", "nan", "all")
_CONFIDENCE = frozenset(("confidence", "score", "conf"))  # columns of tables of results


@dataclass
class _Rows:
    """The rows about one image."""

    split: str
    objects: list[RawObject] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    size: tuple[int, int] | None = None


def is_table(file: Path) -> bool:
    """Whether the first lines of a file are those of a table with boxes."""
    return columns_of(split_line(read_head(file))[0]) is not None


def csv_files(root: Path) -> list[Path]:
    """List the tables of a data set: ``root`` itself, or those in it and in the folders below it.

    Those whose name is that of a split come alone; so do those in ``root``.
    """
    if root.is_file():
        return [root]
    found = [path for path in files_in(root, ".csv", ".tsv") if is_table(path)]
    named = [path for path in found if split_of_name(path.stem)]
    below = [path for path in files_near_top(root, ".csv", ".tsv") if is_table(path)] if not found else []
    below_named = [path for path in below if _split(path)]
    return named or found or below_named or below


def _split(file: Path) -> str:
    """``val`` for ``val.csv``; ``train`` for ``train/_annotations.csv``."""
    return split_of_name(file.stem) or split_of_name(file.parent.name)


def read_csv(root: Path, images: Path | None = None) -> RawDataset:
    """Read a table, or the tables ``train.csv``, ``val.csv`` of a folder. Names of images are relative to it.

    Args:
        root: the folder of the data set, or the table.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: no table, several that aren't splits, a column that is missing, or no text.
    """
    files = csv_files(root)
    if not files:
        raise DatasetError(f"{root}: no such table; expected {_EXPECTED}")
    if len(files) > 1 and not all(_split(file) for file in files):
        raise DatasetError(f"{root}: holds several tables ({', '.join(f.name for f in files)}); name one of them")
    home = home_of(root)
    collection = Collection(root, home, "csv", ImageIndex(home, images))
    if root.is_dir():
        beside = [
            file for folder in sorted({file.parent for file in files}) for file in files_in(folder, ".csv", ".tsv")
        ]
        collection.problems += [left_alone(file) for file in beside if file not in files and is_table(file)]
    tables = [_read_table(file, collection, _split(file) if len(files) > 1 else "") for file in files]
    for table in tables:
        collection.index.note(table.requests)
    for table in tables:
        table.add_to(collection)
    return collection.finish()


@dataclass
class _Table:
    """The rows of a table, and where their images are looked for."""

    file: Path
    rows: dict[str, _Rows]
    splits: dict[str, str]
    fractions: bool
    requests: list[tuple[str, tuple[Path, ...]]]

    def add_to(self, collection: Collection) -> None:
        places = collection.index.locate(self.requests)
        for (name, found), place in zip(self.rows.items(), places, strict=True):
            image = RawImage(
                "", place.path, self.file, found.size, tuple(found.objects), tuple(found.problems),
                fractions=self.fractions, readable=bool(name),
            )  # fmt: skip
            collection.add(located(image, place), self.splits[name])


def _read_table(file: Path, collection: Collection, table_split: str) -> _Table:
    text = read_text(file, _EXPECTED)
    header, separator = split_line(text)
    columns = columns_of(header)
    if columns is None:
        raise DatasetError(f"{file}: the first line is {short(text.partition(chr(10))[0])}, expected {_EXPECTED}")
    if not columns.label:
        what = f"has no column for the class, so every object is of the class {_NO_CLASS!r}"
        collection.problems.append(Problem("warning", "no class", str(file), what, "add a column label"))
    names = _class_descriptions(file.parent, collection.home) if "labelname" in header else {}

    def is_image(name: str, split: str) -> bool:
        return collection.index.has(name, folders_near(file.parent, collection.home, split or table_split))

    rows = _rows(file, text, separator, columns, names, is_image)
    if columns.header and not _CONFIDENCE.isdisjoint(header):
        collection.extras[CONFIDENCES] += sum(len(found.objects) for found in rows.values())
    fractions = columns.fractions or _are_fractions(rows)
    splits = {name: found.split or table_split for name, found in rows.items()}
    requests = [(name, folders_near(file.parent, collection.home, splits[name])) for name in rows]
    return _Table(file, rows, splits, fractions, requests)


def _rows(
    file: Path, text: str, separator: str, columns: Columns, names: dict[str, str], is_image: Callable[[str, str], bool]
) -> dict[str, _Rows]:
    """The rows of each image, in the order of the table."""
    images: dict[str, _Rows] = {}
    lines = list(_lines(file, text, separator, columns.header))
    whole = [row for _, row in lines if len(row) > max(columns.places.values())]
    all_marked = all(row[0].startswith("#") for row in whole)  # then it is a part of the names
    for number, row in lines:
        if not any(map(str.strip, row)):
            continue
        cells = {name: row[place].strip() if place < len(row) else "" for name, place in columns.places.items()}
        split = canonical_split(cells.get("split", ""))
        split = "" if split.lower() in _NO_SPLIT else split
        image = cells["image"]
        # a comment, unless there is all that a row of a box has: an image may be called so
        short_row = len(row) <= max(columns.places.values())
        named = image.startswith("#") and not all_marked
        if row[0].startswith("#") and (short_row or (named and not is_image(image, split))):
            continue
        where = f"line {number}"
        found = images.setdefault(image, _Rows(split))
        if found.split != split:
            what = f"puts {short(image)} into split {split!r}, an earlier line into {found.split!r}"
            found.problems.append(Problem("error", "split", str(file), what, "an image belongs to one", where))
        if not image:
            problem = Problem("error", "malformed object", str(file), "has no image", "name the image", where)
            found.problems.append(problem)
            continue
        found.size = found.size or _size(cells)
        if not cells.get("label") and not any(cells[name] for name in columns.box):
            continue  # an image without objects
        try:
            found.objects.append(_read_object(cells, columns, number, names))
        except ValueError as error:
            found.problems.append(
                Problem("error", "malformed object", str(file), str(error), "correct or remove the line", where)
            )
    return images


def _lines(file: Path, text: str, separator: str, header: bool) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    skip = int(header)
    try:
        for k, row in enumerate(reader):
            if k == 0 and separator_named(separator.join(row)):
                skip += 1  # Excel's line sep=;
            if k >= skip and row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DatasetError(f"{file}: line {reader.line_num} can't be read ({error}); expected {_EXPECTED}") from None


def _size(cells: dict[str, str]) -> tuple[int, int] | None:
    try:
        width, height = (int(float(cells[name])) for name in ("image_width", "image_height"))
    except (KeyError, ValueError, OverflowError):
        return None
    return (width, height) if 0 < width < 1 << 31 and 0 < height < 1 << 31 else None


def _read_object(cells: dict[str, str], columns: Columns, position: int, names: dict[str, str]) -> RawObject:
    label = spreadsheet_text(cells.get("label", "")) if columns.label else _NO_CLASS
    if not label:
        raise ValueError("has no label")
    texts = [cells[name] for name in columns.box]
    if columns.kind == "list":
        texts = [part.strip() for part in texts[0].strip("[]() ").replace(";", ",").split(",")]
        if len(texts) != 4:
            raise ValueError(f"has bbox {short(cells[columns.box[0]])}, expected [x, y, width, height]")
    titles = columns.box if columns.kind != "list" else ("x", "y", "width", "height")
    values = [as_number(text, name) for text, name in zip(texts, titles, strict=True)]
    box = _corners(values, columns.kind)
    flag = cells.get("difficult", "").lower()
    if flag not in ("", "0", "1", "-1", "true", "false"):
        raise ValueError(f"has difficult {short(flag)}, expected 0 or 1")
    written = f"({', '.join(f'{value:g}' for value in values)})"
    return RawObject(names.get(label, label), box, written, position, flag in ("1", "true"))


def _corners(values: list[float], kind: str) -> Box:
    a, b, c, d = values
    if kind == "corners":
        return a, b, c, d
    if kind == "centre":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, a + c, b + d


def _are_fractions(rows: dict[str, _Rows]) -> bool:
    """Whether all boxes of a table lie between 0 and 1, and are not all whole numbers: then they are no pixels."""
    values = [value for found in rows.values() for item in found.objects for value in item.box]
    return bool(values) and all(-0.01 <= value <= 1.01 for value in values) and any(v != int(v) for v in values)


def _class_descriptions(folder: Path, home: Path) -> dict[str, str]:
    """Open Images numbers its classes; a second table, here or in ``metadata``, says what they are called."""
    for place in dict.fromkeys((folder, home, home / "metadata")):
        for file in files_in(place, ".csv"):
            if "class-descriptions" in file.name.lower() or file.name.lower() == "classes.csv":
                rows = csv.reader(io.StringIO(read_text(file, "a table of classes"), newline=""))
                return {row[0]: row[1].strip() for row in rows if len(row) >= 2 and row[1].strip()}
    return {}


# --- writing ----------------------------------------------------------------------------------------------------------


def write_csv(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    flagged = any(record.difficult.any() for record in job.dataset)
    header = [*CSV_COLUMNS, *["difficult"] * flagged, *["split"] * job.split]
    order = job.order
    with job.target("annotations.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for k in progress(range(len(order))):
            split, i = order[k]
            job.place(i, "images")
            image = f"images/{job.names[i]}"
            tail = [split] * job.split
            for label, box, difficult in plain_objects(job.dataset[i]):
                numbers = [f"{v:.12g}" for v in box]
                name = spreadsheet_safe(job.dataset.class_names[label])
                writer.writerow([image, *numbers, name, *[int(difficult)] * flagged, *tail])
            if not len(job.dataset[i]):
                writer.writerow([image, *[""] * 5, *[""] * flagged, *tail])
    return order_lost(job, ())
