"""Maps in the cache: those of several scales are those of each, and none is computed twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from sppnet import FeatureOptions, SPPDetector, load_voc
from sppnet.backbones.registry import load_backbone
from sppnet.detection.features import WindowFeatures
from sppnet.detection.training.images import TrainingImages
from sppnet.errors import ImageError
from sppnet.images import load_image
from sppnet.proposals import SelectiveSearch
from sppnet.storage.feature_cache import FeatureCache


def test_sets_of_scales_share_their_maps(toy_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("efficientnet-lite0")
    dataset = load_voc(toy_voc, "train").subset([0, 1])
    computed: list[tuple[tuple[int, ...], bool]] = []
    maps = WindowFeatures.maps

    def counted(self: WindowFeatures, image: np.ndarray, *, flip: bool = False) -> object:
        computed.append((self.short_sides_px, flip))
        return maps(self, image, flip=flip)

    monkeypatch.setattr(WindowFeatures, "maps", counted)

    def images(sides: tuple[int, ...], flips: tuple[int, ...]) -> TrainingImages:
        views = [WindowFeatures(backbone, (2, 1), s) for s in (sides, flips)]
        return TrainingImages(dataset, views[0], views[1], SelectiveSearch(max_windows=50), FeatureCache(tmp_path))

    one = images((96,), (64,))
    one.prepare()
    assert sorted(computed) == [((64,), True)] * 2 + [((96,), False)] * 2
    computed.clear()
    several = images((64, 96, 160), (64, 128))
    several.prepare()
    assert sorted(computed) == [((64,), False)] * 2 + [((128,), True)] * 2 + [((160,), False)] * 2
    assert several.identity() != one.identity()
    computed.clear()
    for flip in (False, True):
        got = several.load(1, flip=flip).maps
        features = several.flip_features if flip else several.features
        assert features is not None
        wanted = maps(features, load_image(dataset[1].path), flip=flip)
        assert np.array_equal(got.scale, wanted.scale)
        for a, b in zip(got.maps, wanted.maps, strict=True):
            assert np.array_equal(np.asarray(a), np.asarray(b).astype(np.float16))
    assert not computed  # all from the cache
    assert several.estimated_bytes() > one.estimated_bytes()


def test_results_of_rcnn_are_known_by_their_convolutions(toy_voc: Path, tmp_path: Path) -> None:
    """What is kept of an image is its pixels, which are the same for all convolutions."""
    dataset = load_voc(toy_voc, "train").subset([0])
    identities = set()
    precisions: tuple[Literal["int8", "float32"], ...] = ("int8", "float32")
    for precision in precisions:
        options = FeatureOptions("rcnn", flip_short_sides_px=(), precision=precision)
        detector = SPPDetector("efficientnet-lite0", options, proposer=SelectiveSearch(max_windows=5))
        images = detector.training_images(dataset, tmp_path)
        images.prepare()
        identities.add(images.identity())
    assert len(identities) == 2
    assert len(list(tmp_path.glob("??/*.safetensors"))) == 2  # windows and pixels, once


def test_rubbish_in_the_cache_is_computed_again(toy_voc: Path, tmp_path: Path) -> None:
    """Entries of the right name whose arrays are something else."""
    backbone = load_backbone("efficientnet-lite0")
    cache = FeatureCache(tmp_path)
    views = WindowFeatures(backbone, (2, 1), (64,))
    data = TrainingImages(load_voc(toy_voc, "train").subset([0]), views, None, SelectiveSearch(max_windows=50), cache)
    want = data.load(0)
    for path in tmp_path.rglob("*.safetensors"):
        cache.put(path.stem, {"windows": np.zeros((3, 5)), "map0": np.zeros((2, 2)), "scale": np.zeros((1, 2))})
    got = data.load(0)
    assert np.array_equal(got.windows, want.windows)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(got.maps.maps, want.maps.maps, strict=True))


def test_an_image_that_changes_while_training_goes_on_is_told(toy_voc: Path, tmp_path: Path) -> None:
    root = tmp_path / "voc"
    shutil.copytree(toy_voc, root)
    dataset = load_voc(root, "train").subset([0])
    views = WindowFeatures(load_backbone("efficientnet-lite0"), (2, 1), (64,))
    data = TrainingImages(dataset, views, None, SelectiveSearch(max_windows=50), FeatureCache(tmp_path / "cache"))
    data.identity()
    Image.new("RGB", (dataset[0].width, dataset[0].height)).save(dataset[0].path)
    with pytest.raises(ImageError, match="was changed while the training ran"):
        data.load(0)
