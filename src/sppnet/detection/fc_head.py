"""The fully connected layer of the detector: pooled window -> fc features -> class logits and box deltas."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sppnet.detection.weights import DELTA_SCALE, DetectorWeights

__all__ = ["FcHead"]


class FcHead(nn.Module):
    """``fc6`` (of low rank) and perhaps ``fc7``, with ReLU and dropout, then a softmax and a box layer to train it by.

    Args:
        inputs: length D of a pooled window.
        num_classes: without background.
        rank: fc6 is the product ``(hidden, rank) @ (rank, D)``. A window then costs ``rank * D`` multiplications, not
            ``hidden * D``, the file is as much smaller, and fewer parameters overfit less.
        hidden: width of fc6 and fc7. dropout: share of their units dropped in training, [0, 1).
        layers: 1: fc6 alone; 2: fc7 behind it, as the paper's networks have it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, inputs: int, num_classes: int, rank: int = 256, hidden: int = 1024, dropout: float = 0.5, layers: int = 1
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dropout = dropout
        self.reduce = nn.Linear(inputs, rank, bias=False)
        self.fc6 = nn.Linear(rank, hidden)
        self.fc7 = nn.Linear(hidden, hidden) if layers == 2 else None
        self.logits = nn.Linear(hidden, num_classes + 1)  # the last one is background
        self.deltas = nn.Linear(hidden, num_classes * 4)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        for layer, spread in ((self.logits, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, 0.0, spread)
            nn.init.zeros_(layer.bias)

    def standardise(self, sample: Tensor) -> None:
        """Take mean and spread of each input from ``sample (n, D)``: inputs are used as (x - mean) / spread."""
        self.mean.copy_(sample.mean(0))
        self.scale.copy_(1 / (sample.std(0) + 1e-3))

    def continue_from(self, weights: DetectorWeights) -> None:
        """Compute what ``weights`` compute, with the inputs standardised as they are; background's logit is 0.

        Args:
            weights: trained layers of the same shapes.
        """
        arrays = {name: torch.from_numpy(value.copy()).double() for name, value in weights.arrays().items()}
        shift = arrays["reduce_bias"] + arrays["reduce_weight"] @ self.mean.double().cpu()
        new = {
            "reduce.weight": arrays["reduce_weight"] / self.scale.double().cpu(),
            "fc6.weight": arrays["fc6_weight"],
            "fc6.bias": arrays["fc6_bias"] + arrays["fc6_weight"] @ shift,
            "logits.weight": functional.pad(arrays["class_weight"], (0, 0, 0, 1)),
            "logits.bias": functional.pad(arrays["class_bias"], (0, 1)),
            "deltas.weight": arrays["box_weight"],
            "deltas.bias": arrays["box_bias"],
        }
        if self.fc7 is not None:
            new |= {"fc7.weight": arrays["fc7_weight"], "fc7.bias": arrays["fc7_bias"]}
        self.load_state_dict(new, strict=False)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """``x (n, D)`` -> fc features ``(n, hidden)``, logits ``(n, classes + 1)``, deltas ``(n, classes, 4)``."""
        h = self.reduce((x - self.mean) * self.scale)
        h = self._drop(functional.relu(self.fc6(h)), generator)
        if self.fc7 is not None:
            h = self._drop(functional.relu(self.fc7(h)), generator)
        return h, self.logits(h), self.deltas(h).view(-1, self.num_classes, 4)

    def _drop(self, h: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.training or not self.dropout:
            return h
        kept = torch.empty_like(h).bernoulli_(1 - self.dropout, generator=generator)
        return h * kept.div_(1 - self.dropout)

    def loss(self, x: Tensor, labels: Tensor, deltas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Softmax loss over all windows plus smooth-L1 loss of the boxes over the foreground.

        Args:
            x: ``(n, D)``.
            labels: ``(n,)`` int64, ``num_classes`` for background.
            deltas: ``(n, 4)`` targets.
            generator: of what is dropped; None: torch's own of the device.
        """
        _, logits, predicted = self(x, generator)
        scale = deltas.new_tensor(DELTA_SCALE)
        foreground = torch.nonzero(labels < self.num_classes).flatten()
        mine = predicted[foreground, labels[foreground]]
        box = functional.smooth_l1_loss(mine, deltas[foreground] / scale, reduction="sum") / max(1, len(labels))
        return functional.cross_entropy(logits, labels) + box

    def weights(self) -> DetectorWeights:
        """The trained matrices; softmax and box layers stand in until SVMs and regressors are trained."""
        with torch.no_grad():
            layer, scale, mean = self.reduce.weight.double(), self.scale.double(), self.mean.double()
            classes = self.num_classes
            own = {
                "reduce_weight": layer * scale,
                "reduce_bias": -(layer @ (scale * mean)),
                "fc6_weight": self.fc6.weight,
                "fc6_bias": self.fc6.bias,
                # background's logit taken off: what remains is the log odds against background
                "class_weight": self.logits.weight[:classes] - self.logits.weight[classes:],
                "class_bias": self.logits.bias[:classes] - self.logits.bias[classes],
                "box_weight": self.deltas.weight,
                "box_bias": self.deltas.bias,
                "slope": torch.ones(classes),
                "offset": torch.zeros(classes),
            }
            if self.fc7 is not None:
                own |= {"fc7_weight": self.fc7.weight, "fc7_bias": self.fc7.bias}
            return DetectorWeights(**{name: value.float().cpu().numpy().copy() for name, value in own.items()})
