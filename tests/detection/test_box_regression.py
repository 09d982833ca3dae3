"""Ridge regression of boxes against scikit-learn's, and streaming against all at once."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Ridge

from sppnet.detection.training.box_regression import RidgeAccumulator


def data(n: int = 300, d: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g)
    labels = torch.randint(0, 3, (n,), generator=g)
    labels[labels == 1] = 0  # class 1 has no examples
    t = x @ torch.randn(d, 4, generator=g) + torch.randn(4, generator=g) + 0.1 * torch.randn(n, 4, generator=g)
    return x, labels, t


def test_equals_ridge_of_scikit_learn() -> None:
    x, labels, t = data()
    sums = RidgeAccumulator(3, x.shape[1])
    for start in range(0, len(x), 37):
        rows = slice(start, start + 37)
        sums.add(x[rows], labels[rows], t[rows])
    weight, bias = sums.solve(10.0)
    assert weight.shape == (3, 4, x.shape[1])
    for c in (0, 2):
        peer = Ridge(alpha=10.0).fit(x[labels == c].double().numpy(), t[labels == c].double().numpy())
        np.testing.assert_allclose(weight[c].numpy(), peer.coef_, atol=1e-3)
        np.testing.assert_allclose(bias[c].numpy(), peer.intercept_, atol=1e-3)
    assert sums.count.tolist() == [int((labels == c).sum()) for c in range(3)]


def test_class_without_examples_moves_nothing() -> None:
    x, labels, t = data()
    sums = RidgeAccumulator(3, x.shape[1])
    sums.add(x, labels, t)
    weight, bias = sums.solve(1.0)
    assert not weight[1].any()
    assert not bias[1].any()
