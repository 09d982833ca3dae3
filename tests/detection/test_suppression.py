"""Suppression by kernels: the same rows and numbers as the functions that define it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.boxes import as_boxes, box_iou, nms
from sppnet.detection.suppression import iou_of_pairs, suppressed

# whole sides make many equal overlaps and boxes without area, eighths make others
side = st.integers(-160, 320).map(lambda n: n / 8) | st.integers(-5, 9).map(float)
boxes = st.lists(st.tuples(side, side, side, side), max_size=14).map(as_boxes)
proper = boxes.map(lambda b: np.concatenate([np.minimum(b[:, :2], b[:, 2:]), np.maximum(b[:, :2], b[:, 2:])], 1))


@settings(deadline=None)
@given(boxes | proper, st.data(), st.sampled_from([0.0, 0.3, 0.5, 1.0]) | st.floats(0, 1))
def test_suppressed(found: np.ndarray, data: st.DataObject, iou: float) -> None:
    marks = data.draw(st.lists(st.integers(0, 4), min_size=len(found), max_size=len(found)))  # many are equal
    scores = np.array(marks, np.float32) * np.float32(0.25)
    kept = suppressed(found, scores, iou)
    assert kept.dtype == np.int64
    assert kept.tolist() == nms(found, scores, iou).tolist()


@settings(deadline=None)
@given(boxes | proper, boxes | proper)
def test_iou_of_pairs(a: np.ndarray, b: np.ndarray) -> None:
    found, expected = iou_of_pairs(a, b), box_iou(a, b)
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("iou", [0.3, 0.5])
def test_thousands(iou: float) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 400, (3000, 2))
    many = np.concatenate([corner, corner + rng.uniform(1, 90, (3000, 2))], 1).astype(np.float32)
    scores = rng.random(3000).astype(np.float32)
    kept = suppressed(many, scores, iou)
    assert 50 < len(kept) < 2500
    np.testing.assert_array_equal(kept, nms(many, scores, iou))
    np.testing.assert_array_equal(iou_of_pairs(many[:100], many), box_iou(many[:100], many))
