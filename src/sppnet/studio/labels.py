"""What a person said about the images: boxes, classes, and which images are finished."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sppnet.errors import ArgumentError

__all__ = ["BoxLabel", "ImageLabels", "StudioClass", "check_name", "imported_name", "parse_boxes"]

ORIGINS = ("drawn", "snapped", "tightened", "copied", "accepted", "corrected", "imported")
"""How a box came to be. ``accepted`` was suggested and left as it was, ``corrected`` was suggested and changed."""

MAX_BOXES = 5000  # of one image
MAX_NAME = 200  # letters of a class's name
_MAX_CLASSES = 1000
_NOT_SHOWN = ("Cc", "Cs", "Cf")  # categories of letters that nobody sees


@dataclass(frozen=True)
class BoxLabel:
    """One box of an image, ``(x0, y0, x1, y1)`` in pixels, and how it came to be."""

    x0: float
    y0: float
    x1: float
    y1: float
    class_id: int
    origin: str = "drawn"

    def as_list(self) -> list[Any]:
        """As it is written to the log."""
        return [self.x0, self.y0, self.x1, self.y1, self.class_id, self.origin]


@dataclass(frozen=True)
class ImageLabels:
    """What is known of one image.

    Attributes:
        version: grows by one with each change.
        done: whether the person finished the image: what has no box in it is background.
        boxes: the objects.
        rejected: suggestions that the person turned down, as hard negatives.
    """

    version: int = 0
    done: bool = False
    boxes: tuple[BoxLabel, ...] = ()
    rejected: tuple[BoxLabel, ...] = ()

    @property
    def touched(self) -> bool:
        """Whether the person did anything here."""
        return self.done or bool(self.boxes)

    def has_class(self, class_id: int) -> bool:
        """Whether a box or a rejected suggestion is of this class."""
        return any(b.class_id == class_id for b in (*self.boxes, *self.rejected))

    def with_class_replaced(self, class_id: int, into: int | None) -> ImageLabels:
        """Give the boxes of a class to another one. None removes them. The result is a new version."""

        def moved(group: tuple[BoxLabel, ...]) -> tuple[BoxLabel, ...]:
            if into is None:
                return tuple(b for b in group if b.class_id != class_id)
            return tuple(replace(b, class_id=into) if b.class_id == class_id else b for b in group)

        return replace(self, version=self.version + 1, boxes=moved(self.boxes), rejected=moved(self.rejected))


@dataclass(frozen=True)
class StudioClass:
    """A class: its number never changes, its name, colour and key may."""

    class_id: int
    name: str
    color: str = ""
    key: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As it is written to the log and sent to the page."""
        return {"id": self.class_id, "name": self.name, "color": self.color, "key": self.key}


def parse_boxes(
    values: object, width: int, height: int, known: Mapping[int, object], where: str
) -> tuple[BoxLabel, ...]:
    """Boxes from outside, checked: numbers, inside the image, of a known class.

    Args:
        values: a list of ``[x0, y0, x1, y1, class_id, origin]``.
        width: of the image in pixels.
        height: of the image in pixels.
        known: classes by number.
        where: name of the image, for messages.

    Returns:
        The boxes, clipped to the image.

    Raises:
        ArgumentError: something else was given, or a box has no area inside the image.
    """
    if not isinstance(values, list) or len(values) > MAX_BOXES:
        raise ArgumentError(f"{where}: expected a list of at most {MAX_BOXES} boxes")
    boxes = []
    for i, value in enumerate(values):
        if not isinstance(value, list) or len(value) not in (5, 6):
            raise ArgumentError(f"{where}: box {i + 1}: expected [x0, y0, x1, y1, class, origin], got {value!r:.80}")
        numbers = [v for v in value[:4] if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)]
        if len(numbers) < 4:
            raise ArgumentError(f"{where}: box {i + 1}: expected four numbers, got {value[:4]!r:.80}")
        class_id = value[4]
        if not isinstance(class_id, int) or isinstance(class_id, bool) or class_id not in known:
            raise ArgumentError(f"{where}: box {i + 1}: there is no class {class_id!r:.40}")
        origin = value[5] if len(value) == 6 else "drawn"
        if origin not in ORIGINS:
            raise ArgumentError(f"{where}: box {i + 1}: origin is {origin!r:.40}, expected one of {', '.join(ORIGINS)}")
        x0, x1 = sorted(min(max(float(v), 0.0), float(width)) for v in (numbers[0], numbers[2]))
        y0, y1 = sorted(min(max(float(v), 0.0), float(height)) for v in (numbers[1], numbers[3]))
        if x1 - x0 < 1 or y1 - y0 < 1:
            raise ArgumentError(f"{where}: box {i + 1} is smaller than one pixel inside the image")
        boxes.append(BoxLabel(round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2), class_id, origin))
    return tuple(boxes)


