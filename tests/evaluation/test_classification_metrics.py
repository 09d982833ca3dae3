"""Figures of a classifier against scikit-learn and by hand."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from sppnet.errors import ArgumentError
from sppnet.evaluation.classification import evaluate_classification, format_classification, plot_confusion


@settings(max_examples=40, deadline=None)
@given(st.integers(6, 12), st.integers(1, 60), st.integers(0, 10**6))
def test_equals_scikit_learn(classes: int, images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    scores = rng.normal(size=(images, classes))
    scores[np.arange(images), labels] += rng.choice([0.0, 2.0], images)
    names = [f"class {c}" for c in range(classes)]
    result = evaluate_classification(scores, labels, names)
    best = scores.argmax(1)
    everything = np.arange(classes)
    assert result.top1 == pytest.approx(accuracy_score(labels, best))
    assert result.top5 == pytest.approx(top_k_accuracy_score(labels, scores, k=5, labels=everything))
    with warnings.catch_warnings():  # scikit-learn warns of classes without an image, and leaves them out as we do
        warnings.simplefilter("ignore")
        assert result.mean_class_accuracy == pytest.approx(balanced_accuracy_score(labels, best))
        assert np.array_equal(result.confusion, confusion_matrix(labels, best, labels=everything))
    assert result.images == images
    count = np.bincount(labels, minlength=classes)
    assert np.array_equal(np.isnan(result.class_accuracy), count == 0)
    for c in np.unique(labels):
        assert result.class_accuracy[c] == pytest.approx((best[labels == c] == c).mean())
    assert result.mean_class_accuracy == pytest.approx(np.nanmean(result.class_accuracy))


def test_by_hand_with_ties_and_few_classes() -> None:
    # of equal scores the first class is taken; of two classes the best five are all
    result = evaluate_classification([[1, 1], [0, 2], [5, 1], [3, 0]], [1, 1, 0, 0], ["a", "b"])
    assert result.confusion.tolist() == [[2, 0], [1, 1]]
    assert (result.top1, result.top5, result.mean_class_accuracy) == (0.75, 1.0, 0.75)
    # a large class counts no more than a small one; one without images not at all
    result = evaluate_classification(np.eye(3)[[0, 0, 0, 0]], [0, 0, 0, 1], ["large", "small", "none"])
    assert (result.top1, result.mean_class_accuracy) == (0.75, 0.5)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["class_accuracy"] == {"large": 1.0, "small": 0.0}
    assert document["images"] == 4
    text = format_classification(result)
    assert "mean class accuracy  0.5000" in text
    assert "small  predicted as large: 1 of 1" in text
    assert "confused" not in format_classification(evaluate_classification(np.eye(2), [0, 1], ["a", "b"]))


def test_wrong_input_is_told() -> None:
    with pytest.raises(ArgumentError, match=r"expected \(n, 2\) and \(n,\).*got \(1, 3\) and \(1,\)"):
        evaluate_classification(np.zeros((1, 3)), [0], ["a", "b"])
    with pytest.raises(ArgumentError, match="n >= 1"):
        evaluate_classification(np.zeros((0, 2)), [], ["a", "b"])
    with pytest.raises(ArgumentError, match="from 0 to 2, expected 0 to 1"):
        evaluate_classification(np.zeros((2, 2)), [0, 2], ["a", "b"])
    for labels in ([0.7, 1.9], ["a", "b"], [True, False]):
        with pytest.raises(ArgumentError, match=r"labels: got .*, expected integers 0 to 1"):
            evaluate_classification(np.eye(2), labels, ["a", "b"])
    with pytest.raises(ArgumentError, match="scores, labels: can't be made"):
        evaluate_classification([["good", "bad"]], [0], ["a", "b"])
    with pytest.raises(ArgumentError, match="image 1 has scores that are not numbers"):
        evaluate_classification(np.array([[0, 1], [np.nan, 1]]), [0, 1], ["a", "b"])


def test_drawing_shows_the_shares(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 20)
    scores = rng.normal(size=(120, 6))
    scores[np.arange(120), labels] += 2
    scores[labels == 2, 4] += 8  # one class is always taken for another
    names = ["cat", "dog", "price in $ or $\\bad", "horse", "a rather long name of a class", "zebra"]
    result = evaluate_classification(scores, labels, names)
    path = tmp_path / "confusion.png"
    plot_confusion(result, path)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 300
    # Blues ends at (8, 48, 107): the cell that is wrong every time is that dark, and it is the only one
    darkest = (np.abs(pixels - (8, 48, 107)).max(2) <= 2).sum()
    assert darkest > 400
    with pytest.raises(ArgumentError, match="ending in"):
        plot_confusion(result, tmp_path / "confusion.bmp")
