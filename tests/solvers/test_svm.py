"""SVMs of all classes at once against scikit-learn's, one class at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from sppnet.errors import ArgumentError
from sppnet.solvers.svm import svm_objective, train_svms


def problem(n: int = 1500, d: int = 40, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g)
    scores = x @ torch.randn(d, classes, generator=g) + 2 * torch.randn(n, classes, generator=g)
    y = torch.where(scores > scores.quantile(0.9, 0), 1, -1).to(torch.int8)
    return x, y


@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize(("positive_weight", "bias_scale"), [(1.0, 1.0), (2.0, 10.0)])
def test_reaches_the_optimum_of_scikit_learn(c: float, positive_weight: float, bias_scale: float) -> None:
    x, y = problem()
    got = train_svms(x, y, c=c, positive_weight=positive_weight, bias_scale=bias_scale)
    for k in range(y.shape[1]):
        peer = LinearSVC(
            C=c, dual=False, tol=1e-8, max_iter=10000, intercept_scaling=bias_scale, class_weight={1: positive_weight}
        ).fit(x.double().numpy(), y[:, k].numpy())
        best, _, _ = svm_objective(
            x.double(), y[:, k : k + 1], torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_),
            c=c, positive_weight=positive_weight, bias_scale=bias_scale,
        )  # fmt: skip
        assert float(got.objective[k]) <= float(best) * (1 + 1e-3)
        np.testing.assert_allclose(got.weight[k].numpy(), peer.coef_[0], atol=0.03 * np.abs(peer.coef_).max())


def test_gradient_is_that_of_autograd() -> None:
    x, y = problem(200, 7, 3)
    y[:20] = 0
    w = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, requires_grad=True)
    yd = y.double()
    slack = (1 - yd * (x.double() @ w.T + b)).clamp(min=0) * (yd != 0)
    cost = torch.where(yd > 0, 0.6, 0.3)
    loss = 0.5 * (w.square().sum(1) + (b / 10) ** 2) + (cost * slack**2).sum(0)
    by_w, by_b = torch.autograd.grad(loss.sum(), (w, b))
    got = svm_objective(x, y, w.detach(), b.detach(), c=0.3, positive_weight=2, bias_scale=10, block=64)
    torch.testing.assert_close(got[0], loss.detach())
    torch.testing.assert_close(got[1], by_w)
    torch.testing.assert_close(got[2], by_b)


def test_left_out_examples_do_not_matter() -> None:
    x, y = problem(600, 10, 2)
    y[500:] = 0
    a, b = train_svms(x, y, c=0.1), train_svms(x[:500], y[:500], c=0.1)
    torch.testing.assert_close(a.weight, b.weight, rtol=1e-3, atol=1e-4)


def test_warm_start_arrives_at_the_same_place_sooner() -> None:
    x, y = problem()
    cold = train_svms(x, y, c=1.0)
    warm = train_svms(x, y, c=1.0, start=train_svms(x[:1200], y[:1200], c=1.0))
    torch.testing.assert_close(cold.objective, warm.objective, rtol=1e-4, atol=0)
    assert warm.iterations < cold.iterations


def test_same_result_twice_and_half_precision_inputs() -> None:
    x, y = problem()
    a, b = train_svms(x, y), train_svms(x, y)
    assert torch.equal(a.weight, b.weight)
    assert torch.equal(a.bias, b.bias)
    half = train_svms(x.half(), y)
    torch.testing.assert_close(half.objective, a.objective, rtol=1e-2, atol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 12), st.floats(1e-3, 100))
def test_gradient_vanishes_at_the_solution(seed: int, n: int, d: int, c: float) -> None:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(n, d)).astype(np.float32))
    y = torch.from_numpy(np.where(np.arange(n) % 2, 1, -1)[:, None].astype(np.int8))
    got = train_svms(x, y, c=c, max_iterations=300)
    _, gw, _ = svm_objective(x, y, got.weight, got.bias, c=c)
    _, start, _ = svm_objective(x, y, torch.zeros(1, d), torch.zeros(1), c=c)
    # The gradient is a sum that cancels, so what float32 leaves of it depends on the size of its terms
    slack = (1 - y * (x @ got.weight.T + got.bias)).clamp(min=0)
    terms = 2 * c * (slack * x.norm(dim=1, keepdim=True)).sum()
    assert float(gw.norm()) <= 1e-2 * float(start.norm()) + 2e-4 * float(terms) + 1e-5


def test_bad_input() -> None:
    x, y = problem(50, 3, 2)
    with pytest.raises(ArgumentError, match=r"expected \(N, D\)"):
        train_svms(x, y[:40])
    with pytest.raises(ArgumentError, match="class 1 has no positive"):
        train_svms(x, torch.stack([y[:, 0], -torch.ones(50, dtype=torch.int8)], 1))
    with pytest.raises(ArgumentError, match="class 0 has no negative"):
        train_svms(x, torch.ones(50, 1, dtype=torch.int8))


def test_prior_is_where_it_stays_without_need() -> None:
    """With a prior the optimum is that of the shifted problem, found here by an independent optimiser."""
    from scipy.optimize import minimize

    x, y = problem(300, 6, 2)
    g = torch.Generator().manual_seed(5)
    prior = (torch.randn(2, 6, generator=g), torch.randn(2, generator=g))
    near = train_svms(x, y, c=1e-9, prior=prior)
    torch.testing.assert_close(near.weight, prior[0], rtol=0, atol=1e-4)
    got = train_svms(x, y, c=0.05, bias_scale=3, prior=prior)
    for k in range(2):
        yk = y[:, k].double().numpy()

        def cost(p: np.ndarray, k: int = k, yk: np.ndarray = yk) -> float:
            slack = np.maximum(0, 1 - yk * (x.double().numpy() @ p[:-1] + p[-1]))
            away = p[:-1] - prior[0][k].numpy()
            return float(0.5 * (away @ away + ((p[-1] - float(prior[1][k])) / 3) ** 2) + 0.05 * (slack**2).sum())

        best = minimize(cost, np.zeros(7), method="BFGS", tol=1e-10)
        assert float(got.objective[k]) == pytest.approx(best.fun, rel=1e-3)
