"""The layer against torch's adaptive pooling, in the places where layers are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pooling_cases import DTYPES, LAYOUTS, random_map
from sppnet.errors import ArgumentError
from sppnet.pooling.pyramid import spatial_pyramid_pool
from sppnet.pooling.tensors import pyramid
from sppnet.pooling.tensors.layers import SpatialPyramidPool


def adaptive(x: Tensor, levels: Any, mode: str) -> Tensor:
    pool = F.adaptive_max_pool2d if mode == "max" else F.adaptive_avg_pool2d
    return torch.cat([pool(x, n).flatten(1) for n in levels], 1)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20)),
    batch=st.integers(1, 4),
    levels=st.lists(
        st.one_of(st.integers(1, 9), st.tuples(st.integers(1, 9), st.integers(1, 9))), min_size=1, max_size=4
    ),
    mode=st.sampled_from(["max", "avg"]),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    fused=st.booleans(),
)
def test_equals_adaptive_pooling(
    seed: int, size: Any, batch: int, levels: Any, mode: str, dtype: torch.dtype, layout: str, fused: bool
) -> None:
    """Both ways of computing it: the fused kernels, and the composition chosen for small maps."""
    rng = np.random.default_rng(seed)
    x = torch.stack([random_map(rng, size, dtype, layout) for _ in range(batch)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "_torch_is_faster", lambda *_: not fused)
        result = spatial_pyramid_pool(x, levels, mode)
    expected = adaptive(x, levels, mode)
    assert result.shape == expected.shape
    if mode == "max":
        assert torch.equal(result, expected)
    else:
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("mode", ["max", "avg"])
def test_ragged_lists_and_single_maps(mode: str, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "_torch_is_faster", lambda *_: not fused)
    maps = [torch.randn(6, h, w, requires_grad=True) for h, w in ((1, 1), (7, 3), (2, 13))]
    result = spatial_pyramid_pool(maps, (4, 2, 1), mode)
    expected = torch.cat([adaptive(m[None], (4, 2, 1), mode) for m in maps])
    torch.testing.assert_close(result, expected)
    grad = torch.randn_like(result)
    for a, b in zip(torch.autograd.grad(result, maps, grad), torch.autograd.grad(expected, maps, grad), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(spatial_pyramid_pool(maps[1], (4, 2, 1), mode), result[1])


@pytest.mark.parametrize("shape", [(3, 64, 40, 50), (2, 64, 3, 3)])
def test_large_and_small_batches_take_the_fast_way(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert torch.equal(spatial_pyramid_pool(x), adaptive(x, (6, 3, 2, 1), "max"))
    assert spatial_pyramid_pool(x[:0]).shape == (0, 50 * 64)


def test_in_a_network() -> None:
    pool = SpatialPyramidPool((3, 1))
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pool, nn.Linear(pool.out_features(8), 5))
    assert pool.out_features(8) == 80
    assert not pool.state_dict()
    assert "levels=((3, 3), (1, 1))" in repr(pool)
    for side in (9, 32):
        net(torch.randn(2, 3, side, side + 5)).sum().backward()
    net.load_state_dict(net.state_dict())


def test_autocast() -> None:
    pool = SpatialPyramidPool((3, 1))
    net = nn.Sequential(nn.Conv2d(3, 8, 3), pool, nn.Linear(80, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = net(torch.randn(2, 3, 40, 40))
    assert result.dtype == torch.bfloat16


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_compile_fullgraph(mode: str) -> None:
    pool = SpatialPyramidPool((3, 2, 1), mode)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    for shape in ((2, 8, 9, 7), (3, 8, 12, 5)):
        x = torch.randn(shape, requires_grad=True)
        result = compiled(x)
        torch.testing.assert_close(result, pool(x))
        (gradient,) = torch.autograd.grad(result.sum(), x)
        torch.testing.assert_close(gradient, torch.autograd.grad(pool(x).sum(), x)[0])


@pytest.mark.slow
def test_compile_with_inductor() -> None:
    net = nn.Sequential(nn.ReLU(), SpatialPyramidPool((3, 1)))
    x = torch.randn(1, 8, 9, 9)
    # Without a header compiled beforehand, and trials of what the processor can do: they take as long as the rest
    quick: dict[str, Any] = {"cpp.simdlen": 1, "cpp_cache_precompile_headers": False}
    known = {name: value for name, value in quick.items() if name in torch._inductor.list_options()}
    torch.testing.assert_close(torch.compile(net, fullgraph=True, options=known)(x), net(x))


def test_export_with_any_size() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), SpatialPyramidPool((3, 1)))
    dims = {2: torch.export.Dim("height", min=8, max=200), 3: torch.export.Dim("width", min=8, max=200)}
    program = torch.export.export(net, (torch.randn(1, 3, 20, 30),), dynamic_shapes=({**dims},))
    for size in ((20, 30), (41, 9)):
        x = torch.randn(1, 3, *size)
        torch.testing.assert_close(program.module()(x), net(x))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: spatial_pyramid_pool(torch.zeros(4, 4)), "features"),
        (lambda: spatial_pyramid_pool(torch.zeros(1, 2, 0, 4)), "features"),
        (lambda: spatial_pyramid_pool([torch.zeros(1, 2, 3, 4)]), "features"),
        (lambda: SpatialPyramidPool(()), "levels"),
        (lambda: SpatialPyramidPool((2, -1)), "levels: .*-1"),
        (lambda: SpatialPyramidPool(mode="sum"), "mode: .*max, avg.*'sum'"),
    ],
)
def test_bad_arguments_are_named(call: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        call()
