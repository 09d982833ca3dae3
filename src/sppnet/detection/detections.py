"""What a detector found in one image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sppnet._types import F32, I64
from sppnet.checking import check_whole
from sppnet.errors import ArgumentError, MissingDependencyError

__all__ = ["Detection", "Detections"]


class Detection(NamedTuple):
    """One detection: its box ``(4,)``, confidence in [0, 1], class index and class name."""

    xyxy: F32
    confidence: float
    class_id: int
    class_name: str


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections of one image. A detector gives the most confident first.

    Fields and behaviour follow ``supervision.Detections``: ``len``, iteration, and indexing by integer, slice, mask or
    array of integers, which gives new ``Detections``. Two are equal if boxes, confidences, classes and ``class_names``
    are equal; ``seconds`` and ``window_count`` are not compared.

    Args:
        xyxy: boxes ``(n, 4)``: x0, y0, x1, y1 in pixels of the original image, half-open. Stored as float32.
        confidence: ``(n,)``, in [0, 1]: estimated probability that the detection is correct. Stored as float32.
        class_id: integers ``(n,)``: index into ``class_names``. Stored as int64.
        class_names: names of all classes that the detector knows.
        seconds: time of each stage, where the detector measured it.
        window_count: number of windows that were examined.

    Raises:
        ArgumentError: shapes do not match, or a class index is not an index into ``class_names``.
    """

    xyxy: F32
    confidence: F32
    class_id: I64
    class_names: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    window_count: int = 0

    def __post_init__(self) -> None:
        """Check shapes and convert to the documented types."""
        boxes, confidence = np.asarray(self.xyxy, np.float32), np.asarray(self.confidence, np.float32)
        class_id = np.asarray(self.class_id)
        count = len(confidence) if confidence.ndim else -1
        if boxes.shape != (count, 4) or confidence.shape != (count,) or class_id.shape != (count,):
            raise ArgumentError(
                "detections: expected xyxy (n, 4), confidence (n,) and class_id (n,), got "
                f"{boxes.shape}, {confidence.shape} and {class_id.shape}"
            )
        if count and class_id.dtype.kind not in "iu":
            raise ArgumentError(f"class_id: got {class_id.dtype}, expected integers")
        names = tuple(self.class_names)
        if count and not (int(class_id.min()) >= 0 and int(class_id.max()) < len(names)):
            raise ArgumentError(
                f"class_id: got values {class_id.min()} to {class_id.max()}, expected an index into "
                f"{len(names)} class_names"
            )
        for name, value in (("xyxy", boxes), ("confidence", confidence), ("class_id", class_id.astype(np.int64))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "class_names", names)

    @classmethod
    def empty(cls, class_names: Sequence[str] = ()) -> Detections:
        """Nothing found, with the given class names."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), tuple(class_names))

    @classmethod
    def merge(cls, parts: Iterable[Detections]) -> Detections:
        """All detections of ``parts`` in the order given, for example of the tiles of one image.

        Class names of all parts are joined: a name that several parts share is one class. Seconds and window counts
        are added.
        """
        parts = list(parts)
        names = tuple(dict.fromkeys(name for part in parts for name in part.class_names))
        if not parts:
            return cls.empty()
        index = {name: i for i, name in enumerate(names)}
        moved = [np.array([index[name] for name in part.class_names], np.int64) for part in parts]
        seconds: dict[str, float] = {}
        for part in parts:
            for stage, value in part.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + value
        return cls(
            np.concatenate([part.xyxy for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            np.concatenate([new[part.class_id] for new, part in zip(moved, parts, strict=True)]),
            names,
            seconds,
            sum(part.window_count for part in parts),
        )

    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return len(self) == 0

    def __len__(self) -> int:
        return len(self.confidence)

    def __iter__(self) -> Iterator[Detection]:
        for box, confidence, class_id in zip(self.xyxy, self.confidence, self.class_id, strict=True):
            yield Detection(box, float(confidence), int(class_id), self.class_names[class_id])

    def __getitem__(self, index: int | slice | ArrayLike) -> Detections:
        """Choose detections by an integer, slice, boolean mask ``(n,)`` or array of integers.

        Raises:
            IndexError: out of range.
            ArgumentError: neither an integer, a slice, a mask nor integers.
        """
        chosen: Any = index
        if not isinstance(index, slice):
            chosen = np.asarray(index)
            if chosen.size == 0 and chosen.dtype.kind == "f":  # an empty list
                chosen = chosen.astype(np.int64)
            if chosen.dtype.kind not in "iub" or chosen.ndim > 1:
                raise ArgumentError(f"detections[{index!r}]: expected an integer, a slice, a mask or integers")
            chosen = np.atleast_1d(chosen)
        return Detections(
            self.xyxy[chosen],
            self.confidence[chosen],
            self.class_id[chosen],
            self.class_names,
            self.seconds,
            self.window_count,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        return self.class_names == other.class_names and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("xyxy", "confidence", "class_id")
        )

    __hash__ = None  # type: ignore[assignment]  # compared by value, and arrays can change

    @property
    def class_name(self) -> NDArray[np.str_]:
        """Name of each detection's class, ``(n,)``."""
        return np.array([self.class_names[i] for i in self.class_id], dtype=str)

    @property
    def data(self) -> dict[str, NDArray[np.str_]]:
        """``{"class_name": names}``, as supervision's annotators read it."""
        return {"class_name": self.class_name}

    def to_dicts(self) -> list[dict[str, Any]]:
        """Convert to plain records for JSON: ``box`` (x0, y0, x1, y1), ``confidence``, ``class_id``, ``class_name``."""
        return [
            {
                "box": [round(float(v), 2) for v in found.xyxy],
                "confidence": round(found.confidence, 4),
                "class_id": found.class_id,
                "class_name": found.class_name,
            }
            for found in self
        ]

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Convert to COCO results: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels), ``score``.

        Args:
            image_id: of the image.
            category_ids: of each class, in the order of ``class_names``. None counts from 1.

        Raises:
            ArgumentError: the category ids aren't one whole number for each class.
        """
        given = range(1, len(self.class_names) + 1) if category_ids is None else category_ids
        ids = [check_whole("category_ids", number, 0, 2**63 - 1) for number in given]
        if len(ids) != len(self.class_names):
            raise ArgumentError(
                f"category_ids: got {len(ids)}, expected one for each of {len(self.class_names)} classes"
            )
        return [
            {
                "image_id": image_id,
                "category_id": ids[class_id],
                "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                "score": round(float(confidence), 6),
            }
            for (x0, y0, x1, y1), confidence, class_id in zip(
                self.xyxy.tolist(), self.confidence, self.class_id, strict=True
            )
        ]

    def to_pandas(self) -> Any:
        """Convert to a ``pandas.DataFrame``: x0, y0, x1, y1 (pixels, half-open), confidence, class_id, class_name.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError("to_pandas needs pandas: pip install pandas") from error
        columns: dict[str, Any] = dict(zip(("x0", "y0", "x1", "y1"), self.xyxy.T, strict=True))
        names = pandas.Series(self.class_name.tolist(), dtype=str)  # of strings also where nothing was found
        return pandas.DataFrame(
            columns | {"confidence": self.confidence, "class_id": self.class_id, "class_name": names}
        )

    def to_supervision(self) -> Any:
        """Convert to a ``supervision.Detections`` with xyxy, confidence, class_id and class_name in ``data``.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingDependencyError("to_supervision needs supervision: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.confidence.copy(),
            class_id=self.class_id.astype(int),
            data={"class_name": self.class_name},
        )
