"""What every reader of a data set returns: images with boxes, in the project's one box convention."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sppnet.datasets.choosing import chosen_indices
from sppnet.errors import DatasetError, did_you_mean
from sppnet.storage.names import class_names_problem

__all__ = ["DetectionDataset", "Drawn", "ImageRecord"]


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and the objects in it. The arrays are checked, copied and made read-only.

    Attributes:
        path: the image; it isn't opened here.
        boxes: float32 ``(n, 4)``, ``(x0, y0, x1, y1)`` in pixels, 0-based, half-open; each has an area and lies
            inside the image. ``n`` may be 0.
        labels: int64 ``(n,)``, indices into the data set's ``class_names``.
        difficult: bool ``(n,)``; difficult objects are neither hit nor miss in an evaluation.
        width, height: of the image in pixels, upright.
        image_id: unique in the data set.

    Raises:
        DatasetError: an array has a wrong shape or senseless values; the message names the image and the object.
    """

    path: Path
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    width: int
    height: int
    image_id: str

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("path", Path(self.path))
        where = str(self.path)
        for name in ("width", "height"):
            side = getattr(self, name)
            if side != int(side) or side < 1:
                raise DatasetError(f"{where}: {name} is {side!r}, expected a whole number of pixels, at least 1")
            put(name, int(side))
        boxes = _array(self.boxes, np.float32, where, "boxes")
        if boxes.size == 0:
            boxes = boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise DatasetError(f"{where}: boxes has shape {boxes.shape}, expected (n, 4) with (x0, y0, x1, y1) a row")
        count = len(boxes)
        labels = _array(self.labels, np.int64, where, "labels")
        difficult = _array(self.difficult, np.bool_, where, "difficult")
        for name, array in (("labels", labels), ("difficult", difficult)):
            if array.shape != (count,):
                raise DatasetError(f"{where}: {name} has shape {array.shape}, expected ({count},), one for each box")
        x0, y0, x1, y1 = boxes.T
        # Written so that NaN fails too.
        good = (x0 >= 0) & (y0 >= 0) & (x1 > x0) & (y1 > y0) & (x1 <= self.width) & (y1 <= self.height)
        if not good.all():
            i = int(np.flatnonzero(~good)[0])
            raise DatasetError(
                f"{where}: object {i + 1} has box {boxes[i].tolist()}, expected x0 < x1 and y0 < y1 inside the "
                f"image of {self.width}x{self.height}; correct it, clip it or leave it out"
            )
        if count and labels.min() < 0:
            i = int(labels.argmin())
            raise DatasetError(f"{where}: object {i + 1} has label {labels[i]}, expected 0 or more")
        for name, array in (("boxes", boxes), ("labels", labels), ("difficult", difficult)):
            array.setflags(write=False)
            put(name, array)

    def __len__(self) -> int:
        """Number of objects, difficult ones included."""
        return len(self.boxes)

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class Drawn:
    """How images to train and to measure on were drawn at random.

    Attributes:
        seed: of the drawing.
        images: digest of the images that they were drawn from.
        split: the split that these are; empty for the whole data set.
    """

    seed: int
    images: str
    split: str = ""


