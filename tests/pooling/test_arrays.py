"""NumPy arrays are pooled as tensors are, without torch; integer maps exactly."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pooling_cases import random_cells
from sppnet.errors import ArgumentError
from sppnet.pooling.bins import normalise_levels, num_bins
from sppnet.pooling.pyramid import spatial_pyramid_pool
from sppnet.pooling.reference import pool_reference
from sppnet.pooling.windows import pool_windows, score_windows

LEVELS = ((6, 3), 3, 2, 1)
DTYPES = ["int8", "uint8", "float16", "float32", "float64"]
LAYOUTS = ["first", "last", "strided", "expanded", "reversed", "swapped", "misaligned"]


def array_map(rng: np.random.Generator, shape: tuple[int, int, int], dtype: str, layout: str) -> NDArray[Any]:
    """``(C, H, W)`` of the whole range of an integer, or of both signs, lying in memory in some way."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = rng.standard_normal(shape).astype(kind)
    else:
        limits = np.iinfo(kind)
        values = rng.integers(limits.min, limits.max + 1, shape).astype(kind)
    if layout == "last":
        return np.ascontiguousarray(values.transpose(1, 2, 0)).transpose(2, 0, 1)
    if layout == "strided":
        big = np.zeros((2 * shape[0], shape[1], shape[2] + 3), kind)
        big[::2, :, 1 : shape[2] + 1] = values
        return big[::2, :, 1 : shape[2] + 1]
    if layout == "expanded":
        return np.broadcast_to(values[:, :1], shape)
    if layout == "reversed":
        return values[::-1, :, ::-1]
    if layout == "swapped":
        return values.astype(kind.newbyteorder())
    if layout == "misaligned":
        memory = np.zeros(values.nbytes + 1, np.uint8)
        memory[1:] = np.frombuffer(values.tobytes(), np.uint8)
        return memory[1:].view(kind).reshape(shape)
    return values


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 5, 128, 150])
def test_maxima_equal_the_reference(dtype: str, layout: str, channels: int, rng: np.random.Generator) -> None:
    features = array_map(rng, (channels, 9, 14), dtype, layout)
    features.flags.writeable = False
    cells = random_cells(rng, 30, 9, 14)
    found = pool_windows(features, cells, LEVELS)
    assert found.dtype == np.dtype(dtype)
    expected = pool_reference(features, cells, normalise_levels(LEVELS))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("layout", ["first", "last", "strided"])
def test_arrays_and_tensors_give_the_same_bits(dtype: str, mode: str, layout: str, rng: np.random.Generator) -> None:
    features = array_map(rng, (40, 12, 15), dtype, layout)
    windows = rng.uniform(-30, 250, (50, 4))
    options: dict[str, Any] = {"stride": (16, 15.5), "offset": 3.5}
    found = pool_windows(features, windows, LEVELS, mode, **options)
    theirs = pool_windows(torch.from_numpy(features), windows, LEVELS, mode, **options)
    assert isinstance(found, np.ndarray)
    assert isinstance(theirs, torch.Tensor)
    np.testing.assert_array_equal(found, theirs.numpy())
    batch = [features, features[:, :7, :9]]
    index = rng.integers(0, 2, 50)
    found = pool_windows(batch, windows, LEVELS, mode, map_index=index, **options)
    theirs = pool_windows([torch.from_numpy(m) for m in batch], windows, LEVELS, mode, map_index=index, **options)
    np.testing.assert_array_equal(found, theirs.numpy())
    if dtype != "float16":
        for outputs in (3, 70):
            weight, bias = (rng.standard_normal(s).astype(dtype) for s in ((outputs, 40 * num_bins(LEVELS)), outputs))
            scores = score_windows(features, windows, weight, bias, LEVELS, mode, **options)
            tensors: Any = [torch.from_numpy(a) for a in (features, windows, weight, bias)]
            theirs = score(*tensors, LEVELS, mode, **options)
            np.testing.assert_allclose(scores, theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_integer_tensors(dtype: torch.dtype, rng: np.random.Generator) -> None:
    features = array_map(rng, (150, 20, 30), str(dtype).removeprefix("torch."), "last")
    cells = random_cells(rng, 400, 20, 30)
    result = pool_windows(torch.from_numpy(features), cells)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result.numpy(), pool_windows(features, cells))
    vectors = spatial_pyramid_pool(torch.from_numpy(features))
    np.testing.assert_array_equal(vectors.numpy(), spatial_pyramid_pool(features))
    # A maximum commutes with a monotone scale: pooled integers are those of the pooled floats.
    np.testing.assert_array_equal(result.float() * 0.25, pool_windows(torch.from_numpy(features).float() * 0.25, cells))


def test_large_integer_results(rng: np.random.Generator) -> None:
    """Above 16 MB they are stored past the cache."""
    features = array_map(rng, (256, 12, 12), "int8", "last")
    cells = random_cells(rng, 2000, 12, 12)
    result = pool_windows(features, cells)
    assert result.nbytes > 16 << 20
    assert result.ctypes.data % 64 == 0
    np.testing.assert_array_equal(result[-9:], pool_windows(features, cells[-9:]))


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_whole_maps(mode: str, rng: np.random.Generator) -> None:
    maps = [array_map(rng, (6, h, w), "float32", "first") for h, w in ((4, 5), (9, 2))]
    tensors = [torch.from_numpy(m) for m in maps]
    np.testing.assert_allclose(spatial_pyramid_pool(maps, mode=mode), spatial_pyramid_pool(tensors, mode=mode), 1e-5)
    assert spatial_pyramid_pool(maps[0], mode=mode).shape == (300,)
    assert spatial_pyramid_pool(maps[0][None], mode=mode).shape == (1, 300)
    assert spatial_pyramid_pool(maps[0][None][:0], mode=mode).shape == (0, 300)


