"""Four images in one: what is in them stays where it is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet._types import U8
from sppnet.datasets.formats.voc import load_voc
from sppnet.detection.detector import SPPDetector
from sppnet.detection.options import FeatureOptions, TuningOptions
from sppnet.detection.training.images import WindowedImage
from sppnet.detection.training.mosaic import GREY, join_four
from sppnet.detection.training.tuning import ViewSource, tunable_engine
from sppnet.errors import ArgumentError

SIDES = st.integers(8, 90)


def with_object(height: int, width: int, colour: int, rng: np.random.Generator) -> tuple[U8, WindowedImage]:
    """A black image with an object of one colour; two windows, one of which is the object's box."""
    x, y = (int(rng.integers(0, side // 2)) for side in (width, height))
    right, bottom = (int(rng.integers(low + side // 3, side + 1)) for low, side in ((x, width), (y, height)))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y:bottom, x:right] = colour
    box = np.array([[x, y, right, bottom]], np.float32)
    whole = np.array([[0, 0, width, height]], np.float32)
    label, difficult = np.array([colour]), np.array([colour % 2 == 0])
    return pixels, WindowedImage(np.concatenate([box, whole]), box, label, difficult, height, width)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(SIDES, SIDES), min_size=4, max_size=4), SIDES, SIDES, st.integers(0, 99))
def test_objects_are_where_their_boxes_are(sizes: list[tuple[int, int]], height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    colours = (201, 222, 243, 254)
    parts = [with_object(h, w, colour, rng) for (h, w), colour in zip(sizes, colours, strict=True)]
    pixels, what = join_four(parts, height, width)
    assert pixels.shape == (2 * height, 2 * width, 3)
    assert (what.height, what.width) == (2 * height, 2 * width)
    assert what.labels.tolist() == list(colours)
    assert what.difficult.tolist() == [colour % 2 == 0 for colour in colours]
    assert what.windows.shape == (8, 4)
    for i in range(4):
        box, (own, whole) = what.boxes[i], what.windows[2 * i : 2 * i + 2]
        assert np.array_equal(box, own)
        corner = np.array([i % 2 * width, i // 2 * height] * 2, np.float32)
        inside = whole - corner
        assert inside.min() >= -1e-3
        assert (inside[2:] <= (width + 1e-3, height + 1e-3)).all()
        # its quarter is filled in one direction, and the other has the same scale, but for the rounding to pixels
        h, w = sizes[i]
        factor = min(height / h, width / w)
        np.testing.assert_allclose(whole[2:] - whole[:2], (max(1, w * factor), max(1, h * factor)), atol=0.51)
        x, y = (int(v) for v in (box[:2] + box[2:]) / 2)
        if (box[2:] - box[:2]).min() > 4 and factor < 4:  # else the resizing mixes it with what is beside it
            assert np.abs(pixels[y, x].astype(int) - colours[i]).max() <= 1


def test_the_rest_is_grey() -> None:
    rng = np.random.default_rng(0)
    pixels, what = join_four([with_object(20, 40, 200, rng)] * 4, 40, 40)
    assert (pixels[:10] == GREY).all()
    assert (pixels[30:50] == GREY).all()
    assert what.windows[1].tolist() == [0, 10, 40, 30]


@pytest.fixture
def views(toy_voc: Path, tmp_path: Path) -> ViewSource:
    detector = SPPDetector(features=FeatureOptions(short_sides_px=(96, 64), flip_short_sides_px=(64,)))
    data = detector.training_images(load_voc(toy_voc, "train").subset(range(10)), tmp_path / "cache")
    return ViewSource(data, tunable_engine(data.features, "int8", 5), TuningOptions(blocks=5, mosaic=1.0), 0)


def test_views_of_four_images(views: ViewSource) -> None:
    for i in range(3):
        view = views.view(0, i)
        again = ViewSource(views.data, tunable_engine(views.data.features, "int8", 5), views.options, 0).view(0, i)
        assert np.array_equal(view.early, again.early)
        assert np.array_equal(view.windows, again.windows)
        height, width = (side * views.engine.network.stride for side in view.early.shape[:2])
        assert view.windows.min() >= 0
        assert (view.windows[:, 2:] <= (width + 1e-3, height + 1e-3)).all()
        assert (view.labels < len(views.data.dataset.class_names)).any()
    alone = ViewSource(views.data, views.engine, replace(views.options, mosaic=0.0), 0)
    alone.engine = views.engine
    assert not np.array_equal(alone.view(0, 0).windows, views.view(0, 0).windows)


def test_a_mosaic_is_no_larger_than_it_is_shown(views: ViewSource) -> None:
    rng = np.random.default_rng(0)
    first = views.data.dataset[0]
    for side in (50, 96, 10_000):
        pixels, what = views._mosaic(0, False, side, rng)
        short = min(side, 2 * min(first.height, first.width))
        assert abs(min(pixels.shape[:2]) - short) <= 1
        assert len(what.boxes) >= len(first.boxes)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(ArgumentError, match="mosaic"):
        TuningOptions(mosaic=share)
