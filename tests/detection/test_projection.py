"""Principal components of pooled windows, against the exact ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sppnet.detection.heads import HeadEngine
from sppnet.detection.torch_head import TorchHead
from sppnet.detection.training.projection import principal_components
from sppnet.detection.weights import DetectorWeights


def vectors(seed: int = 0) -> torch.Tensor:
    """700 vectors of 60 numbers, of very different spread, off centre."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(700, 60)) * np.geomspace(30, 0.01, 60) @ rng.normal(size=(60, 60)) + rng.normal(size=60)
    return torch.from_numpy(mixed.astype(np.float32))


def test_equals_exact_principal_components() -> None:
    x = vectors()
    weight, bias, kept = principal_components(x, 8)
    standard = ((x - x.mean(0)) / (x.std(0) + 1e-3)).double()
    left, spread, _ = torch.linalg.svd(standard, full_matrices=False)
    exact = left[:, :8] * spread[:8]
    ours = (x @ weight.T + bias).double()
    signs = torch.sign((ours * exact).sum(0))
    torch.testing.assert_close(ours * signs, exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max()))
    assert kept == pytest.approx(float(spread[:8].square().sum() / spread.square().sum()), abs=1e-4)
    assert torch.equal(weight, principal_components(x, 8)[0])  # same seed, same directions


def test_no_more_components_than_there_are() -> None:
    x = vectors()
    weight, bias, kept = principal_components(x[:20], 500)
    assert weight.shape == (20, 60)
    assert kept == pytest.approx(1, abs=1e-5)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()


def test_without_a_layer_the_coordinates_themselves_are_scored() -> None:
    x = vectors()
    weight, bias, _ = principal_components(x, 5)
    rows = {"class_weight": 2, "class_bias": 2, "box_weight": 8, "box_bias": 8, "slope": 2, "offset": 2}
    parts = {n: np.ones((c, 5) if n.endswith("weight") else c, np.float32) for n, c in rows.items()}
    parts |= {"reduce_weight": weight.numpy(), "reduce_bias": bias.numpy()}
    parts |= {"fc6_weight": np.zeros((0, 5), np.float32), "fc6_bias": np.zeros(0, np.float32)}
    weights = DetectorWeights.from_arrays(parts, "test")
    assert weights.features == 5
    for head in (HeadEngine(weights.arrays()), TorchHead(weights)):
        found = head.fc(x.numpy())
        np.testing.assert_allclose(found, (x @ weight.T + bias).numpy(), atol=1e-4)
        assert (found < 0).any()  # no ReLU