def test_into_a_given_array(rng: np.random.Generator) -> None:
    features = array_map(rng, (32, 9, 9), "float32", "last")
    cells = random_cells(rng, 20, 9, 9)
    expected = pool_windows(features, cells, (2, 1))
    memory = np.full((20, 5, 40), 7, np.float32)
    out = memory[:, :, :32]
    assert pool_windows(features, cells, (2, 1), out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert (memory[:, :, 32:] == 7).all()
    weight = rng.standard_normal((3, 160)).astype(np.float32)
    scores = np.empty((20, 3), np.float32)
    assert score_windows(features, cells, weight, levels=(2, 1), out=scores) is scores
    np.testing.assert_allclose(scores, expected.reshape(20, -1) @ weight.T, rtol=1e-4, atol=1e-4)


def test_no_windows() -> None:
    features = np.zeros((5, 4, 4), np.int8)
    for empty in ([], np.zeros((0, 4)), torch.zeros(0, 4), np.zeros((0, 5)), [np.zeros((0, 4))]):
        assert pool_windows(features, empty).shape == (0, 50, 5)
    assert score_windows(features.astype(np.float32), [], np.zeros((3, 250), np.float32)).shape == (0, 3)


GOOD = np.zeros((2, 4, 4), np.float32)
pool: Any = pool_windows
score: Any = score_windows
BOX = [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pool(GOOD[0], BOX), r"features: .*\(4, 4\)"),
        (lambda: pool(GOOD[None][:0], BOX, map_index=[0]), "map_index: .*0 maps|features: .*none"),
        (lambda: pool([GOOD, GOOD[:1]], BOX, map_index=[0]), "features: .*2 channels.*1 channels"),
        (lambda: pool([GOOD, GOOD.astype(np.int8)], BOX, map_index=[0]), "features: .*float32.*int8"),
        (lambda: pool(GOOD.astype(complex), BOX), "features: .*complex128"),
        (lambda: pool(GOOD.astype(np.int8), BOX, mode="avg"), "mode: .*int8.*convert"),
        (lambda: pool(torch.zeros(2, 4, 4, dtype=torch.int8), BOX, mode="avg"), "int8.*convert"),
        (lambda: score(GOOD.astype(np.int8), BOX, np.zeros((1, 100), np.int8)), "features: expected floats"),
        (lambda: pool([GOOD, GOOD], BOX), "map_index: .*2 maps"),
        (lambda: pool([GOOD, GOOD], BOX, map_index=[2]), "map_index: .*0 to 1"),
        (lambda: pool([GOOD, GOOD], BOX, map_index=[0.5]), "map_index: .*float64"),
        (lambda: pool(GOOD, BOX, out=np.zeros((1, 50, 3), np.float32)), r"out: .*\(1, 50, 2\)"),
        (lambda: pool(GOOD, BOX, out=np.zeros((1, 50, 2))), "out: .*float32, got float64"),
        (lambda: pool(GOOD, BOX, out=torch.zeros(1, 50, 2)), "out: .*got Tensor"),
        (lambda: pool(torch.zeros(2, 4, 4), BOX, out=np.zeros((1, 50, 2))), "out: .*got ndarray"),
        (lambda: pool(GOOD, BOX, out=np.broadcast_to(np.float32(0), (1, 50, 2))), "out: .*written"),
        (lambda: pool(GOOD, BOX, (1,), out=GOOD[0, :1, :2][None]), "out: .*part of the maps"),
        (lambda: score(GOOD, BOX, np.zeros((3, 99), np.float32)), r"weight: .*\(O, 100\)"),
        (lambda: score(GOOD, BOX, "weights"), "weight: .*str"),
        (lambda: score(GOOD, BOX, np.zeros((3, 100), np.float32), np.zeros(3)), r"bias: .*\(3,\)"),
    ],
)
def test_bad_arguments_are_named(call: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        call()


_WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "triton", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import numpy as np, sppnet
from sppnet.errors import ArgumentError
features = np.arange(3 * 20 * 30, dtype=np.float32).reshape(3, 20, 30)
print(sppnet.pool_windows(features, [[0, 0, 300, 200]], (2, 1), stride=16).sum())
print(sppnet.pool_windows(features.astype(np.int8), [[0, 0, 30, 20]], (1,)).tolist())
print(sppnet.score_windows(features, [[0, 0, 30, 20]], np.ones((1, 3), np.float32), levels=(1,)).tolist())
print(sppnet.spatial_pyramid_pool(features, (1,)).tolist())
image = (np.arange(60 * 80 * 3) * 7 % 251).astype(np.uint8).reshape(60, 80, 3)
print(sppnet.selective_search(image).shape, sppnet.GridProposer()(image).shape, sppnet.graph_segmentation(image).max())
try:
    sppnet.pool_windows([[1.0]], [[0, 0, 1, 1]])
except ArgumentError as error:
    print(error)
print(any(name.partition(".")[0] == "torch" for name in sys.modules))
"""


def test_torch_is_not_needed() -> None:
    """Where it can't be imported, arrays are pooled and windows are found; the results are those with torch."""
    done = subprocess.run([sys.executable, "-c", _WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    features = torch.arange(3 * 20 * 30.0).view(3, 20, 30)
    assert float(lines[0]) == pool_windows(features, [[0, 0, 300, 200]], (2, 1), stride=16).sum()
    assert lines[1] == "[[[127, 127, 127]]]"
    assert lines[2] == f"[[{599.0 + 1199 + 1799}]]"
    assert lines[3] == "[599.0, 1199.0, 1799.0]"
    assert "list (torch is not installed)" in lines[5]
    assert lines[6] == "False"
