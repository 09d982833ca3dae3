"""Windows in every form that people have them: arrays of any kind, one list a map, the map's number first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sppnet
from pooling_cases import random_cells
from sppnet.errors import ArgumentError
from sppnet.pooling.bins import normalise_levels
from sppnet.pooling.reference import pool_reference
from sppnet.pooling.tensors.layers import WindowPyramidPool
from sppnet.pooling.windows import pool_windows, score_windows

LEVELS = (3, 2, 1)


def adaptive(crops: list[torch.Tensor]) -> torch.Tensor:
    """The definition by torch's own layer, window by window: ``(K, bins, C)``."""
    return torch.stack([
        torch.cat([F.adaptive_max_pool2d(crop, n).flatten(1) for n in LEVELS], 1).t() for crop in crops
    ])  # fmt: skip


def windows_of(rng: np.random.Generator, sizes: list[tuple[int, int]]) -> list[np.ndarray[Any, Any]]:
    return [random_cells(rng, count, h, w) for count, (h, w) in zip((4, 0, 7), sizes, strict=True)]


@pytest.mark.parametrize("kind", ["tensor", "array"])
@pytest.mark.parametrize("batch", [True, False])
def test_one_list_a_map_and_the_index_first(kind: str, batch: bool, rng: np.random.Generator) -> None:
    sizes = [(8, 9)] * 3 if batch else [(8, 9), (5, 5), (12, 7)]
    boxes = windows_of(rng, sizes)
    several = [torch.randn(6, h, w) for h, w in sizes]
    expected = adaptive([m[:, y0:y1, x0:x1] for m, of in zip(several, boxes, strict=True) for x0, y0, x1, y1 in of])
    index = np.repeat([0, 1, 2], [4, 0, 7])
    five = np.concatenate([index[:, None], np.concatenate(boxes)], 1)
    features: Any = torch.stack(several) if batch else several
    weight: Any = torch.randn(2, 14 * 6)
    scores: Any = F.linear(expected.flatten(1), weight)
    if kind == "array":
        features = features.numpy() if batch else [m.numpy() for m in features]
        weight, scores = weight.numpy(), scores.numpy()
    for windows in (
        boxes,
        [torch.from_numpy(b) for b in boxes],
        tuple(boxes),
        five,
        torch.from_numpy(five),
        five.tolist(),
    ):
        found = pool_windows(features, windows, LEVELS)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(score_windows(features, windows, weight, levels=LEVELS), scores, 1e-4, 1e-4)
        if kind == "tensor":
            np.testing.assert_array_equal(WindowPyramidPool(LEVELS)(features, windows), expected)
    plain = pool_windows(features, np.concatenate(boxes), LEVELS, map_index=index)
    np.testing.assert_array_equal(plain, expected)


def test_the_layer_equals_a_loop_and_the_reference(rng: np.random.Generator) -> None:
    features = torch.randn(5, 12, 16, requires_grad=True)
    pixels = torch.tensor([[0.0, 0, 255, 191], [33, 20, 97, 100], [130, 9, 131, 10]])
    cells = sppnet.pooling.windows.window_to_cells(pixels, 16, 3.0, 12, 16)
    layer = sppnet.WindowPyramidPool(LEVELS, stride=16, offset=3.0)
    found = layer(features, pixels)
    assert torch.equal(found, adaptive([features[:, y0:y1, x0:x1] for x0, y0, x1, y1 in cells.tolist()]))
    expected = pool_reference(features.detach().numpy(), cells.numpy(), normalise_levels(LEVELS))
    np.testing.assert_array_equal(found.detach(), expected)
    found.sum().backward()
    assert features.grad is not None
    assert features.grad.sum() == 3 * 14 * 5
    assert list(layer.parameters()) == []
    assert layer.out_features(5) == found[0].numel()
    assert repr(layer).startswith("WindowPyramidPool(levels=((3, 3), (2, 2), (1, 1)), mode='max', stride=(16.0, 16.0)")
    network = torch.nn.ModuleList([layer])
    assert torch.equal(network[0](features[None], [pixels]), found)
    for wrong in ({"levels": (0,)}, {"mode": "mean"}, {"stride": 0}, {"offset": float("nan")}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            WindowPyramidPool(**wrong)


@pytest.mark.parametrize("form", ["list", "five"])
def test_forms_in_compiled_code(form: str, rng: np.random.Generator) -> None:
    features = torch.randn(2, 5, 8, 9)
    boxes = [torch.from_numpy(random_cells(rng, n, 8, 9)) for n in (3, 4)]
    five = torch.cat([torch.cat([torch.full((len(b), 1), i), b], 1) for i, b in enumerate(boxes)])
    windows: Any = boxes if form == "list" else five
    layer = WindowPyramidPool(LEVELS)
    compiled: Any = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(features, windows), layer(features, windows))


