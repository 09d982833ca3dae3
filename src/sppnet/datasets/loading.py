"""One door to data sets of every format: which one it is, and reading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sppnet._types import OnError
from sppnet.datasets.assembling import assemble, split_ids
from sppnet.datasets.formats.coco import coco_files, is_coco, read_coco
from sppnet.datasets.formats.csv import csv_files, is_table, read_csv
from sppnet.datasets.formats.labelme import is_labelme, labelme_files, read_labelme
from sppnet.datasets.formats.voc import has_annotations, read_voc
from sppnet.datasets.formats.yolo import find_yaml, labels_beside, read_yolo, yolo_folders
from sppnet.datasets.parsing import read_json, read_text, short
from sppnet.datasets.raw import RawDataset
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.splits import SPLIT_NAMES, split_order
from sppnet.errors import DatasetError, UnknownFormatError, did_you_mean
from sppnet.images import IMAGE_EXTENSIONS, list_images

__all__ = ["FORMATS", "detect_format", "load_dataset", "read_dataset", "split_names"]

_READERS = {"voc": read_voc, "coco": read_coco, "yolo": read_yolo, "csv": read_csv, "labelme": read_labelme}
FORMATS = tuple(_READERS)
"""Names of the formats that can be read and written."""

LOOKED_FOR = """\
  voc      Annotations/*.xml with JPEGImages (or annotations and images, or XML files beside the pictures)
  coco     a JSON file with images, annotations and categories, here or in annotations/
  yolo     data.yaml with names, train and val; or labels/*.txt beside images/; or .txt files beside the pictures
  csv      a table whose first line names image, x0, y0, x1, y1, label
  labelme  JSON files with shapes, one a picture"""

# How many JSON files are opened to tell whose they are
_PEEK = 20


def load_dataset(
    path: str | os.PathLike[str],
    split: str | None = None,
    *,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    on_error: OnError = "skip",
) -> DetectionDataset:
    """Read a data set in the layout of PASCAL VOC, COCO, YOLO, LabelMe or as a CSV table. See docs/data.md.

    Args:
        path: a folder, or the one file that describes the data set (JSON, YAML, CSV).
        split: which part; None or ``all`` for every picture. ``val``, ``valid`` and ``validation`` are one name.
        format: one of :data:`FORMATS`; None finds out.
        class_names: the classes and their order; objects of others are left out, and ``problems`` says so. By default
            those that the data set declares (COCO, YOLO) or that occur in any split of it, sorted.
        on_error: ``fail``: one DatasetError that lists what is wrong. ``skip``: what is wrong is left out, and listed
            in the ``problems`` of the result.

    Returns:
        A :class:`DetectionDataset`: boxes ``(x0, y0, x1, y1)`` in pixels of the upright picture, 0-based, half-open,
        clipped to the picture.

    Raises:
        DatasetError: the format isn't recognised, the split doesn't exist, or something in it is wrong.
    """
    return assemble(read_dataset(path, format), split, class_names=class_names, on_error=on_error)


def read_dataset(path: str | os.PathLike[str], format: str | None = None) -> RawDataset:
    """Annotations as the files give them, for whoever looks for their faults; :func:`load_dataset` makes records.

    Raises:
        DatasetError: the format isn't recognised, or nothing of it can be read.
    """
    if format is not None and format not in _READERS:
        hint = did_you_mean(format, FORMATS)
        raise DatasetError(f"format is {format!r}; {hint}expected one of {', '.join(FORMATS)}")
    path = Path(path)
    raw = _READERS[format or detect_format(path)](path)
    if not raw.images:
        raise DatasetError(f"{path}: a data set in {raw.format} format without pictures; add some")
    if raw.name not in ("", ".", ".."):
        return raw
    return replace(raw, name=path.resolve().name)


def detect_format(path: str | os.PathLike[str]) -> str:
    """Which of :data:`FORMATS` a folder or file is in.

    A table beside annotations of another format doesn't count (it is often made from them).

    Raises:
        UnknownFormatError: none; the message says what was looked for. DatasetError: several, or no such file.
    """
    path = Path(path)
    try:
        if path.is_file():
            found = _formats_of_file(path)
        elif path.is_dir():
            found = _formats_of_folder(path)
        else:
            beside = path.absolute().parent
            hint = did_you_mean(path.name, [p.name for p in beside.iterdir()]) if beside.is_dir() else ""
            raise DatasetError(f"{path}: no such file or folder; {hint}name a data set")
    except (OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{str(path)[:200]}: can't be looked at ({error}); name a data set") from None
    if len(found) > 1:
        raise DatasetError(
            f"{path}: may be read as {' or '.join(found)}; say which with format (--format {found[0]}), "
            "or name the file itself"
        )
    if not found:
        raise UnknownFormatError(_nothing_known(path))
    return found[0]


def _nothing_known(path: Path) -> str:
    """What is there, and what to do about it."""
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        return f"{path}: is an archive; unpack it and name the folder"
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return f"{path}: is a picture; name the folder of the data set, or the one file with all its boxes"
    if path.is_dir() and not any(path.iterdir()):
        return f"{path}: is an empty folder; name one with photos and their boxes"
    pictures = len(list_images([path])) if path.is_dir() else 0
    has = f"{pictures} pictures but " if pictures else ""
    for table in sorted(path.glob("*.csv")) if path.is_dir() else [path] * (path.suffix.lower() in (".csv", ".tsv")):
        first = read_text(table, "a table").partition("\n")[0]
        has = (
            f"the first line of {table.name} is {short(first)} and names no columns like image,x0,y0,x1,y1,label; {has}"
        )
        break
    advice = "export the annotations in one of them, or say the format (--format)"
    written = (".json", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml")
    if pictures and not any(file.suffix.lower() in written for file in path.rglob("*")):
        advice = (
            "draw boxes with a labelling tool (Label Studio, CVAT, labelImg, LabelMe) and export them in one of these"
        )
    return f"{path}: {has}no annotations in a format that is known here; looked for\n{LOOKED_FOR}\n{advice}"


def _formats_of_file(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return ["yolo"]
    if suffix == ".json":
        document = read_json(path, "the annotations of COCO or LabelMe")
        return ["coco"] if is_coco(document) else ["labelme"] if is_labelme(document) else []
    return ["csv"] if suffix in (".csv", ".tsv", ".txt") and is_table(path) else []


def _formats_of_folder(path: Path) -> list[str]:
    found = []
    folders = [
        folder for pattern in ("Annotations", "*/Annotations", "*/*/Annotations") for folder in path.glob(pattern)
    ]
    lower = [*path.glob("annotations"), *path.glob("*/annotations")]
    if folders or any(path.glob("*.xml")) or any(any(folder.rglob("*.xml")) for folder in lower):
        found.append("voc")
    if _any_json(coco_files(path), is_coco):
        found.append("coco")
    elif _any_json(labelme_files(path), is_labelme):
        found.append("labelme")
    if find_yaml(path) is not None or yolo_folders(path):
        found.append("yolo")
    if not found and has_annotations(path):  # XML files beside pictures in folders below
        found.append("voc")
    if not found and labels_beside(list_images([path])[:1000]):
        found.append("yolo")
    return found or (["csv"] if csv_files(path) else [])


def _any_json(files: Sequence[Path], test: Callable[[object], bool]) -> bool:
    for file in files[:_PEEK]:
        try:
            if test(read_json(file, "JSON")):
                return True
        except DatasetError:
            continue
    return False


def split_names(raw: RawDataset) -> list[str]:
    """Splits that don't share pictures, ``train`` first: ``trainval`` isn't among them where ``train`` is."""
    names = sorted(raw.splits, key=split_order)
    taken: set[str] = set()
    chosen = []
    for name in names:
        ids = set(split_ids(raw, name))
        if not ids & taken or name in SPLIT_NAMES:
            chosen.append(name)
            taken |= ids
    return chosen
