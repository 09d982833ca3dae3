"""Average precision by the rules of COCO, computed by pycocotools (the extra ``coco``)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sppnet._types import F64, I64
from sppnet.boxes import as_boxes
from sppnet.datasets.records import DetectionDataset
from sppnet.errors import ArgumentError, MissingDependencyError
from sppnet.evaluation.voc import DetectionsLike, check_detections, known

__all__ = ["CocoResult", "evaluate_coco", "format_coco_table"]

# What COCOeval.stats holds, in its order
_SUMMARY = (
    "AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
    "AR 1", "AR 10", "AR 100", "AR small", "AR medium", "AR large",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CocoResult:
    """Result of :func:`evaluate_coco`. Arrays have one item for each class; NaN where there is nothing to measure.

    Attributes:
        class_names: of the data set.
        ap: float64 ``(classes,)`` in [0, 1]: the mean over the IoUs 0.50, 0.55 ... 0.95, 101 recalls each.
        ap50: average precision at IoU 0.50.
        ap75: average precision at IoU 0.75.
        num_objects: objects that count.
        num_ignored: difficult objects.
        num_detections: of all images.
        summary: COCO's twelve figures by name: AP, AP50, AP75, AP small (area below 32 * 32), AP medium, AP large
            (above 96 * 96), and the average recalls AR 1, AR 10, AR 100, AR small, AR medium, AR large.
        num_images: images evaluated.
        dataset: name and split, for the table.
        protocol: always ``coco``.
    """

    class_names: tuple[str, ...]
    ap: F64
    ap50: F64
    ap75: F64
    num_objects: I64
    num_ignored: I64
    num_detections: I64
    summary: dict[str, float]
    num_images: int
    dataset: str = ""
    protocol: str = "coco"

    @property
    def map(self) -> float:
        """Mean of ``ap`` over the classes that have objects; NaN if none has."""
        counted = self.ap[~np.isnan(self.ap)]
        return float(counted.mean()) if counted.size else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them; None stands where there is nothing to measure."""
        return {
            "map": known(self.map),
            "ap": {name: known(value) for name, value in zip(self.class_names, self.ap, strict=True)},
            "iou": "0.50:0.95",
            "summary": {name: known(value) for name, value in self.summary.items()},
            "images": self.num_images,
            "data": self.dataset,
        }


