"""What a trained detector computes on pooled windows, as plain matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sppnet.detection.fc_head import DELTA_SCALE, FcHead
from sppnet.errors import ModelFileError

__all__ = ["BOX_BLOCK", "CLASS_ROWS", "DetectorWeights"]

# Tensors that have rows for each class, and how many; all others are common to all classes. Classes are added and
# removed by these rows, so a new tensor with rows for classes must be listed.
CLASS_ROWS = {"class_weight": 1, "class_bias": 1, "box_weight": 4, "box_bias": 4, "slope": 1, "offset": 1}

# Classes that one matrix product scores. Products of another shape may be summed in another order; with a fixed one the
# scores of a class are the same to the last bit whatever other classes there are.
_CLASS_BLOCK = 32
BOX_BLOCK = 8  # classes whose boxes one matrix product regresses, for the same reason


@dataclass(frozen=True, eq=False)
class DetectorWeights:
    """Float32 matrices of the layers behind the pooling.

    D is the length of a pooled window, R the rank of fc6, F its width, H that of the last layer, c the number of
    classes. Without fc7 its matrices are empty, and H is F. Without any fully connected layer ``fc6_weight`` is
    ``(0, R)``, and H is R: the R numbers themselves are scored.
    """

    reduce_weight: Tensor  # (R, D), standardisation of the inputs folded in
    reduce_bias: Tensor  # (R,)
    fc6_weight: Tensor  # (F, R)
    fc6_bias: Tensor  # (F,)
    class_weight: Tensor  # (c, H): SVMs
    class_bias: Tensor  # (c,)
    box_weight: Tensor  # (c * 4, H)
    box_bias: Tensor  # (c * 4,)
    slope: Tensor  # (c,): probability = sigmoid(slope * margin + offset)
    offset: Tensor  # (c,)
    fc7_weight: Tensor = field(default_factory=lambda: torch.zeros(0, 0))  # (H, F)
    fc7_bias: Tensor = field(default_factory=lambda: torch.zeros(0))  # (H,)

    @staticmethod
    def from_head(head: FcHead) -> DetectorWeights:
        """Those of a trained head; its softmax and box layers stand in until the SVMs and regressors are trained."""
        with torch.no_grad():
            reduce = (head.reduce.weight.double() * head.scale.double()).float()
            bias = -(head.reduce.weight.double() @ (head.scale.double() * head.mean.double())).float()
            classes = head.num_classes
            return DetectorWeights(
                reduce,
                bias,
                head.fc6.weight.detach().clone(),
                head.fc6.bias.detach().clone(),
                # background's logit taken off: what remains is the log odds against background
                head.logits.weight[:classes] - head.logits.weight[classes:],
                head.logits.bias[:classes] - head.logits.bias[classes],
                head.deltas.weight.detach().clone(),
                head.deltas.bias.detach().clone(),
                torch.ones(classes),
                torch.zeros(classes),
                *([] if head.fc7 is None else [v.detach().clone() for v in (head.fc7.weight, head.fc7.bias)]),
            )

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], where: str) -> DetectorWeights:
        """Those of a model file.

        Raises:
            ModelFileError: one is missing, or their shapes don't fit together.
        """
        names = [f.name for f in fields(DetectorWeights)]
        last = [name for name in names if name.startswith("fc7")]
        if not any(name in tensors for name in last):
            names = [name for name in names if name not in last]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise ModelFileError(f"{where}: {missing[0]} is missing; the file is damaged or no detector")
        got = DetectorWeights(**{name: tensors[name] for name in names})
        rank, dims = got.reduce_weight.shape if got.reduce_weight.ndim == 2 else (0, 0)
        units, hidden, classes = got.fc6_bias.numel(), got.features, got.class_bias.numel()
        expected = {
            "reduce_weight": (rank, dims), "reduce_bias": (rank,),
            "fc6_weight": (units, rank), "fc6_bias": (units,),
            "class_weight": (classes, hidden), "class_bias": (classes,),
            "box_weight": (classes * 4, hidden), "box_bias": (classes * 4,),
            "slope": (classes,), "offset": (classes,),
        }  # fmt: skip
        if got.fc7_bias.numel():
            expected |= {"fc7_weight": (hidden, units), "fc7_bias": (hidden,)}
        for name, shape in expected.items():
            if tuple(tensors[name].shape) != shape:
                raise ModelFileError(f"{where}: {name} has shape {tuple(tensors[name].shape)}, expected {shape}")
        return got

    def tensors(self) -> dict[str, Tensor]:
        """All of them by name, for a model file; those of fc7 only where there is one."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if self.fc7_bias.numel() or not name.startswith("fc7")}

    def to(self, device: torch.device) -> DetectorWeights:
        """The same with its matrices on ``device``; slopes and offsets, which are used one by one, stay on the CPU."""
        if device.type == "cpu":
            return self
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return DetectorWeights(**{n: v if n in ("slope", "offset") else v.to(device) for n, v in moved.items()})

    @property
    def features(self) -> int:
        """H: how many numbers :meth:`fc` gives."""
        return self.fc7_bias.numel() or self.fc6_bias.numel() or self.reduce_bias.numel()

    def fc(self, pooled: Tensor) -> Tensor:
        """Fc features ``(K, H)`` of pooled windows ``(K, D)``."""
        h = torch.addmm(self.reduce_bias, pooled, self.reduce_weight.T)
        if not len(self.fc6_bias):
            return h
        h = torch.addmm(self.fc6_bias, h, self.fc6_weight.T).relu_()
        return torch.addmm(self.fc7_bias, h, self.fc7_weight.T).relu_() if self.fc7_bias.numel() else h

    def margins(self, features: Tensor) -> Tensor:
        """SVM margins ``(K, c)`` of fc features ``(K, H)``."""
        blocks = []
        for start in range(0, len(self.class_bias), _CLASS_BLOCK):
            weight, bias = (v[start : start + _CLASS_BLOCK] for v in (self.class_weight, self.class_bias))
            missing = _CLASS_BLOCK - len(bias)
            weight, bias = functional.pad(weight, (0, 0, 0, missing)), functional.pad(bias, (0, missing))
            blocks.append(torch.addmm(bias, features, weight.T)[:, : _CLASS_BLOCK - missing])
        return torch.cat(blocks, 1)

    def scores(self, margins: Tensor) -> Tensor:
        """``margins (K, c)`` as scores in (0, 1), before calibration: their sigmoids."""
        z = margins.T.contiguous()
        # one class at a time: the last few elements of a tensor are computed otherwise than the rest, which may change
        # the last bit, so that the numbers of a class would depend on how many there are
        return torch.stack([torch.sigmoid(row) for row in z]).T

    def probability(self, scores: NDArray[np.float32], c: int) -> NDArray[np.float32]:
        """Calibrated probabilities of class ``c``, in [0, 1], of ``scores``; the higher one is the higher other."""
        p = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
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

    def box_deltas(self, features: Tensor, c: int) -> Tensor:
        """Box deltas ``(K, 4)`` of class ``c`` in window sizes and log sizes, of fc features ``(K, H)``."""
        mine = slice(4 * c, 4 * c + 4)
        return torch.addmm(self.box_bias[mine], features, self.box_weight[mine].T) * features.new_tensor(DELTA_SCALE)

    def box_deltas_of_block(self, features: Tensor, block: int) -> Tensor:
        """Box deltas ``(K, BOX_BLOCK, 4)`` of the classes from ``block * BOX_BLOCK`` on; zeros after the last class."""
        rows = slice(4 * BOX_BLOCK * block, 4 * BOX_BLOCK * (block + 1))
        missing = 4 * BOX_BLOCK - len(self.box_bias[rows])
        weight = functional.pad(self.box_weight[rows], (0, 0, 0, missing))
        deltas = torch.addmm(functional.pad(self.box_bias[rows], (0, missing)), features, weight.T)
        return deltas.view(len(features), BOX_BLOCK, 4) * features.new_tensor(DELTA_SCALE)
