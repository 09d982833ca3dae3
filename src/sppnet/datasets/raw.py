"""Annotations as the files give them: what every reader returns, neither clipped nor judged yet.

:mod:`sppnet.datasets.judging` says what is wrong with them, :mod:`sppnet.datasets.assembling` makes records of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Problem", "RawDataset", "RawImage", "RawObject"]


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
