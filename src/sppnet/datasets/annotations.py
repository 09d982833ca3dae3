"""What the readers of all formats share: annotations as a file gives them, their problems, and the way to records.

A reader turns its files into a :class:`RawDataset`: boxes 0-based and half-open, but neither clipped nor judged yet.
:func:`assemble` looks at the pictures' headers, judges every box, and makes the :class:`DetectionDataset`.
``sppnet data check`` judges by the same rules and reports everything.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import DatasetError, ImageError, did_you_mean
from sppnet.images import image_size

__all__ = [
    "OnError",
    "Problem",
    "RawDataset",
    "RawImage",
    "RawObject",
    "assemble",
    "judge_box",
    "picture_size",
    "split_ids",
]

OnError = Literal["raise", "skip"]
# What people call the list to validate on. Each stands for the others where only one of them exists.
_VALIDATION = ("val", "valid", "validation")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        level: ``error``: training refuses it (or leaves it out, if told to). ``warning``: it is likely a mistake.
        kind: a short name, the same for all problems alike: ``no area``, ``missing picture``.
        file: the annotation or picture.
        what: what was got and what was expected. advice: what to do.
        where: the object in the file, e.g. ``object 3 (cat)``; or empty.
    """

    level: Literal["error", "warning"]
    kind: str
    file: str
    what: str
    advice: str
    where: str = ""

    def __str__(self) -> str:
        place = f" {self.where}" if self.where else ""
        return f"{self.file}:{place} {self.what}; {self.advice}"


@dataclass(frozen=True)
class RawObject:
    """An object as its file gives it.

    Attributes:
        name: of the class.
        box: ``(x0, y0, x1, y1)``, 0-based, half-open, finite; in pixels, or in fractions of the picture's sides.
        written: the box in the words of the file, for messages.
        position: of the object in its file, from 1.
        flat: no area by the rules of the format, whatever ``box`` says.
    """

    name: str
    box: tuple[float, float, float, float]
    written: str
    position: int
    difficult: bool = False
    flat: bool = False

    @property
    def title(self) -> str:
        """E.g. ``object 3 (cat)``."""
        return f"object {self.position} ({self.name})"


@dataclass(frozen=True)
class RawImage:
    """A picture and its objects as the files give them.

    Attributes:
        image_id: unique in the data set. file: the annotation.
        path: the picture; where there is none, where it was expected.
        size: ``(width, height)`` as the annotation says, or None. found: whether there is a file ``path``.
        fractions: the boxes are in fractions of the picture's sides.
        problems: of this picture's annotation. readable: False where nothing can be made of it.
    """

    image_id: str
    path: Path
    file: Path
    size: tuple[int, int] | None = None
    objects: tuple[RawObject, ...] = ()
    problems: tuple[Problem, ...] = ()
    found: bool = True
    fractions: bool = False
    readable: bool = True


@dataclass(frozen=True)
class RawDataset:
    """A data set as its files give it.

    Attributes:
        root: the folder or file. format: ``voc``, ``coco``, ``yolo``, ``csv`` or ``labelme``.
        images: by image_id, in a fixed order.
        class_names: in their order. declared: the format lists them; otherwise they are those found.
        splits: ids of each split; empty where the data set has none.
        rule: what a good box is, in the words of the format.
        problems: of the data set as a whole.
        extras: what the files hold and records don't, counted: outlines, parts.
    """

    root: Path
    format: str
    name: str
    images: dict[str, RawImage]
    class_names: tuple[str, ...]
    declared: bool = False
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rule: str = "x0 < x1 and y0 < y1"
    problems: tuple[Problem, ...] = ()
    extras: Counter[str] = field(default_factory=Counter)


# --- judging ---------------------------------------------------------------------------------------------------------


