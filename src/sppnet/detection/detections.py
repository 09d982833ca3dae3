"""What a detector found in one picture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError

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
        keep = self.score >= threshold
        return Detections(
            self.xyxy[keep], self.score[keep], self.label[keep], self.class_names, self.seconds, self.windows
        )

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
