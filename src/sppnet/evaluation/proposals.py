"""Quality of windows: how many objects they cover, how well, and with how many windows.

Objects marked difficult are neither hit nor miss. An object is found at a threshold if the best window has that IoU or
more with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sppnet._types import F32, F64, I64, U8
from sppnet.boxes import as_boxes, box_iou
from sppnet.checking import check_whole
from sppnet.datasets.records import ImageRecord
from sppnet.errors import ArgumentError
from sppnet.images import load_image
from sppnet.plots import figure_for, save_figure
from sppnet.proposals.stored import StoredProposals

__all__ = ["COUNTS", "ProposalReport", "best_overlaps", "evaluate_proposals", "plot_recall", "summarise"]

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


@dataclass(frozen=True, eq=False)
class ProposalReport:
    """Quality of windows over a data set.

    Attributes:
        images: how many were measured.
        objects: how many they have, difficult ones left out.
        counts: numbers of windows, ascending; the last is at least the largest number of windows of an image.
        thresholds: IoU values.
        recall: float64 ``(thresholds, counts)`` in [0, 1]: share of the objects found by the first windows.
        overlap: float64 ``(counts,)`` in [0, 1]: average over objects of the best IoU (ABO).
        class_overlap: float64 ``(counts,)`` in [0, 1]: average over classes of the average best overlap (MABO).
        windows: median number of windows of an image.
        seconds: median time for an image, without decoding; NaN where it wasn't measured.
    """

    images: int
    objects: int
    counts: tuple[int, ...]
    thresholds: tuple[float, ...]
    recall: F64
    overlap: F64
    class_overlap: F64
    windows: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        return {
            "images": self.images,
            "objects": self.objects,
            "counts": list(self.counts),
            "recall": {f"{t:g}": row.tolist() for t, row in zip(self.thresholds, self.recall, strict=True)},
            "average_best_overlap": self.overlap.tolist(),
            "mean_average_best_overlap": self.class_overlap.tolist(),
            "median_windows": self.windows,
            "median_seconds": None if np.isnan(self.seconds) else self.seconds,
        }

    def table(self) -> str:
        """Format the report: a row for each number of windows, with what they find."""
        head = "windows  " + "  ".join(f"recall@{t:g}" for t in self.thresholds) + "    ABO   MABO"
        rows = [
            f"{count:7d}  "
            + "  ".join(f"{value:{len(f'recall@{t:g}')}.3f}" for t, value in zip(self.thresholds, column, strict=True))
            + f"  {abo:.3f}  {mabo:.3f}"
            for count, column, abo, mabo in zip(
                self.counts, self.recall.T, self.overlap, self.class_overlap, strict=True
            )
        ]
        end = (
            f"{self.images} images, {self.objects} objects (difficult ones left out), median {self.windows:.0f} windows"
        )
        if not np.isnan(self.seconds):
            end += f", median {1000 * self.seconds:.0f} ms an image"
        return "\n".join([head, *rows, end])


def best_overlaps(objects: ArrayLike, windows: ArrayLike, counts: Sequence[int]) -> F64:
    """Compute the best IoU of each object with the first windows.

    Args:
        objects: boxes ``(n, 4)``.
        windows: boxes ``(K, 4)``, best first.
        counts: numbers of windows, at least 0.

    Returns:
        float64 ``(n, counts)``; 0 where there are no windows, as for a count of 0.

    Raises:
        ArgumentError: malformed boxes, or a count that is no whole number of at least 0.

    >>> best_overlaps([[0, 0, 10, 10]], [[0, 0, 10, 5], [0, 0, 10, 10]], [0, 1, 2, 9]).tolist()
    [[0.0, 0.5, 1.0, 1.0]]
    """
    counts = [check_whole("counts", count, 0, 2**31 - 1) for count in counts]
    objects = as_boxes(objects, "objects").astype(np.float64)
    windows = as_boxes(windows, "windows").astype(np.float64)
    best = np.zeros((len(objects), len(windows) + 1))  # of the first 0, 1, 2 ... windows
    if len(windows):
        np.maximum.accumulate(box_iou(objects, windows), axis=1, out=best[:, 1:])
    return np.asarray(best[:, [min(count, len(windows)) for count in counts]], np.float64)


def summarise(
    overlaps: Sequence[F64],
    labels: Sequence[I64],
    windows: Sequence[int],
    counts: Sequence[int],
    *,
    thresholds: Sequence[float] = (0.5, 0.7),
    seconds: Sequence[float] = (),
) -> ProposalReport:
    """Summarise the overlaps of many images.

    Args:
        overlaps: of each image, what :func:`best_overlaps` returned.
        labels: of each image, the class indices ``(n,)`` of its objects.
        windows: of each image, its number of windows.
        counts: numbers of windows, as given to :func:`best_overlaps`.
        thresholds: IoU values.
        seconds: of each image; empty where time wasn't measured.

    Returns:
        The report.
    """
    every = np.concatenate([*overlaps, np.zeros((0, len(counts)))])
    of_class = np.concatenate([*labels, np.zeros(0, np.int64)])
    if len(every):
        recall = np.stack([(every >= t).mean(0) for t in thresholds])
        abo = every.mean(0)
        mabo = np.stack([every[of_class == c].mean(0) for c in np.unique(of_class)]).mean(0)
    else:
        recall = np.full((len(thresholds), len(counts)), np.nan)
        abo = mabo = np.full(len(counts), np.nan)
    return ProposalReport(
        images=len(overlaps),
        objects=len(every),
        counts=tuple(counts),
        thresholds=tuple(thresholds),
        recall=recall,
        overlap=abo,
        class_overlap=mabo,
        windows=float(np.median(windows)) if len(windows) else 0.0,
        seconds=float(np.median(seconds)) if len(seconds) else float("nan"),
    )


def evaluate_proposals(
    records: Iterable[ImageRecord],
    proposer: Callable[[U8], F32] | StoredProposals,
    *,
    thresholds: Sequence[float] = (0.5, 0.7),
    max_windows: int = 2000,
) -> ProposalReport:
    """Run a proposer over a data set and measure its windows and its time.

    Args:
        records: images with objects, for instance a :class:`~sppnet.datasets.records.DetectionDataset`.
        proposer: makes windows ``(K, 4)`` of an image; or windows from a file, whose time isn't measured.
        thresholds: IoU values in (0, 1].
        max_windows: at least 1; later windows are left out.

    Returns:
        The report.

    Raises:
        ArgumentError: an argument out of range.
        ImageError: an image can't be read.
        ProposalError: the file has no windows of an image.
    """
    max_windows = check_whole("max_windows", max_windows, 1, 2**31 - 1)
    if not thresholds or not all(0 < t <= 1 for t in thresholds):
        raise ArgumentError(f"thresholds: expected IoU values in (0, 1], got {thresholds!r}")
    counts = [*(c for c in COUNTS if c < max_windows), max_windows]
    overlaps, labels, windows, seconds = [], [], [], []
    for record in records:
        image = load_image(record.path)
        start = time.perf_counter()
        if isinstance(proposer, StoredProposals):
            boxes = proposer.proposer(record.path)(image)[:max_windows]
        else:
            boxes = proposer(image)[:max_windows]
            seconds.append(time.perf_counter() - start)
        counted = ~record.difficult
        overlaps.append(best_overlaps(record.boxes[counted], boxes, counts))
        labels.append(record.labels[counted])
        windows.append(len(boxes))
    return summarise(overlaps, labels, windows, counts, thresholds=thresholds, seconds=seconds)


def plot_recall(reports: dict[str, ProposalReport], path: str | Path) -> None:
    """Draw recall and average best overlap against the number of windows, one line for each report.

    Args:
        reports: by the name to show; all with the same thresholds.
        path: a file ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
        ArgumentError: another extension.
    """
    thresholds = next(iter(reports.values())).thresholds
    path, figure = figure_for(path, (4 * (len(thresholds) + 1), 3.6))
    axes = np.atleast_1d(figure.subplots(1, len(thresholds) + 1, sharey=True))
    for name, report in reports.items():
        for axis, values in zip(axes, [*report.recall, report.overlap], strict=True):
            axis.plot(report.counts, values, marker="o", markersize=3, label=name)
    titles = [*(f"recall at IoU {t:g}" for t in thresholds), "average best overlap"]
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xscale="log", xlabel="windows an image", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right")
    save_figure(figure, path, 120)
