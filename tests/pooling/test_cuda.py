"""The Triton kernels, in Triton's interpreter on CPU tensors (small sizes: it is slow) and on a GPU if there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from pooling_cases import DTYPES, random_cells, random_map
from sppnet.pooling.bins import normalise_levels, num_bins
from sppnet.pooling.tensors import cpu
from sppnet.pooling.windows import pool_windows, score_windows


@pytest.fixture(scope="module")
def interpreted() -> Iterator[ModuleType]:
    """``sppnet.pooling.tensors.cuda`` with its kernels interpreted."""
    pytest.importorskip("triton", reason="needs triton (pip install triton), for its interpreter")
    if torch.cuda.is_available():
        pytest.skip("on a machine with a GPU the kernels are tested on it")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        from sppnet.pooling.tensors import cuda

        yield cuda
    finally:
        del os.environ["TRITON_INTERPRET"]


def _tolerance(dtype: torch.dtype) -> dict[str, Any]:
    small = dtype in (torch.float16, torch.bfloat16)
    return {"rtol": 2e-2, "atol": 2e-2} if small else {"rtol": 1e-6, "atol": 1e-6}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_interpreted_kernels_equal_the_cpu(interpreted: ModuleType, dtype: torch.dtype, mode: str) -> None:
    rng = np.random.default_rng(5)
    maps = [random_map(rng, (5, 6, 7), dtype, "first")[None], random_map(rng, (5, 3, 2), dtype, "last")[None]]
    index = torch.tensor([0, 1, 0, 1])
    cells = torch.from_numpy(np.concatenate([random_cells(rng, 1, *maps[i].shape[2:]) for i in index.tolist()]))
    levels = normalise_levels(((2, 4), 2, 1))
    expected = torch.empty(4, num_bins(levels), 5, dtype=dtype)
    result = torch.empty_like(expected)
    cpu.pool_cpu(maps, cells, index, levels, mode, expected)
    interpreted.pool_cuda(maps, cells, index, levels, mode, result)
    torch.testing.assert_close(result, expected, **_tolerance(dtype))
    grad = torch.from_numpy(rng.integers(-4, 5, expected.shape)).to(dtype)
    ours = interpreted.pool_cuda_backward(grad, maps, cells, index, levels, mode)
    theirs = cpu.pool_cpu_backward(grad, maps, cells, index, levels, mode)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **_tolerance(dtype))


def test_interpreted_special_values(interpreted: ModuleType) -> None:
    inf, nan = float("inf"), float("nan")
    maps = [torch.tensor([-inf, -inf, 1.0, nan, 2.0]).view(1, 1, 1, 5)]
    cells = torch.tensor([[0, 0, 2, 1], [1, 0, 3, 1], [2, 0, 5, 1]])
    out = torch.empty(3, 1, 1)
    interpreted.pool_cuda(maps, cells, None, [(1, 1)], "max", out)
    assert out.flatten()[:2].tolist() == [-inf, 1.0]
    assert out[2].isnan().all()
    grad = torch.tensor([1.0, inf, 2.0]).view(3, 1, 1)
    (gradient,) = interpreted.pool_cuda_backward(grad, maps, cells, None, [(1, 1)], "max")
    assert gradient.flatten()[[0, 1, 3, 4]].tolist() == [1, 0, 2, 0]
    assert gradient.flatten()[2].isnan()
    assert interpreted.pool_cuda_backward(grad[:0], maps, cells[:0], None, [(1, 1)], "max")[0].eq(0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu(dtype: torch.dtype, mode: str, rng: np.random.Generator) -> None:
    features = random_map(rng, (70, 33, 47), dtype, "last")
    cells = random_cells(rng, 300, 33, 47)
    leaf, gpu = features.clone().requires_grad_(), features.cuda().requires_grad_()
    expected, result = pool_windows(leaf, cells, mode=mode), pool_windows(gpu, cells, mode=mode)
    torch.testing.assert_close(result.cpu(), expected, **_tolerance(dtype))
    grad = torch.from_numpy(rng.integers(-4, 5, expected.shape)).to(dtype)
    (a,) = torch.autograd.grad(result, gpu, grad.cuda(), retain_graph=True)
    (b,) = torch.autograd.grad(expected, leaf, grad)
    torch.testing.assert_close(a.cpu(), b, **{**_tolerance(dtype), "atol": 1e-3})
    assert torch.equal(a, torch.autograd.grad(result, gpu, grad.cuda())[0])
    weight = torch.randn(3, 50 * 70, dtype=dtype)
    with torch.no_grad():
        scores = score_windows(gpu, cells, weight.cuda(), mode=mode)
        torch.testing.assert_close(scores.cpu(), score_windows(leaf, cells, weight, mode=mode), rtol=5e-2, atol=5.0)
