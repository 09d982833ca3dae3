"""Average precision by the rules of PASCAL VOC.

For each class, the detections of all images are sorted by confidence, highest first (equal ones stay in the order
given: image by image). Each is compared with the object of its class in its image that it overlaps most, difficult
objects included:

- Its IoU is not above the threshold: a false positive.
- The object is difficult: the detection counts neither way.
- The object was found before, by a detection of higher confidence: a false positive.
- Otherwise: a hit.

Boxes are half-open here, so that areas and IoU equal those of VOC's inclusive corners with their "+ 1".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from sppnet._types import F64, I64
from sppnet.boxes import as_boxes, box_iou
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import ArgumentError, first_names
from sppnet.plots import figure_for, save_figure

__all__ = [
    "DetectionsLike",
    "VocProtocol",
    "VocResult",
    "check_detections",
    "evaluate_voc",
    "format_table",
    "plot_curves",
]

VocProtocol = Literal["voc07-11pt", "voc-area"]
"""``voc07-11pt``: the eleven recalls of VOC 2007. ``voc-area``: the area of VOC 2010 and later."""


class DetectionsLike(Protocol):
    """Detections of one image: k boxes with their confidences and classes."""

    @property
    def xyxy(self) -> NDArray[Any]:
        """Boxes ``(k, 4)``, half-open, in pixels of the original image."""
        ...

    @property
    def confidence(self) -> NDArray[Any]:
        """Confidence ``(k,)``; higher means surer."""
        ...

    @property
    def class_id(self) -> NDArray[Any]:
        """Integers ``(k,)``, indices into the data set's ``class_names``."""
        ...


@dataclass(frozen=True, eq=False)
class VocResult:
    """Result of :func:`evaluate_voc`. Arrays and tuples have one item for each class, in the order of ``class_names``.

    Attributes:
        protocol: ``voc07-11pt`` or ``voc-area``.
        iou: the threshold that an overlap must exceed.
        class_names: of the data set.
        ap: float64 ``(classes,)`` in [0, 1]; NaN for a class without objects that count.
        num_objects: int64 ``(classes,)``: the objects that count, that is, those that aren't difficult.
        num_difficult: int64 ``(classes,)``.
        num_detections: int64 ``(classes,)``.
        num_images: images evaluated.
        recall, precision, confidence: for each class, one float64 number for each detection that counts, best first:
            recall and precision when all detections down to this one are taken, and the confidence of this one.
            Recall is NaN in a class without objects that count.
        dataset: name and split, for the table.
    """

    protocol: VocProtocol
    iou: float
    class_names: tuple[str, ...]
    ap: F64
    num_objects: I64
    num_difficult: I64
    num_detections: I64
    num_images: int
    recall: tuple[F64, ...]
    precision: tuple[F64, ...]
    confidence: tuple[F64, ...]
    dataset: str = ""

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
            "iou": self.iou,
            "images": self.num_images,
            "data": self.dataset,
        }


def known(value: float) -> float | None:
    """Return ``value``, or None for NaN, which JSON doesn't have."""
    return None if np.isnan(value) else float(value)


def check_detections(detections: Sequence[DetectionsLike], dataset: DetectionDataset) -> None:
    """Refuse detections that can't be those of ``dataset``: a class is known by its number alone.

    Raises:
        ArgumentError: the number of detections isn't that of the images; or they name their classes, and these are
            others, or in another order.
    """
    if len(detections) != len(dataset):
        raise ArgumentError(f"got detections of {len(detections)} images, but the data set has {len(dataset)}")
    for item in detections:
        names = tuple(getattr(item, "class_names", None) or ())
        if names and names != dataset.class_names:
            raise ArgumentError(
                f"detections: their classes are {first_names(names)}, those of the data set "
                f"{first_names(dataset.class_names)}; "
                "use dataset.with_classes(detector.class_names_)"
            )


