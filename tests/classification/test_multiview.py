"""Windows of maps against crops that go through the convolutions: equal as far as the borders allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch import nn

from sppnet.backbones.base import Backbone
from sppnet.backbones.receptive_field import receptive_field
from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.classification.imagenet import imagenet_classifier
from sppnet.classification.multiview import TEN_VIEWS, VIEWS_96, MapViews, choose_views, view_from_dict
from sppnet.classification.torch_network import view_vectors
from sppnet.classification.views import View
from sppnet.errors import ArgumentError
from sppnet.images import resize_short_side


def _backbone(layers: nn.Sequential, channels: int) -> Backbone:
    field = receptive_field(layers, (64, 64))
    return Backbone("tiny", layers, channels=channels, stride=int(field.stride[0]), offset=field.offset[0])


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("mode", "normalise"), [("max", False), ("avg", True)])
@pytest.mark.parametrize(("places", "count"), [(9, 2 * (3 + 9 + 9)), (5, 2 * (3 + 5 + 5))])
def test_patches_don_t_overlap_so_crops_are_equal(mode: str, normalise: bool, places: int, count: int) -> None:
    """Where no unit sees beyond its own 8 pixels, and windows begin at multiples of 8, nothing at all differs."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 5, 2, 2))
    network = SPPClassifier(_backbone(layers, 5), (3, 2, 1), 4, mode=mode, hidden=(7,), normalise=normalise).eval()
    views = MapViews((32, 48, 64), window_px=32, places=places)
    photo = _image(100, 200)
    vectors = view_vectors(network, photo, [View(40), views, View(24, "warp")])
    assert vectors.shape == (count + 2, network.dims)
    expected = [network.pooled(network.backbone.preprocess(View(40).apply(photo, 8)))]
    for side in views.scales_px:
        whole = View(side).apply(photo, 8)
        assert whole.shape == (side, 2 * side, 3)
        for picture in (whole, whole[:, ::-1]):
            for x0, y0, x1, y1 in views.windows(*picture.shape[:2]):
                assert (x1 - x0, y1 - y0) == (32, 32)
                crop = np.ascontiguousarray(picture[y0:y1, x0:x1])
                expected.append(network.pooled(network.backbone.preprocess(crop)))
    expected.append(network.pooled(network.backbone.preprocess(View(24, "warp").apply(photo, 8))))
    torch.testing.assert_close(vectors, torch.cat(expected), rtol=1e-5, atol=1e-6)
    assert len(vectors.unique(dim=0)) == count + 2
    # the classifier's probabilities are the mean over all of them
    classifier = ImageClassifier.from_network(network, "abcd", (View(40), views, View(24, "warp")), scale=3.0)
    mean = (network.fc(torch.cat(expected)).double() * 3).softmax(1).mean(0)
    got = sorted((g.class_id, g.probability) for g in classifier.classify(photo, 4))
    assert [p for _, p in got] == pytest.approx(mean.tolist(), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 6), st.integers(0, 9), st.integers(25, 60), st.integers(25, 60), st.integers(0, 99))
def test_without_padding_all_units_of_a_crop_are_in_the_map(row: int, column: int, h: int, w: int, seed: int) -> None:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 5, 3))
    bone = _backbone(layers, 5)
    assert bone.stride == 4
    network = SPPClassifier(bone, (2, 1), 3, hidden=()).eval()
    x = bone.preprocess(_image(row * 4 + h + 7, column * 4 + w + 5, seed))[0]
    y0, x0 = row * 4, column * 4
    crop = x[:, y0 : y0 + h, x0 : x0 + w]
    alone, whole = bone(crop[None]), bone(x[None])
    rows, columns = alone.shape[2:]
    torch.testing.assert_close(whole[:, :, row : row + rows, column : column + columns], alone, rtol=1e-5, atol=1e-5)
    # the window that reaches from the centre of its first unit to that of its last pools just these
    first, step = bone.offset - 0.25, bone.stride
    window = [x0 + first, y0 + first, x0 + first + step * (columns - 1) + 0.5, y0 + first + step * (rows - 1) + 0.5]
    torch.testing.assert_close(network.windows(x, [window]), network.pooled([crop]), rtol=1e-5, atol=1e-5)