def evaluate_coco(detections: Iterable[DetectionsLike], dataset: DetectionDataset) -> CocoResult:
    """Compute COCO's average precision and recall of every class, of at most 100 detections a class and image.

    Difficult objects are treated as COCO's crowds: a detection that lies on one (the share of the detection counts) is
    neither right nor wrong, and nobody has to find it.

    Args:
        detections: one item for each image, in the order of ``dataset``.
        dataset: the ground truth.

    Returns:
        Average precisions of each class, and COCO's twelve figures.

    Raises:
        MissingDependencyError: pycocotools isn't installed.
        ArgumentError: the number of detections isn't that of the images; their classes are others, or in another order;
            shapes differ; a label isn't a class.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingDependencyError(
            f"the protocol coco needs pycocotools ({error}): pip install 'sppnet[coco]'"
        ) from None
    detections = list(detections)
    check_detections(detections, dataset)
    classes = len(dataset.class_names)
    truth, found = _truth(dataset), _found(detections, dataset)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        objects, results = COCO(), COCO()
        objects.dataset = truth
        objects.createIndex()
        results.dataset = {**truth, "annotations": found}
        results.createIndex()
        evaluation = COCOeval(objects, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # precision: (IoUs, recalls, classes, areas, maximum detections); -1 where there is nothing
    precision = np.where(evaluation.eval["precision"] < 0, np.nan, evaluation.eval["precision"])[:, :, :, 0, -1]
    labels = np.array([item["category_id"] - 1 for item in found], np.int64)
    truth_labels = np.array([item["category_id"] - 1 for item in truth["annotations"]], np.int64)
    crowd = np.array([item["iscrowd"] for item in truth["annotations"]], bool)
    return CocoResult(
        dataset.class_names,
        ap=_mean(precision, (0, 1)),
        ap50=_mean(precision[0], (0,)),
        ap75=_mean(precision[5], (0,)),
        num_objects=np.bincount(truth_labels[~crowd], minlength=classes).astype(np.int64),
        num_ignored=np.bincount(truth_labels[crowd], minlength=classes).astype(np.int64),
        num_detections=np.bincount(labels, minlength=classes).astype(np.int64),
        summary={name: float("nan") if v < 0 else float(v) for name, v in zip(_SUMMARY, evaluation.stats, strict=True)},
        num_images=len(dataset),
        dataset=" ".join(part for part in (dataset.name, dataset.split) if part),
    )


def format_coco_table(result: CocoResult) -> str:
    """Format a result as a table that names protocol and data set.

    Args:
        result: of :func:`evaluate_coco`.

    Returns:
        Text with a line for each class, the mean, and COCO's figures by size and number of detections.
    """
    names = [*result.class_names, "mean / total"]
    width = max(len(name) for name in [*names, "class"])
    head = (
        f"{'class':<{width}}  {'AP':>6}  {'AP50':>6}  {'AP75':>6}  {'objects':>7}  {'ignored':>7}  {'detections':>10}"
    )
    rule = "-" * len(head)
    means = [result.map, result.summary["AP50"], result.summary["AP75"]]
    rows = []
    for i, name in enumerate(names):
        last = i == len(result.class_names)
        values = means if last else [result.ap[i], result.ap50[i], result.ap75[i]]
        columns = (result.num_objects, result.num_ignored, result.num_detections)
        a, b, c = (int(column.sum()) if last else int(column[i]) for column in columns)
        shown = "  ".join(f"{'-' if np.isnan(v) else f'{v:.4f}':>6}" for v in values)
        rows.append(f"{name:<{width}}  {shown}  {a:>7}  {b:>7}  {c:>10}")
    images = f"{result.num_images} image{'' if result.num_images == 1 else 's'}"
    title = "Average precision, protocol coco, IoU 0.50 to 0.95, "
    title += f"{result.dataset} ({images})" if result.dataset else images
    extra = [f"{name} {value:.4f}" for name, value in result.summary.items() if not np.isnan(value)][3:]
    notes = ["- : no objects that count; not part of the mean"] if np.isnan(result.ap).any() else []
    return "\n".join([title, rule, head, rule, *rows[:-1], rule, rows[-1], *notes, ", ".join(extra)])


def _truth(dataset: DetectionDataset) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for i, record in enumerate(dataset):
        for box, label, difficult in zip(record.boxes.astype(np.float64), record.labels, record.difficult, strict=True):
            size = box[2:] - box[:2]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": int(label) + 1,
                    "bbox": [*box[:2].tolist(), *size.tolist()],
                    "area": float(size.prod()),
                    "iscrowd": int(difficult),
                }
            )
    return {
        "info": {},
        "images": [{"id": i + 1, "width": r.width, "height": r.height} for i, r in enumerate(dataset)],
        "categories": [{"id": c + 1, "name": name} for c, name in enumerate(dataset.class_names)],
        "annotations": annotations,
    }


def _found(detections: Sequence[DetectionsLike], dataset: DetectionDataset) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for i, (item, record) in enumerate(zip(detections, dataset, strict=True)):
        boxes = as_boxes(item.xyxy, f"detections of {record.image_id}").astype(np.float64)
        score, label = np.asarray(item.confidence, np.float64), np.asarray(item.class_id)
        if score.shape != (len(boxes),) or label.shape != (len(boxes),) or np.isnan(score).any():
            raise ArgumentError(
                f"detections of {record.image_id}: {len(boxes)} boxes, confidence {score.shape}, "
                f"class_id {label.shape}; "
                "expected as many of each, none NaN"
            )
        whole = not len(label) or np.issubdtype(label.dtype, np.integer)
        if not whole or (len(label) and (label.min() < 0 or label.max() >= len(dataset.class_names))):
            raise ArgumentError(
                f"detections of {record.image_id}: class_id {label.min()}..{label.max()}, "
                f"expected whole numbers 0..{len(dataset.class_names) - 1}"
            )
        for box, s, c in zip(boxes, score, label, strict=True):
            size = np.maximum(box[2:] - box[:2], 0)
            results.append(
                {
                    "id": len(results) + 1,
                    "image_id": i + 1,
                    "category_id": int(c) + 1,
                    "bbox": [*box[:2].tolist(), *size.tolist()],
                    "area": float(size.prod()),
                    "score": float(s),
                    "iscrowd": 0,
                }
            )
    return results


def _mean(values: F64, axes: tuple[int, ...]) -> F64:
    """Mean over ``axes``; NaN where there is nothing (all are, then)."""
    return np.asarray(values.mean(axis=axes), np.float64)
