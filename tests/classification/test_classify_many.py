"""Classification of many images, without the command line: the same as one image after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet import ImageClassifier, View, classify_many
from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.run import classes_document
from sppnet.errors import ArgumentError, ImageError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    torch.manual_seed(0)
    network = SPPClassifier(load_backbone("zf5@0.05", pretrained=False, trainable=True), (2, 1), 3, hidden=())
    return ImageClassifier.from_network(network, ("a", "b", "c"), (View(64),))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("1.png", "2.png"):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(folder / name)
    (folder / "3.jpg").write_bytes(b"damaged")
    return folder


def test_is_classify_on_each_image(classifier: ImageClassifier, images: Path) -> None:
    run = classify_many(classifier, images, top=2)
    results = list(run)
    assert [r.path.name for r in results] == ["1.png", "2.png"]
    for result in results:
        assert list(result.guesses) == classifier.classify(result.path, 2)
    assert [item.path.name for item in run.failed] == ["3.jpg"]
    document = classes_document(classifier, results, run.failed)
    assert document["classes"] == 3
    first = document["images"][0]
    best = results[0].guesses[0]
    assert first["image"] == str(images / "1.png")
    assert first["classes"][0]["class_name"] == best.class_name
    assert first["classes"][0]["probability"] == pytest.approx(best.probability, abs=1e-5)
    assert [item["image"] for item in document["failed"]] == [str(images / "3.jpg")]


def test_wrong_arguments(classifier: ImageClassifier, images: Path, tmp_path: Path) -> None:
    for top in (0, 1.5, True):
        with pytest.raises(ArgumentError, match=f"top: got {top}, expected a whole number"):
            classify_many(classifier, images, top=top)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"3\.jpg"):
        list(classify_many(classifier, images, on_error="fail"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images in"):
        classify_many(classifier, tmp_path / "empty")
