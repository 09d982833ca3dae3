"""Exported detectors in ONNX Runtime, against the detector's own numbers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from PIL import Image
from skimage import data

from sppnet import ArgumentError, FeatureOptions, NotFittedError, SPPDetector, SuppressionOptions, export_onnx
from sppnet._types import F32, U8
from sppnet.backbones.engines.load import load_engine
from sppnet.boxes import decode_deltas, nms
from sppnet.detection.features import TARGET_AREA, input_size
from sppnet.detection.heads import HeadEngine
from sppnet.detection.maps import ImageMaps
from sppnet.detection.weights import DetectorWeights
from sppnet.export.windows import agrees
from sppnet.pooling.bins import bin_edges

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("cat", "cup", "dög")
# Both compute the same in float32, in another order here and there: pixels, and probabilities
BOX_PX, PROBABILITY = 2e-3, 1e-5


def make_detector(**features: Any) -> SPPDetector:
    """A detector of random weights that scores windows differently and moves them."""
    options = FeatureOptions(**({"levels": (4, 2, 1), "short_sides_px": (96, 176)} | features))
    detector = SPPDetector(features=options, suppression=SuppressionOptions(nms_iou=0.4))
    dims, rng = detector.window_features().dims, np.random.default_rng(0)

    def some(scale: float, *shape: int) -> F32:
        return (rng.normal(size=shape) * scale).astype(np.float32)

    detector.weights_ = DetectorWeights(
        reduce_weight=some(0.004, 24, dims),
        reduce_bias=some(0.1, 24),
        fc6_weight=some(0.3, 48, 24),
        fc6_bias=some(0.1, 48),
        class_weight=some(0.1, len(NAMES), 48),
        class_bias=some(0.1, len(NAMES)),
        box_weight=some(0.1, len(NAMES) * 4, 48),
        box_bias=some(0.1, len(NAMES) * 4),
        slope=np.array([1.5, 0.7, 1], np.float32),
        offset=np.array([0, -0.5, 0.25], np.float32),
    )
    detector.class_names_ = NAMES
    detector.metadata_ = {"thresholds": {"cat": 0.8}}
    return detector


def open_file(content: bytes | Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content if isinstance(content, bytes) else str(content), options)


class Exported:
    """An exported detector that also gives the resized images and the pooled windows."""

    def __init__(self, detector: SPPDetector, path: Path) -> None:
        self.detector = detector
        (written,) = export_onnx(detector, path)
        model = onnx.load(written)
        onnx.checker.check_model(model, full_check=True)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
        first = next(n for n in model.graph.node if "reduce.weight" in n.input)
        self.pixels = [f"scale{i}.image" for i in range(len(detector.features.short_sides_px))]
        self.outputs = ["boxes", "scores", first.input[0], *self.pixels]
        dtype = detector.window_features().quantised
        kinds = [onnx.TensorProto.FLOAT if dtype is None else onnx.TensorProto.UINT8]
        kinds += [onnx.TensorProto.UINT8] * len(self.pixels)
        for name, kind in zip(self.outputs[2:], kinds, strict=True):
            model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
        self.session = open_file(model.SerializeToString())

    def check(self, image: U8, windows: F32) -> None:
        """Compare all that comes out with what the detector makes of the same resized pixels."""
        found = self.session.run(self.outputs, {"image": image[None], "windows": windows})
        boxes, scores, pooled, pixels = found[0], found[1], found[2], found[3:]
        features, weights = self.detector.window_features(), self.detector.weights_
        (height, width), maps, scales = image.shape[:2], [], []
        for resized, by_pillow in zip(pixels, features.inputs(image), strict=True):
            (h, w), found = by_pillow.shape[:2], resized[0].astype(int)
            assert found.shape == by_pillow.shape
            assert np.abs(found - by_pillow).max() <= 1
            maps.append(np.asarray(features.engine(resized[0])).transpose(2, 0, 1))
            scales.append((w / width, h / height))
        known = ImageMaps(tuple(maps), np.array(scales, np.float32), height, width, features.quantised)
        vectors = np.asarray(features.pool(known, windows))
        assert pooled.dtype == vectors.dtype
        if features.quantised is not None:
            np.testing.assert_array_equal(pooled, vectors)
        else:
            assert vectors.min(initial=-1) < 0  # maps are signed
            np.testing.assert_allclose(pooled, vectors, rtol=1e-4, atol=1e-4)
        head = HeadEngine(weights.arrays(), features.quantised, threads=1)
        margins, deltas = head.scores(head.fc(vectors))
        limit = np.array([width, height] * 2, np.float32)
        loose = 1 if features.quantised is not None else 5  # sums of float32 convolutions
        np.testing.assert_allclose(boxes, np.clip(decode_deltas(windows, deltas), 0, limit), atol=loose * BOX_PX)
        for c in range(weights.classes):
            one = (1 / (1 + np.exp(-np.ascontiguousarray(margins[:, c])))).astype(np.float32)
            np.testing.assert_allclose(scores[:, c], weights.probability(one, c), atol=loose * PROBABILITY)


def odd_windows(height: int, width: int) -> F32:
    """Windows of every kind, for an image of that size."""
    h, w = height, width
    kinds = [
        [0, 0, w, h], [w / 4, h / 4, w / 2, h / 2], [0, 0, 1, 1], [w / 2, 0, w / 2 + 1, h], [0, h / 2, w, h / 2 + 1],
        [w - 1, h - 1, w, h], [-50, -60, -10, -5], [w + 10, h + 10, w + 90, h + 50], [-100, -100, w + 100, h + 100],
        [w / 2, h / 2, w / 2, h / 2], [w, h, 0, 0], [15.5, 15.5, 31.5, 31.5], [1e6, 1e6, 2e6, 2e6],
    ]  # fmt: skip
    rng = np.random.default_rng(h * 1000 + w)
    corner, size = rng.uniform(0, 1, (40, 2)) * [w, h], rng.uniform(0, 1, (40, 2)) * [w, h]
    return np.concatenate([np.array(kinds), np.concatenate([corner, corner + size], 1)]).astype(np.float32)


def unambiguous(detector: SPPDetector, image: U8, windows: F32) -> F32:
    """Without windows that lie between two scales: a last bit of a logarithm decides about those."""
    features = detector.window_features()
    (height, width), factors = image.shape[:2], []
    for side in features.short_sides_px:
        h, w = input_size(height, width, side, round(side * features.max_long_ratio), features.engine.size_multiple)
        factors.append(h * w / height / width)
    area = (windows[:, 2:] - windows[:, :2]).astype(np.float64).prod(1)
    distance = np.sort(np.abs(np.log(np.maximum(area[:, None] * factors, 1) / TARGET_AREA)), 1)
    gap = np.diff(distance[:, :2], axis=1).min(1, initial=1.0)
    clear: F32 = windows[(gap == 0) | (gap > 1e-4)]
    return clear


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(make_detector(), tmp_path_factory.mktemp("small") / "small.onnx")


KINDS: list[dict[str, Any]] = [
    {"precision": "float32"},
    {"precision": "int8", "levels": (6, 3, 2, 1), "short_sides_px": (128,)},
    {"precision": "float32", "levels": (7, 1, 5), "short_sides_px": (64, 96, 128)},
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_is_the_detector(kind: dict[str, Any], tmp_path: Path) -> None:
    exported = Exported(make_detector(**kind), tmp_path / "detector.onnx")
    for image in (data.chelsea(), data.coffee()[:333, :222], data.rocket()[:1, :1], data.astronaut()[:5, :400]):
        windows = odd_windows(*image.shape[:2])
        exported.check(image, unambiguous(exported.detector, image, windows))


def test_sizes_of_images(small: Exported) -> None:
    image = data.astronaut()
    for height, width in ((1, 1), (1, 90), (200, 3), (97, 161), (512, 512)):
        part = np.ascontiguousarray(image[:height, :width])
        small.check(part, unambiguous(small.detector, part, odd_windows(height, width)))
    rng = np.random.default_rng(0)  # far larger than both scales, or than one: means of blocks come first
    for height, width in ((2000, 3000), (1001, 399), (5, 5000)):
        part = np.clip(np.resize(image, (height, width, 3)) + rng.integers(-9, 9, (height, width, 3)), 0, 255)
        part = part.astype(np.uint8)
        small.check(part, unambiguous(small.detector, part, odd_windows(height, width)))
    small.check(image, np.zeros((0, 4), np.float32))
    small.check(image, np.array([[10, 20, 100, 200]], np.float32))


EDGES = st.floats(-700, 1500, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(EDGES, EDGES, EDGES, EDGES), min_size=1, max_size=30))
def test_any_windows(small: Exported, windows: list[tuple[float, ...]]) -> None:
    image = data.chelsea()[:130, :210]
    small.check(image, unambiguous(small.detector, image, np.array(windows, np.float32)))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 13, 49, 64])
def test_levels_that_maxroipool_has(n: int) -> None:
    """Where its bins are said to be ours they are: positions are pooled, so that a bin shows its last cell."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MaxRoiPool", ["x", "r"], ["y"], pooled_shape=[1, n])],
            "g",
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xr"],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    session, wide = open_file(model.SerializeToString()), 300
    place = np.arange(wide, dtype=np.float32)
    maps = np.stack([place, -place]).reshape(1, 2, 1, wide)
    right = []
    for length in range(1, 201):
        pooled = session.run(None, {"x": maps, "r": np.array([[0, 7, 0, 6 + length, 0]], np.float32)})[0][0, :, 0]
        edges = np.array(bin_edges(length, n)) + 7
        right.append(np.array_equal(pooled[0], edges[:, 1] - 1) and np.array_equal(-pooled[1], edges[:, 0]))
    assert agrees(n, 200) == all(right)
    assert agrees(n, 200) or n > 6