def test_with_padding_the_border_differs_and_the_inside_does_not() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 5, 3, 1, 1))
    bone = _backbone(layers, 5)
    field = receptive_field(layers, (64, 64))
    x = bone.preprocess(_image(120, 160))
    x0, y0, side = 40, 24, 64
    alone, whole = bone(x[:, :, y0 : y0 + side, x0 : x0 + side]), bone(x)
    n = side // 4
    assert alone.shape[2:] == (n, n)
    same = (whole[:, :, y0 // 4 : y0 // 4 + n, x0 // 4 : x0 // 4 + n] - alone).abs().amax((0, 1)) < 1e-5
    low = field.offset[0] + 4 * torch.arange(n) - field.size[0] / 2  # first and last pixel that a unit sees
    inside = (low >= 0) & (low + field.size[0] <= side)
    assert same[inside][:, inside].all()
    assert not same[~inside].any(1).all()  # what is told of the border is true of this network
    assert int(inside.sum()) == n - 4


def test_ten_views_of_a_cat_are_ten_crops_but_for_their_borders() -> None:
    network = imagenet_classifier()
    photo = data.chelsea()
    windows = network.fc(view_vectors(network, photo, [TEN_VIEWS])).softmax(1)
    assert windows.shape == (10, 1000)
    crops = []
    for picture in (whole := View(256).apply(photo, 32), whole[:, ::-1]):
        for x0, y0, x1, y1 in TEN_VIEWS.windows(*whole.shape[:2]):
            crops.append(network.backbone.preprocess(np.ascontiguousarray(picture[y0:y1, x0:x1]))[0])
    by_crop = network(crops).softmax(1)
    assert torch.equal(windows.mean(0).topk(2).indices, by_crop.mean(0).topk(2).indices)
    cats = [281, 282, 285]
    # the network was trained with zeros around what it sees, and is less sure without them: 0.70 against 0.93
    assert float((windows[:, cats].sum(1) - by_crop[:, cats].sum(1)).abs().mean()) < 0.3
    assert set(windows.argmax(1).tolist()) <= set(cats)


def test_places() -> None:
    ten = TEN_VIEWS.windows(256, 340)
    assert ten.tolist() == [[58, 16, 282, 240], [0, 0, 224, 224], [116, 0, 340, 224], [0, 32, 224, 256],
                            [116, 32, 340, 256]]  # fmt: skip
    photo = (480, 640)
    sizes = [resize_short_side(np.zeros((*photo, 3), np.uint8), side)[0].shape[:2] for side in VIEWS_96.scales_px]
    counts = [2 * len(VIEWS_96.windows(*size)) for size in sizes]
    assert counts == [6, 18, 18, 18, 18, 18]  # the paper's 96
    assert VIEWS_96.windows(224, 224).tolist() == [[0, 0, 224, 224]]
    assert VIEWS_96.windows(100, 90).tolist() == [[0, 0, 90, 100]]  # smaller than a window: all of it
    half = TEN_VIEWS.scaled(112)
    assert (half.scales_px, half.window_px, half.places) == ((128,), 112, 5)
    for view in (VIEWS_96, TEN_VIEWS, View(96, "crop", True)):
        assert view_from_dict(view.to_dict()) == view


def test_are_kept_in_model_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bone = load_backbone("zf5@0.05", pretrained=False, trainable=True)
    network = SPPClassifier(bone, (2, 1), 2, hidden=())
    views = (View(64), MapViews((64, 80), window_px=64, places=5))
    classifier = ImageClassifier.from_network(network, ("a", "b"), views)
    classifier.save(tmp_path / "net.safetensors")
    loaded = ImageClassifier.load(tmp_path / "net.safetensors")
    assert tuple(loaded.views) == views
    np.testing.assert_allclose(loaded.scores(_image(90, 120)), classifier.scores(_image(90, 120)), atol=2e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scales_px": ()}, "scales_px: got none"),
        ({"scales_px": (0,)}, "scales_px: got 0"),
        ({"scales_px": 224}, "scales_px: got 224"),
        ({"window_px": 0}, "window_px: got 0"),
        ({"window_px": 224.0}, r"window_px: got 224\.0"),
        ({"places": 7}, "places: got 7"),
        ({"places": "9"}, "places: got '9'"),
        ({"max_aspect": 0.5}, "max_aspect: got 0.5"),
        ({"flip": 1}, "flip: got 1"),
        ({"side_px": 64.5}, "side_px: got 64.5"),
        ({"side_px": "64"}, "side_px: got '64'"),
        ({"side_px": 64, "how": ["full"]}, r"how: got \['full'\]"),
        ({"side_px": 64, "max_aspect": float("nan")}, "max_aspect: got nan"),
        ({"side_px": 64, "flip": None}, "flip: got None"),
    ],
)
def test_wrong_views_are_told(values: dict[str, Any], message: str) -> None:
    kind: Any = View if "side_px" in values else MapViews
    with pytest.raises(ArgumentError, match=message):
        kind(**values)


def test_numbers_of_numpy_make_the_same_views() -> None:
    whole = View(np.int64(64), flip=np.bool_(True), max_aspect=np.float32(2))  # type: ignore[arg-type]
    assert json.dumps(whole.to_dict()) == json.dumps(View(64, flip=True, max_aspect=2.0).to_dict())
    windows = MapViews(np.array([64, 80]), np.int64(48), np.int32(5))  # type: ignore[arg-type]
    assert json.dumps(windows.to_dict()) == json.dumps(MapViews((64, 80), 48, 5).to_dict())
    assert choose_views((View(32),), scales_px=np.array([48, 64])) == (View(48), View(64))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="scales_px: got 48, expected whole numbers"):
        choose_views((View(32),), scales_px=48)  # type: ignore[arg-type]


def test_wrong_use_is_told() -> None:
    bone = load_backbone("zf5@0.05", pretrained=False)
    fixed = SPPClassifier(bone, FixedPool(2, 1, bone.map_size(64, 64)), 2, hidden=())
    with pytest.raises(ArgumentError, match="without pyramid"):
        view_vectors(fixed, _image(64, 64), [MapViews((64,), 64)])
    network = SPPClassifier(bone, (1,), 2, hidden=())
    with pytest.raises(ArgumentError, match="at least one"):
        view_vectors(network, _image(64, 64), [])
    with pytest.raises(ArgumentError, match=r"image: expected \(3, H, W\)"):
        network.windows(torch.zeros(1, 3, 64, 64), [[0, 0, 9, 9]])


def test_windows_are_as_large_as_the_squares_that_were_trained_on() -> None:
    """Such a network looks at whole images at 256/224 of that size by itself; that isn't done twice."""
    bone = load_backbone("zf5@0.05", pretrained=False)
    network = SPPClassifier(bone, (1,), 2, hidden=())
    for how, window in (("crop", 64), ("full", 73)):
        options = {"sizes_px": (64, 48), "how": how}
        classifier = ImageClassifier.from_network(
            network, ("a", "b"), (View(73),), metadata={"training": {"options": options}}
        )
        (views,) = classifier.with_views("10").views
        assert isinstance(views, MapViews)
        assert (views.window_px, views.scales_px) == (window, (round(window * 256 / 224),))
        assert classifier.with_views("full").views == (View(73),)
