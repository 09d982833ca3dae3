"""From fc features to detections: what is found of a class doesn't depend on the others; thresholds hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from sppnet import set_num_threads
from sppnet._types import F32
from sppnet.boxes import decode_deltas, nms
from sppnet.detection.heads import HeadEngine
from sppnet.detection.inference import decode_detections
from sppnet.detection.options import SuppressionOptions
from sppnet.detection.weights import CLASS_ROWS, DetectorWeights

HIDDEN, WINDOWS = 96, 450


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    set_num_threads(request.param)
    yield request.param
    set_num_threads(None)


HARD = SuppressionOptions(nms_iou=0.3, soft_sigma=0.0)


def random_weights(classes: int) -> DetectorWeights:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> F32:
        return rng.normal(size=shape).astype(np.float32)

    return DetectorWeights(
        reduce_weight=some(16, 4) * 0.004,
        reduce_bias=np.zeros(16, np.float32),
        fc6_weight=some(HIDDEN, 16) * 0.2,
        fc6_bias=some(HIDDEN) * 0.1,
        class_weight=some(classes, HIDDEN) * 0.3,
        class_bias=some(classes) * 0.1,
        box_weight=some(classes * 4, HIDDEN) * 0.1,
        box_bias=some(classes * 4) * 0.1,
        slope=rng.random(classes, np.float32) + 1,
        offset=some(classes) * 0.1 + 1,
    )


def scorer(weights: DetectorWeights) -> Callable[[F32], tuple[F32, F32]]:
    """Boxes themselves are the vectors."""
    head = HeadEngine(weights.arrays())
    return lambda boxes: head.scores(head.fc(boxes))


def chosen(weights: DetectorWeights, classes: list[int]) -> DetectorWeights:
    parts = weights.arrays()
    for name, rows in CLASS_ROWS.items():
        parts[name] = np.concatenate([parts[name][rows * c : rows * (c + 1)] for c in classes])
    return DetectorWeights(**parts)


def windows() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 200, (WINDOWS, 2))
    return np.concatenate([corner, corner + rng.uniform(20, 150, (WINDOWS, 2))], 1).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_other_classes_change_no_bit(threads: int, threshold: float) -> None:
    """Detections of a class are equal, box and score, with 1 to 40 classes in any order beside it."""
    everything, boxes = random_weights(40), windows()

    def run(classes: list[int]) -> list[tuple[np.ndarray, ...]]:
        weights = chosen(everything, classes)
        got = decode_detections(weights, scorer(weights), boxes, 300, 320, HARD, threshold=threshold)
        return [tuple(part[got[2] == i] for part in got[:2]) for i in range(len(classes))]

    some = [0, 3, 7, 12, 19, 31, 39]
    alone = {c: run([c])[0] for c in some}
    assert sum(len(score) for _, score in alone.values()) > 20
    for classes in (list(range(20)), list(range(40)), [7, 3, 39, 12]):
        for c, got in zip(classes, run(classes), strict=True):
            if c in alone:
                assert np.array_equal(got[0], alone[c][0]), c
                assert np.array_equal(got[1], alone[c][1]), c


def test_a_threshold_for_each_class() -> None:
    weights, boxes = random_weights(3), windows()
    fc = scorer(weights)
    least = np.array([0.9, 0.2, 1.0], np.float32)
    box, score, label = decode_detections(weights, fc, boxes, 300, 320, HARD, threshold=least)
    assert len(score) > 5
    assert (score >= least[label]).all()
    for c in (0, 1):
        alone = decode_detections(weights, fc, boxes, 300, 320, HARD, threshold=float(least[c]))
        assert np.array_equal(alone[1][alone[2] == c], score[label == c])
        assert np.array_equal(alone[0][alone[2] == c], box[label == c])


def test_soft_suppression_lowers_scores_in_place_of_lives() -> None:
    weights, boxes = random_weights(3), windows()
    score = scorer(weights)

    def run(soft_sigma: float, threshold: float = 0.0) -> tuple[np.ndarray, ...]:
        return decode_detections(
            weights, score, boxes, 300, 320,
            SuppressionOptions(nms_iou=0.5, soft_sigma=soft_sigma), threshold=threshold,
        )  # fmt: skip

    hard, soft = run(0.0), run(0.3)
    for c in range(3):
        a, b = (tuple(part[got[2] == c] for part in got[:2]) for got in (hard, soft))
        assert a[1][0] == b[1][0]  # the best keeps its score
        assert (np.diff(b[1]) <= 0).all()
        # the same boxes where all are shown, none with a better score than before
        before = {tuple(box): float(score) for box, score in zip(a[0].tolist(), a[1], strict=True)}
        common = [(before[tuple(box)], float(s)) for box, s in zip(b[0].tolist(), b[1], strict=True)
                  if tuple(box) in before]  # fmt: skip
        assert len(common) > 5
        assert all(after <= was + 1e-6 for was, after in common)
        assert any(after < was - 1e-3 for was, after in common)
    least = 0.6
    some = run(0.3, least)
    assert (some[1] >= least).all()
    assert len(some[1]) == int((soft[1] >= least).sum())


def test_plain_path_equals_the_formulas() -> None:
    """Without refinement and voting: sigmoid, regression, suppression, one class after another."""
    weights, boxes = random_weights(9), windows()
    h = HeadEngine(weights.arrays()).fc(boxes).astype(np.float64)
    for threshold in (0.0, 0.7):
        box, score, label = decode_detections(
            weights, scorer(weights), boxes, 300, 320, SuppressionOptions(0.3, 0.0, 0, False), threshold=threshold
        )
        for c in range(9):
            margin = h @ weights.class_weight[c].astype(np.float64) + weights.class_bias[c]
            p = 1 / (1 + np.exp(-(margin * float(weights.slope[c]) + float(weights.offset[c]))))
            rows = np.argsort(-p, kind="stable")[:400]
            rows = rows[p[rows] >= threshold]
            moves = h[rows] @ weights.box_weight[4 * c : 4 * c + 4].astype(np.float64).T
            deltas = (moves + weights.box_bias[4 * c : 4 * c + 4]) * [0.1, 0.1, 0.2, 0.2]
            moved = np.clip(decode_deltas(boxes[rows], deltas), 0, np.array([320, 300, 320, 300], np.float32))
            kept = nms(moved, p[rows], 0.3)[:100]
            np.testing.assert_allclose(score[label == c], p[rows][kept], atol=1e-5)
            np.testing.assert_allclose(box[label == c], moved[kept], atol=1e-2)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_each_round_of_refinement_starts_from_the_boxes_of_the_last(rounds: int) -> None:
    weights, boxes = random_weights(2), windows()
    score = scorer(weights)
    limit = np.array([320, 300, 320, 300], np.float32)

    def regressed(of: F32, c: int) -> tuple[F32, F32]:
        margins, deltas = score(of)
        return np.clip(decode_deltas(of, deltas[:, c]), 0, limit), np.asarray(
            1 / (1 + np.exp(-margins[:, c])), np.float32
        )

    options = SuppressionOptions(0.3, 0.0, rounds, False)
    got = decode_detections(weights, score, boxes, 300, 320, options)
    for c in range(2):
        last, p = regressed(boxes, c)
        best = np.argsort(-p, kind="stable")[:400]
        last, p = last[best], p[best]
        everything, scores = [last], [p]
        for _ in range(rounds):
            rows = np.flatnonzero(p >= 0.02)
            rows = rows[nms(last[rows], p[rows], 0.7)[:40]]
            rows = rows[((last[rows, 2:] - last[rows, :2]) >= 4).all(1)]
            last, p = regressed(last[rows], c)
            everything.append(last)
            scores.append(p)
        assert len(everything[-1]) > 3
        found, scored = np.concatenate(everything), np.concatenate(scores)
        kept = nms(found, scored, 0.3)[:100]
        kept = kept[(found[kept, 2:] > found[kept, :2]).all(1)]
        np.testing.assert_allclose(got[0][got[2] == c], found[kept], atol=1e-2)
        margin = np.log(scored[kept] / (1 - scored[kept])) * weights.slope[c] + weights.offset[c]
        np.testing.assert_allclose(got[1][got[2] == c], 1 / (1 + np.exp(-margin)), atol=1e-4)
