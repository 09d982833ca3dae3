"""R-CNN's features: one pass of the convolutions a window, otherwise the same detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from sppnet import SPPDetector, load_voc
from sppnet.backbones.registry import Backbone, load_backbone
from sppnet.detection.crops import CropFeatures
from sppnet.detection.options import FeatureOptions, FinetuneOptions, HeadOptions, SuppressionOptions
from sppnet.images import load_image
from sppnet.proposals.search import SelectiveSearch


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone()


def test_vectors_are_those_of_each_crop_alone(backbone: Backbone, rng: np.random.Generator) -> None:
    features = CropFeatures(backbone, (2, 1), crop_px=64, context_px=0)
    image = rng.integers(0, 256, (90, 120, 3), np.uint8)
    windows = np.array([[0, 0, 120, 90], [10, 20, 74, 84], [0, 26, 64, 90]] * 7, np.float32)
    got = features.pool(features.maps(image), windows)
    assert got.shape == (21, features.dims)
    picture = Image.fromarray(image)
    for row, window in zip(got, windows, strict=True):
        crop = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR, box=tuple(window.tolist())))
        found = backbone(backbone.preprocess(crop))[0]
        expected = [functional.adaptive_max_pool2d(found, n).flatten(1).T.reshape(-1) for n in (2, 1)]
        np.testing.assert_allclose(np.asarray(row), torch.cat(expected).numpy(), atol=1e-4, rtol=1e-4)


def test_warp_shows_the_window_with_context(backbone: Backbone) -> None:
    features = CropFeatures(backbone, crop_px=100, context_px=10)
    # brightness rises with x, so that a column tells where it comes from; 80 px of window become 80 px of crop
    image = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (150, 200, 3))
    picture = Image.fromarray(np.ascontiguousarray(image))
    inside = features.warp(picture, np.array([50, 40, 130, 120], np.float32))
    np.testing.assert_allclose(inside[50, :, 0].astype(int), np.arange(40, 140), atol=1)
    # at the border, what is outside the picture is mid-grey
    corner = features.warp(picture, np.array([0, 0, 80, 80], np.float32))
    assert (corner[:10] == 127).all()
    assert (corner[:, :10] == 127).all()
    np.testing.assert_allclose(corner[50, 10:, 0].astype(int), np.arange(0, 90), atol=1)


@pytest.mark.parametrize("window", [[-50, -50, -10, -10], [20, 20, 20, 20], [190, 10, 500, 12]])
def test_senseless_windows_give_a_crop(backbone: Backbone, window: list[float]) -> None:
    crop = CropFeatures(backbone).warp(Image.new("RGB", (200, 150)), np.array(window, np.float32))
    assert crop.shape == (224, 224, 3)


@pytest.mark.slow
def test_learns_and_keeps_its_kind_in_the_file(toy_voc: Path, tmp_path: Path) -> None:
    data = load_voc(toy_voc, "train").subset(range(4))
    detector = SPPDetector(
        features=FeatureOptions("rcnn", flip_short_sides_px=()), head=HeadOptions(rank=16, hidden=32),
        suppression=SuppressionOptions(refinements=0), proposer=SelectiveSearch(max_windows=8),
        finetune=FinetuneOptions(epochs=1, windows_per_image=8),
    ).fit(data)  # fmt: skip
    path = tmp_path / "rcnn.safetensors"
    detector.save(path, "float32")
    again = SPPDetector.load(path)
    assert again.features.method == "rcnn"
    image = load_image(data[0].path)
    ours, theirs = (d.detect(image, threshold=0.0) for d in (detector, again))
    assert len(ours)
    np.testing.assert_allclose(theirs.confidence, ours.confidence, atol=1e-4)