@pytest.mark.slow
def test_is_what_detect_finds(tmp_path: Path) -> None:
    """The shipped detector, on images: Resize is a level away from Pillow here and there, and no more."""
    detector = SPPDetector.load()
    (path,) = export_onnx(detector, tmp_path / "detector.onnx", suppression=True)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session, image = open_file(path), data.chelsea()
    windows = detector.propose(image)[:400]
    boxes, scores, kinds = session.run(["boxes", "scores", "class_ids"], {"image": image[None], "windows": windows})
    plain = detector.set_params(
        suppression=SuppressionOptions(
            nms_iou=detector.suppression.nms_iou, soft_sigma=0, refinements=0, box_voting=False
        )
    )
    found = plain.detect_windows(plain.feature_maps(image), windows)
    shown = scores >= np.array([*plain.thresholds_.values()], np.float32)[kinds]
    assert kinds[shown].tolist() == found.class_id.tolist() == [plain.class_names_.index("cat")]
    np.testing.assert_allclose(scores[shown], found.confidence, atol=0.005)
    np.testing.assert_allclose(boxes[shown], found.xyxy, atol=2)


@pytest.mark.slow
def test_is_the_detector_on_a_large_image(tmp_path: Path) -> None:
    """The cat, 3000 pixels high: boxes are as near, for their size, as those of the small image."""
    detector = SPPDetector.load().set_params(features__precision="float32")
    session = open_file(export_onnx(detector, tmp_path / "detector.onnx")[0])
    image = np.asarray(Image.fromarray(data.chelsea()).resize((4510, 3000), Image.Resampling.BICUBIC))
    image = image // 2 + np.random.default_rng(0).integers(0, 20, image.shape, np.uint8)
    rng = np.random.default_rng(1)
    corner, size = rng.uniform(0, 0.6, (40, 2)), rng.uniform(0.05, 0.4, (40, 2))
    place = (np.concatenate([corner, corner + size], 1) * ([4510, 3000] * 2)).astype(np.float32)
    windows = unambiguous(detector, image, place)
    boxes, scores = session.run(["boxes", "scores"], {"image": image[None], "windows": windows})
    features, weights = detector.window_features(), detector.weights_
    head = HeadEngine(weights.arrays(), features.quantised, threads=1)
    margins, deltas = head.scores(head.fc(np.asarray(features.pool(features.maps(image), windows))))
    limit = np.array([4510, 3000] * 2, np.float32)
    np.testing.assert_allclose(boxes, np.clip(decode_deltas(windows, deltas), 0, limit), atol=3)
    for c in range(weights.classes):
        one = (1 / (1 + np.exp(-np.ascontiguousarray(margins[:, c])))).astype(np.float32)
        np.testing.assert_allclose(scores[:, c], weights.probability(one, c), atol=0.003)