def test_boxes_of_any_kind(rng: np.random.Generator) -> None:
    features = torch.randn(4, 9, 9)
    cells = random_cells(rng, 6, 9, 9)
    expected = pool_windows(features, cells, LEVELS)
    read_only = cells.astype(np.float32)
    read_only.flags.writeable = False
    strange: list[Any] = [
        cells[::-1, ::-1].copy()[::-1, ::-1],
        read_only,
        np.asfortranarray(cells),
        cells.astype(">i4"),
        cells.astype(np.uint8),
        torch.from_numpy(cells).to(torch.bfloat16),
        torch.from_numpy(cells).double().requires_grad_(),
        torch.nn.Parameter(torch.from_numpy(cells).float()),
        [tuple(map(float, row)) for row in cells.tolist()],
        [torch.tensor(row) for row in cells.tolist()],
        list(cells),
    ]
    for windows in strange:
        assert torch.equal(pool_windows(features, windows, LEVELS), expected)
    for windows in strange[:5]:
        np.testing.assert_array_equal(pool_windows(features.numpy(), windows, LEVELS), expected)
    index = np.zeros(12, np.int32)[::-2]
    index.flags.writeable = False
    assert torch.equal(pool_windows(features[None], cells, LEVELS, map_index=index), expected)


NUMBERS = [16, 16.0, np.float32(16), np.int64(16), np.array(16.0), torch.tensor(16.0)]


@pytest.mark.parametrize(
    "stride", [*NUMBERS, (16, 16), [np.float32(16), 16], np.array([16, 16]), torch.tensor([16, 16])]
)
def test_strides_of_any_kind(stride: Any) -> None:
    features = torch.randn(4, 9, 9)
    pixels = [[0, 0, 100, 100], [30, 20, 140, 90]]
    expected = pool_windows(features, pixels, LEVELS, stride=16.0, offset=0.0)
    assert torch.equal(pool_windows(features, pixels, LEVELS, stride=stride, offset=np.float32(0)), expected)
    assert (pool_windows(features.numpy(), pixels, LEVELS, stride=stride, offset=np.array(0)) == expected.numpy()).all()