def check_name(name: object, others: Iterable[str]) -> str:
    """A class's name without blanks around it, normalised (NFC).

    Args:
        name: what the person typed.
        others: names that exist already.

    Returns:
        The name.

    Raises:
        ArgumentError: it is empty, too long, has control characters, or exists already.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"class name: expected text, got {type(name).__name__}")
    text = unicodedata.normalize("NFC", " ".join(name.split()))
    if not text or len(text) > MAX_NAME:
        raise ArgumentError(f"class name: expected 1 to {MAX_NAME} letters, got {len(text)}")
    if any(unicodedata.category(c) in _NOT_SHOWN for c in text):
        raise ArgumentError("class name: it has characters that can't be shown; leave them out")
    if text.casefold() in {other.casefold() for other in others}:
        raise ArgumentError(f"class {text!r} exists already")
    return text


def imported_name(name: str, number: int) -> str:
    """A name that :func:`check_name` takes, from one that another program wrote.

    Args:
        name: as it was written. What can't be shown is left out.
        number: of the class there, for a name of which nothing is left.
    """
    shown = "".join(c for c in name if c.isspace() or unicodedata.category(c) not in _NOT_SHOWN)
    return unicodedata.normalize("NFC", " ".join(shown.split()))[:MAX_NAME].strip() or f"class {number}"


@dataclass
class ClassTable:
    """The classes by number, in the order in which they were made."""

    classes: dict[int, StudioClass] = field(default_factory=dict)
    version: int = 0
    next_id: int = 0

    def add(self, name: object, color: str = "", key: str = "") -> StudioClass:
        """Make a class. Its number was never used before in this table.

        Raises:
            ArgumentError: see :func:`check_name`; or there are too many.
        """
        text = check_name(name, (c.name for c in self.classes.values()))
        if len(self.classes) >= _MAX_CLASSES:
            raise ArgumentError(f"there are {_MAX_CLASSES} classes already, the most that the studio takes")
        new = StudioClass(self.next_id, text, color, key)
        self.put(new)
        return new

    def put(self, item: StudioClass) -> None:
        """Take a class as it is. Its number is not given to another one, not even when the class is removed."""
        self.classes[item.class_id] = item
        self.next_id = max(self.next_id, item.class_id + 1)

    def edit(self, class_id: int, name: object = None, color: str | None = None, key: str | None = None) -> None:
        """Change name, colour or key of a class.

        Raises:
            ArgumentError: there is no such class, or the name is taken.
        """
        old = self.get(class_id)
        new = old
        if name is not None:
            new = replace(new, name=check_name(name, (c.name for c in self.classes.values() if c is not old)))
        if color is not None:
            new = replace(new, color=color)
        if key is not None:
            new = replace(new, key=key)
        self.classes[class_id] = new

    def get(self, class_id: int) -> StudioClass:
        """Find a class by its number.

        Raises:
            ArgumentError: there is none.
        """
        if class_id not in self.classes:
            raise ArgumentError(f"there is no class {class_id}; somebody removed it")
        return self.classes[class_id]
