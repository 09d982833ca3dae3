"""Which windows are examples of what."""

from __future__ import annotations

import numpy as np

from sppnet.boxes import decode_deltas
from sppnet.detection.training.sampling import assign_windows, class_overlaps, draw_windows

WINDOWS = np.array(
    [
        [0, 0, 10, 10],  # object 0 exactly
        [0, 0, 10, 5],  # half of it: IoU 0.5
        [20, 0, 30, 10],  # object 1 exactly
        [24, 0, 34, 10],  # IoU 6/14 with it
        [50, 50, 60, 60],  # nothing
        [80, 80, 90, 90],  # the difficult object
    ],
    np.float32,
)
BOXES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [80, 80, 90, 90]], np.float32)
LABELS = np.array([3, 1, 3])
DIFFICULT = np.array([False, False, True])


def test_assignment_by_hand() -> None:
    got = assign_windows(WINDOWS, BOXES, LABELS, DIFFICULT)
    np.testing.assert_allclose(got.iou, [1, 0.5, 1, 6 / 14, 0, 0], atol=1e-6)
    assert got.label.tolist() == [3, 3, 1, 1, -1, -1]
    assert got.ignored.tolist() == [False] * 5 + [True]
    np.testing.assert_allclose(decode_deltas(WINDOWS[:4], got.deltas[:4]), BOXES[[0, 0, 1, 1]], atol=1e-4)
    assert not got.deltas[4:].any()


def test_no_objects() -> None:
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    got = assign_windows(WINDOWS, *empty)
    assert not got.iou.any()
    assert (got.label == -1).all()
    assert not got.ignored.any()
    only_difficult = assign_windows(WINDOWS, BOXES[2:], LABELS[2:], DIFFICULT[2:])
    assert only_difficult.ignored.tolist() == [False] * 5 + [True]
    assert class_overlaps(WINDOWS, *empty[:2], 4).shape == (6, 4)


def test_overlap_with_each_class() -> None:
    got = class_overlaps(WINDOWS, BOXES, LABELS, 4)
    np.testing.assert_allclose(got[:, 3], [1, 0.5, 0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(got[:, 1], [0, 0, 1, 6 / 14, 0, 0], atol=1e-6)
    assert not got[:, [0, 2]].any()


def test_draw_keeps_shares_and_ranges() -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 80, (500, 2))
    windows = np.concatenate([corner, corner + rng.uniform(5, 20, (500, 2))], 1).astype(np.float32)
    windows = np.concatenate([windows, np.repeat(BOXES[:2], 40, 0)])
    assignment = assign_windows(windows, BOXES, LABELS, DIFFICULT)
    index, label = draw_windows(assignment, 64, np.random.default_rng(0), easy_background_share=0.25)
    assert len(index) == 64
    assert len(set(index.tolist())) == 64
    foreground = label >= 0
    assert foreground.sum() == 16
    assert (assignment.iou[index[foreground]] >= 0.5).all()
    assert (label[foreground] == assignment.label[index[foreground]]).all()
    background = index[~foreground]
    assert (assignment.iou[background] < 0.5).all()
    assert not assignment.ignored[background].any()
    assert (assignment.iou[background] < 0.1).sum() >= 12
    again, _ = draw_windows(assignment, 64, np.random.default_rng(0), easy_background_share=0.25)
    assert (again == index).all()


def test_draw_from_little() -> None:
    rng = np.random.default_rng(0)
    assignment = assign_windows(WINDOWS, BOXES, LABELS, DIFFICULT)
    index, label = draw_windows(assignment, 64, rng)
    assert sorted(index.tolist()) == [0, 1, 2, 3, 4]  # all but the ignored one
    assert sorted(label.tolist()) == [-1, -1, 1, 3, 3]
    nothing = assign_windows(WINDOWS[:0], BOXES, LABELS, DIFFICULT)
    assert len(draw_windows(nothing, 8, rng)[0]) == 0
