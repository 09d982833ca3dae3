"""What the writers of all formats share: records with the names of their files, and how values are spelt."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, indent, tostring

import numpy as np

from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import DatasetError
from sppnet.storage.names import real_path

__all__ = ["Placement", "Wrap", "WriteJob", "check_xml_names", "order_lost", "plain_objects", "to_json", "xml_text"]

Placement = Literal["copy", "hardlink", "symlink"]
"""How the images get into the new folder."""

Wrap = Callable[[Sequence[int]], Iterable[int]]
"""Wraps the sequence of images, to show how far the writing is."""


@dataclass(frozen=True)
class WriteJob:
    """What a writer needs.

    Attributes:
        root: the folder to write into.
        dataset: the records.
        splits: indices of the images of each split; ``{"": ...}`` where there is none.
        names: of the image files, one for each record; no two alike.
        placement: how the images get there.
    """

    root: Path
    dataset: DetectionDataset
    splits: dict[str, list[int]]
    names: list[str]
    placement: Placement = "copy"

    @property
    def split(self) -> bool:
        """Whether the data set has splits."""
        return list(self.splits) != [""]

    @property
    def order(self) -> list[tuple[str, int]]:
        """The split and index of each image, in the order of writing."""
        return [(split, i) for split, items in self.splits.items() for i in items]

    def target(self, *parts: str) -> Path:
        """Return the file of that path below ``root``; the folders above it are made.

        Raises:
            DatasetError: it isn't below ``root``.
        """
        path = self.root.joinpath(*filter(None, parts))
        home = os.path.realpath(self.root)
        if not Path(os.path.realpath(path)).is_relative_to(home) or os.path.realpath(path) == home:
            raise DatasetError(f"{'/'.join(parts)[:200]!r} leads out of the output folder; rename the split or image")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, text: str, *parts: str) -> None:
        """Write a text file; its path is checked as by :meth:`target`."""
        self.target(*parts).write_text(text, encoding="utf-8", newline="")

    def place(self, i: int, *folders: str) -> None:
        """Put the image of record ``i`` into the folder, as a copy or link."""
        target = self.target(*folders, self.names[i])
        source = real_path(self.dataset[i].path)
        if self.placement == "copy":
            shutil.copyfile(source, target)
        elif self.placement == "hardlink":
            os.link(source, target)
        else:
            target.symlink_to(source)


def _decimal(value: float | np.floating) -> float:
    """The shortest decimal that is the same float32: 10.1, not 10.100000381."""
    return float(str(np.float32(value)))


def plain_objects(record: ImageRecord) -> list[tuple[int, list[float], bool]]:
    """``(label, [x0, y0, x1, y1], difficult)`` of each object, in decimals that read back as the same float32."""
    return [
        (int(label), [_decimal(v) for v in box], bool(flag))
        for box, label, flag in zip(record.boxes, record.labels, record.difficult, strict=True)
    ]


def to_json(document: object) -> str:
    """Return ``document`` as JSON, one space of indent a level."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def xml_text(tree: Element) -> str:
    """Return an XML element as indented text. ``tree`` gets the indents."""
    indent(tree)
    return tostring(tree, encoding="unicode") + "\n"


def check_xml_names(names: Iterable[str]) -> None:
    """Refuse names of classes that XML can't hold.

    Raises:
        DatasetError: one has blanks around it or a control character in it.
    """
    for name in names:
        bad = any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 or ord(c) in (0xFFFE, 0xFFFF) for c in name)
        if name != name.strip() or bad:
            raise DatasetError(f"class name {name!r} can't be written as XML; rename the class")


def order_lost(job: WriteJob, known: Sequence[str]) -> list[str]:
    """Say what is lost in formats without a list of classes: those read back are those found, sorted."""
    used = {job.dataset.class_names[label] for record in job.dataset for label in record.labels}
    losses = []
    unused = [name for name in job.dataset.class_names if name not in used]
    if set(job.dataset.class_names) == set(known):
        unused = []
    if unused:
        losses.append(f"classes without objects aren't kept: {', '.join(unused)}")
    read = list(known) if used <= set(known) else sorted(used)
    if [n for n in read if n in used] != [n for n in job.dataset.class_names if n in used]:
        losses.append("the order of the classes isn't kept: they will be sorted by name")
    return losses
