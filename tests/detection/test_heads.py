"""The head in ONNX Runtime against float64 in NumPy and against torch."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from sppnet.backbones.engines.rounding import dense_steps
from sppnet.detection.heads import HeadEngine, head_graph
from sppnet.detection.maps import MapScale
from sppnet.detection.torch_head import TorchHead
from sppnet.detection.weights import DetectorWeights

F32 = NDArray[np.float32]
CHANNELS, BINS = 24, 21


def weights(classes: int, *, hidden: int = 40, rank: int = 16, fc7: int = 0, seed: int = 0) -> dict[str, F32]:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> F32:
        values: F32 = (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)
        return values

    last = fc7 or hidden or rank
    out = {
        "reduce_weight": some(rank, CHANNELS * BINS), "reduce_bias": some(rank),
        "fc6_weight": some(hidden, rank), "fc6_bias": some(hidden),
        "class_weight": some(classes, last), "class_bias": some(classes),
        "box_weight": some(4 * classes, last), "box_bias": some(4 * classes),
        "slope": np.ones(classes, np.float32), "offset": np.zeros(classes, np.float32),
    }  # fmt: skip
    return out | ({"fc7_weight": some(fc7, hidden), "fc7_bias": some(fc7)} if fc7 else {})


def reference(w: Mapping[str, Any], x: NDArray[Any]) -> tuple[Any, Any, Any]:
    h = x @ w["reduce_weight"].T.astype(np.float64) + w["reduce_bias"]
    for part in ("fc6", "fc7"):
        if len(w.get(f"{part}_bias", ())):
            h = np.maximum(h @ w[f"{part}_weight"].T.astype(np.float64) + w[f"{part}_bias"], 0)
    deltas = (h @ w["box_weight"].T + w["box_bias"]).reshape(len(x), -1, 4) * [0.1, 0.1, 0.2, 0.2]
    return h, h @ w["class_weight"].T + w["class_bias"], deltas


def everything(engine: HeadEngine, x: NDArray[Any]) -> tuple[F32, F32, F32]:
    features = engine.fc(x)
    return (features, *engine.scores(features))


@pytest.mark.parametrize(("classes", "hidden", "fc7"), [(1, 40, 0), (20, 40, 0), (33, 40, 24), (70, 0, 0), (8, 40, 0)])
def test_float_head(classes: int, hidden: int, fc7: int) -> None:
    w = weights(classes, hidden=hidden, fc7=fc7)
    onnx.checker.check_model(onnx.load_from_string(head_graph(w)), full_check=True)
    engine = HeadEngine(w, threads=1)
    x = np.random.default_rng(1).normal(size=(57, CHANNELS * BINS)).astype(np.float32)
    features = engine.fc(x)
    got = (features, *engine.scores(features))
    for value, expected in zip(got, reference(w, x.astype(np.float64)), strict=True):
        assert value.shape == expected.shape
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected, atol=2e-5)
    head = TorchHead(DetectorWeights(**w))
    features = head.fc(x)
    for value, expected in zip(got, (features, *head.scores(features)), strict=True):
        np.testing.assert_allclose(value, expected, atol=2e-5)
    np.testing.assert_allclose(got[2][:, 0], head.box_deltas(torch.from_numpy(features), 0).numpy(), atol=2e-5)


def quantised_input(rng: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], MapScale, NDArray[np.float64]]:
    scale = MapScale(
        np.repeat([0.05, 0.2], CHANNELS // 2).astype(np.float32), np.repeat([120, 90], CHANNELS // 2).astype(np.float32)
    )
    x = rng.integers(0, 256, (count, CHANNELS * BINS), np.uint8)
    return x, scale, (x - np.tile(scale.zero, BINS).astype(np.float64)) * np.tile(scale.step, BINS)


def test_int8_head_is_the_float_head_with_rounded_weights() -> None:
    w = weights(20)
    x, scale, values = quantised_input(np.random.default_rng(2), 60)
    onnx.checker.check_model(onnx.load_from_string(head_graph(w, scale)), full_check=True)
    got = everything(HeadEngine(w, scale, threads=1), x)

    scaled = w["reduce_weight"].astype(np.float64) * np.tile(scale.step, BINS)
    unit = dense_steps(scaled)[:, None]
    rounded: dict[str, Any] = w | {"reduce_weight": np.rint(scaled / unit) * unit / np.tile(scale.step, BINS)}
    for value, expected in zip(got, reference(rounded, values), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-5)
    exact = reference(w, values)
    assert np.linalg.norm(got[1] - exact[1]) < 0.03 * np.linalg.norm(exact[1])


def test_int8_head_at_the_extremes() -> None:
    """All bytes 0 or 255 with the largest weights: sums of pairs must not overflow on any processor."""
    w = weights(3)
    w["reduce_weight"] = np.sign(w["reduce_weight"])
    _, scale, _ = quantised_input(np.random.default_rng(2), 1)
    scale = MapScale(np.full_like(scale.step, 0.1), scale.zero)
    x: NDArray[np.uint8] = np.where(w["reduce_weight"] > 0, 255, 0).astype(np.uint8)
    values = (x - np.tile(scale.zero, BINS).astype(np.float64)) * np.tile(scale.step, BINS)
    got = HeadEngine(w, scale, threads=1).fc(x)
    np.testing.assert_allclose(got, reference(w, values)[0], 1e-5, 1e-5)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_class_is_the_same_to_the_bit_whatever_others_there_are(quantised: bool) -> None:
    w = weights(70)
    x, scale, values = quantised_input(np.random.default_rng(3), 40)
    given = x if quantised else values.astype(np.float32)
    _, margins, deltas = everything(HeadEngine(w, scale if quantised else None, threads=1), given)
    for kept in ([5], [0, 31, 32, 69], list(range(33)), list(range(69, -1, -1))):
        some = dict(w)
        for name, per_class in (("class_weight", 1), ("class_bias", 1), ("box_weight", 4), ("box_bias", 4)):
            rows = w[name].reshape(70, per_class, *w[name].shape[1:])[kept]
            some[name] = rows.reshape(len(kept) * per_class, *w[name].shape[1:])
        got = everything(HeadEngine(some, scale if quantised else None, threads=1), given)
        np.testing.assert_array_equal(got[1], margins[:, kept])
        np.testing.assert_array_equal(got[2], deltas[:, kept])


def test_no_windows() -> None:
    got = everything(HeadEngine(weights(3), threads=1), np.empty((0, CHANNELS * BINS), np.float32))
    assert [part.shape for part in got] == [(0, 40), (0, 3), (0, 3, 4)]


def test_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import sppnet.detection.detector"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
