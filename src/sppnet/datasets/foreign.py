"""Formats that are not read here, told by their files, so that the error says what was found and what to do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sppnet.datasets.formats.csv import COUNTS_COLUMNS
from sppnet.datasets.parsing import read_head, read_json
from sppnet.errors import DatasetError
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.walking import walk_files

__all__ = ["foreign_format", "kinds_of_files"]

_MAX_FILES = 20_000
_PEEK = 20  # files of an extension that are opened
_ANOTHER_EXPORT = "export it as COCO, Pascal VOC or YOLO"
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_DOTA = re.compile(rf"(?:{_NUMBER}\s+){{8}}[^\s\d]\S*(?:\s+[01])?")
_VISDRONE = re.compile(rf"{_NUMBER}(?:,{_NUMBER}){{7,9}},?")


@dataclass(frozen=True)
class _Format:
    """A format that is not read: what it is called, how a file of it is told, and what to do.

    Attributes:
        name: for messages.
        advice: how to come to a format that is read.
        files: a pattern that the whole name of a file fits, in lower case.
        text: whether the beginning of such a file is one; None: the name says it.
    """

    name: str
    advice: str
    files: re.Pattern[str]
    text: Callable[[str, Path], bool] | None = None


def _lines(head: str) -> list[str]:
    return [line.strip() for line in head.splitlines()[:20] if line.strip()]


def _is_dota(head: str, file: Path) -> bool:
    lines = [line for line in _lines(head) if not line.startswith(("imagesource:", "gsd:"))]
    return bool(lines) and _DOTA.fullmatch(lines[0]) is not None


def _is_wider(head: str, file: Path) -> bool:
    lines = _lines(head)
    return (
        len(lines) > 2 and Path(lines[0]).suffix.lower() in IMAGE_EXTENSIONS and lines[1].isdecimal()
        and len(lines[2].split()) >= 4 and all(field.lstrip("-").isdecimal() for field in lines[2].split())
    )  # fmt: skip


def _is_visdrone(head: str, file: Path) -> bool:
    lines = _lines(head)
    return bool(lines) and _VISDRONE.fullmatch(lines[0]) is not None


def _is_class_table(head: str, file: Path) -> bool:
    titles, *rows = [[field.strip() for field in line.split(",")] for line in _lines(head)] or [[]]
    return (
        len(titles) > 1 and titles[0].lower() in ("filename", "image", "file") and bool(rows)
        and tuple(titles[:2]) != COUNTS_COLUMNS and len(rows[0]) == len(titles) and set(rows[0][1:]) <= {"0", "1"}
    )  # fmt: skip


def _json_of(file: Path) -> object:
    try:
        return read_json(file, "JSON")
    except DatasetError:
        return None


def _is_bdd(head: str, file: Path) -> bool:
    if "box2d" not in head and '"labels"' not in head and '"frames"' not in head:
        return False
    document = _json_of(file)
    first = document[0] if isinstance(document, list) and document else document
    if not isinstance(first, dict) or "name" not in first:
        return False
    frames = first.get("frames")
    if isinstance(frames, list) and frames and isinstance(frames[0], dict):
        return isinstance(frames[0].get("objects"), list) or isinstance(frames[0].get("labels"), list)
    return isinstance(document, list) and isinstance(first.get("labels"), list)


def _is_cityscapes(head: str, file: Path) -> bool:
    return '"imgHeight"' in head and '"polygon"' in head


def _is_scene(head: str, file: Path) -> bool:
    return '"openlabel"' in head[:500]


_TEXTS, _JSON = re.compile(r".*\.txt"), re.compile(r".*\.json")
_FORMATS = (
    _Format("TFRecord", f"{_ANOTHER_EXPORT} where it came from",
            re.compile(r".*\.(tfrecords?|record)|.*\.(tfrecords?|record)-\d+-of-\d+")),
    _Format("Parquet or Arrow tables", "save the images as files, with a CSV table image,x0,y0,x1,y1,label beside them",
            re.compile(r".*\.(parquet|arrow|feather)")),
    _Format("RecordIO", f"{_ANOTHER_EXPORT} where it came from", re.compile(r".*\.(rec|lst)")),
    _Format("JSON Lines (Hugging Face, Labelbox, SageMaker)", "export it as COCO, or as a CSV table "
            "image,x0,y0,x1,y1,label", re.compile(r".*\.(jsonl|ndjson|manifest)")),
    _Format("a table of the classes of whole images (Roboflow's multi-label CSV)",
            "it has no boxes: for a classifier put the images into a folder for each class (sppnet classify-train); "
            "for a detector draw boxes", re.compile(r".*\.csv"), _is_class_table),
    _Format("WIDER FACE", f"{_ANOTHER_EXPORT}, or as a CSV table image,x0,y0,x1,y1,label", _TEXTS, _is_wider),
    _Format("DOTA (rotated boxes)", "convert it to upright boxes, as COCO, YOLO or a CSV table", _TEXTS, _is_dota),
    _Format("VisDrone or MOT", f"{_ANOTHER_EXPORT}, or as a CSV table image,x0,y0,x1,y1,label", _TEXTS, _is_visdrone),
    _Format("BDD100K", "convert it to COCO (its own tools do)", _JSON, _is_bdd),
    _Format("Cityscapes (outlines)", "convert it to COCO", _JSON, _is_cityscapes),
    _Format("OpenLABEL", f"{_ANOTHER_EXPORT}", _JSON, _is_scene),
)  # fmt: skip


def _some_files(path: Path) -> Iterator[Path]:
    return iter([path]) if path.is_file() else islice(walk_files(path), _MAX_FILES)


def foreign_format(path: Path) -> str:
    """Tell which of the formats that are not read a folder or file holds.

    Args:
        path: a folder in which no format that is read was found, or a file.

    Returns:
        Its name, a file of it, and what to do; empty where none is known.
    """
    opened: Counter[str] = Counter()
    for file in _some_files(path):
        name = file.name.lower()
        fitting = [known for known in _FORMATS if known.files.fullmatch(name)]
        if not fitting:
            continue
        opened[file.suffix.lower()] += 1
        head = read_head(file, 16_384) if opened[file.suffix.lower()] <= _PEEK else ""
        for known in fitting:
            if known.text is None or (head and known.text(head, file)):
                where = file.relative_to(path) if file != path else file.name
                return f"holds {known.name} ({where}), which isn't read here; {known.advice}"
    return ""


def kinds_of_files(path: Path) -> str:
    """Count the files in and below a folder: ``3 images, 12 .dat files (such as a/b.dat)``; empty where there are none.

    Args:
        path: the folder.
    """
    counts: Counter[str] = Counter()
    first: dict[str, Path] = {}
    for file in _some_files(path):
        suffix = file.suffix.lower()
        kind = "" if suffix in IMAGE_EXTENSIONS else suffix or "other"
        counts[kind] += 1
        first.setdefault(kind, file)
    images = counts.pop("", 0)
    found = [f"{images} image{'s' * (images != 1)}"] * bool(images)
    for kind, count in counts.most_common(3):
        what = f"file{'s' * (count != 1)}"
        found.append(f"{count} {kind} {what} (such as {first[kind].relative_to(path)})")
    return ", ".join(found)
