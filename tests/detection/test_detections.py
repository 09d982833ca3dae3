"""Detections behave as ``supervision.Detections`` does, and equal each other by value."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import numpy as np
import pytest

from sppnet.detection.detections import Detection, Detections
from sppnet.errors import ArgumentError

NAMES = ("cat", "dog", "horse")
BOXES = np.array([[0, 0, 10, 20], [5, 5, 30, 40], [1, 2, 3, 4], [50, 60, 70, 90]], np.float32)


@pytest.fixture
def found() -> Detections:
    return Detections(BOXES, [0.9, 0.8, 0.5, 0.25], [1, 0, 2, 1], NAMES, {"fc": 0.5}, 100)  # type: ignore[arg-type]  # converted


def test_types(found: Detections) -> None:
    assert [str(v.dtype) for v in (found.xyxy, found.confidence, found.class_id)] == ["float32", "float32", "int64"]
    assert found.class_names == NAMES
    assert found.class_name.tolist() == ["dog", "cat", "horse", "dog"]
    assert found.data["class_name"].tolist() == ["dog", "cat", "horse", "dog"]


@pytest.mark.parametrize(
    "index",
    [0, -1, slice(1, 3), slice(None, None, -2), [2, 0], [], np.array([True, False, True, False]), np.array([3, 3])],
    ids=str,
)
def test_indexing_as_supervision(found: Detections, index: Any) -> None:
    supervision = pytest.importorskip("supervision")
    got, other = found[index], found.to_supervision()[index]
    assert isinstance(other, supervision.Detections)
    assert np.array_equal(got.xyxy, other.xyxy)
    assert np.array_equal(got.confidence, other.confidence)
    assert np.array_equal(got.class_id, other.class_id)
    assert got.class_name.tolist() == list(other.data["class_name"])
    assert (got.class_names, got.seconds, got.window_count) == (NAMES, {"fc": 0.5}, 100)
    assert len(got) == len(other)


def test_masks(found: Detections) -> None:
    assert found[found.confidence >= 0.5].class_id.tolist() == [1, 0, 2]
    assert found[found.class_name == "dog"].confidence.tolist() == [np.float32(0.9), np.float32(0.25)]
    assert found[np.zeros(4, bool)] == Detections.empty(NAMES)


@pytest.mark.parametrize("index", ["cat", 1.5, [0.0, 1.0], np.ones((2, 2), bool)], ids=str)
def test_wrong_index(found: Detections, index: Any) -> None:
    with pytest.raises(ArgumentError, match="expected an integer, a slice, a mask or integers"):
        found[index]


def test_index_out_of_range(found: Detections) -> None:
    with pytest.raises(IndexError):
        found[4]
    with pytest.raises(IndexError):
        found[np.ones(3, bool)]


def test_iteration(found: Detections) -> None:
    items = list(found)
    assert all(isinstance(item, Detection) for item in items)
    assert [(item.confidence, item.class_id, item.class_name) for item in items] == [
        (float(np.float32(0.9)), 1, "dog"),
        (float(np.float32(0.8)), 0, "cat"),
        (0.5, 2, "horse"),
        (0.25, 1, "dog"),
    ]
    assert np.array_equal(np.stack([item.xyxy for item in items]), BOXES)


def test_equality_by_value(found: Detections) -> None:
    same = Detections(BOXES.copy(), found.confidence.copy(), found.class_id.copy(), NAMES)
    assert found == same  # seconds and window_count are not compared
    assert pickle.loads(pickle.dumps(found)) == found
    others = [
        found[:3],
        Detections(BOXES + 1, found.confidence, found.class_id, NAMES),
        Detections(BOXES, np.float32(0.5) * found.confidence, found.class_id, NAMES),
        Detections(BOXES, found.confidence, [0, 0, 2, 1], NAMES),  # type: ignore[arg-type]  # converted
        Detections(BOXES, found.confidence, found.class_id, ("cat", "dog", "cow")),
        "found",
    ]
    for other in others:
        assert found != other


def test_empty() -> None:
    empty = Detections.empty(NAMES)
    assert len(empty) == 0
    assert empty.is_empty()
    assert empty.xyxy.shape == (0, 4)
    assert empty.class_names == NAMES
    assert list(empty) == []
    assert empty.class_name.tolist() == []
    assert Detections.empty() == Detections.merge([])


def test_merge(found: Detections) -> None:
    other = Detections(BOXES[:2] + 1, [0.7, 0.6], [0, 1], ("dog", "bird"), {"fc": 1.0, "NMS": 2.0}, 20)  # type: ignore[arg-type]  # converted
    both = Detections.merge([found, other, Detections.empty(("cow",))])
    assert both.class_names == (*NAMES, "bird", "cow")
    assert both.class_name.tolist() == [*found.class_name, "dog", "bird"]
    assert np.array_equal(both.xyxy, np.concatenate([BOXES, BOXES[:2] + 1]))
    assert np.array_equal(both.confidence, np.concatenate([found.confidence, other.confidence]))
    assert both.seconds == {"fc": 1.5, "NMS": 2.0}
    assert both.window_count == 120
    assert Detections.merge([found]) == found
    assert Detections.merge(part for part in (found, other)) == Detections.merge([found, other])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            (np.zeros((2, 4)), np.zeros(3), np.zeros(2, int)),
            "expected xyxy (n, 4), confidence (n,) and class_id (n,), got (2, 4), (3,) and (2,)",
        ),
        ((np.zeros((2, 5)), np.zeros(2), np.zeros(2, int)), "got (2, 5), (2,) and (2,)"),
        ((np.zeros((1, 4)), np.zeros(1), np.zeros(1)), "class_id: got float64, expected integers"),
        ((np.zeros((1, 4)), np.zeros(1), [3]), "class_id: got values 3 to 3, expected an index into 3 class_names"),
        ((np.zeros((1, 4)), np.zeros(1), [-1]), "class_id: got values -1 to -1"),
    ],
)
def test_wrong_parts(parts: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)):
        Detections(*parts, NAMES)


def test_category_ids_of_coco_are_plain_numbers(found: Detections) -> None:
    assert json.dumps(found.to_coco(1, np.array([7, 8, 9]))) == json.dumps(found.to_coco(1, [7, 8, 9]))  # type: ignore[arg-type]  # an array is taken, too
    with pytest.raises(ArgumentError, match=r"category_ids: got 7\.5"):
        found.to_coco(1, [7.5, 8, 9])  # type: ignore[list-item]  # what is tested
