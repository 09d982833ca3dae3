"""Thresholds of best F1, and parameters as scikit-learn's tools expect them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.detection.calibration import best_f1_threshold, calibrate_scores, fit_sigmoids
from sppnet.detection.detections import Detections


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([-1, 0, 1])), max_size=30),
    st.integers(0, 5),
)
def test_best_f1_is_best(pairs: list[tuple[int, int]], missed: int) -> None:
    """No other threshold has a better F1."""
    scores = np.array([s / 20 for s, _ in pairs])
    verdicts = np.array([v for _, v in pairs], np.int8)
    objects = int((verdicts == 1).sum()) + missed
    got = best_f1_threshold(scores, verdicts, objects)
    if not (verdicts == 1).any():
        assert got == 0.5
        return
    keep = verdicts >= 0

    def f1(threshold: float) -> float:
        shown = verdicts[keep & (scores >= threshold)]
        hits, alarms = int((shown == 1).sum()), int((shown == 0).sum())
        return 2 * hits / (2 * hits + alarms + objects - hits)

    assert f1(got) == pytest.approx(max(f1(t) for t in scores), abs=1e-9)


def test_threshold_by_hand() -> None:
    # hit, hit, miss, hit, miss of 4 objects: F1 after each 2/5, 4/6, 4/7, 6/8, 6/9
    scores, verdicts = np.array([0.9, 0.8, 0.7, 0.6, 0.2]), np.array([1, 1, 0, 1, 0], np.int8)
    assert best_f1_threshold(scores, verdicts, 4) == pytest.approx(0.4)
    assert best_f1_threshold(scores[:1], verdicts[:1], 1) == 0.9
    assert best_f1_threshold(scores, verdicts, 0) == 0.5
    # what found a difficult object counts for nothing
    assert best_f1_threshold(scores, np.array([1, 1, -1, 1, 0], np.int8), 3) == pytest.approx(0.4)


def test_calibrated_scores_are_probabilities() -> None:
    """Detections that are right with known probabilities get these probabilities, whatever sigmoid made the scores."""
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 1, 6000)
    right = rng.random(6000) < 1 / (1 + np.exp(-(3 * margin - 1)))
    records, found = [], []
    for k in range(60):
        rows = slice(100 * k, 100 * k + 100)
        boxes = np.array([[i * 10, 0, i * 10 + 8, 8] for i in range(100)], np.float32)
        score = 1 / (1 + np.exp(-(2 * margin[rows] + 0.5)))
        order = np.argsort(-score)
        label = np.zeros(100, np.int64)
        found.append(Detections(boxes[order], score[order].astype(np.float32), label, ("a",)))
        there = boxes[right[rows]]
        none = np.zeros(len(there), np.int64)
        records.append(ImageRecord(Path("x"), there, none, none > 0, 1000, 10, str(k)))
    dataset = DetectionDataset(records, ("a",))
    got = calibrate_scores(found, dataset, np.array([2.0], np.float32), np.array([0.5], np.float32))
    assert got.slope[0] == pytest.approx(3, abs=0.2)
    assert got.offset[0] == pytest.approx(-1, abs=0.15)
    assert 0.2 < got.thresholds[0] < 0.5


def test_few_detections_stay_near_the_centre() -> None:
    slope, offset = fit_sigmoids([np.array([0.3])], [np.array([1], np.int8)], centre=(4.0, -2.0))
    assert slope[0] == pytest.approx(4, abs=0.5)
    assert offset[0] == pytest.approx(-2, abs=0.5)
    slope, offset = fit_sigmoids([np.zeros(0)], [np.zeros(0, np.int8)], centre=(4.0, -2.0))
    assert (slope[0], offset[0]) == (4, -2)