def evaluate_voc(
    detections: Iterable[DetectionsLike],
    dataset: DetectionDataset,
    *,
    iou: float = 0.5,
    protocol: VocProtocol = "voc07-11pt",
) -> VocResult:
    """Compute the average precision of every class, by the rules of PASCAL VOC.

    Args:
        detections: one item for each image, in the order of ``dataset``.
        dataset: the ground truth.
        iou: in [0, 1); an overlap must exceed it. (VOC's text says "exceed 50 %", and so do the usual Python
            evaluators; its MATLAB code also takes an IoU of exactly 0.5.)
        protocol: ``voc07-11pt``: mean, over the recalls 0, 0.1 ... 1, of the best precision at that recall or above
            (VOC 2007; comparisons of recall are exact, in integers). ``voc-area``: area under the curve of best
            precision at that recall or above (VOC 2010 and later).

    Returns:
        Average precisions, and the curves of precision and recall that they come from.

    Raises:
        ArgumentError: the number of detections isn't that of the images; their classes are others, or in another
            order; a confidence is NaN; a class index has no class; shapes differ.
    """
    if protocol not in get_args(VocProtocol):
        raise ArgumentError(f"protocol is {protocol!r}, expected one of {', '.join(get_args(VocProtocol))}")
    if not 0 <= iou < 1:
        raise ArgumentError(f"iou is {iou!r}, expected a number in [0, 1)")
    detections = list(detections)
    check_detections(detections, dataset)
    classes = len(dataset.class_names)
    found = [_match(item, record, classes, iou) for item, record in zip(detections, dataset, strict=True)]
    # A match is numbered within its image; the offset makes it unique in the data set.
    offsets = np.cumsum([0, *(len(record) for record in dataset)])
    scores = _concatenate([score for score, _, _ in found], np.float64)
    labels = _concatenate([label for _, label, _ in found], np.int64)
    matches = _concatenate(
        [np.where(match >= 0, match + offset, -1) for (_, _, match), offset in zip(found, offsets, strict=False)],
        np.int64,
    )
    difficult = _concatenate([record.difficult for record in dataset], np.bool_)
    truth = _concatenate([record.labels for record in dataset], np.int64)
    num_objects = np.bincount(truth[~difficult], minlength=classes).astype(np.int64)

    ap, recalls, precisions, curves = np.full(classes, np.nan), [], [], []
    # Sorted by class, then by falling score, then as given: one sort for all classes.
    order = np.lexsort((-scores, labels))
    ends = np.cumsum(np.bincount(labels, minlength=classes))
    for index, (start, end) in enumerate(pairwise([0, *ends.tolist()])):  # nothing where there are no classes
        ranked = order[start:end]
        match = matches[ranked]
        counts = (match < 0) | ~difficult[match] if len(difficult) else np.ones(len(match), np.bool_)
        ranked, match = ranked[counts], match[counts]
        hit = np.zeros(len(match), np.int64)
        objects, first = np.unique(match, return_index=True)
        hit[first[objects >= 0]] = 1
        hits = np.cumsum(hit)
        total = int(num_objects[index])
        precision = hits / np.arange(1, len(hits) + 1)
        recalls.append(hits / total if total else np.full(len(hits), np.nan))
        precisions.append(precision)
        curves.append(scores[ranked])
        if total:
            ap[index] = (_ap_11_points if protocol == "voc07-11pt" else _ap_area)(hits, precision, total)
    return VocResult(
        protocol=protocol,
        iou=float(iou),
        class_names=dataset.class_names,
        ap=ap,
        num_objects=num_objects,
        num_difficult=np.bincount(truth[difficult], minlength=classes).astype(np.int64),
        num_detections=np.bincount(labels, minlength=classes).astype(np.int64),
        num_images=len(dataset),
        recall=tuple(recalls),
        precision=tuple(precisions),
        confidence=tuple(curves),
        dataset=" ".join(part for part in (dataset.name, dataset.split) if part),
    )


