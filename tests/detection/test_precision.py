"""Detectors whose precision, levels or backbone is changed after training, and maps of one given to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppnet import SPPDetector
from sppnet._types import U8
from sppnet.detection.maps import ImageMaps, MapScale
from sppnet.errors import ArgumentError


@pytest.fixture(scope="module")
def image() -> U8:
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(20, 0).repeat(20, 1))


def small(**parameters: Any) -> SPPDetector:
    return SPPDetector.load().set_params(features__short_sides_px=(128,), **parameters)


@pytest.fixture(scope="module")
def whole() -> SPPDetector:
    return small()


@pytest.fixture(scope="module")
def floats() -> SPPDetector:
    return small(features__precision="float32")


def test_precision_may_change_after_training(whole: SPPDetector, floats: SPPDetector, image: U8) -> None:
    wanted = whole.detect(image, 0)
    changed = small()
    changed.detect(image, 0)
    changed.set_params(features__precision="float32")
    assert changed.window_features().quantised is None
    assert np.array_equal(changed.detect(image, 0).xyxy, floats.detect(image, 0).xyxy)
    again = changed.set_params(features__precision="int8").detect(image, 0)
    assert np.array_equal(again.xyxy, wanted.xyxy)
    assert np.array_equal(again.confidence, wanted.confidence)


def test_a_file_keeps_the_precision(floats: SPPDetector, image: U8, tmp_path: Path) -> None:
    path = tmp_path / "floats.safetensors"
    floats.save(path)
    loaded, wanted = SPPDetector.load(path), floats.detect(image, 0)
    assert loaded.features.precision == "float32"
    assert np.array_equal(loaded.detect(image, 0).confidence, wanted.confidence)


def test_maps_of_the_other_precision(whole: SPPDetector, floats: SPPDetector, image: U8) -> None:
    windows, maps, exact = whole.propose(image), whole.feature_maps(image), floats.feature_maps(image)
    # a float32 detector takes bytes for what they stand for
    got, wanted = floats.detect_windows(maps, windows, 0), floats.detect_windows(maps.float(), windows, 0)
    assert len(got) > 0
    assert np.array_equal(got.xyxy, wanted.xyxy)
    assert np.array_equal(got.confidence, wanted.confidence)
    assert np.array_equal(floats.fc_of_windows(maps, windows), floats.fc_of_windows(maps.float(), windows))
    assert np.array_equal(floats.pool(maps, windows), whole.pool(maps, windows))
    # an int8 detector computes in float32 what it gets as float32
    assert np.array_equal(whole.detect_windows(exact, windows, 0).xyxy, floats.detect_windows(exact, windows, 0).xyxy)


def test_maps_of_other_convolutions_are_refused(whole: SPPDetector, floats: SPPDetector, image: U8) -> None:
    maps, windows = whole.feature_maps(image), np.array([[0, 0, 50, 50]], np.float32)
    assert maps.quantised is not None
    narrow = replace(maps, maps=tuple(m[:10] for m in maps.maps))
    other = replace(maps, quantised=MapScale(maps.quantised.step * 2, maps.quantised.zero))
    cases: tuple[tuple[Any, str], ...] = (
        (narrow, "got maps of 10 channels, expected 432, as efficientnet-lite0"),
        (replace(maps, maps=()), "got maps of no channels"),
        (other, "stand for other numbers"),
        ("image.jpg", "got str, expected what feature_maps"),
    )
    for wrong, message in cases:
        for call in (whole.detect_windows, whole.pool, whole.fc_of_windows):
            with pytest.raises(ArgumentError, match=message):
                call(wrong, windows)
    with pytest.raises(ArgumentError, match="10 channels"):
        floats.detect_windows(narrow, windows)
    crops = small(features__method="rcnn")
    with pytest.raises(ArgumentError, match="expected the pixels of an image"):
        crops.detect_windows(maps, windows)
    with pytest.raises(ArgumentError, match="3 channels"):
        whole.detect_windows(crops.feature_maps(image), windows)


@pytest.mark.parametrize("windows", [[], np.zeros((0, 4)), np.zeros(0)])
def test_no_windows(whole: SPPDetector, floats: SPPDetector, image: U8, windows: Any) -> None:
    dims = whole.window_features().dims
    for detector in (whole, floats):
        maps: ImageMaps = detector.feature_maps(image)
        assert len(detector.detect_windows(maps, windows, 0)) == 0
        assert detector.pool(maps, windows).shape == (0, dims)
        assert detector.fc_of_windows(maps, windows).shape == (0, 1024)
        own = small(features=detector.features, proposer=lambda _: windows)
        assert len(own.detect(image, 0)) == 0
        assert own.propose(image).shape == (0, 4)


def test_shapes_are_checked(whole: SPPDetector, image: U8) -> None:
    maps = whole.feature_maps(image)
    for call in (whole.detect_windows, whole.pool, whole.fc_of_windows):
        with pytest.raises(ArgumentError, match=r"windows: expected shape \(K, 4\).*got shape \(3, 5\)"):
            call(maps, np.zeros((3, 5)))
    with pytest.raises(ArgumentError, match="windows of the proposer: expected shape"):
        small(proposer=lambda _: np.zeros((3, 5))).detect(image)
    for pooled in (np.zeros((3, 7)), np.zeros(9072)):
        with pytest.raises(ArgumentError, match=r"pooled: expected vectors \(K, 9072\), got shape"):
            whole.fc(pooled)


def test_other_levels_or_backbone_need_a_training(image: U8) -> None:
    for change, message in (
        ({"features__levels": (2, 1)}, r"trained on vectors of 9072 numbers.*fit it again"),
        ({"backbone": "efficientnet-lite0"}, "tuned convolutions of this detector are those of"),
    ):
        with pytest.raises(ArgumentError, match=message):
            small(**change).detect(image)
