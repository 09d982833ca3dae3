"""Linear SVMs on pooled vectors, by squares: against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from sppnet.classification.frozen import cross_validate, fit_least_squares


@pytest.mark.parametrize(("photos", "dims"), [(40, 90), (90, 40)])
def test_least_squares_are_those_of_ridge_regression(photos: int, dims: int) -> None:
    rng = np.random.default_rng(photos)
    x, labels = rng.normal(size=(photos, dims)).astype(np.float32) + 0.5, np.arange(photos) % 5
    found = fit_least_squares(torch.from_numpy(x), labels, 5, c=0.7)
    y = np.where(labels[:, None] == np.arange(5), 1.0, -1.0)
    expected = Ridge(alpha=1 / (2 * 0.7)).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(found.weight.numpy(), expected.coef_, atol=1e-6)
    np.testing.assert_allclose(found.bias.numpy(), expected.intercept_, atol=1e-6)
    residual = y - x @ expected.coef_.T - expected.intercept_
    objective = 0.5 * (expected.coef_**2).sum(1) + 0.7 * (residual**2).sum(0)
    np.testing.assert_allclose(found.objective.numpy(), objective, rtol=1e-6)


@pytest.mark.parametrize("least_squares", [False, True])
def test_cross_validation_by_both(least_squares: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = torch.from_numpy(np.eye(3)[labels] + rng.normal(0, 0.6, (60, 3))).float()
    choice = cross_validate(x, labels, 3, (1e-6, 1.0), folds=4, least_squares=least_squares)
    assert choice.c == 1
    assert choice.accuracy[1] == pytest.approx((choice.margins.argmax(1).numpy() == labels).mean())
    assert 0.6 < choice.accuracy[1] < 1  # chance is a third; some lie on the wrong side
