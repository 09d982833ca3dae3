"""The gradient of maxima where its kernel has cases: several groups of channels, ties, shared cells, large bins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pooling_cases import random_cells, random_map
from sppnet.kernels.lines import GROUP
from sppnet.pooling.bins import normalise_levels
from sppnet.pooling.reference import pool_reference_backward
from sppnet.pooling.windows import pool_windows


def gradient_of(features: torch.Tensor, cells: Any, levels: Any, grad: torch.Tensor) -> torch.Tensor:
    leaf = features.detach().requires_grad_()
    result = pool_windows(leaf, cells, levels)
    return torch.autograd.grad(result, leaf, grad)[0]


@pytest.mark.parametrize("channels", [GROUP - 1, GROUP, 2 * GROUP + 5])
@pytest.mark.parametrize("layout", ["first", "last", "strided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_whole_and_broken_groups_of_channels(
    channels: int, layout: str, dtype: torch.dtype, rng: np.random.Generator
) -> None:
    """Few distinct values: nearly every bin has ties, within and between the finer bins that tile it."""
    features = random_map(rng, (channels, 19, 23), dtype, layout)
    cells = random_cells(rng, 25, 19, 23)
    levels = normalise_levels((6, 3, 2, 1))
    grad = torch.from_numpy(rng.integers(-4, 5, (25, 50, channels))).to(dtype)
    expected = pool_reference_backward(grad.double().numpy(), features.double().numpy(), cells, levels)
    # Sums of small integers: exact in every order, also when rounded to bfloat16 at the end.
    assert torch.equal(gradient_of(features, cells, levels, grad), torch.from_numpy(expected).to(dtype))


def test_each_gradient_is_given_once_where_bins_share_cells() -> None:
    """5 cells in 2 or 6 bins: neighbours share a cell; what goes out must be what came in."""
    features = torch.randn(40, 5, 5)
    cells = [[0, 0, 5, 5], [0, 0, 3, 5], [1, 1, 2, 2]]
    grad = torch.randint(-8, 9, (3, 50, 40)).float()
    assert torch.equal(gradient_of(features, cells, (6, 3, 2, 1), grad).sum((1, 2)), grad.sum((0, 1)))


def test_large_maps_against_torch(rng: np.random.Generator) -> None:
    """Bins of up to hundreds of cells, all different: autograd of torch's own pooling of the crop."""
    features = torch.randperm(33 * 90 * 100).view(33, 90, 100).float()
    cells = random_cells(rng, 12, 90, 100)
    grad = torch.randint(-8, 9, (12, 50, 33)).float()
    leaf = features.clone().requires_grad_()
    vectors = [
        torch.cat([F.adaptive_max_pool2d(leaf[:, y0:y1, x0:x1], n).flatten(1) for n in (6, 3, 2, 1)], 1).T
        for x0, y0, x1, y1 in cells.tolist()
    ]
    (expected,) = torch.autograd.grad(torch.stack(vectors), leaf, grad)
    assert torch.equal(gradient_of(features, cells, (6, 3, 2, 1), grad), expected)


@pytest.mark.parametrize("size", [2, 9])
def test_infinite_and_nan_gradients_stay_where_they_belong(size: int) -> None:
    """Bins of few cells and of many take different ways."""
    features = torch.arange(float(2 * size * size)).view(2, size, size)
    grad = torch.tensor([[[float("inf"), 1.0]], [[2.0, float("nan")]]])
    gradient = gradient_of(features, [[0, 0, size, size], [0, 0, size, size - 1]], (1,), grad)
    expected = torch.zeros(2, size, size)
    expected[0, -1, -1], expected[1, -1, -1] = float("inf"), 1.0
    expected[0, -2, -1], expected[1, -2, -1] = 2.0, float("nan")
    torch.testing.assert_close(gradient, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("size", [2, 9])
def test_zeros_of_both_signs_are_equal_and_nan_is_largest(size: int) -> None:
    features = torch.full((2, size, size), -1.0)
    features[0, 0, 1], features[0, 1, 0] = -0.0, 0.0
    features[1, 0, 0], features[1, 1, 1] = float("inf"), float("nan")
    gradient = gradient_of(features, [[0, 0, size, size]], (1,), torch.ones(1, 1, 2))
    assert gradient.nonzero().tolist() == [[0, 0, 1], [1, 1, 1]]


def test_gradients_that_are_expanded_or_transposed(rng: np.random.Generator) -> None:
    features = torch.randn(40, 7, 8)
    cells = random_cells(rng, 9, 7, 8)
    for grad in (torch.ones(1, 1, 1).expand(9, 14, 40), torch.randn(40, 14, 9).permute(2, 1, 0)):
        expected = gradient_of(features, cells, (3, 2, 1), grad.contiguous())
        assert torch.equal(gradient_of(features, cells, (3, 2, 1), grad), expected)
