"""What a trained detector computes on pooled windows, as plain matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.detection.fc_head import DELTA_SCALE, FcHead
from sppnet.errors import ModelFileError

__all__ = ["CLASS_ROWS", "DetectorWeights"]

# Tensors that have rows for each class, and how many; all others are common to all classes. Classes are added and
# removed by these rows, so a new tensor with rows for classes must be listed.
CLASS_ROWS = {"class_weight": 1, "class_bias": 1, "box_weight": 4, "box_bias": 4, "slope": 1, "offset": 1}

# Classes that one matrix product scores. Products of another shape may be summed in another order; with a fixed one the
# scores of a class are the same to the last bit whatever other classes there are.
_CLASS_BLOCK = 32


@dataclass(frozen=True)
class DetectorWeights:
    """Float32 matrices of the layers behind the pooling.

    D is the length of a pooled window, R the rank of fc6, H the width of fc6, c the number of classes.
    """

    reduce_weight: Tensor  # (R, D), standardisation of the inputs folded in
    reduce_bias: Tensor  # (R,)
    fc6_weight: Tensor  # (H, R)
    fc6_bias: Tensor  # (H,)
    class_weight: Tensor  # (c, H): SVMs
    class_bias: Tensor  # (c,)
    box_weight: Tensor  # (c * 4, H)
    box_bias: Tensor  # (c * 4,)
    slope: Tensor  # (c,): probability = sigmoid(slope * margin + offset)
    offset: Tensor  # (c,)

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
            )

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], where: str) -> DetectorWeights:
        """Those of a model file.

        Raises:
            ModelFileError: one is missing, or their shapes don't fit together.
        """
        names = [f.name for f in fields(DetectorWeights)]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise ModelFileError(f"{where}: {missing[0]} is missing; the file is damaged or no detector")
        got = DetectorWeights(**{name: tensors[name] for name in names})
        rank, dims = got.reduce_weight.shape if got.reduce_weight.ndim == 2 else (0, 0)
        hidden, classes = got.fc6_bias.numel(), got.class_bias.numel()
        expected = {
            "reduce_weight": (rank, dims), "reduce_bias": (rank,),
            "fc6_weight": (hidden, rank), "fc6_bias": (hidden,),
            "class_weight": (classes, hidden), "class_bias": (classes,),
            "box_weight": (classes * 4, hidden), "box_bias": (classes * 4,),
            "slope": (classes,), "offset": (classes,),
        }  # fmt: skip
        for name, shape in expected.items():
            if tuple(tensors[name].shape) != shape:
                raise ModelFileError(f"{where}: {name} has shape {tuple(tensors[name].shape)}, expected {shape}")
        return got

    def tensors(self) -> dict[str, Tensor]:
        """All of them by name, for a model file."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def fc(self, pooled: Tensor) -> Tensor:
        """fc features ``(K, H)`` of pooled windows ``(K, D)``."""
        h = torch.addmm(self.reduce_bias, pooled, self.reduce_weight.T)
        return torch.addmm(self.fc6_bias, h, self.fc6_weight.T).relu_()

    def margins(self, features: Tensor) -> Tensor:
        """SVM margins ``(K, c)`` of fc features ``(K, H)``."""
        blocks = []
        for start in range(0, len(self.class_bias), _CLASS_BLOCK):
            weight, bias = (v[start : start + _CLASS_BLOCK] for v in (self.class_weight, self.class_bias))
            missing = _CLASS_BLOCK - len(bias)
            weight, bias = functional.pad(weight, (0, 0, 0, missing)), functional.pad(bias, (0, missing))
            blocks.append(torch.addmm(bias, features, weight.T)[:, : _CLASS_BLOCK - missing])
        return torch.cat(blocks, 1)

    def probability(self, margins: Tensor) -> Tensor:
        """Calibrated probabilities of ``margins (K, c)``, in (0, 1)."""
        return torch.sigmoid(margins * self.slope + self.offset)

    def box_deltas(self, features: Tensor) -> Tensor:
        """Box deltas ``(K, c, 4)`` in window sizes and log sizes, of fc features ``(K, H)``."""
        deltas = torch.addmm(self.box_bias, features, self.box_weight.T)
        deltas = deltas.view(len(features), len(self.class_bias), 4)
        return deltas * torch.tensor(DELTA_SCALE)