def picture_size(image: RawImage) -> tuple[tuple[int, int] | None, list[Problem]]:
    """``(width, height)`` of the upright picture from its header, and what is wrong with it.

    The size is None where the picture can't be used: it is missing or unreadable, or was annotated as it is stored
    while its EXIF orientation shows it turned (so that nobody knows which way the boxes lie).
    """
    if not image.found:
        what = f"no such picture, but {image.file} is about it"
        return None, [
            Problem("error", "missing picture", str(image.path), what, "add the picture or remove the annotation")
        ]
    try:
        height, width = image_size(image.path)
    except ImageError as error:
        return None, [_from_image_error(image.path, error)]
    if image.size is None or image.size == (width, height):
        return (width, height), []
    said = f"{image.size[0]}x{image.size[1]}"
    if image.size == (height, width) and _stored_size(image.path) == image.size:
        what = (
            f"says that {image.path.name} is {said}, and so it is stored, but its EXIF orientation shows it as "
            f"{width}x{height}: the boxes may be those of the picture before it was turned"
        )
        return None, [
            Problem(
                "error", "EXIF orientation", str(image.file), what,
                f"if the boxes are right in `sppnet data show`, write {width}x{height}; otherwise annotate it anew",
            )
        ]  # fmt: skip
    what = f"says that {image.path.name} is {said}, but the picture is {width}x{height}, which is used"
    advice = "see with `sppnet data show` whether the boxes fit; correct the size, or the boxes if it was resized"
    return (width, height), [Problem("warning", "size disagrees", str(image.file), what, advice)]


def _from_image_error(path: Path, error: ImageError) -> Problem:
    what, _, advice = str(error).removeprefix(f"{path}: ").rpartition("; ")
    return Problem(
        "error", "unreadable picture", str(path), *((what, advice) if what else (advice, "get or export it again"))
    )


