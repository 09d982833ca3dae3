"""The table at the end of ``sppnet train``: average precision, and what is found with the tuned thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.detections import Detections
    from sppnet.evaluation.voc import VocResult

__all__ = ["hits_and_misses", "measured_table"]


def hits_and_misses(
    found: Sequence[Detections], dataset: DetectionDataset, thresholds: Mapping[str, float]
) -> NDArray[np.int64]:
    """Of each class, how many objects are found and missed, and how many detections are wrong: ``(classes, 3)``.

    Args:
        found: of each picture, with threshold 0. thresholds: of each class; what is below isn't counted.
    """
    from sppnet.evaluation.failures import judge_detections

    classes = len(dataset.class_names)
    least = np.array([thresholds[name] for name in dataset.class_names])
    counts = np.zeros((classes, 3), np.int64)
    for item, record in zip(found, dataset, strict=True):
        shown = item[item.confidence >= least[item.class_id]]
        verdict = judge_detections(shown, record.boxes, record.labels, record.difficult)
        counts[:, 0] += np.bincount(shown.class_id[verdict == 1], minlength=classes)
        counts[:, 1] += np.bincount(record.labels[~record.difficult], minlength=classes)
        counts[:, 2] += np.bincount(shown.class_id[verdict == 0], minlength=classes)
    counts[:, 1] -= counts[:, 0]
    return counts


def measured_table(
    results: Sequence[VocResult],
    found: Sequence[Detections],
    dataset: DetectionDataset,
    thresholds: Mapping[str, float],
) -> str:
    """A line a class; one column for each protocol of ``results``, all of the same detections."""
    names = [*dataset.class_names, "mean / total"]
    counts = hits_and_misses(found, dataset, thresholds)
    counts = np.concatenate([counts, counts.sum(0, keepdims=True)])
    heads = [f"AP {result.protocol}" for result in results]
    width = max(map(len, names))
    head = f"{'class':<{width}}  " + "  ".join([*heads, "objects", "found", "missed", "wrong", "threshold"])
    rows = []
    for i, (name, (hit, missed, wrong)) in enumerate(zip(names, counts.tolist(), strict=True)):
        values = [float(result.map if i == len(dataset.class_names) else result.ap[i]) for result in results]
        cells = [f"{'-' if v != v else f'{v:.4f}':>{len(h)}}" for v, h in zip(values, heads, strict=True)]
        tuned = f"{thresholds[name]:>9.3f}" if name in thresholds else ""
        rows.append(
            f"{name:<{width}}  {'  '.join(cells)}  {hit + missed:>7}  {hit:>5}  {missed:>6}  {wrong:>5}  {tuned}"
        )
    rule = "-" * len(head)
    pictures = f"{len(dataset)} picture{'s' * (len(dataset) != 1)}"
    title = f"{dataset.name} {dataset.split}".strip()
    return "\n".join(
        [
            f"measured on {title} ({pictures}), a hit is IoU > {results[0].iou:g}",
            *(rule, head, rule, *(row.rstrip() for row in rows[:-1]), rule, rows[-1].rstrip()),
            "found, missed, wrong: with the threshold of each class, which `sppnet detect` uses. It was tuned on these",
            "pictures; on others expect a little less.",
        ]
    )
