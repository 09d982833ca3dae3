"""The operators as torch's own tools judge them, and the parts they are made of."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pooling_cases import random_cells
from sppnet import set_num_threads
from sppnet.errors import ArgumentError
from sppnet.pooling.bins import bin_edges, normalise_levels, num_bins, parents
from sppnet.pooling.pyramid import spatial_pyramid_pool
from sppnet.pooling.tensors import ops
from sppnet.pooling.tensors.pyramid import _compose
from sppnet.pooling.windows import pool_windows
from sppnet.threads import num_threads

LEVELS = [3, 3, 2, 1, 1, 1]


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_gradcheck(mode: str, rng: np.random.Generator) -> None:
    maps = [torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(1, 3, 2, 7, dtype=torch.float64)]
    cells = torch.tensor([[0, 0, 4, 5], [1, 1, 3, 2], [0, 0, 7, 2], [3, 4, 4, 5]])
    index = torch.tensor([1, 0, 2, 1])
    leaves = [m.requires_grad_() for m in maps]
    assert torch.autograd.gradcheck(lambda *m: ops.pyramid_pool(list(m), cells, index, LEVELS, mode), leaves)


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_second_derivatives(mode: str) -> None:
    maps = [torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(1, 3, 2, 7, dtype=torch.float64)]
    cells = torch.tensor([[0, 0, 4, 5], [1, 1, 3, 2], [0, 0, 7, 2], [3, 4, 4, 5]])
    index = torch.tensor([1, 0, 2, 1])
    leaves = [m.requires_grad_() for m in maps]
    assert torch.autograd.gradgradcheck(lambda *m: ops.pyramid_pool(list(m), cells, index, LEVELS, mode) ** 2, leaves)


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_a_penalty_on_gradients_is_that_of_torchs_layers(mode: str) -> None:
    """Of maps for which our kernels are taken; torch gave zero in silence."""
    torch.manual_seed(0)
    values = torch.randn(2, 16, 64, 65)
    got = []
    for ours in (True, False):
        x = values.clone().requires_grad_()
        pooled = spatial_pyramid_pool(x, (2, 1), mode) if ours else _compose(x, ((2, 2), (1, 1)), mode)
        (gradient,) = torch.autograd.grad((pooled**2).sum(), x, create_graph=True)
        got.append(torch.autograd.grad((gradient**2).sum(), x)[0])
    assert got[1].norm() > 0
    torch.testing.assert_close(got[0], got[1])


def test_forward_derivatives_are_refused() -> None:
    x = torch.randn(1, 8, 5, 6)
    with pytest.raises(ArgumentError, match="jvp"):
        torch.func.jvp(lambda m: pool_windows(m, [[0, 0, 3, 3]], (1,)), (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        with pytest.raises(ArgumentError, match="jvp"):
            pool_windows(dual, [[0, 0, 3, 3]], (1,))
        assert pool_windows(x, [[0, 0, 3, 3]], (1,)).shape == (1, 1, 8)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_any_number_of_threads_gives_the_same(mode: str, channels_last: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 64, 100, 101)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    before = num_threads()
    got = []
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            pooled = spatial_pyramid_pool(leaf, mode=mode)
            got.append((pooled.detach(), *torch.autograd.grad((pooled**2).sum(), leaf)))
    finally:
        set_num_threads(before)
    for one, two in zip(*got, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("grad", [True, False])
def test_opcheck(mode: str, grad: bool) -> None:
    maps = [torch.randn(2, 3, 5, 4, requires_grad=grad), torch.randn(1, 3, 2, 7, requires_grad=grad)]
    cells = torch.tensor([[0, 0, 4, 5], [1, 1, 3, 2], [0, 0, 7, 2]])
    index = torch.tensor([1, 0, 2])
    torch.library.opcheck(torch.ops.sppnet.pyramid_pool.default, (maps, cells, index, LEVELS, mode))
    torch.library.opcheck(torch.ops.sppnet.pyramid_pool.default, (maps[:1], cells[:2], None, LEVELS, mode))
    if not grad:
        out = torch.empty(3, 12, 3)
        torch.library.opcheck(torch.ops.sppnet.pyramid_pool_out.default, (maps, cells, index, LEVELS, mode, out))
        torch.library.opcheck(
            torch.ops.sppnet.pyramid_pool_backward.default, (torch.randn(3, 12, 3), maps, cells, index, LEVELS, mode)
        )


def test_compile_and_export_of_windows() -> None:
    def pool(features: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        return pool_windows(features, windows, (2, 1), stride=16.0, offset=3.0)

    class Pool(torch.nn.Module):
        def forward(self, features: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
            return pool(features, windows)

    features = torch.randn(1, 8, 10, 12)
    windows = torch.tensor([[0.0, 0, 100, 90], [30, 30, 31, 31], [500, 500, 600, 600]])
    expected = pool(features, windows)
    assert torch.equal(torch.compile(pool, fullgraph=True, backend="aot_eager")(features, windows), expected)
    shapes = {"features": None, "windows": {0: torch.export.Dim("windows", min=2, max=5000)}}
    program = torch.export.export(Pool(), (features, windows), dynamic_shapes=shapes)
    assert torch.equal(program.module()(features, windows[:2]), expected[:2])


@pytest.mark.parametrize("cells", [[[0, 0, 5, 1]], [[-1, 0, 1, 1]], [[2, 2, 2, 3]], [[0, 0, 1, 9]]])
def test_the_bare_operators_refuse_cells_outside_the_map(cells: list[list[int]]) -> None:
    features = [torch.zeros(1, 2, 4, 4)]
    with pytest.raises(ArgumentError, match="inside the map"):
        ops.pyramid_pool(features, torch.tensor(cells), None, LEVELS, "max")
    with pytest.raises(ArgumentError, match="inside the map"):
        ops.pyramid_pool_backward(torch.zeros(1, 12, 2), features, torch.tensor(cells), None, LEVELS, "avg")


def test_bins_are_those_of_torch_and_the_paper_counts_them_wrong() -> None:
    for n in range(1, 10):
        for length in range(1, 40):
            edges = bin_edges(length, n)
            x = torch.arange(float(length)).view(1, 1, length)
            assert [b - 1 for _, b in edges] == F.adaptive_max_pool1d(x, n).flatten().tolist()
            assert [a for a, _ in edges] == (-F.adaptive_max_pool1d(-x, n)).flatten().tolist()


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((6, 3, 2, 1), [-1, 0, 0, 2]),
        ((1, 2, 3, 6), [1, 3, 3, -1]),
        ((4, 3), [-1, -1]),
        ((2, 2), [-1, 0]),
        (((4, 6), (2, 3), (4, 1), 1), [-1, 0, 0, 2]),
    ],
)
def test_parents(levels: tuple[int, ...], expected: list[int]) -> None:
    pyramid = normalise_levels(levels)
    assert parents(pyramid) == expected
    for (rows, columns), parent in zip(pyramid, expected, strict=True):
        if parent >= 0:
            for n, m in ((rows, pyramid[parent][0]), (columns, pyramid[parent][1])):
                for length in range(1, 50):
                    fine = bin_edges(length, m)
                    step = m // n
                    tiles = [(fine[i * step][0], fine[i * step + step - 1][1]) for i in range(n)]
                    assert tiles == bin_edges(length, n)


def test_levels_of_numpy() -> None:
    for levels in (
        np.array([3, 1]),
        [np.int64(3), 1],
        [(np.int32(3), 3), (1, np.int64(1))],
        np.array([[3, 3], [1, 1]]),
    ):
        pyramid = normalise_levels(levels)  # type: ignore[arg-type]  # is taken, too
        assert pyramid == ((3, 3), (1, 1))
        assert {type(n) for level in pyramid for n in level} == {int}
    for wrong in (np.array([3.0]), np.array(3), [np.float64(2)], [True], [np.array(3)]):
        with pytest.raises(ArgumentError, match="levels: expected"):
            normalise_levels(wrong)  # type: ignore[arg-type]  # what is tested


def test_number_of_bins() -> None:
    assert num_bins((6, 3, 2, 1)) == 50
    assert num_bins(((2, 3), 1)) == 7


def test_numba_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, sppnet, sppnet.pooling.windows, sppnet.pooling.pyramid, sppnet.backbones.receptive_field;"
        "assert 'numba' not in sys.modules and 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_deterministic_in_repetition(rng: np.random.Generator) -> None:
    features = torch.randn(40, 15, 15, requires_grad=True)
    cells = random_cells(rng, 100, 15, 15)
    grads = [torch.autograd.grad(pool_windows(features, cells).sin().sum(), features)[0] for _ in range(3)]
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])
