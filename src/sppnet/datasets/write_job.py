"""What the writers of all formats share: records with the names of their files, and how values are spelt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppnet.datasets.records import DetectionDataset, ImageRecord

__all__ = ["Wrap", "WriteJob", "order_lost", "plain_objects", "write_json"]

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
        place: puts the image of a record into a folder.
    """

    root: Path
    dataset: DetectionDataset
    splits: dict[str, list[int]]
    names: list[str]
    place: Callable[[int, Path], None]

    @property
    def split(self) -> bool:
        """Whether the data set has splits."""
        return list(self.splits) != [""]


def _decimal(value: float | np.floating) -> float:
    """The shortest decimal that is the same float32: 10.1, not 10.100000381."""
    return float(str(np.float32(value)))


def plain_objects(record: ImageRecord) -> list[tuple[int, list[float], bool]]:
    """``(label, [x0, y0, x1, y1], difficult)`` of each object, in decimals that read back as the same float32."""
    return [
        (int(label), [_decimal(v) for v in box], bool(flag))
        for box, label, flag in zip(record.boxes, record.labels, record.difficult, strict=True)
    ]


def write_json(path: Path, document: object) -> None:
    """Write ``document``, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def order_lost(job: WriteJob, known: Sequence[str]) -> list[str]:
    """Formats without a list of classes: those read back are those found, sorted."""
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
