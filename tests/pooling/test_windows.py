"""pool_windows and score_windows against the reference, torch's adaptive pooling on crops, and each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pooling_cases import DTYPES, LAYOUTS, random_cells, random_map
from sppnet.errors import ArgumentError
from sppnet.pooling.bins import normalise_levels, num_bins
from sppnet.pooling.reference import pool_reference, pool_reference_backward
from sppnet.pooling.windows import pool_windows, score_windows

LEVEL = st.one_of(st.integers(1, 9), st.tuples(st.integers(1, 7), st.integers(1, 7)))


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 30)),
    levels=st.lists(LEVEL, min_size=1, max_size=5),
    mode=st.sampled_from(["max", "avg"]),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    count=st.integers(0, 40),
)
def test_equals_the_reference(
    seed: int, size: Any, levels: Any, mode: str, dtype: torch.dtype, layout: str, count: int
) -> None:
    rng = np.random.default_rng(seed)
    features = random_map(rng, size, dtype, layout)
    cells = random_cells(rng, count, size[1], size[2])
    result = pool_windows(features, cells, levels, mode)
    pyramid = normalise_levels(levels)
    expected = torch.from_numpy(pool_reference(features.double().numpy(), cells, pyramid, mode)).to(dtype)
    assert result.dtype == dtype
    assert result.shape == (count, num_bins(levels), size[0])
    if mode == "max":
        assert torch.equal(result, expected)
    else:
        torch.testing.assert_close(result, expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 20), st.integers(1, 12), st.integers(1, 15)),
    levels=st.lists(LEVEL, min_size=1, max_size=4),
    mode=st.sampled_from(["max", "avg"]),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
)
def test_gradient_equals_the_reference(
    seed: int, size: Any, levels: Any, mode: str, dtype: torch.dtype, layout: str
) -> None:
    """Maps of many equal values: the gradient must go to the first."""
    rng = np.random.default_rng(seed)
    features = random_map(rng, size, dtype, layout).requires_grad_()
    cells = random_cells(rng, 10, size[1], size[2])
    result = pool_windows(features, cells, levels, mode)
    grad = torch.from_numpy(rng.integers(-4, 5, result.shape)).to(dtype)
    (gradient,) = torch.autograd.grad(result, features, grad)
    values = features.detach().double().numpy()
    expected = pool_reference_backward(grad.double().numpy(), values, cells, normalise_levels(levels), mode)
    half: dict[str, Any] = (
        {"rtol": 2e-2, "atol": 2e-2} if dtype in (torch.float16, torch.bfloat16) else {"rtol": 1e-5, "atol": 1e-5}
    )
    torch.testing.assert_close(gradient.double(), torch.from_numpy(expected), **half)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["max", "avg"])
def test_equals_adaptive_pooling_of_crops(mode: str, dtype: torch.dtype, rng: np.random.Generator) -> None:
    """Enough windows of a large enough map for tables of running maxima."""
    features = torch.randn(70, 33, 47, dtype=dtype)
    cells = random_cells(rng, 300, 33, 47)
    result = pool_windows(features, cells, (6, 3, 2, 1), mode)
    pool = F.adaptive_max_pool2d if mode == "max" else F.adaptive_avg_pool2d
    for window, (x0, y0, x1, y1) in zip(result, cells.tolist(), strict=True):
        crop = features[:, y0:y1, x0:x1]
        expected = torch.cat([pool(crop, n).flatten(1) for n in (6, 3, 2, 1)], 1).T
        if mode == "max":
            assert torch.equal(window, expected)
        else:
            torch.testing.assert_close(window, expected)


@pytest.mark.parametrize("tables", [0, 1, 2, 3])
def test_any_number_of_tables_gives_the_same(
    tables: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sppnet.pooling import launch

    features = torch.randn(16, 30, 20, requires_grad=True)
    cells = random_cells(rng, 60, 30, 20)
    expected = torch.from_numpy(pool_reference(features.detach().numpy(), cells, normalise_levels((3, 2, 1))))
    monkeypatch.setattr(launch, "count_tables", lambda *_: tables)
    result = pool_windows(features, cells, (3, 2, 1))
    assert torch.equal(result, expected)
    (gradient,) = torch.autograd.grad(result, features, torch.ones_like(result))
    reference = pool_reference_backward(
        np.ones(result.shape, np.float32), features.detach().numpy(), cells, normalise_levels((3, 2, 1))
    )
    np.testing.assert_allclose(gradient.numpy(), reference)


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_maps_of_several_scales_and_batches(mode: str, rng: np.random.Generator) -> None:
    maps = [torch.randn(20, h, w, requires_grad=True) for h, w in ((5, 7), (11, 9), (3, 20))]
    index = np.array([2, 0, 1, 1, 2, 0, 0])
    cells = np.concatenate([random_cells(rng, 1, *maps[i].shape[1:]) for i in index])
    together = pool_windows(maps, cells, mode=mode, map_index=index)
    apart = torch.cat([pool_windows(maps[i], cells[k : k + 1], mode=mode) for k, i in enumerate(index)])
    assert torch.equal(together, apart)
    grad = torch.randn_like(together)
    for one, other in zip(
        torch.autograd.grad(together, maps, grad), torch.autograd.grad(apart, maps, grad), strict=True
    ):
        torch.testing.assert_close(one, other)
    batch = torch.randn(3, 20, 6, 8)
    boxes = random_cells(rng, 7, 6, 8)
    expected = torch.cat([pool_windows(batch[i], boxes[k : k + 1], mode=mode) for k, i in enumerate(index)])
    assert torch.equal(pool_windows(batch, boxes, mode=mode, map_index=torch.from_numpy(index)), expected)


def test_windows_outside_reversed_or_thin() -> None:
    features = torch.arange(12.0).view(1, 3, 4)
    windows: list[list[float]] = [
        [-9, -9, -5, -5],  # outside: the nearest corner
        [50, 1, 60, 2],  # right of the map: the last cell of its row
        [3, 2, 1, 1],  # reversed: the cell at its middle
        [2, 1, 2, 3],  # no width: one column
        [1.2, 0.1, 1.3, 0.2],  # within a cell
        [-5, -5, 99, 99],  # more than everything
    ]
    result = pool_windows(features, windows, (1,)).flatten().tolist()
    assert result[0] == 0
    assert result[1] == 7
    assert result[2] in (5, 6)
    assert result[3] in (9, 10)
    assert result[4] == 1
    assert result[5] == 11


def test_no_windows_and_no_bins_missing() -> None:
    features = torch.randn(5, 4, 4, requires_grad=True)
    empty: Any
    for empty in ([], np.zeros((0, 4)), torch.zeros(0, 4)):
        result = pool_windows(features, empty)
        assert result.shape == (0, 50, 5)
        (gradient,) = torch.autograd.grad(result.sum(), features)
        assert not gradient.any()
        assert score_windows(features.detach(), empty, torch.zeros(3, 250)).shape == (0, 3)


def test_special_values() -> None:
    inf, nan = float("inf"), float("nan")
    features = torch.tensor([[[-inf, -inf, 1.0, nan]], [[-3.0, -1.0, inf, 2.0]]])
    windows = [[0, 0, 2, 1], [1, 0, 3, 1], [2, 0, 4, 1]]
    largest = pool_windows(features, windows, (1,), "max")[:, 0].tolist()
    assert largest[0] == [-inf, -1.0]
    assert largest[1] == [1.0, inf]
    assert largest[2][0] != largest[2][0]
    mean = pool_windows(features, windows, (1,), "avg")[:, 0].tolist()
    assert mean[0] == [-inf, -2.0]  # the infinity and NaN elsewhere in the map don't reach it
    assert mean[1] == [-inf, inf]
    assert mean[2][0] != mean[2][0]
    grad = torch.zeros(3, 1, 2)
    grad[0, 0, 1] = inf
    leaf = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pool_windows(leaf, windows, (1,), "avg"), leaf, grad)
    assert gradient[1, 0].tolist() == [inf, inf, 0, 0]


def test_the_result_does_not_depend_on_threads(rng: np.random.Generator) -> None:
    features = torch.randn(100, 20, 30, requires_grad=True)
    cells = random_cells(rng, 200, 20, 30)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            result = pool_windows(features, cells)
            results.append((result, torch.autograd.grad(result.pow(2).sum(), features)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, results[0][0]) and torch.equal(b, results[0][1]) for a, b in results)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("outputs", [1, 20])
def test_scores_equal_pooling_and_linear(
    mode: str, outputs: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sppnet.pooling.tensors import windows as module

    monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 18)  # several blocks of windows
    features = random_map(rng, (70, 9, 13), torch.float32, "last")
    cells = random_cells(rng, 300, 9, 13)
    weight, bias = torch.randn(outputs, 14 * 70), torch.randn(outputs)
    expected = F.linear(pool_windows(features, cells, (3, 2, 1), mode).flatten(1), weight, bias)
    for b in (bias, None):
        result = score_windows(features, cells, weight, b, (3, 2, 1), mode)
        torch.testing.assert_close(result, expected if b is not None else expected - bias, rtol=1e-4, atol=1e-3)
    buffer = torch.full((300, outputs), float("nan"))
    assert score_windows(features, cells, weight, bias, (3, 2, 1), mode, out=buffer) is buffer
    torch.testing.assert_close(buffer, expected, rtol=1e-4, atol=1e-3)
    leaf = features.clone().requires_grad_()
    score_windows(leaf, cells, weight, bias, (3, 2, 1), mode).sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize("offset", [0, 5, 64])
def test_into_a_given_buffer(offset: int, rng: np.random.Generator) -> None:
    """Also one whose lines are not aligned, or whose rows are apart."""
    features = torch.randn(32, 9, 9)
    cells = random_cells(rng, 20, 9, 9)
    expected = pool_windows(features, cells, (2, 1))
    memory = torch.full((20 * 5 * 48 + 200,), 7.0)
    out = memory[offset : offset + 20 * 5 * 48].view(20, 5, 48)[:, :, :32]
    assert pool_windows(features, cells, (2, 1), out=out) is out
    assert torch.equal(out, expected)
    assert (memory[offset : offset + 20 * 5 * 48].view(20, 5, 48)[:, :, 32:] == 7).all()


GOOD = torch.zeros(2, 4, 4)
pool: Any = pool_windows
score: Any = score_windows
BOX = np.array([[0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pool(torch.zeros(4, 4), BOX), r"features: .*\(4, 4\)"),
        (lambda: pool(torch.zeros(2, 0, 4), BOX), "features"),
        (lambda: pool(torch.zeros(2, 4, 4, dtype=torch.int32), BOX), "features: .*int32"),
        (lambda: pool([], BOX), "features: .*empty list"),
        (lambda: pool(np.zeros((2, 4, 4), np.int32), BOX), "features: .*int32"),
        (lambda: pool("maps", BOX), "features: .*str"),
        (lambda: pool([GOOD, torch.zeros(3, 4, 4)], BOX, map_index=[0]), "features: .*channels"),
        (lambda: pool(GOOD, np.zeros((2, 6))), r"windows: .*\(2, 6\)"),
        (lambda: pool(GOOD, "boxes"), "windows"),
        (lambda: pool(GOOD, [[0, 0, float("nan"), 1]]), "windows: row 0"),
        (lambda: pool(GOOD, [[0, 0, 1, 1], [0, 0, float("inf"), 1]], stride=16), "windows: row 1"),
        (lambda: pool(GOOD, BOX, ()), "levels"),
        (lambda: pool(GOOD, BOX, (0,)), "levels: .*0"),
        (lambda: pool(GOOD, BOX, 6), "levels"),
        (lambda: pool(GOOD, BOX, ((1, 2, 3),)), "levels"),
        (lambda: pool(GOOD, BOX, mode="mean"), "mode: .*'mean'"),
        (lambda: pool(GOOD, BOX, stride=0), "stride"),
        (lambda: pool(GOOD, BOX, stride=(1, 2, 3)), "stride"),
        (lambda: pool([GOOD, GOOD], BOX), "map_index: .*2 maps"),
        (lambda: pool([GOOD, GOOD], BOX, map_index=[2]), "map_index: .*0 to 1"),
        (lambda: pool([GOOD, GOOD], BOX, map_index=[-1]), "map_index: .*0 to 1"),
        (lambda: pool([GOOD, GOOD], BOX, map_index=[0.5]), "map_index"),
        (lambda: pool([GOOD, GOOD], BOX, map_index=[0, 1]), "map_index"),
        (lambda: pool(GOOD, BOX, out=torch.zeros(1, 50, 3)), r"out: .*\(1, 50, 2\)"),
        (lambda: pool(GOOD, BOX, out=torch.zeros(1, 2, 50).transpose(1, 2)), "out: .*contiguous"),
        (lambda: pool(GOOD.clone().requires_grad_(), BOX, out=torch.zeros(1, 50, 2)), "out: .*gradient"),
        (lambda: score(GOOD, BOX, torch.zeros(3, 99)), r"weight: .*\(O, 100\)"),
        (lambda: score(GOOD, BOX, torch.zeros(3, 100), torch.zeros(4)), r"bias: .*\(3,\)"),
    ],
)
def test_bad_arguments_are_named(call: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        call()


def test_results_above_4_mb(rng: np.random.Generator) -> None:
    """Their memory comes from NumPy, and they are pooled past the cache; otherwise they are like all others."""
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.randn(64, 9, 8).to(dtype).requires_grad_()
        windows = random_cells(rng, 1000, 9, 8)
        large = pool_windows(features, windows)
        assert large.numel() * large.element_size() > 4 << 20
        assert large.is_contiguous()
        assert large.data_ptr() % 64 == 0
        parts = torch.cat([pool_windows(features, windows[k : k + 100]) for k in range(0, 1000, 100)])
        assert torch.equal(large, parts)
        if dtype == torch.float32:  # sums of ones: exact
            gradients = [torch.autograd.grad(part.sum(), features)[0] for part in (large, parts)]
            assert torch.equal(*gradients)
