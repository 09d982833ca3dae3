"""Annotations as the files give them: what every reader returns, neither clipped nor judged yet.

:mod:`sppnet.datasets.judging` says what is wrong with them, :mod:`sppnet.datasets.assembling` makes records of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["CONFIDENCES", "Problem", "RawDataset", "RawImage", "RawObject"]

CONFIDENCES = "confidences"
"""Key of ``RawDataset.extras``: how many objects have one, as those do that a detector found."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        level: ``error``: the object or image is left out. ``warning``: it is likely a mistake.
        kind: a short name, the same for all problems alike: ``no area``, ``missing image``.
        file: the annotation or image.
        what: what was got and what was expected.
        advice: what to do.
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


def left_alone(file: Path) -> Problem:
    """Tell of annotations that aren't read, because files beside them are called like splits."""
    what = "isn't read, as a file beside it is called like a split"
    return Problem("warning", "left alone", str(file), what, "give it the name of a split, or name this file alone")


@dataclass(frozen=True)
class RawObject:
    """An object as its file gives it.

    Attributes:
        name: of the class.
        box: ``(x0, y0, x1, y1)``, 0-based, half-open, finite; in pixels, or in fractions of the image's sides.
        written: the box in the words of the file, for messages.
        position: of the object in its file, from 1.
        difficult: neither hit nor miss in an evaluation.
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
    """An image and its objects as the files give them.

    Attributes:
        image_id: unique in the data set.
        path: the image; where there is none, where it was expected.
        file: the annotation.
        size: ``(width, height)`` as the annotation says, or None.
        objects: in the order of the file.
        problems: of this image's annotation.
        found: whether there is a file ``path``.
        outside: ``path`` is a file outside the data set, to which the annotation leads.
        missing: why there is no image, where ``found`` is False and more is known than that.
        fractions: the boxes are in fractions of the image's sides.
        readable: False where nothing can be made of the annotation.
    """

    image_id: str
    path: Path
    file: Path
    size: tuple[int, int] | None = None
    objects: tuple[RawObject, ...] = ()
    problems: tuple[Problem, ...] = ()
    found: bool = True
    outside: bool = False
    missing: str = ""
    fractions: bool = False
    readable: bool = True


@dataclass(frozen=True)
class RawDataset:
    """A data set as its files give it.

    Attributes:
        root: the folder or file.
        format: one of :data:`sppnet.datasets.loading.FORMATS`.
        name: of the data set.
        images: by image_id, in a fixed order.
        class_names: in their order.
        declared: the format lists the classes; otherwise they are those found.
        splits: ids of each split; empty where the data set has none.
        broken_splits: splits that are named but can't be read, and why.
        rule: what a good box is, in the words of the format.
        problems: of the data set as a whole.
        extras: what the files hold and records don't, counted: outlines, keypoints.
    """

    root: Path
    format: str
    name: str
    images: dict[str, RawImage]
    class_names: tuple[str, ...]
    declared: bool = False
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    broken_splits: dict[str, str] = field(default_factory=dict)
    rule: str = "x0 < x1 and y0 < y1"
    problems: tuple[Problem, ...] = ()
    extras: Counter[str] = field(default_factory=Counter)