GOOD = torch.zeros(2, 4, 4)
PAIR = torch.zeros(2, 2, 4, 4)
BOX = np.array([[0, 0, 1, 1]])
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("features", [GOOD, GOOD.numpy()])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 16, "offset": NAN}, "offset: .*finite"),
        ({"offset": NAN}, "offset: .*finite"),
        ({"stride": 16, "offset": (0, INF)}, "offset: .*finite"),
        ({"stride": NAN}, "stride: .*finite"),
        ({"stride": INF}, "stride: .*finite"),
        ({"stride": np.array(-1.0)}, "stride: .*> 0"),
        ({"stride": "16"}, "stride"),
        ({"stride": 1j}, "stride"),
        ({"stride": np.zeros((2, 2))}, "stride"),
        ({"stride": {}}, "stride"),
        ({"stride": (16, None)}, "stride: .*number or"),
    ],
)
def test_wrong_strides_and_offsets_are_named(features: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        pool_windows(features, BOX, **options)


@pytest.mark.parametrize("features", [PAIR, PAIR.numpy()])
@pytest.mark.parametrize(
    ("windows", "index", "words"),
    [
        ([BOX], None, "windows: .*each of 2 maps, got a list of 1"),
        ([BOX, BOX, BOX], None, "windows: .*list of 3"),
        ([BOX, BOX], [0, 1], "map_index: .*None"),
        ([BOX, np.zeros((2, 5))], None, r"windows: .*entry 1 .*\(2, 5\)"),
        (np.zeros((2, 5)), [0, 1], "map_index: .*None"),
        ([[0.5, 0, 0, 1, 1]], None, "windows: row 0: .*0.5"),
        ([[2, 0, 0, 1, 1]], None, "map_index: .*0 to 1"),
        ([[-1, 0, 0, 1, 1]], None, "map_index: .*-1"),
        ([[NAN, 0, 0, 1, 1]], None, "windows: row 0 is not finite"),
    ],
)
def test_wrong_forms_are_named(features: Any, windows: Any, index: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        pool_windows(features, windows, map_index=index)


def test_overlapping_results_are_refused(rng: np.random.Generator) -> None:
    """Two elements of ``out`` in one place: what is there afterwards would depend on the order of writing."""
    features = torch.randn(4, 9, 9)
    cells = random_cells(rng, 3, 9, 9)
    memory = torch.zeros(1000)
    for strides in ((0, 4, 1), (20, 0, 1), (20, 3, 1), (19, 4, 1), (4, 4, 1)):
        with pytest.raises(ArgumentError, match=r"out: .*overlap"):
            pool_windows(features, cells, (2, 1), out=memory.as_strided((3, 5, 4), strides))
        view = np.lib.stride_tricks.as_strided(memory.numpy(), (3, 5, 4), [4 * s for s in strides])
        with pytest.raises(ArgumentError, match=r"out: .*overlap"):
            pool_windows(features.numpy(), cells, (2, 1), out=view)
    for strides in ((20, 4, 1), (4, 12, 1), (33, 5, 1)):  # windows innermost are fine too
        out = memory.as_strided((3, 5, 4), strides)
        assert torch.equal(pool_windows(features, cells, (2, 1), out=out), pool_windows(features, cells, (2, 1)))
    with pytest.raises(ArgumentError, match=r"out: .*overlap"):
        score_windows(features, cells, torch.zeros(7, 20), levels=(2, 1), out=memory.as_strided((3, 7), (0, 1)))
    with pytest.raises(ArgumentError, match=r"out: .*part of the maps"):
        pool_windows(memory[:324].view(4, 9, 9), cells, (2, 1), out=memory[300:360].view(3, 5, 4))


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_autocast_changes_nothing(mode: str, rng: np.random.Generator) -> None:
    features, cells = torch.randn(40, 9, 13), random_cells(rng, 100, 9, 13)
    leaf = features.clone().requires_grad_()

    def all_results() -> list[torch.Tensor]:
        pooled = pool_windows(leaf, cells, LEVELS, mode)
        scored = [score_windows(features, cells, w, w[:, 0].contiguous(), LEVELS, mode) for w in weights]
        with_gradient = score_windows(leaf, cells, weights[0], None, LEVELS, mode)
        gradient = torch.autograd.grad(pooled.square().sum(), leaf)[0]
        whole = sppnet.spatial_pyramid_pool(features, LEVELS, mode)
        return [pooled, *scored, with_gradient, gradient, whole, layer(features, cells)]

    weights = [torch.randn(outputs, 14 * 40) for outputs in (5, 70)]
    layer = WindowPyramidPool(LEVELS, mode)
    expected = all_results()
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            found = all_results()
            assert torch.is_autocast_enabled("cpu")
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == torch.float32
            assert torch.equal(a, b)
