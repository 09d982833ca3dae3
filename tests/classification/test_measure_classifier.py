"""Measuring on a folder: the figures of the scores; images that can't be read are left out, but not many."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.classification.measure import measure_classifier
from sppnet.classification.recipes import readable_splits
from sppnet.classification.views import View
from sppnet.datasets.folder import load_image_folder
from sppnet.datasets.folder_splits import load_folder_splits
from sppnet.errors import DatasetError, ImageError
from sppnet.evaluation.classification import evaluate_classification


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    torch.manual_seed(0)
    network = SPPClassifier(load_backbone("zf5@0.05", pretrained=False), (2, 1), 3, hidden=())
    return ImageClassifier.from_network(network, ("green", "red", "striped"), (View(48),))


@pytest.fixture
def root(toy_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_folder, tmp_path / "toys"))


def _cut(path: Path) -> None:
    """Leaves the header whole."""
    path.write_bytes(path.read_bytes()[:3000])


def test_measures_what_scores_say(classifier: ImageClassifier, root: Path) -> None:
    data = load_image_folder(root)
    result, problems = measure_classifier(classifier, data)
    scores = np.stack([classifier.scores(path) for path in data.paths])
    expected = evaluate_classification(scores, data.labels, data.class_names)
    assert problems == []
    assert np.array_equal(result.confusion, expected.confusion)
    _cut(root / "red" / "03.png")
    with pytest.raises(ImageError, match=r"03\.png"):
        measure_classifier(classifier, data, on_error="fail")
    result, problems = measure_classifier(classifier, data)
    left = [i for i, path in enumerate(data.paths) if path != root / "red" / "03.png"]
    expected = evaluate_classification(scores[left], data.labels[left], data.class_names)
    assert np.array_equal(result.confusion, expected.confusion)
    assert len(problems) == 1
    assert "red/03.png" in problems[0]


def test_more_than_a_tenth(classifier: ImageClassifier, root: Path, tmp_path: Path) -> None:
    """36 images: 3 may be unreadable, 4 may not, whether their header or their pixels are damaged."""
    for name in ("red/03.png", "green/03.png"):
        _cut(root / name)
    (root / "green" / "04.png").write_text("no image")
    data = load_image_folder(root)
    assert measure_classifier(classifier, data)[0].images == 33
    splits = readable_splits(load_folder_splits(root), root, cache=tmp_path / "cache")
    assert splits.validation is not None
    assert len(splits.train) + len(splits.validation) == 33
    (root / "striped" / "05.png").write_text("no image")
    data = load_image_folder(root)
    assert len(data) == 34
    with pytest.raises(DatasetError, match="4 of 36 images are unusable, more than a tenth") as caught:
        measure_classifier(classifier, data)
    assert "striped/05.png" in str(caught.value)
    with pytest.raises(DatasetError, match="4 of 36 images are unusable, more than a tenth"):
        readable_splits(load_folder_splits(root), root, cache=tmp_path / "other")
    with pytest.raises(DatasetError, match=r"03\.png.*\n.*03\.png.*\n\(--on-error skip"):
        readable_splits(load_folder_splits(root), root, cache=tmp_path / "third", on_error="fail")
