"""Class-wise linear box regression (R-CNN, appendix C; SPP-net, section 4.2), by ridge regression in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["RidgeAccumulator"]


class RidgeAccumulator:
    """Sums ``X'X`` and ``X'T`` of each class as examples stream by, so that no example is ever kept.

    Args:
        classes: number of classes. dims: length D of a feature vector.
    """

    def __init__(self, classes: int, dims: int) -> None:
        self.gram = torch.zeros(classes, dims + 1, dims + 1, dtype=torch.float32)
        self.cross = torch.zeros(classes, dims + 1, 4, dtype=torch.float64)
        self.count = torch.zeros(classes, dtype=torch.int64)
        self.square = torch.zeros(classes, 4, dtype=torch.float64)
        self.total = torch.zeros(classes, 4, dtype=torch.float64)

    def tensors(self) -> dict[str, Tensor]:
        """Everything summed so far, by name, for a checkpoint."""
        return {f"ridge.{name}": value for name, value in vars(self).items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the sums of :meth:`tensors` (other names are ignored) back."""
        for name in vars(self):
            getattr(self, name).copy_(tensors[f"ridge.{name}"])

    def add(self, features: Tensor, labels: Tensor, targets: Tensor) -> None:
        """Examples: ``features (n, D)``, class ``labels (n,)`` in 0 .. classes - 1, ``targets (n, 4)`` deltas."""
        for c in torch.unique(labels).tolist():
            mine = labels == c
            x = torch.cat([features[mine], torch.ones(int(mine.sum()), 1)], 1)
            t = targets[mine].double()
            self.gram[c] += x.T @ x
            self.cross[c] += x.double().T @ t
            self.square[c] += t.square().sum(0)
            self.total[c] += t.sum(0)
            self.count[c] += len(x)

    def solve(self, regularisation: float = 1000.0) -> tuple[Tensor, Tensor]:
        """Ridge solutions: ``weight (classes, 4, D)`` and ``bias (classes, 4)``, float32.

        Args:
            regularisation: lambda on the weights (not on the bias), >= 0. The paper's release uses 4000 on its
                features. It is relative to the number of examples only through the sums, as there.

        A class without examples gets zeros: its windows stay where they are.
        """
        classes, size, _ = self.gram.shape
        weight, bias = torch.zeros(classes, 4, size - 1), torch.zeros(classes, 4)
        penalty = torch.full((size,), float(regularisation), dtype=torch.float64)
        penalty[-1] = 1e-6
        for c in torch.nonzero(self.count).flatten().tolist():
            factor = torch.linalg.cholesky(self.gram[c].double() + torch.diag(penalty))
            solution = torch.cholesky_solve(self.cross[c], factor)
            weight[c], bias[c] = solution[:-1].T.float(), solution[-1].float()
        return weight, bias
