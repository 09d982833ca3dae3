"""What a trained detector computes on pooled windows, as plain matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from sppnet._types import F32
from sppnet.errors import ModelFileError

__all__ = ["BOX_BLOCK", "CLASS_BLOCK", "CLASS_ROWS", "DELTA_SCALE", "LEAST_SCORE", "DetectorWeights"]

# Arrays that have rows for each class, and how many; all others are common to all classes. Classes are added and
# removed by these rows, so a new array with rows for classes must be listed.
CLASS_ROWS = {"class_weight": 1, "class_bias": 1, "box_weight": 4, "box_bias": 4, "slope": 1, "offset": 1}

CLASS_BLOCK, BOX_BLOCK = 32, 8
"""Classes that one matrix product scores, and whose boxes it regresses. Products of another shape may be summed in
another order; with a fixed one the numbers of a class are the same to the last bit whatever other classes there are."""

DELTA_SCALE = (0.1, 0.1, 0.2, 0.2)
"""Box deltas are learned in these units, so that all four have a spread of about 1 (fast R-CNN does the same)."""

LEAST_SCORE = 1e-7
"""Scores are moved into [this, 1 - this] before they are calibrated: odds of 0 and 1 have no logarithm."""


def _empty(*shape: int) -> F32:
    return np.zeros(shape, np.float32)


@dataclass(frozen=True, eq=False)
class DetectorWeights:
    """Float32 matrices of the layers behind the pooling.

    D is the length of a pooled window, R the rank of fc6, F its width, H that of the last layer, c the number of
    classes. Without fc7 its matrices are empty, and H is F. Without any fully connected layer ``fc6_weight`` is
    ``(0, R)``, and H is R: the R numbers themselves are scored. :class:`sppnet.detection.heads.HeadEngine` computes
    with them.
    """

    reduce_weight: F32  # (R, D), standardisation of the inputs folded in
    reduce_bias: F32  # (R,)
    fc6_weight: F32  # (F, R)
    fc6_bias: F32  # (F,)
    class_weight: F32  # (c, H): SVMs
    class_bias: F32  # (c,)
    box_weight: F32  # (c * 4, H)
    box_bias: F32  # (c * 4,)
    slope: F32  # (c,): probability = sigmoid(slope * margin + offset)
    offset: F32  # (c,)
    fc7_weight: F32 = field(default_factory=lambda: _empty(0, 0))  # (H, F)
    fc7_bias: F32 = field(default_factory=lambda: _empty(0))  # (H,)

    @staticmethod
    def from_arrays(arrays: Mapping[str, F32], where: str) -> DetectorWeights:
        """Those of a model file.

        Raises:
            ModelFileError: one is missing, or their shapes don't fit together.
        """
        names = [f.name for f in fields(DetectorWeights)]
        last = [name for name in names if name.startswith("fc7")]
        if not any(name in arrays for name in last):
            names = [name for name in names if name not in last]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ModelFileError(f"{where}: {missing[0]} is missing; the file is damaged or no detector")
        got = DetectorWeights(**{name: arrays[name] for name in names})
        rank, dims = got.reduce_weight.shape if got.reduce_weight.ndim == 2 else (0, 0)
        units, hidden, classes = got.fc6_bias.size, got.features, got.class_bias.size
        expected = {
            "reduce_weight": (rank, dims), "reduce_bias": (rank,),
            "fc6_weight": (units, rank), "fc6_bias": (units,),
            "class_weight": (classes, hidden), "class_bias": (classes,),
            "box_weight": (classes * 4, hidden), "box_bias": (classes * 4,),
            "slope": (classes,), "offset": (classes,),
        }  # fmt: skip
        if got.fc7_bias.size:
            expected |= {"fc7_weight": (hidden, units), "fc7_bias": (hidden,)}
        for name, shape in expected.items():
            if tuple(arrays[name].shape) != shape:
                raise ModelFileError(f"{where}: {name} has shape {tuple(arrays[name].shape)}, expected {shape}")
        return got

    def arrays(self) -> dict[str, F32]:
        """All of them by name, for a model file; those of fc7 only where there is one."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if self.fc7_bias.size or not name.startswith("fc7")}

    def of_classes(self, kept: Sequence[int]) -> DetectorWeights:
        """The weights of some classes only, in the order of ``kept``."""
        parts = dict(self.arrays())
        for array, rows in CLASS_ROWS.items():
            if parts.get(array) is not None:
                parts[array] = np.concatenate([parts[array][rows * c : rows * (c + 1)] for c in kept])
        return DetectorWeights(**parts)

    @property
    def classes(self) -> int:
        """How many classes are scored."""
        return self.class_bias.size

    @property
    def features(self) -> int:
        """H: how many numbers the last fully connected layer gives."""
        return self.fc7_bias.size or self.fc6_bias.size or self.reduce_bias.size

    def probability(self, scores: F32, c: int) -> F32:
        """Calibrated probabilities of class ``c``, in [0, 1], of ``scores``; the higher one is the higher other."""
        p = np.clip(scores.astype(np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
        z = float(self.slope[c]) * np.log(p / (1 - p)) + float(self.offset[c])
        return (1 / (1 + np.exp(-z))).astype(np.float32)

    def least_score(self, probability: float, c: int) -> float:
        """The score whose calibrated probability this is (a little less, for rounding); inverse of the above."""
        if not 0 < probability < 1:
            return probability
        if not self.slope[c] > 0:  # no file of ours: nothing can be said beforehand
            return 0.0
        z = (np.log(probability / (1 - probability)) - float(self.offset[c])) / float(self.slope[c])
        return float(1 / (1 + np.exp(-z))) * (1 - 1e-5)
