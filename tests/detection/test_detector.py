"""The whole detector: learns a small data set, comes back from its file unchanged, refuses what it must."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet import Detections, SPPDetector, evaluate_voc, load_voc
from sppnet._types import F32
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.options import FeatureOptions, FinetuneOptions, HeadOptions
from sppnet.errors import ArgumentError, DatasetError, ImageError, ModelFileError, NotFittedError
from sppnet.proposals.search import SelectiveSearch

SMALL: dict[str, Any] = {
    "features": FeatureOptions(short_sides_px=(240,), flip_short_sides_px=(208,)),
    "head": HeadOptions(rank=32, hidden=128), "proposer": SelectiveSearch(max_windows=400),
    "finetune": FinetuneOptions(epochs=6, windows_per_image=32),
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def train(toy_voc: Path) -> DetectionDataset:
    return load_voc(toy_voc, "train")


@pytest.fixture(scope="module")
def detector(train: DetectionDataset, cache: Path) -> SPPDetector:
    return SPPDetector(**SMALL).fit(train, cache=cache)


@pytest.fixture(scope="module")
def saved(detector: SPPDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    detector.save(path)
    return path


def assert_same_detections(got: Detections, wanted: Detections) -> None:
    """Same boxes to the last bit; confidences as float32 can hold them; order up to equal confidences."""
    assert len(got) == len(wanted)
    for c in range(len(wanted.class_names)):
        mine, other = got[got.class_id == c], wanted[wanted.class_id == c]
        first, second = (np.lexsort(d.xyxy.T) for d in (mine, other))
        assert np.array_equal(mine.xyxy[first], other.xyxy[second])
        np.testing.assert_allclose(mine.confidence[first], other.confidence[second], rtol=1e-4, atol=1e-7)
    assert (np.diff(got.confidence) <= 0).all()


def test_learns_and_finds_in_new_pictures(detector: SPPDetector, toy_voc: Path) -> None:
    val = load_voc(toy_voc, "val")
    found = [detector.detect(r.path, threshold=0.0) for r in val]
    result = evaluate_voc(found, val, protocol="voc-area")
    assert result.map > 0.8
    rescored = detector.calibrate(found, val)
    again = [detector.detect(r.path, threshold=0.0) for r in val]
    for mine, other, before in zip(rescored, again, found, strict=True):
        assert_same_detections(mine, other)
        assert not np.allclose(mine.confidence, before.confidence, atol=1e-3)  # or nothing would have been tested
    assert evaluate_voc(again, val, protocol="voc-area").map == pytest.approx(result.map, abs=1e-6)
    sure = [detector.detect(r.path) for r in val]
    assert sum(map(len, sure)) >= 0.6 * sum(len(r) for r in val)
    assert all((d.confidence >= 0.5).all() for d in sure)
    best = sure[0]
    assert list(best.seconds) == [
            "decoding", "proposals", "convolutions", "pooling", "fc", "classes", "refinement", "NMS",
        ]  # fmt: skip
    assert (np.diff(best.confidence) <= 0).all()
    assert best.class_name.tolist() == [detector.class_names_[i] for i in best.class_id]


def test_calibrating_again_rescores(detector: SPPDetector, toy_voc: Path) -> None:
    val = load_voc(toy_voc, "val").subset(range(6))
    other = copy.copy(detector)
    other.metadata_ = copy.deepcopy(detector.metadata_)
    found = [other.detect(r.path, threshold=0.0) for r in val]
    for mine, record in zip(other.calibrate(found, val), val, strict=True):
        assert_same_detections(mine, other.detect(record.path, threshold=0.0))


def test_parts_give_the_same_as_the_whole(detector: SPPDetector, toy_voc: Path, tmp_path: Path) -> None:
    val = load_voc(toy_voc, "val").subset([0, 1])
    for record in val:
        maps, windows = detector.feature_maps(record.path), detector.propose(record.path)
        assert detector.detect_windows(maps, windows, 0.1) == detector.detect(record.path, 0.1)
    images = detector.training_images(val, tmp_path)
    image = images.load(0)  # float16 from the cache
    stored, fresh = detector.detect_windows(image.maps, image.windows, 0.5), detector.detect(val[0].path, 0.5)
    assert np.array_equal(image.windows, detector.propose(val[0].path))
    assert np.array_equal(stored.class_id, fresh.class_id)
    np.testing.assert_allclose(stored.xyxy, fresh.xyxy, atol=1)


def test_file_gives_the_same_detections(detector: SPPDetector, saved: Path, train: DetectionDataset) -> None:
    loaded = SPPDetector.load(saved)
    assert loaded.class_names_ == ("cat", "cup")
    assert loaded.metadata_["backbone"]["name"] == "efficientnet-lite0+mid"
    assert loaded.metadata_["training"]["images"] == len(train)
    a, b = (d.detect(train[0].path, threshold=0.1) for d in (detector, loaded))
    assert len(a) == len(b) > 0
    np.testing.assert_allclose(a.confidence, b.confidence, atol=0.1)  # the file is int8
    exact = saved.with_name("exact.safetensors")
    detector.save(exact, precision="float32")
    c = SPPDetector.load(exact).detect(train[0].path, threshold=0.1)
    assert np.array_equal(a.xyxy, c.xyxy)
    assert np.array_equal(a.confidence, c.confidence)
    second = saved.with_name("second.safetensors")
    SPPDetector.load(exact).save(second, precision="float32")
    assert SPPDetector.load(second).metadata_ == SPPDetector.load(exact).metadata_


def test_same_seed_same_detector(detector: SPPDetector, train: DetectionDataset, cache: Path) -> None:
    again = SPPDetector(**SMALL).fit(train, cache=cache)
    for name, value in detector.weights_.arrays().items():
        if name not in ("slope", "offset"):  # those were calibrated
            assert np.array_equal(value, getattr(again.weights_, name)), name


def test_detections_come_in_the_picture_and_twice_the_same(detector: SPPDetector) -> None:
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (2, 300), (97, 64), (240, 320)):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        got = detector.detect(pixels, threshold=0.0)
        assert (got.xyxy >= 0).all()
        assert (got.xyxy <= [width, height, width, height]).all()
        again = detector.detect(Image.fromarray(pixels), threshold=0.0)
        assert np.array_equal(got.xyxy, again.xyxy)
        assert np.array_equal(got.confidence, again.confidence)
        assert len(detector.detect(pixels, threshold=1.0)) == 0


def test_own_proposer(saved: Path, train: DetectionDataset) -> None:
    loaded = SPPDetector.load(saved)
    loaded.proposer = lambda image: train[0].boxes
    got = loaded.detect(train[0].path, threshold=0.0)
    assert got.window_count == len(train[0].boxes)
    with pytest.raises(ArgumentError, match="proposer of your own"):
        loaded.save(saved.with_name("x.safetensors"))
    loaded.proposer = lambda image: np.zeros((0, 4), np.float32)
    assert len(loaded.detect(train[0].path, threshold=0.0)) == 0


def test_refusals(detector: SPPDetector, train: DetectionDataset, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        SPPDetector().detect(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ArgumentError, match=r"threshold: got 1\.5"):
        detector.detect(train[0].path, threshold=1.5)
    with pytest.raises(ImageError, match=r"none\.jpg"):
        detector.detect(tmp_path / "none.jpg")
    with pytest.raises(DatasetError, match="no images"):
        SPPDetector().fit(train.subset([]))
    one_class = [i for i, r in enumerate(train) if set(r.labels.tolist()) == {0}]
    with pytest.raises(DatasetError, match="class 'cup' has no object"):
        SPPDetector().fit(train.subset(one_class))


def test_file_that_does_not_fit(detector: SPPDetector, saved: Path, tmp_path: Path) -> None:
    from sppnet.detection.model_file import read_model, write_model

    tensors, metadata = read_model(saved)
    path = tmp_path / "m.safetensors"

    def refused(match: str, t: dict[str, F32], m: dict[str, object]) -> None:
        write_model(path, t, m, "float32")
        with pytest.raises(ModelFileError, match=match):
            SPPDetector.load(path)

    refused("class_bias is missing", {k: v for k, v in tensors.items() if k != "class_bias"}, metadata)
    refused("fc6_weight has shape", tensors | {"fc6_weight": np.zeros((3, 3), np.float32)}, metadata)
    refused("lacks or garbles 'levels'", tensors, {k: v for k, v in metadata.items() if k != "levels"})
    refused("3 class names for 2", tensors, metadata | {"class_names": ["a", "b", "c"]})
    refused("sha256", tensors, metadata | {"backbone": {"name": "efficientnet-lite0", "weights_sha256": "0"}})
    refused("its backbone and levels give", tensors, metadata | {"levels": [3, 2, 1]})


def test_detections_check_their_shapes() -> None:
    with pytest.raises(ArgumentError, match="expected xyxy"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(3, np.float32), np.zeros(2, np.int64), ("a",))