@dataclass(frozen=True, eq=False)
class DetectionDataset:
    """Images with boxes, and the names of the classes. A sequence of :class:`ImageRecord`; a slice is a data set.

    Attributes:
        records: the images, in a fixed order.
        class_names: label ``i`` is ``class_names[i]``; no name twice.
        name: of the data set, e.g. ``VOC2007``; for tables and model files.
        split: e.g. ``train``.
        problems: what the reader left out and why, one sentence each (with ``on_error="skip"``).
        drawn: where the split was drawn at random: how.

    Raises:
        DatasetError: a name or ``image_id`` occurs twice, or a label has no name.
    """

    records: Sequence[ImageRecord]
    class_names: tuple[str, ...]
    name: str = ""
    split: str = ""
    problems: tuple[str, ...] = field(default=(), repr=False)
    drawn: Drawn | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", tuple(self.records))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "problems", tuple(self.problems))
        for kind, values in (("class name", self.class_names), ("image_id", [r.image_id for r in self.records])):
            twice = _first_repeated(values)
            if twice is not None:
                raise DatasetError(f"{self._title()}: {kind} {twice!r} occurs twice; each must be unique")
        problem = class_names_problem(self.class_names)
        if problem:
            raise DatasetError(f"{self._title()}: class names: {problem}; rename it")
        for record in self.records:
            if len(record) and record.labels.max() >= len(self.class_names):
                raise DatasetError(
                    f"{record.path}: label {record.labels.max()}, expected less than {len(self.class_names)}, "
                    "the number of class_names"
                )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> DetectionDataset: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | DetectionDataset:
        """The image at ``index``; of a slice, these images as :meth:`subset` gives them."""
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        return self.records[operator.index(index)]

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self.records)

    def __repr__(self) -> str:
        objects = sum(len(record) for record in self.records)
        counts = f"{len(self)} images, {objects} objects, {len(self.class_names)} classes"
        return f"<DetectionDataset {self._title()}: {counts}>"

    def _title(self) -> str:
        return " ".join(part for part in (self.name, self.split) if part) or "data set"

    def subset(self, indices: Iterable[int] | NDArray[np.integer] | NDArray[np.bool_]) -> DetectionDataset:
        """The images at ``indices`` (in that order, none twice), with the same classes and names.

        A mask of booleans ``(n,)`` does, too: the images where it is true.

        Raises:
            DatasetError: an index is out of range, comes twice or is no whole number, or a mask has another length.
        """
        try:
            chosen = chosen_indices(indices, len(self))
        except DatasetError as error:
            raise DatasetError(f"{self._title()}: {error}") from None
        records = [self.records[i] for i in chosen]
        return DetectionDataset(records, self.class_names, self.name, self.split, drawn=self.drawn)

    def spread(self, count: int | None) -> DetectionDataset:
        """Choose ``count`` images, spread evenly, the first and the last among them. None, or too many: all of them.

        Raises:
            DatasetError: ``count`` is less than 1.
        """
        if count is not None and count < 1:
            raise DatasetError(f"{self._title()}: count: got {count}, expected at least 1")
        if count is None or count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).astype(int)
        return replace(self.subset(map(int, chosen)), problems=self.problems)

    def with_classes(self, names: Sequence[str]) -> DetectionDataset:
        """The same images with these classes, in this order; objects of others are left out.

        Raises:
            DatasetError: a name isn't a class of the data set.
        """
        unknown = [name for name in names if name not in self.class_names]
        if unknown:
            raise DatasetError(
                f"{self._title()}: no class {', '.join(map(repr, unknown))}; "
                f"{did_you_mean(unknown[0], self.class_names)}there are {', '.join(self.class_names)}"
            )
        new = np.full(len(self.class_names) + 1, -1, np.int64)
        for label, name in enumerate(names):
            new[self.class_names.index(name)] = label
        records = []
        for r in self.records:
            labels = new[r.labels]
            keep = labels >= 0
            records.append(replace(r, boxes=r.boxes[keep], labels=labels[keep], difficult=r.difficult[keep]))
        return replace(self, records=records, class_names=tuple(names))

    def count_objects(self) -> NDArray[np.int64]:
        """Objects of each class ``(classes,)`` that aren't difficult."""
        labels = np.concatenate([np.zeros(0, np.int64), *(r.labels[~r.difficult] for r in self.records)])
        return np.bincount(labels, minlength=len(self.class_names)).astype(np.int64)


def _array(values: ArrayLike, dtype: Any, where: str, name: str) -> NDArray[Any]:
    """A copy, so that the caller's array isn't frozen with ours."""
    try:
        array = np.asarray(values)
        if array.size and dtype is np.int64 and not np.can_cast(array.dtype, np.int64, "same_kind"):
            raise TypeError(f"expected whole numbers, got {array.dtype}")
        return np.array(array, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: {name} can't be made an array of {np.dtype(dtype).name}: {error}") from None


def _first_repeated(values: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