def _stored_size(path: Path) -> tuple[int, int] | None:
    """Width and height before the EXIF orientation; asked only of pictures whose header was read before."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except Exception:  # whatever a decoder raises
        return None


def judge_box(
    image: RawImage, item: RawObject, size: tuple[int, int], rule: str
) -> tuple[NDArray[np.float32] | None, Problem | None]:
    """The box ``(4,)`` in pixels, clipped to the picture, and what is wrong with it; None where no box is left."""
    width, height = size
    x0, y0, x1, y1 = item.box
    if image.fractions:
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
    # Compared and clipped as float64, then rounded once: float32 is what the record holds.
    clipped = (min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height))
    box = np.array(clipped, np.float32)

    def problem(level: Literal["error", "warning"], kind: str, what: str, advice: str) -> Problem:
        return Problem(level, kind, str(image.file), what, advice, item.title)

    got = f"has box {item.written}, expected {rule} inside the picture of {width}x{height}"
    if x1 < x0 or y1 < y0:
        return None, problem("error", "reversed box", got, "correct or remove it")
    if item.flat or x1 == x0 or y1 == y0:
        return None, problem("error", "no area", got, "correct or remove it")
    if box[2] <= box[0] or box[3] <= box[1]:
        return None, problem("error", "outside", got, "correct or remove it")
    # One pixel of slack: tools differ in whether the last pixel is included, and round.
    if max(-x0, -y0, x1 - width, y1 - height) > 1:
        what = f"has box {item.written}, which reaches beyond the picture of {width}x{height} and is clipped"
        return box, problem("warning", "over the edge", what, "see whether it belongs to this picture")
    if min(box[2] - box[0], box[3] - box[1]) < 4:
        what = f"has box {item.written}, only {box[2] - box[0]:g} x {box[3] - box[1]:g} pixels"
        return box, problem("warning", "tiny", what, "no detector finds that; enlarge the picture or remove the object")
    return box, None


# --- records ---------------------------------------------------------------------------------------------------------


def split_ids(raw: RawDataset, split: str | None) -> tuple[str, ...]:
    """The ids of ``split``; None or ``all`` means every picture. ``val``, ``valid`` and ``validation`` are one name.

    Raises:
        DatasetError: there is no such split; the message lists those there are.
    """
    if split is not None and split in raw.splits:
        return raw.splits[split]
    if split is None or split == "all":
        return tuple(raw.images)
    if split in _VALIDATION:
        for other in _VALIDATION:
            if other in raw.splits:
                return raw.splits[other]
    for problem in raw.problems:
        if problem.kind == "split" and Path(problem.file).stem == split:
            raise DatasetError(str(problem))
    raise DatasetError(
        f"{raw.root}: no split {split!r}; {did_you_mean(split, raw.splits)}available: {', '.join([*raw.splits, 'all'])}"
        + ("" if raw.splits else " (the data set isn't split)")
    )


def assemble(
    raw: RawDataset, split: str | None, *, class_names: Sequence[str] | None = None, on_error: OnError = "raise"
) -> DetectionDataset:
    """The records of a split.

    Args:
        split: as for :func:`split_ids`. class_names: the classes and their order; objects of others are left out, and
            ``problems`` says so. By default ``raw.class_names``.
        on_error: ``raise``: one DatasetError that lists what is wrong. ``skip``: what is wrong is left out, and listed
            in the ``problems`` of the result.
    """
    if on_error not in ("raise", "skip"):
        raise DatasetError(f'on_error is {on_error!r}, expected "raise" or "skip"')
    names = tuple(class_names) if class_names is not None else raw.class_names
    # What is wrong with the list of another split is no concern of this one
    problems = [problem for problem in raw.problems if problem.level == "error" and problem.kind != "split"]
    left_out: Counter[str] = Counter()
    records = list(_records(raw, split_ids(raw, split), names, problems.append, left_out))
    if left_out and not any(len(record) for record in records):
        raise DatasetError(
            f"{raw.root}: no object is of a class in class_names ({', '.join(names)}); "
            f"the annotations have {', '.join(sorted(left_out))}"
        )
    if problems and on_error == "raise":
        raise DatasetError(_summary(raw.root, split or "", [str(problem) for problem in problems]))
    texts = [str(problem) for problem in problems]
    if left_out:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(left_out.items()))
        texts.append(f"{raw.root} {split or ''}: left out objects of classes that aren't in class_names: {listed}")
    return DetectionDataset(records, names, name=raw.name, split=split or "", problems=tuple(texts))


def _records(
    raw: RawDataset,
    ids: Sequence[str],
    names: tuple[str, ...],
    report: Callable[[Problem], None],
    left_out: Counter[str],
) -> Iterator[ImageRecord]:
    index = {name: label for label, name in enumerate(names)}
    for image_id in ids:
        image = raw.images[image_id]
        for problem in image.problems:
            if problem.level == "error":
                report(problem)
        if not image.readable:
            continue
        size, found = picture_size(image)
        if size is None:
            for problem in found:
                report(problem)
            continue
        boxes, labels, difficult = [], [], []
        for item in image.objects:
            if item.name not in index:
                left_out[item.name] += 1
                continue
            box, flaw = judge_box(image, item, size, raw.rule)
            if box is None:
                assert flaw is not None
                report(flaw)
                continue
            boxes.append(box)
            labels.append(index[item.name])
            difficult.append(item.difficult)
        yield ImageRecord(
            image.path,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array(difficult, np.bool_),
            size[0],
            size[1],
            image_id,
        )


def _summary(root: str | os.PathLike[str], split: str, problems: list[str], shown: int = 5) -> str:
    if len(problems) == 1:
        text = problems[0]
    else:
        listed = [f"  {problem}" for problem in problems[:shown]]
        more = len(problems) - shown
        title = " ".join(filter(None, [str(root), split]))
        text = "\n".join(
            [f"{title}: {len(problems)} problems:", *listed, *([f"  and {more} more"] if more > 0 else [])]
        )
    return text + '\n(on_error="skip", or --on-error skip, leaves such objects and pictures out and lists them)'
