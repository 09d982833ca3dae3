"""Data sets in the layout of PASCAL VOC: ``Annotations/*.xml``, ``JPEGImages/*``, ``ImageSets/Main/<split>.txt``.

VOC boxes are 1-based with both ends inclusive. They become 0-based half-open: 1 is subtracted from xmin and ymin only.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import DatasetError, ImageError
from sppnet.images import IMAGE_EXTENSIONS, image_size

__all__ = ["VOC_CLASS_NAMES", "load_voc"]

VOC_CLASS_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 20 classes of PASCAL VOC, in its alphabetical order."""


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]  # as in the file: 1-based inclusive
    difficult: bool
    position: int  # 1-based, in the file


@dataclass(frozen=True)
class _Annotation:
    file: Path
    filename: str  # of the picture, "" where not given
    size: tuple[int, int] | None  # (width, height)
    objects: tuple[_Object, ...]
    problems: tuple[str, ...]
    readable: bool = True


def load_voc(
    root: str | os.PathLike[str],
    split: str = "train",
    *,
    class_names: Sequence[str] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> DetectionDataset:
    """Read a data set in VOC layout. Pictures aren't opened (except for their size, where an XML file lacks it).

    Args:
        root: the folder that holds ``Annotations`` (``VOC2007``), or ``VOCdevkit`` above it, or the one above that.
        split: the name of a list in ``ImageSets/Main``; a second column in it is ignored. ``all`` means every
            annotation, unless there is a list of that name.
        class_names: the classes and their order; objects of other classes are left out, and ``problems`` says so.
            By default the 20 classes of VOC, if all names in the data set are among them, else all names found in
            any of its annotations (of whatever split), sorted.
        on_error: ``raise``: one DatasetError that lists what is wrong. ``skip``: objects and pictures that are wrong
            are left out, and listed in the ``problems`` of the result.

    Returns:
        A :class:`DetectionDataset` in the order of the list. Boxes are 0-based, half-open, clipped to the picture.
        Objects that lack ``difficult`` aren't difficult; ``part`` elements are ignored. A box whose corners coincide
        (xmin = xmax: a stray click) counts as one without area.

    Raises:
        DatasetError: no such folder or list; and for ``on_error="raise"``: malformed XML, a box without area, a
            picture or annotation that is missing.
    """
    if on_error not in ("raise", "skip"):
        raise DatasetError(f'on_error is {on_error!r}, expected "raise" or "skip"')
    home = _find_home(Path(root))
    stems = sorted(name[:-4] for name in os.listdir(home / "Annotations") if name.endswith(".xml"))
    ids = _read_list(home, split, set(stems))
    wanted = set(ids)
    annotations = {stem: _read_annotation(home, stem) for stem in stems if class_names is None or stem in wanted}
    names = tuple(class_names) if class_names is not None else _found_names(annotations.values())
    pictures = _pictures(home)
    problems: list[str] = []
    records: list[ImageRecord] = []
    left_out: Counter[str] = Counter()
    for image_id in ids:
        annotation = annotations.get(image_id)
        if annotation is None:
            problems.append(f"{home / 'Annotations' / (image_id + '.xml')}: no such file, but {split}.txt lists it")
            continue
        problems.extend(annotation.problems)
        if not annotation.readable:
            continue
        record = _make_record(annotation, image_id, names, home, pictures, problems, left_out)
        if record is not None:
            records.append(record)
    if left_out and not any(len(record) for record in records):
        raise DatasetError(_no_such_classes(home, names, left_out))
    if problems and on_error == "raise":
        raise DatasetError(_summary(home, split, problems))
    if left_out:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(left_out.items()))
        problems.append(f"{home} {split}: left out objects of classes that aren't in class_names: {listed}")
    return DetectionDataset(records, names, name=home.name, split=split, problems=tuple(problems))


# --- folders and lists -----------------------------------------------------------------------------------------------


