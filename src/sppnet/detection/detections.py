"""What a detector found in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError, MissingDependencyError

__all__ = ["Detections"]


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first.

    Attributes:
        xyxy: float32 ``(K, 4)``, pixels of the original image, half-open.
        score: float32 ``(K,)``, in [0, 1]: the estimated probability that the detection is right.
        label: int64 ``(K,)``, index into ``class_names``.
        class_names: names of all classes the detector knows.
        seconds: time of each stage, where the detector measured it.
        windows: how many windows were examined.
    """

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    label: NDArray[np.int64]
    class_names: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    windows: int = 0

    def __post_init__(self) -> None:
        count = len(self.score)
        if self.xyxy.shape != (count, 4) or self.score.shape != (count,) or self.label.shape != (count,):
            raise ArgumentError(
                "detections: expected xyxy (K, 4), score (K,) and label (K,), got "
                f"{self.xyxy.shape}, {self.score.shape} and {self.label.shape}"
            )

    def __len__(self) -> int:
        return len(self.score)

    @property
    def class_name(self) -> list[str]:
        """Name of each detection's class."""
        return [self.class_names[i] for i in self.label]

    def above(self, threshold: float) -> Detections:
        """Those whose score is at least ``threshold``."""
        return self.chosen(self.score >= threshold)

    def chosen(self, keep: NDArray[np.bool_]) -> Detections:
        """Those where ``keep (K,)`` is true."""
        return replace(self, xyxy=self.xyxy[keep], score=self.score[keep], label=self.label[keep])

    def to_dicts(self) -> list[dict[str, object]]:
        """Plain records, for JSON: ``box`` (x0, y0, x1, y1), ``score``, ``label``, ``class_name``."""
        return [
            {
                "box": [round(float(v), 2) for v in box],
                "score": round(float(score), 4),
                "label": int(label),
                "class_name": name,
            }
            for box, score, label, name in zip(self.xyxy, self.score, self.label, self.class_name, strict=True)
        ]

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels) and ``score``.

        Args:
            category_ids: of each class, in the order of ``class_names``; None counts them from 1.

        Raises:
            ArgumentError: there aren't as many as classes.
        """
        ids = list(range(1, len(self.class_names) + 1)) if category_ids is None else list(category_ids)
        if len(ids) != len(self.class_names):
            raise ArgumentError(
                f"category_ids: got {len(ids)}, expected one for each of {len(self.class_names)} classes"
            )
        return [
            {
                "image_id": image_id,
                "category_id": ids[label],
                "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                "score": round(float(score), 6),
            }
            for (x0, y0, x1, y1), score, label in zip(self.xyxy.tolist(), self.score, self.label, strict=True)
        ]

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with x0, y0, x1, y1 (pixels, half-open), score, label and class_name.

        Raises:
            MissingDependencyError: pandas isn't installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError("to_pandas needs pandas: pip install pandas") from error
        columns: dict[str, Any] = dict(zip(("x0", "y0", "x1", "y1"), self.xyxy.T, strict=True))
        names = pandas.Series(self.class_name, dtype=str)  # of strings also where nothing was found
        return pandas.DataFrame(columns | {"score": self.score, "label": self.label, "class_name": names})

    def to_supervision(self) -> Any:
        """A ``supervision.Detections``: xyxy, confidence, class_id and, in its data, class_name.

        Raises:
            MissingDependencyError: supervision isn't installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingDependencyError("to_supervision needs supervision: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.score.copy(),
            class_id=self.label.astype(int),
            data={"class_name": np.array(self.class_name, dtype=str)},
        )