def test_suppression_of_each_class(small: Exported, tmp_path: Path) -> None:
    (path,) = export_onnx(small.detector, tmp_path / "d.onnx", suppression=True)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session, image = open_file(path), data.coffee()
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 120, (300, 2))
    windows = np.concatenate([corner, corner + rng.uniform(90, 200, (300, 2))], 1).astype(np.float32)
    none = [[-900, -900, -700, -700], [2000, 0, 2300, 200], [0, 5000, 90, 5090], [200, 200, 20, 10], [50, 50, 50, 90]]
    windows = np.concatenate([windows, np.array(none, np.float32)])
    inputs = {"image": image[None], "windows": windows}
    boxes, scores = small.session.run(["boxes", "scores"], inputs)
    expected = []
    for c in range(len(NAMES)):
        (there,) = np.nonzero((boxes[:, c, 2:] > boxes[:, c, :2]).all(1))
        kept = there[nms(boxes[there, c], scores[there, c], 0.4)[:100]]
        expected += [(-scores[k, c], c, *boxes[k, c]) for k in kept]
    rows = np.array(sorted(expected))
    assert 10 < len(rows) < 290
    assert ((boxes[300:, :, 2:] <= boxes[300:, :, :2]).any(2)).all()  # clipped away, or reversed, and left out
    found = session.run(["boxes", "scores", "class_ids"], inputs)
    assert [o.name for o in session.get_outputs()] == ["boxes", "scores", "class_ids"]
    np.testing.assert_array_equal(found[0], rows[:, 2:].astype(np.float32))
    np.testing.assert_array_equal(found[1], -rows[:, 0].astype(np.float32))
    np.testing.assert_array_equal(found[2], rows[:, 1].astype(np.int64))
    for few in (np.zeros((0, 4), np.float32), np.array(none, np.float32)):
        nothing = session.run(None, inputs | {"windows": few})
        assert [v.shape for v in nothing] == [(0, 4), (0,), (0,)]


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_parts(precision: str, tmp_path: Path) -> None:
    detector = make_detector(precision=precision, levels=(2, 1))
    paths = export_onnx(detector, tmp_path / "d.onnx", parts=True)
    assert [p.name for p in paths] == ["d-convolutions.onnx", "d-head.onnx"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d-convolutions.onnx", "d-head.onnx"]
    for path in paths:
        onnx.checker.check_model(onnx.load(path), full_check=True)
    convolutions, head = map(open_file, paths)
    features, weights = detector.window_features(), detector.weights_
    image = np.ascontiguousarray(data.chelsea()[:96, :160])
    (found,) = convolutions.run(None, {"image": image[None]})
    np.testing.assert_array_equal(found[0], np.asarray(features.engine(image)))
    windows = odd_windows(300, 451)
    maps = detector.feature_maps(data.chelsea())
    pooled = np.asarray(features.pool(maps, windows))
    boxes, scores = head.run(["boxes", "scores"], {"pooled": pooled, "windows": windows})
    engine = HeadEngine(weights.arrays(), features.quantised, threads=1)
    margins, deltas = engine.scores(engine.fc(pooled))
    np.testing.assert_allclose(boxes, decode_deltas(windows, deltas), rtol=1e-5, atol=BOX_PX)
    for c in range(weights.classes):
        one = (1 / (1 + np.exp(-np.ascontiguousarray(margins[:, c])))).astype(np.float32)
        np.testing.assert_allclose(scores[:, c], weights.probability(one, c), atol=PROBABILITY)
    about = head.get_modelmeta().custom_metadata_map
    assert json.loads(about["levels"]) == [2, 1]
    assert export_onnx(detector, tmp_path / "d.onnx", parts=True) == paths  # our own are replaced


def test_metadata_and_bytes(small: Exported, tmp_path: Path) -> None:
    about = small.session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list(NAMES)
    assert json.loads(about["thresholds"]) == [0.8, 0.5, 0.5]
    assert json.loads(about["short_sides_px"]) == [96, 176]
    (one,) = export_onnx(small.detector, tmp_path / "one.ONNX")
    (two,) = export_onnx(small.detector, tmp_path / "a" / "two.onnx")
    assert one.read_bytes() == two.read_bytes()
    # weights are there once, though the convolutions run twice
    assert one.stat().st_size < 1.15 * (make_single(tmp_path).stat().st_size)


def make_single(folder: Path) -> Path:
    (path,) = export_onnx(make_detector(short_sides_px=(96,)), folder / "single.onnx")
    return path


def test_what_is_refused(small: Exported, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"ends in \.onnx"):
        export_onnx(small.detector, tmp_path / "d.safetensors")
    with pytest.raises(ArgumentError, match="leave out suppression or parts"):
        export_onnx(small.detector, tmp_path / "d.onnx", suppression=True, parts=True)
    with pytest.raises(NotFittedError, match="not trained"):
        export_onnx(SPPDetector(), tmp_path / "d.onnx")
    cuts = make_detector().set_params(features__method="rcnn")
    with pytest.raises(ArgumentError, match="rcnn"):
        export_onnx(cuts, tmp_path / "d.onnx")
    mine = tmp_path / "d-head.onnx"
    mine.write_bytes(b"mine")
    with pytest.raises(ArgumentError, match="was not written by sppnet"):
        export_onnx(small.detector, tmp_path / "d.onnx", parts=True)
    assert [p.name for p in tmp_path.iterdir()] == ["d-head.onnx"]
    assert mine.read_bytes() == b"mine"


class _Own:
    """Convolutions that are no network of this package."""

    name, weights_sha256, device, channels, stride, offset, size_multiple = "my-net", "", "cpu", 3, 16, 7.5, 16
    step = zero = None
    identity = ("my-net",)

    def __call__(self, image: U8) -> NDArray[Any]:
        return image[::16, ::16].astype(np.float32)


def test_backbones(small: Exported, tmp_path: Path) -> None:
    """One of your own has no graph; an engine that is given as it is has the same one as its name."""
    own = make_detector().set_params(backbone=_Own())
    with pytest.raises(ArgumentError, match="'my-net': has no ONNX graph"):
        export_onnx(own, tmp_path / "d.onnx")
    engine = load_engine("efficientnet-lite0+mid")
    (path,) = export_onnx(copy.copy(small.detector).set_params(backbone=engine), tmp_path / "d.onnx")
    (same,) = export_onnx(small.detector, tmp_path / "e.onnx")
    assert path.read_bytes() == same.read_bytes()


def test_levels_whose_bins_differ_in_long_maps(tmp_path: Path, rng: np.random.Generator) -> None:
    """MaxRoiPool computes in float32: at level 7 it takes another cell from 57 cells on, as a wide image has."""
    detector = make_detector(levels=(7,), short_sides_px=(608,), precision="float32")
    image = rng.integers(0, 256, (600, 1000, 3), np.uint8)
    windows = np.array([[0, 0, width, 600] for width in range(880, 960, 10)], np.float32)
    Exported(detector, tmp_path / "d.onnx").check(image, windows)