def _find_home(root: Path) -> Path:
    """The folder that holds ``Annotations``: ``root`` or the one such folder up to two levels below it."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; name the one that holds Annotations and ImageSets")
    for pattern in ("Annotations", "*/Annotations", "*/*/Annotations"):
        found = sorted(path.parent.resolve() for path in root.glob(pattern) if path.is_dir())
        if len(found) == 1:
            return found[0]
        if found:
            raise DatasetError(f"{root}: holds several data sets ({', '.join(map(str, found))}); name one of them")
    raise DatasetError(
        f"{root}: neither it nor a folder up to two levels below holds Annotations; expected the VOC layout "
        "(Annotations/*.xml, JPEGImages/*, ImageSets/Main/*.txt)"
    )


def _read_list(home: Path, split: str, stems: set[str]) -> list[str]:
    folder = home / "ImageSets" / "Main"
    file = folder / f"{split}.txt"
    if not file.is_file():
        if split == "all":
            return sorted(stems)
        available = sorted(path.stem for path in folder.glob("*.txt"))
        close = get_close_matches(split, available, 1)
        raise DatasetError(
            f"{file}: no such list; "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"available: {', '.join([*available, 'all'])}"
        )
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: can't be read ({error}); expected one picture's name a line") from error
    ids = []
    for line in filter(None, map(str.strip, lines)):
        # A name may hold a space; a list of one class has a second column (1, 0 or -1).
        ids.append(line if line in stems else line.rsplit(None, 1)[0])
    if not ids:
        raise DatasetError(f"{file}: the list is empty; expected one picture's name a line")
    for image_id, count in Counter(ids).items():
        if count > 1:
            raise DatasetError(f"{file}: lists {image_id!r} {count} times; remove the repetition")
    return ids


def _pictures(home: Path) -> dict[str, dict[str, str]]:
    """Files of ``JPEGImages`` by stem and lower-case extension: one listing instead of thousands of look-ups."""
    folder = home / "JPEGImages"
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected the pictures there")
    found: dict[str, dict[str, str]] = {}
    for name in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(name)
        if extension.lower() in IMAGE_EXTENSIONS:
            found.setdefault(stem, {})[extension.lower()] = name
    return found


# --- annotations -----------------------------------------------------------------------------------------------------


def _read_annotation(home: Path, stem: str) -> _Annotation:
    file = home / "Annotations" / f"{stem}.xml"
    try:
        tree = fromstring(file.read_bytes())
        if tree.tag != "annotation":
            raise ValueError(f"the outermost element is <{tree.tag}>, expected <annotation>")
    except (ParseError, DefusedXmlException, OSError, ValueError) as error:
        problem = f"{file}: not readable as a VOC annotation ({error}); mend or remove it"
        return _Annotation(file, "", None, (), (problem,), readable=False)
    objects: list[_Object] = []
    problems: list[str] = []
    for position, element in enumerate(tree.findall("object"), 1):
        try:
            objects.append(_read_object(element, position))
        except ValueError as error:
            problems.append(f"{file}: object {position}: {error}")
    return _Annotation(file, _text(tree, "filename"), _read_size(tree), tuple(objects), tuple(problems))


def _read_object(element: Element, position: int) -> _Object:
    name = _text(element, "name")
    if not name:
        raise ValueError("has no name; add <name>")
    corners = element.find("bndbox")
    if corners is None:
        raise ValueError(f"({name}) has no bndbox; add <bndbox> with xmin, ymin, xmax, ymax")
    values = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = _text(corners, key)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not isfinite(value):
            raise ValueError(f"({name}) has {key} {text!r}, expected a number")
        values.append(value)
    flag = _text(element, "difficult").lower()
    if flag not in ("", "0", "1", "true", "false"):
        raise ValueError(f"({name}) has difficult {flag!r}, expected 0 or 1")
    return _Object(name, (values[0], values[1], values[2], values[3]), flag in ("1", "true"), position)


def _read_size(tree: Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(_text(tree, f"size/{key}"))) for key in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _found_names(annotations: Iterable[_Annotation]) -> tuple[str, ...]:
    names = {item.name for annotation in annotations for item in annotation.objects}
    return VOC_CLASS_NAMES if names <= set(VOC_CLASS_NAMES) else tuple(sorted(names))


def _make_record(
    annotation: _Annotation,
    image_id: str,
    names: tuple[str, ...],
    home: Path,
    pictures: dict[str, dict[str, str]],
    problems: list[str],
    left_out: Counter[str],
) -> ImageRecord | None:
    candidates = pictures.get(image_id) or pictures.get(os.path.splitext(annotation.filename)[0])
    if not candidates:
        problems.append(
            f"{home / 'JPEGImages' / (image_id + '.jpg')}: no such picture, but {annotation.file} is about it"
        )
        return None
    path = home / "JPEGImages" / candidates.get(".jpg", next(iter(candidates.values())))
    size = annotation.size
    if size is None:
        try:
            height, width = image_size(path)
        except ImageError as error:
            problems.append(str(error))
            return None
        size = (width, height)
    width, height = size
    boxes, labels, difficult = [], [], []
    for item in annotation.objects:
        if item.name not in names:
            left_out[item.name] += 1
            continue
        xmin, ymin, xmax, ymax = item.box
        # 1-based inclusive to 0-based half-open, then clipped. In float32, as the record holds it.
        box = np.array([xmin - 1, ymin - 1, xmax, ymax], np.float32)
        box = np.clip(box, 0, np.array([width, height, width, height], np.float32))
        # xmin == xmax would nominally be one pixel wide; in real files it is a stray click.
        if xmax <= xmin or ymax <= ymin or box[2] <= box[0] or box[3] <= box[1]:
            problems.append(
                f"{annotation.file}: object {item.position} ({item.name}) has box xmin={xmin:g} ymin={ymin:g} "
                f"xmax={xmax:g} ymax={ymax:g}, expected xmin < xmax and ymin < ymax inside the picture of "
                f"{width}x{height}; correct or remove it"
            )
            continue
        boxes.append(box)
        labels.append(names.index(item.name))
        difficult.append(item.difficult)
    return ImageRecord(
        path,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(difficult, np.bool_),
        width,
        height,
        image_id,
    )


# --- messages --------------------------------------------------------------------------------------------------------


def _summary(home: Path, split: str, problems: list[str], shown: int = 5) -> str:
    if len(problems) == 1:
        text = problems[0]
    else:
        listed = [f"  {problem}" for problem in problems[:shown]]
        more = len(problems) - shown
        text = "\n".join(
            [f"{home} {split}: {len(problems)} problems:", *listed, *([f"  and {more} more"] if more > 0 else [])]
        )
    return text + '\n(on_error="skip", or --on-error skip, leaves such objects and pictures out and lists them)'


def _no_such_classes(home: Path, names: tuple[str, ...], left_out: Counter[str]) -> str:
    return (
        f"{home}: no object is of a class in class_names ({', '.join(names)}); "
        f"the annotations have {', '.join(sorted(left_out))}"
    )
