"""Measuring on a folder: the figures of the scores; images that can't be read are left out, but not many."""

from __future__ import annotations

import shutil
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.classification.measure import load_test_images, measure_classifier
from sppnet.classification.options import GradientOptions, NetworkOptions
from sppnet.classification.recipes import readable_splits, train_by_gradient, train_frozen
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.datasets.folder_splits import FolderSplits, load_folder_splits
from sppnet.datasets.seen import seen_digests
from sppnet.errors import DatasetError, ImageError, NotFittedError
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


@pytest.mark.parametrize("names", [("striped", "green", "red"), ("striped", "red")])
def test_classes_are_compared_by_name(classifier: ImageClassifier, root: Path, names: tuple[str, ...]) -> None:
    data = load_image_folder(root)
    named = np.array([data.class_names[label] in names for label in data.labels])
    usual = data.subset(named)
    expected, _ = measure_classifier(classifier, usual)
    labels = [names.index(usual.class_names[label]) for label in usual.labels]
    result, _ = measure_classifier(classifier, ImageFolder(usual.paths, np.array(labels), names))
    assert result.class_names == ("green", "red", "striped")
    assert np.array_equal(result.confusion, expected.confusion)
    assert result.confusion.sum(1).tolist() == [12 * (name in names) for name in result.class_names]
    assert result.top1 == expected.top1


def test_images_that_were_learned_from_are_known_by_their_content(classifier: ImageClassifier, root: Path) -> None:
    """Whatever the folder is called now."""
    data = load_image_folder(root)
    learned = copy(classifier)
    learned.metadata_ = {"training": {"data": "another", "seen": seen_digests(data.paths[:5])}}
    _, note = load_test_images(learned, root)
    assert note == "figures may be too good: the classifier learned from 5 of 36 images that were compared"
    assert load_test_images(classifier, root)[1] == ""


def test_unknown_classes_are_refused(classifier: ImageClassifier, root: Path, tmp_path: Path) -> None:
    data = load_image_folder(root)
    foreign = ImageFolder(data.paths, data.labels, ("green", "blue", "striped"), "toys")
    with pytest.raises(
        DatasetError, match=r"toys.*doesn't know 1 of its classes \(blue\).*its 3 \(green, red, striped"
    ):
        measure_classifier(classifier, foreign)
    with pytest.raises(NotFittedError):
        measure_classifier(ImageClassifier(), data)
    splits = FolderSplits(data, foreign, "", ())  # and before anything is trained
    with pytest.raises(DatasetError, match="blue"):
        train_frozen(splits, ImageClassifier())
    with pytest.raises(DatasetError, match="blue"):
        train_by_gradient(splits, NetworkOptions(), GradientOptions(), checkpoint=tmp_path / "state")


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
