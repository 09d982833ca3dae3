"""Data sets of makesense.ai as CSV: ``label,x,y,width,height,image,image width,image height``, without a first line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from sppnet.datasets.collecting import Collection, split_of_place
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import as_number, read_head, read_text
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.errors import DatasetError
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.walking import files_near_top

__all__ = ["is_makesense", "makesense_files", "read_makesense"]

_EXPECTED = "a table of makesense.ai: label, x, y, width, height, image, image width, image height"
_TITLES = ("x", "y", "width", "height")


def is_makesense(file: Path) -> bool:
    """Whether the first line of a file is one of makesense.ai."""
    try:
        row = next(csv.reader(read_head(file, 4096).splitlines()[:1]), [])
        numbers = [float(row[k]) for k in (1, 2, 3, 4, 6, 7)] if len(row) == 8 else []
    except (ValueError, csv.Error):
        return False
    return bool(numbers) and Path(row[5].strip()).suffix.lower() in IMAGE_EXTENSIONS


def makesense_files(root: Path) -> list[Path]:
    """List the tables of makesense.ai in ``root`` and in the folders below it."""
    if root.is_file():
        return [root]
    return [file for file in files_near_top(root, ".csv") if is_makesense(file)]


def read_makesense(root: Path, images: Path | None = None) -> RawDataset:
    """Read every table of makesense.ai in a folder.

    Args:
        root: the folder of the data set, or the table.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none, or one can't be read.
    """
    files = makesense_files(root)
    if not files:
        raise DatasetError(f"{root}: no table of makesense.ai; expected {_EXPECTED}")
    home = home_of(root)
    collection = Collection(root, home, "makesense", ImageIndex(home, images))
    for file in files:
        split = split_of_place(file, home) or (split_of_name(file.stem) if len(files) > 1 else "")
        found = [(image, name) for name, image in _read_rows(file).items()]
        collection.add_located(found, folders_near(file.parent, home, split), split)
    return collection.finish()


def _read_rows(file: Path) -> dict[str, RawImage]:
    """The images by name."""
    objects: dict[str, list[RawObject]] = {}
    problems: dict[str, list[Problem]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    reader = csv.reader(io.StringIO(read_text(file, _EXPECTED), newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DatasetError(f"{file}: line {reader.line_num} can't be read ({error}); expected {_EXPECTED}") from None
    for number, row in rows:
        name = row[5].strip() if len(row) > 5 else ""
        found, flaws = objects.setdefault(name, []), problems.setdefault(name, [])
        try:
            if len(row) != 8 or not name or not row[0].strip():
                raise ValueError(f"has {len(row)} columns, expected 8 with a label and an image")
            x, y, w, h = (as_number(cell.strip(), title) for cell, title in zip(row[1:5], _TITLES, strict=True))
            width, height = (int(as_number(cell.strip(), "size")) for cell in row[6:8])
        except ValueError as error:
            where = f"line {number}"
            flaws.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
            continue
        if 0 < width < 1 << 31 and 0 < height < 1 << 31:
            sizes.setdefault(name, (width, height))
        written = f"({x:g}, {y:g}, {w:g}, {h:g})"
        found.append(RawObject(row[0].strip(), (x, y, x + w, y + h), written, number, flat=w == 0 or h == 0))
    return {
        name: RawImage("", file, file, sizes.get(name), tuple(found), tuple(problems[name]), readable=bool(name))
        for name, found in objects.items()
    }
