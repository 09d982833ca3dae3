"""Average precision against numbers worked out by hand, a second implementation, and pycocotools."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.datasets.formats.voc import load_voc
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import ArgumentError
from sppnet.evaluation.voc import evaluate_voc, format_table, plot_curves


@dataclass
class Found:
    xyxy: Any = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    confidence: Any = field(default_factory=lambda: np.zeros(0, np.float32))
    class_id: Any = field(default_factory=lambda: np.zeros(0, np.int64))


def image(boxes: Any, labels: Any = None, difficult: Any = None, name: str = "a") -> ImageRecord:
    count = len(boxes)
    return ImageRecord(
        Path(f"{name}.jpg"),
        boxes,
        np.array(labels if labels is not None else [0] * count, np.int64),
        np.array(difficult if difficult is not None else [False] * count, bool),
        1000,
        1000,
        name,
    )


def found(*items: tuple[Any, float] | tuple[Any, float, int]) -> Found:
    """(box, score) or (box, score, label) each."""
    if not items:
        return Found()
    labels = [item[2] if len(item) == 3 else 0 for item in items]
    return Found(
        np.array([item[0] for item in items], np.float32), np.array([item[1] for item in items]), np.array(labels)
    )


def both(detections: list[Found], records: list[ImageRecord], names: tuple[str, ...] = ("cat",)) -> tuple[Any, Any]:
    dataset = DetectionDataset(records, names)
    return (
        evaluate_voc(detections, dataset, protocol="voc07-11pt"),
        evaluate_voc(detections, dataset, protocol="voc-area"),
    )


A, B, C, D = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]
MISS = [500, 500, 510, 510]

# --- by hand ---------------------------------------------------------------------------------------------------------


def test_all_right() -> None:
    for result in both([found((A, 0.9), (B, 0.2))], [image([A, B])]):
        assert result.ap.tolist() == [1.0]
        assert result.map == 1.0
        assert result.recall[0].tolist() == [0.5, 1.0]
        assert result.precision[0].tolist() == [1.0, 1.0]
        assert result.confidence[0].tolist() == [0.9, 0.2]


def test_hit_miss_hit_of_four() -> None:
    # recall .25 .25 .5; precision 1 1/2 2/3.  11 points: recalls 0 .1 .2 give 1; .3 .4 .5 give 2/3; the rest 0.
    eleven, area = both([found((A, 0.9), (MISS, 0.8), (B, 0.7))], [image([A, B, C, D])])
    assert eleven.ap[0] == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)  # = 5/11
    assert area.ap[0] == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)  # = 5/12
    assert eleven.recall[0].tolist() == [0.25, 0.25, 0.5]


def test_recall_is_compared_exactly() -> None:
    # 3 of 10 found is a recall of 0.3, which 0.1 * 3 in floating point just misses: 4 points of 11 count, not 3.
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(10)]
    for count in range(11):
        eleven, area = both([found(*((box, 1.0) for box in boxes[:count]))], [image(boxes)])
        assert eleven.ap[0] == pytest.approx((count + 1) / 11 if count else 0)
        assert area.ap[0] == pytest.approx(count / 10)


def test_second_detection_of_an_object_is_a_false_positive() -> None:
    # hit, repeated, hit: precision 1 1/2 2/3 at recall 1/2 1/2 1.
    eleven, area = both([found((A, 0.9), (A, 0.8), (B, 0.7))], [image([A, B])])
    assert eleven.precision[0] == pytest.approx([1, 1 / 2, 2 / 3])
    assert eleven.ap[0] == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert area.ap[0] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_better_score_is_the_hit_not_the_better_overlap() -> None:
    eleven, _ = both([found((A, 0.3), ([0, 0, 10, 12], 0.9))], [image([A])])
    assert eleven.precision[0].tolist() == [1.0, 0.5]


def test_no_second_choice() -> None:
    # The second box overlaps A most, which is taken; that it also overlaps its neighbour enough doesn't help.
    a, b = [0, 0, 10, 10], [0, 2, 10, 12]
    nearer_a = [0, 0.5, 10, 10.5]
    eleven, _ = both([found((a, 0.9), (nearer_a, 0.8))], [image([a, b])])
    assert eleven.precision[0].tolist() == [1.0, 0.5]


def test_difficult_objects_are_neither_hit_nor_miss() -> None:
    record = image([A, B], difficult=[False, True])
    eleven, area = both([found((B, 0.9), (B, 0.8), (A, 0.7))], [record])
    assert eleven.ap.tolist() == area.ap.tolist() == [1.0]
    assert eleven.precision[0].tolist() == [1.0]
    assert (eleven.num_objects.tolist(), eleven.num_difficult.tolist(), eleven.num_detections.tolist()) == (
        [1],
        [1],
        [3],
    )
    assert both([found()], [record])[0].ap.tolist() == [0.0]


def test_class_without_objects_is_left_out_of_the_mean() -> None:
    names = ("cat", "dog", "cow")
    record = image([A, B, C], labels=[0, 0, 2], difficult=[False, False, True])
    eleven, _ = both([found((A, 0.9, 0), (MISS, 0.5, 1), (C, 0.5, 2))], [record], names)
    assert np.isnan(eleven.ap[1:]).all()
    assert eleven.ap[0] == pytest.approx(6 / 11)
    assert eleven.map == eleven.ap[0]
    assert np.isnan(eleven.recall[1]).all()
    assert eleven.precision[1].tolist() == [0.0]
    assert eleven.precision[2].tolist() == []
    assert np.isnan(both([found()], [image([])])[0].map)


def test_no_detections() -> None:
    for result in both([found(), found()], [image([A], name="a"), image([B], name="b")]):
        assert result.ap.tolist() == [0.0]
        assert result.recall[0].shape == (0,)


def test_only_the_own_class_and_image_count() -> None:
    records = [image([A], [0], name="a"), image([B], [1], name="b")]
    for result in both([found((A, 0.9, 1), (B, 0.8, 1)), found((A, 0.9, 0))], records, ("cat", "dog")):
        assert result.ap.tolist() == [0.0, 0.0]


def test_equal_scores_count_in_the_order_given() -> None:
    eleven, _ = both([found((MISS, 0.5), (A, 0.5)), found((B, 0.5))], [image([A], name="a"), image([B], name="b")])
    assert eleven.precision[0] == pytest.approx([0, 1 / 2, 2 / 3])


def test_overlap_must_exceed_the_threshold() -> None:
    # 5x10 of a 10x10 box: IoU is exactly 1/2.
    for result in both([found(([0, 0, 5, 10], 0.9))], [image([A])]):
        assert result.ap.tolist() == [0.0]
    for result in both([found(([0, 0, 5.1, 10], 0.9))], [image([A])]):
        assert result.ap.tolist() == [1.0]
    dataset = DetectionDataset([image([A])], ("cat",))
    assert evaluate_voc([found(([0, 0, 5.1, 10], 0.9))], dataset, iou=0.7).ap.tolist() == [0.0]
    assert evaluate_voc([found(([0, 0, 5.1, 10], 0.9))], dataset, iou=0).ap.tolist() == [1.0]
    assert evaluate_voc([found((B, 0.9))], dataset, iou=0).ap.tolist() == [0.0]


def test_half_open_boxes_give_the_inclusive_ious_of_voc() -> None:
    # In VOC's own numbers: object 1..10 x 1..10, detection 1..10 x 1..6; with "+ 1" the IoU is 60/100.
    dataset = DetectionDataset([image([[0, 0, 10, 10]])], ("cat",))
    half_open = found(([0, 0, 10, 6], 0.9))
    assert evaluate_voc([half_open], dataset, iou=0.599).map == 1
    assert evaluate_voc([half_open], dataset, iou=0.601).map == 0


def test_degenerate_detections_are_false_positives() -> None:
    eleven, _ = both([found(([5, 5, 5, 9], 0.9), ([10, 10, 0, 0], 0.8), (A, 0.7))], [image([A])])
    assert eleven.precision[0] == pytest.approx([0, 0, 1 / 3])


# --- misuse and text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detections", "options", "message"),
    [
        ([], {}, "detections of 0 images, but the data set has 1"),
        ([found()] * 2, {}, "detections of 2 images"),
        ([found()], {"protocol": "coco"}, "expected one of voc07-11pt, voc-area"),
        ([found()], {"iou": 1.0}, "iou is 1.0"),
        ([found((A, np.nan))], {}, "a: confidence 0 is NaN"),
        ([found((A, 0.5, 1))], {}, r"class_id must be integers 0\.\.0, got 1\.\.1"),
        ([found((A, 0.5, -1))], {}, "class_id must be"),
        ([Found(np.zeros((2, 4)), np.zeros(1), np.zeros(2, int))], {}, "2 boxes, but confidence has shape"),
        ([Found(np.zeros((1, 4)), np.zeros(1), np.zeros(1))], {}, "class_id must be integers"),
        ([Found(np.zeros((1, 5)), np.zeros(1), np.zeros(1, int))], {}, r"\(K, 4\)"),
    ],
)
def test_misuse(detections: list[Found], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        evaluate_voc(detections, DetectionDataset([image([A])], ("cat",)), **options)


def test_table() -> None:
    record = image([A, B, C], labels=[0, 0, 2], difficult=[False, True, False])
    dataset = DetectionDataset([record], ("cat", "dog", "cow"), "Farm", "val")
    text = format_table(evaluate_voc([found((A, 0.9, 0), (A, 0.5, 1))], dataset))
    assert text.startswith("Average precision, protocol voc07-11pt, IoU > 0.5, Farm val (1 image)\n")
    rows = {line.split("  ")[0].strip(): line.split()[-4:] for line in text.splitlines()}
    assert rows["cat"] == ["1.0000", "1", "1", "1"]
    assert rows["dog"] == ["-", "0", "0", "1"]
    assert rows["cow"] == ["0.0000", "1", "0", "0"]
    assert rows["mean / total"] == ["0.5000", "2", "1", "2"]
    assert len({len(line) for line in text.splitlines()[1:-1]}) == 1


# --- a second implementation -----------------------------------------------------------------------------------------


def slow_ap(detections: list[Found], records: list[ImageRecord], label: int, threshold: float, protocol: str) -> float:
    """The rules, read out one by one; plain numbers, no arrays."""
    queue = []
    for number, item in enumerate(detections):
        for k in range(len(item.confidence)):
            if item.class_id[k] == label:
                queue.append((float(item.confidence[k]), number, [float(v) for v in item.xyxy[k]]))
    queue = sorted(queue, key=lambda entry: entry[0], reverse=True)  # Python's sort is stable, also in reverse
    objects = {
        (number, k): [float(v) for v in record.boxes[k]]
        for number, record in enumerate(records)
        for k in range(len(record))
        if record.labels[k] == label
    }
    wanted = sum(not records[number].difficult[k] for number, k in objects)
    if wanted == 0:
        return float("nan")
    seen: set[tuple[int, int]] = set()
    hits, misses, points = 0, 0, []
    for _, number, d in queue:
        best, choice = 0.0, None
        for (where, k), g in objects.items():
            if where == number:
                w = min(d[2], g[2]) - max(d[0], g[0])
                h = min(d[3], g[3]) - max(d[1], g[1])
                if w > 0 and h > 0:
                    both_areas = (d[2] - d[0]) * (d[3] - d[1]) + (g[2] - g[0]) * (g[3] - g[1])
                    overlap = w * h / (both_areas - w * h)
                    if overlap > best:
                        best, choice = overlap, (where, k)
        if choice is None or best <= threshold:
            misses += 1
        elif records[number].difficult[choice[1]]:
            continue
        elif choice in seen:
            misses += 1
        else:
            seen.add(choice)
            hits += 1
        points.append((hits, hits / (hits + misses)))
    if protocol == "voc07-11pt":
        return sum(max([p for n, p in points if 10 * n >= tenth * wanted], default=0.0) for tenth in range(11)) / 11
    return sum(max([p for n, p in points if n >= rank], default=0.0) for rank in range(1, wanted + 1)) / wanted


corner = st.integers(0, 8)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Found], list[ImageRecord], int]:
    classes = draw(st.integers(1, 3))
    detections, records = [], []
    for number in range(draw(st.integers(1, 4))):
        boxes, labels, difficult = [], [], []
        for _ in range(draw(st.integers(0, 5))):
            x, y = draw(corner), draw(corner)
            boxes.append([x, y, x + draw(st.integers(1, 5)), y + draw(st.integers(1, 5))])
            labels.append(draw(st.integers(0, classes - 1)))
            difficult.append(draw(st.booleans()))
        records.append(image(boxes, labels, difficult, str(number)))
        items: list[tuple[Any, float, int]] = []
        for _ in range(draw(st.integers(0, 8))):
            x, y = draw(corner), draw(corner)
            size = draw(st.integers(0, 5)), draw(st.integers(0, 5))
            items.append(
                ([x, y, x + size[0], y + size[1]], draw(st.integers(-2, 3)) / 2, draw(st.integers(0, classes - 1)))
            )
        detections.append(found(*items))
    return detections, records, classes


@settings(max_examples=300, deadline=None)
@given(scenes(), st.sampled_from([0.0, 0.3, 0.5, 0.75]), st.sampled_from(["voc07-11pt", "voc-area"]))
def test_against_the_second_implementation(scene: Any, threshold: float, protocol: Any) -> None:
    detections, records, classes = scene
    dataset = DetectionDataset(records, tuple("abc"[:classes]))
    result = evaluate_voc(detections, dataset, iou=threshold, protocol=protocol)
    expected = [slow_ap(detections, records, label, threshold, protocol) for label in range(classes)]
    assert np.allclose(result.ap, expected, equal_nan=True, rtol=0, atol=1e-12)
    for recall, precision, score in zip(result.recall, result.precision, result.confidence, strict=True):
        assert len(recall) == len(precision) == len(score)
        assert (np.diff(score) <= 0).all()


def jittered(dataset: DetectionDataset, rng: np.random.Generator, per_image: int) -> list[Found]:
    """Detections near the objects and elsewhere, of all classes."""
    result = []
    for record in dataset:
        around = record.boxes[rng.integers(0, len(record), per_image)]
        boxes = around + rng.normal(0, 0.12, (per_image, 4)) * np.tile(around[:, 2:] - around[:, :2], 2)
        labels = record.labels[rng.integers(0, len(record), per_image)]
        wrong = rng.random(per_image) < 0.2
        labels = np.where(wrong, rng.integers(0, len(dataset.class_names), per_image), labels)
        result.append(Found(boxes.astype(np.float32), rng.random(per_image).astype(np.float32), labels))
    return result


def test_real_boxes_against_the_second_implementation(shared_data: Path, rng: np.random.Generator) -> None:
    dataset = load_voc(shared_data / "voc2007", "val").subset(range(0, 1753, 40))
    detections = jittered(dataset, rng, 30)
    for protocol in ("voc07-11pt", "voc-area"):
        result = evaluate_voc(detections, dataset, protocol=protocol)
        expected = [slow_ap(detections, list(dataset.records), i, 0.5, protocol) for i in range(20)]
        assert np.allclose(result.ap, expected, equal_nan=True, rtol=0, atol=1e-12)
        assert 0.05 < result.map < 0.95


# --- pycocotools -----------------------------------------------------------------------------------------------------


def test_curves_against_pycocotools(rng: np.random.Generator) -> None:
    """COCO's matching and VOC's agree where every detection can mean one object only: objects that stand far apart.

    COCO takes the precision at 101 recalls instead of 11; taken from our curves in its way, it must be the same.
    """
    coco_module = pytest.importorskip("pycocotools.coco")
    eval_module = pytest.importorskip("pycocotools.cocoeval")
    places = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) * 180 + 20
    records, detections = [], []
    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number in range(1, 31):
        chosen = places[rng.permutation(25)[: rng.integers(1, 12)]]
        boxes = np.concatenate([chosen, chosen + rng.integers(30, 120, chosen.shape)], 1).astype(np.float64)
        labels = rng.integers(0, 3, len(boxes))
        records.append(image(boxes, labels, name=str(number)))
        pick = rng.integers(0, len(boxes), 15)
        sides = np.tile(boxes[pick, 2:] - boxes[pick, :2], 2)
        moved = boxes[pick] + rng.normal(0, 0.1, (15, 4)) * sides
        guess = np.where(rng.random(15) < 0.8, labels[pick], rng.integers(0, 3, 15))
        # Scores all different over the whole set: COCO and VOC order equal ones differently.
        score = rng.permutation(15) / 500 + rng.random(15) / 1000 + rng.random() / 1e5
        moved, score = moved.astype(np.float32), score.astype(np.float32)
        detections.append(Found(moved, score, guess))
        for k, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": number,
                    "category_id": int(labels[k]),
                    "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                }
            )
        for k, (x0, y0, x1, y1) in enumerate(moved.tolist()):
            results.append(
                {
                    "image_id": number,
                    "category_id": int(guess[k]),
                    "score": float(score[k]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = {
            "images": [{"id": n, "width": 1000, "height": 1000} for n in range(1, 31)],
            "annotations": truth,
            "categories": [{"id": i, "name": str(i)} for i in range(3)],
        }
        coco.createIndex()
        evaluation = eval_module.COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [1000]
        evaluation.evaluate()
        evaluation.accumulate()
    result = evaluate_voc(detections, DetectionDataset(records, ("a", "b", "c")), protocol="voc-area")
    for i in range(3):
        envelope = np.maximum.accumulate(result.precision[i][::-1])[::-1]
        at = np.searchsorted(result.recall[i], evaluation.params.recThrs)
        ours = np.append(envelope, 0)[at]
        theirs = evaluation.eval["precision"][0, :, i, 0, 0]
        assert np.abs(ours - theirs).max() < 1e-9
        assert evaluation.eval["recall"][0, i, 0, 0] == pytest.approx(result.recall[i][-1])
        assert 0.1 < ours.mean() < 0.95


def test_a_generator_of_detections_and_nothing_at_all(tmp_path: Path) -> None:
    data = DetectionDataset([image([A, B]), image([C], name="b")], ("cat",))
    results = [found((A, 0.9)), found((C, 0.8))]
    got = evaluate_voc((item for item in results), data)
    assert got.ap.tolist() == evaluate_voc(results, data).ap.tolist() == [pytest.approx(7 / 11)]
    for names in ((), ("cat",)):
        nothing = evaluate_voc([], DetectionDataset([], names))
        assert (len(nothing.ap), len(nothing.recall), nothing.num_images) == (len(names), len(names), 0)
        assert np.isnan(nothing.map)
        assert "0 images" in format_table(nothing)
        pytest.importorskip("matplotlib", reason="matplotlib (the extra 'plot') is not installed")
        plot_curves(nothing, tmp_path / "curves.png")
