"""COCO's average precision, against numbers worked out by hand and a plain definition of it."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sppnet.boxes import box_iou
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.detection.detections import Detections
from sppnet.errors import ArgumentError, MissingDependencyError
from sppnet.evaluation.coco import evaluate_coco, format_coco_table


def record(number: int, boxes: Any, labels: Any, difficult: Any = None) -> ImageRecord:
    hard = np.zeros(len(labels), bool) if difficult is None else np.array(difficult, bool)
    return ImageRecord(
        Path(f"{number}.jpg"), np.array(boxes, np.float32), np.array(labels), hard, 200, 200, str(number)
    )


def found(boxes: Any, scores: Any, labels: Any, names: tuple[str, ...] = ("a", "b")) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64), names
    )


def test_by_hand() -> None:
    data = DetectionDataset([record(0, [[0, 0, 50, 50], [100, 100, 150, 150]], [0, 0])], ("a", "b"), "toy", "val")
    for label in (0.7, True):
        item = SimpleNamespace(xyxy=np.array([[0, 0, 50, 40]]), confidence=np.array([0.9]), class_id=np.array([label]))
        with pytest.raises(ArgumentError, match="expected whole numbers"):
            evaluate_coco([item], data)
    perfect = evaluate_coco([found([[0, 0, 50, 50], [100, 100, 150, 150]], [0.9, 0.8], [0, 0])], data)
    assert perfect.ap[0] == pytest.approx(1)
    assert np.isnan(perfect.ap[1])
    assert perfect.map == pytest.approx(1)
    # one of two found, IoU 0.8: recall 0.5 at the seven IoUs 0.50 ... 0.80, that is 51 of 101 recalls
    half = evaluate_coco([found([[0, 0, 50, 40]], [0.9], [0])], data)
    assert half.ap50[0] == pytest.approx(51 / 101)
    assert half.ap75[0] == pytest.approx(51 / 101)
    assert half.ap[0] == pytest.approx(51 / 101 * 7 / 10)
    text = format_coco_table(half)
    assert "protocol coco, IoU 0.50 to 0.95, toy val (1 image)" in text
    assert "- : no objects that count" in text
    assert (half.num_objects.tolist(), half.num_detections.tolist()) == ([2, 0], [1, 0])


def test_difficult_objects_count_neither_way() -> None:
    boxes = [[0, 0, 50, 50], [100, 100, 150, 150]]
    data = DetectionDataset([record(0, boxes, [0, 0], [False, True])], ("a", "b"))
    detections = found([boxes[1], boxes[1], boxes[0]], [0.9, 0.85, 0.8], [0, 0, 0])
    result = evaluate_coco([detections], data)
    assert result.ap[0] == pytest.approx(1)
    assert (result.num_objects[0], result.num_ignored[0]) == (1, 1)


def plain_ap(detections: list[Detections], data: DetectionDataset, label: int, iou: float) -> float:
    """101-point AP of a class at one IoU: greedy by score, each detection takes the best free object."""
    total = sum(int((r.labels == label).sum()) for r in data)
    ranked = sorted(
        ((-float(d.confidence[k]), i, k) for i, d in enumerate(detections) for k in np.flatnonzero(d.class_id == label))
    )
    taken: set[tuple[int, int]] = set()
    hits = []
    for _, i, k in ranked:
        best, place = iou, -1
        for j in np.flatnonzero(data[i].labels == label):
            overlap = box_iou(
                detections[i].xyxy[k : k + 1].astype(np.float64), data[i].boxes[j : j + 1].astype(np.float64)
            )[0, 0]
            if (i, int(j)) not in taken and overlap >= best:
                best, place = overlap, int(j)
        hits.append(place >= 0)
        if place >= 0:
            taken.add((i, place))
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    recall = right / total
    values = [max(precision[recall >= r - 1e-12], default=0.0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(values))


def test_against_the_definition() -> None:
    rng = np.random.default_rng(5)
    records, detections = [], []
    for i in range(12):
        corner = rng.uniform(0, 120, (4, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 70, (4, 2))], 1)
        records.append(record(i, boxes, rng.integers(0, 2, 4)))
        moved = np.concatenate([boxes + rng.normal(0, 4, boxes.shape), boxes[:2] + rng.normal(0, 15, (2, 4))])
        labels = np.where(rng.random(6) < 0.85, np.concatenate([records[-1].labels, records[-1].labels[:2]]), 0)
        detections.append(found(moved, rng.permutation(60)[:6] / 60 + i / 1000, labels))
    data = DetectionDataset(records, ("a", "b"))
    result = evaluate_coco(detections, data)
    for label in (0, 1):
        table = [plain_ap(detections, data, label, t) for t in np.arange(0.5, 0.96, 0.05)]
        assert result.ap[label] == pytest.approx(np.mean(table), abs=1e-6)
        assert result.ap50[label] == pytest.approx(table[0], abs=1e-6)
        assert result.ap75[label] == pytest.approx(table[5], abs=1e-6)
    assert result.summary["AP"] == pytest.approx(result.map)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    data = DetectionDataset([record(0, [[0, 0, 50, 50]], [0])], ("a", "b"))
    with pytest.raises(ArgumentError, match="detections of 0 images, but the data set has 1"):
        evaluate_coco([], data)
    with pytest.raises(ArgumentError, match=r"their classes are a, b, c, those of the data set a, b; use dataset"):
        evaluate_coco([found([[0, 0, 1, 1]] * 2, [0.1, 0.2], [0, 2], ("a", "b", "c"))], data)
    empty = evaluate_coco([found([], [], [])], data)
    assert empty.ap[0] == 0
    document = json.loads(json.dumps(empty.to_dict(), allow_nan=False))
    assert document["ap"] == {"a": 0.0, "b": None}
    assert (document["map"], document["summary"]["AP small"], document["images"]) == (0.0, None, 1)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sppnet\[coco\]'"):
        evaluate_coco([found([], [], [])], data)


def test_a_generator_of_detections_and_nothing_at_all() -> None:
    data = DetectionDataset([record(0, [[0, 0, 50, 50]], [0])], ("a", "b"))
    assert evaluate_coco(iter([found([[0, 0, 50, 50]], [0.9], [0])]), data).ap[0] == pytest.approx(1)
    for names in ((), ("a",)):
        nothing = evaluate_coco([], DetectionDataset([], names))
        assert (len(nothing.ap), nothing.num_images) == (len(names), 0)
        assert np.isnan(nothing.map)
        assert "0 images" in format_coco_table(nothing)
