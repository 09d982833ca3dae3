"""Box arithmetic: by hand, by its laws, and against definitions written out slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sppnet.boxes import as_boxes, box_area, box_iou, clip_boxes, decode_deltas, encode_deltas, nms, soft_nms
from sppnet.errors import ArgumentError

whole = st.integers(-20, 40)
any_boxes = st.lists(st.tuples(whole, whole, whole, whole), max_size=12).map(lambda rows: as_boxes(rows))


def proper(boxes: np.ndarray) -> np.ndarray:
    """Corners in order, each side at least 1."""
    low = np.minimum(boxes[:, :2], boxes[:, 2:])
    return np.concatenate([low, np.maximum(np.maximum(boxes[:, :2], boxes[:, 2:]), low + 1)], 1)


good_boxes = any_boxes.map(proper)


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4)), np.zeros(0), ()])
def test_as_boxes_empty(empty: object) -> None:
    assert as_boxes(empty).shape == (0, 4)  # type: ignore[arg-type]
    assert as_boxes(empty).dtype == np.float32  # type: ignore[arg-type]


def test_as_boxes() -> None:
    assert as_boxes([[1, 2, 3, 4]]).tolist() == [[1, 2, 3, 4]]
    cases: tuple[tuple[Any, str], ...] = (
        ([1, 2, 3, 4], r"got shape \(4,\)"),
        ([[1, 2, 3]], r"got shape \(1, 3\)"),
        ([[1, 2, 3, "x"]], "expected numbers"),
        ([[1, 2, 3], [1]], "expected numbers"),
        ([[1, 2, 3, 4], [1, 2, np.inf, 4]], "windows: row 1 is not finite"),
        ([[np.nan, 2, 3, 4]], "row 0 is not finite"),
    )
    for bad, message in cases:
        with pytest.raises(ArgumentError, match=message):
            as_boxes(bad, "windows")


def test_area_and_iou_by_hand() -> None:
    boxes = as_boxes([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 5, 5], [8, 8, 2, 2], [3, 3, 3, 9]])
    assert box_area(boxes).tolist() == [100, 100, 100, 25, 0, 0]
    iou = box_iou(boxes[:1], boxes)
    assert iou[0] == pytest.approx([1, 50 / 150, 0, 0.25, 0, 0])  # touching boxes don't overlap
    assert box_iou(boxes[4:], boxes[4:]).tolist() == [[0, 0], [0, 0]]
    assert box_iou(boxes, boxes[:0]).shape == (6, 0)


@given(good_boxes, good_boxes)
def test_iou_counts_cells(a: np.ndarray, b: np.ndarray) -> None:
    iou = box_iou(a, b)
    assert iou.shape == (len(a), len(b))
    for i in range(len(a)):
        for j in range(len(b)):
            cells = [
                {(x, y) for x in range(int(r[0]), int(r[2])) for y in range(int(r[1]), int(r[3]))} for r in (a[i], b[j])
            ]
            assert iou[i, j] == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]), rel=1e-6)
    assert np.array_equal(iou, box_iou(b, a).T)


def test_clip() -> None:
    boxes = as_boxes([[-5, -6, 700, 800], [10, 20, 30, 40], [900, 900, 950, 950]])
    before = boxes.copy()
    assert clip_boxes(boxes, 480, 640).tolist() == [[0, 0, 640, 480], [10, 20, 30, 40], [640, 480, 640, 480]]
    assert np.array_equal(boxes, before)
    assert clip_boxes(boxes[:0], 480, 640).shape == (0, 4)


def test_deltas_by_hand() -> None:
    # The target is one width to the right, half a height down, twice as wide and as high.
    window, target = as_boxes([[0, 0, 10, 20]]), as_boxes([[5, 0, 25, 40]])
    deltas = encode_deltas(window, target)
    assert deltas == pytest.approx(np.array([[1.0, 0.5, np.log(2), np.log(2)]]))
    assert decode_deltas(window, deltas) == pytest.approx(target)
    assert decode_deltas(window, np.zeros((1, 4), np.float32)) == pytest.approx(window)


@given(good_boxes, st.randoms(use_true_random=False))
def test_deltas_come_back(windows: np.ndarray, random: object) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(windows))  # type: ignore[attr-defined]
    targets = windows[order]
    deltas = encode_deltas(windows, targets)
    assert deltas.dtype == np.float32
    assert np.allclose(decode_deltas(windows, deltas), targets, atol=1e-3)
    # A column for each class: the same, class by class.
    two = np.stack([deltas, np.zeros_like(deltas)], 1)
    assert np.allclose(decode_deltas(windows, two), np.stack([targets, windows], 1), atol=1e-3)


def test_huge_deltas_stay_finite() -> None:
    boxes = decode_deltas(as_boxes([[0, 0, 16, 16]]), np.array([[0, 0, 1e6, -1e6]], np.float32))
    assert np.isfinite(boxes).all()
    assert boxes[0, 2] - boxes[0, 0] == pytest.approx(1000, rel=0.01)


# --- NMS -------------------------------------------------------------------------------------------------------------


def slow_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Take the best that is left, strike out what overlaps it too much, and so on."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        iou = box_iou(boxes[best : best + 1].astype(np.float64), boxes.astype(np.float64))[0]
        left = [i for i in left if not iou[i] > threshold]
    return kept


def test_nms_by_hand() -> None:
    boxes = as_boxes([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 10]])
    assert nms(boxes, np.array([0.5, 0.9, 0.1, 0.9]), 0.3).tolist() == [1, 2]
    assert nms(boxes, np.array([0.9, 0.5, 0.1, 0.9]), 0.3).tolist() == [0, 2]  # the first of equals
    assert nms(boxes, np.array([0.5, 0.9, 0.1, 0.8]), 1.0).tolist() == [1, 3, 0, 2]
    assert nms(boxes[:0], np.zeros(0)).tolist() == []
    assert nms(boxes[:0], np.zeros(0)).dtype == np.int64


def test_nms_keeps_what_is_just_at_the_threshold() -> None:
    boxes = as_boxes([[0, 0, 10, 10], [0, 0, 5, 10]])  # IoU exactly 1/2
    assert len(nms(boxes, np.array([2.0, 1.0]), 0.5)) == 2
    assert len(nms(boxes, np.array([2.0, 1.0]), 0.49)) == 1


def test_nms_is_not_transitive() -> None:
    # b overlaps a and c; struck out by a, it can't strike out c.
    boxes = as_boxes([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]])
    assert nms(boxes, np.array([3.0, 2.0, 1.0]), 0.3).tolist() == [0, 2]


@settings(max_examples=200)
@given(any_boxes, st.data(), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_nms_against_the_slow_one(boxes: np.ndarray, data: st.DataObject, threshold: float) -> None:
    scores = data.draw(hnp.arrays(np.float32, len(boxes), elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0])))
    kept = nms(boxes, scores, threshold)
    assert kept.tolist() == slow_nms(boxes, scores, threshold)
    assert (np.diff(scores[kept]) <= 0).all()


def test_nms_of_thousands(rng: np.random.Generator) -> None:
    low = rng.random((3000, 2)) * 400
    boxes = np.concatenate([low, low + 10 + rng.random((3000, 2)) * 120], 1).astype(np.float32)
    scores = rng.random(3000)
    kept = nms(boxes, scores, 0.3)
    iou = box_iou(boxes[kept], boxes)
    assert (iou[:, kept] - np.eye(len(kept))).max() <= 0.3 + 1e-6
    assert (iou.max(0) > 0.3 - 1e-6).all()  # whatever was struck out overlaps something kept


def test_soft_nms_by_hand() -> None:
    boxes = as_boxes([[0, 0, 10, 10], [0, 0, 5, 10], [20, 0, 30, 10]])  # IoU of the first two is 1/2
    index, scores = soft_nms(boxes, np.array([0.9, 0.8, 0.5]), 0.5)
    assert index.tolist() == [0, 2, 1]  # the second has fallen behind the third
    np.testing.assert_allclose(scores, [0.9, 0.5, 0.8 * np.exp(-0.25 / 0.5)], rtol=1e-6)
    assert soft_nms(boxes, np.array([0.9, 0.8, 0.5]), 0.5, most=2)[0].tolist() == [0, 2]
    index, scores = soft_nms(boxes[:0], np.zeros(0))
    assert index.shape == scores.shape == (0,)


@settings(max_examples=100)
@given(any_boxes, st.sampled_from([0.1, 0.5, 2.0]))
def test_soft_nms_takes_each_box_once_and_never_raises_a_score(boxes: np.ndarray, sigma: float) -> None:
    scores = np.linspace(0.9, 0.1, len(boxes))
    index, after = soft_nms(boxes, scores, sigma)
    assert sorted(index.tolist()) == list(range(len(boxes)))
    assert (after <= scores[index] + 1e-6).all()
    overlap = box_iou(boxes, boxes).astype(np.float64)
    for place, k in enumerate(index):
        before = index[:place]
        assert after[place] == pytest.approx(scores[k] * np.exp(-(overlap[before, k] ** 2).sum() / sigma), rel=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint8, None])
def test_boxes_of_any_numbers(dtype: Any) -> None:
    rows = [[0, 0, 200, 100], [0, 0, 100, 100]]
    boxes = rows if dtype is None else np.array(rows, dtype)
    assert box_iou(boxes, boxes).tolist() == [[1, 0.5], [0.5, 1]]
    large = np.array([[0, 0, 500, 375]], np.float16)  # the area is no number of float16
    assert box_iou(large, large).tolist() == [[1]]
    assert nms(boxes, [1, 2]).tolist() == [1]
    assert nms(boxes, np.array([0, 9], np.uint8), 0.5).tolist() == [1, 0]
    assert nms([], []).tolist() == []
    assert box_iou([], boxes).shape == (0, 2)


@pytest.mark.parametrize(
    ("boxes", "scores", "iou", "message"),
    [
        ([[0, 0, 1, 1]], [0.5, 0.4], 0.3, r"scores: got shape \(2,\), expected \(1,\)"),
        ([[0, 0, 1, 1]] * 3, [0.5, 0.4], 0.3, r"scores: got shape \(2,\), expected \(3,\)"),
        ([[0, 0, 1, 1], [np.nan] * 4], [0.5, 0.4], 0.3, "boxes: row 1 is not finite"),
        ([[0, 0, 1, 1]], [np.nan], 0.3, "scores: row 0 is not finite"),
        ([[0, 0, 1, 1]], ["a"], 0.3, "scores: expected a number a box"),
        ([[0, 0, 1]], [1], 0.3, r"boxes: expected shape \(K, 4\)"),
        ([["a", "b", "c", "d"]], [1], 0.3, r"boxes: expected numbers of shape \(K, 4\)"),
        ([[0, 0, 1, 1]], [1], 5, "iou: got 5, expected a number from 0 to 1"),
    ],
)
def test_what_nms_refuses(boxes: Any, scores: Any, iou: float, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        nms(boxes, scores, iou)