def format_table(result: VocResult) -> str:
    """Format a result as a table that names protocol, threshold and data set.

    Args:
        result: of :func:`evaluate_voc`.

    Returns:
        Text with a line for each class, and the mean.
    """
    names = [*result.class_names, "mean / total"]
    width = max(len(name) for name in [*names, "class"])
    head = f"{'class':<{width}}  {'AP':>6}  {'objects':>7}  {'difficult':>9}  {'detections':>10}"
    columns = (result.num_objects, result.num_difficult, result.num_detections)
    rows = []
    for i, ap in enumerate([*result.ap, result.map]):
        numbers = [int(column[i]) if i < len(result.ap) else int(column.sum()) for column in columns]
        value = "-" if np.isnan(ap) else f"{ap:.4f}"
        rows.append(f"{names[i]:<{width}}  {value:>6}  {numbers[0]:>7}  {numbers[1]:>9}  {numbers[2]:>10}")
    rule = "-" * len(head)
    images = f"{result.num_images} image{'' if result.num_images == 1 else 's'}"
    title = f"Average precision, protocol {result.protocol}, IoU > {result.iou:g}, "
    title += f"{result.dataset} ({images})" if result.dataset else images
    notes = ["- : no objects that count; not part of the mean"] if np.isnan(result.ap).any() else []
    return "\n".join([title, rule, head, rule, *rows[:-1], rule, rows[-1], *notes])


def plot_curves(result: VocResult, path: str | Path) -> None:
    """Draw precision against recall, one small plot for each class.

    Args:
        result: of :func:`evaluate_voc`.
        path: a file ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
        ArgumentError: another extension.
    """
    columns = max(1, min(5, len(result.class_names)))
    rows = max(1, -(-len(result.class_names) // columns))
    path, figure = figure_for(path, (2.4 * columns, 2.2 * rows + 0.4))
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    for axis in axes[len(result.class_names) :]:
        axis.set_visible(False)
    for axis, name, ap, recall, precision in zip(
        axes, result.class_names, result.ap, result.recall, result.precision, strict=False
    ):
        axis.plot(recall, precision, linewidth=1.2)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.set_title(f"{name}  {ap:.3f}", fontsize=9, parse_math=False)
        axis.grid(alpha=0.3)
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    title = f"{result.dataset} ({result.num_images} images): AP by {result.protocol}, IoU > {result.iou:g}"
    figure.suptitle(title, fontsize=10, parse_math=False)
    save_figure(figure, path, 110)


def _match(item: DetectionsLike, record: ImageRecord, classes: int, threshold: float) -> tuple[F64, I64, I64]:
    """Scores, labels, and for every detection the object of its class it overlaps most, or -1 if not enough."""
    where = f"detections of {record.image_id}"
    boxes = as_boxes(item.xyxy, where)
    score = np.asarray(item.confidence, np.float64)
    label = np.asarray(item.class_id)
    if score.shape != (len(boxes),) or label.shape != (len(boxes),):
        raise ArgumentError(
            f"{where}: {len(boxes)} boxes, but confidence has shape {score.shape} and class_id {label.shape}"
        )
    if np.isnan(score).any():
        raise ArgumentError(f"{where}: confidence {int(np.flatnonzero(np.isnan(score))[0])} is NaN")
    if not len(boxes):
        return score, np.zeros(0, np.int64), np.zeros(0, np.int64)
    if not np.issubdtype(label.dtype, np.integer) or label.min() < 0 or label.max() >= classes:
        raise ArgumentError(f"{where}: class_id must be integers 0..{classes - 1}, got {label.min()}..{label.max()}")
    label = label.astype(np.int64)
    if not len(record):
        return score, label, np.full(len(boxes), -1, np.int64)
    overlap = box_iou(boxes.astype(np.float64), record.boxes.astype(np.float64))
    overlap[label[:, None] != record.labels[None, :]] = -1
    best = overlap.argmax(1)  # the first of equals
    return score, label, np.where(overlap[np.arange(len(best)), best] > threshold, best, -1)


def _ap_11_points(hits: I64, precision: F64, total: int) -> float:
    best = _envelope(precision)
    # The first place where recall reaches i/10: hits/total >= i/10, without rounding.
    places = np.searchsorted(hits * 10, np.arange(11) * total)
    return float(np.append(best, 0.0)[places].sum() / 11)


def _ap_area(hits: I64, precision: F64, total: int) -> float:
    steps = np.diff(hits, prepend=0)
    return float((_envelope(precision) * steps).sum() / total)


def _envelope(precision: F64) -> F64:
    """Best precision here or further down the ranking."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def _concatenate(parts: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype, copy=False)
