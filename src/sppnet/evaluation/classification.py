"""Quality of a classifier: top-1, top-5 and mean class accuracy, and which classes it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sppnet._types import F64, I64
from sppnet.errors import ArgumentError
from sppnet.plots import figure_for, save_figure

__all__ = ["ClassificationResult", "evaluate_classification", "format_classification", "plot_confusion"]


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """Figures of a classifier on some images. All accuracies are in [0, 1].

    Attributes:
        top1: share of the images whose best class is right.
        top5: share of the images whose class is among the best five.
        mean_class_accuracy: mean over the classes that have images of ``class_accuracy``. Large classes count no more
            than small ones; Caltech-101 is measured with it.
        class_accuracy: float64 ``(classes,)``, share of the images of a class that is right; NaN for a class without
            images.
        confusion: int64 ``(classes, classes)``, number of images by true class (row) and predicted class (column).
        class_names: of rows and columns.
        images: how many were measured.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    class_accuracy: F64
    confusion: I64
    class_names: tuple[str, ...]
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        return {
            "images": self.images,
            "top1": round(self.top1, 4),
            "top5": round(self.top5, 4),
            "mean_class_accuracy": round(self.mean_class_accuracy, 4),
            "class_accuracy": {
                name: round(float(a), 4)
                for name, a in zip(self.class_names, self.class_accuracy, strict=True)
                if a == a
            },
        }

    def confused(self) -> dict[str, dict[str, int]]:
        """Return the confusion matrix by names: how often each true class was predicted as which."""
        names = self.class_names
        return {
            names[row]: {names[column]: int(self.confusion[row, column]) for column in counts.nonzero()[0]}
            for row, counts in enumerate(self.confusion)
            if counts.any()
        }


def evaluate_classification(scores: ArrayLike, labels: ArrayLike, class_names: Sequence[str]) -> ClassificationResult:
    """Compare the scores of a classifier with the true classes.

    Args:
        scores: ``(n, classes)``, higher is better. Of equal scores the first class is taken.
        labels: integers ``(n,)``, the true class indices.
        class_names: of the classes.

    Returns:
        Accuracies and the confusion matrix.

    Raises:
        ArgumentError: shapes that don't fit, no image, a label out of range or that is no integer, or scores that
            aren't numbers.

    >>> result = evaluate_classification([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], ["cat", "dog"])
    >>> round(result.top1, 3), result.mean_class_accuracy, result.confused()["dog"]
    (0.667, 0.75, {'cat': 1, 'dog': 1})
    """
    try:
        s, y = np.asarray(scores, np.float64), np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"scores, labels: can't be made arrays of numbers ({error})") from None
    classes = len(class_names)
    if s.ndim != 2 or s.shape[1] != classes or y.shape != s.shape[:1] or not len(y):
        raise ArgumentError(
            f"scores, labels: expected (n, {classes}) and (n,) with n >= 1, got {s.shape} and {y.shape}"
        )
    if y.dtype.kind not in "iu":
        raise ArgumentError(
            f"labels: got {y.dtype} such as {y[0]!s}, expected integers 0 to {classes - 1}, indices into class_names"
        )
    if y.min() < 0 or y.max() >= classes:
        raise ArgumentError(f"labels: from {y.min()} to {y.max()}, expected 0 to {classes - 1}")
    if np.isnan(s).any():
        raise ArgumentError(f"scores: image {int(np.isnan(s).any(1).argmax())} has scores that are not numbers")
    order = np.argsort(-s, axis=1, kind="stable")
    hit = order[:, :5] == y[:, None]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (y, order[:, 0]), 1)
    count = confusion.sum(1)
    accuracy = np.full(classes, np.nan)
    np.divide(np.diag(confusion), count, out=accuracy, where=count > 0)
    return ClassificationResult(
        float(hit[:, 0].mean()),
        float(hit.any(1).mean()),
        float(accuracy[count > 0].mean()),
        accuracy,
        confusion,
        tuple(class_names),
        len(y),
    )


def format_classification(result: ClassificationResult, worst: int = 5) -> str:
    """Format a result as text: the accuracies, and the pairs of classes that are confused most often.

    Args:
        result: of :func:`evaluate_classification`.
        worst: at most so many pairs.

    Returns:
        Several lines.
    """
    lines = [
        f"{result.images} images, {len(result.class_names)} classes",
        f"top-1 accuracy       {result.top1:.4f}",
        f"top-5 accuracy       {result.top5:.4f}",
        f"mean class accuracy  {result.mean_class_accuracy:.4f}",
    ]
    wrong = result.confusion - np.diag(np.diag(result.confusion))
    flat = np.argsort(-wrong, axis=None, kind="stable")[:worst]
    rows = [(int(i) // len(wrong), int(i) % len(wrong)) for i in flat if wrong.flat[i]]
    if rows:
        lines.append("most often confused:")
        width = max(len(result.class_names[r]) for r, _ in rows)
        lines += [
            f"  {result.class_names[r]:<{width}}  predicted as {result.class_names[c]}: {wrong[r, c]} of "
            f"{result.confusion[r].sum()}"
            for r, c in rows
        ]
    return "\n".join(lines)


def plot_confusion(result: ClassificationResult, path: str | Path) -> None:
    """Draw the confusion matrix, in each row the shares of a true class.

    Args:
        result: of :func:`evaluate_classification`.
        path: a file ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
        ArgumentError: another extension.
    """
    classes = len(result.class_names)
    side = min(22.0, max(4.5, 2.5 + 0.19 * classes))
    path, figure = figure_for(path, (side + 1, side))
    axis = figure.subplots()
    share = result.confusion / np.maximum(result.confusion.sum(1, keepdims=True), 1)
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    size = 9 if classes <= 20 else 6
    axis.set_xticks(range(classes), result.class_names, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(range(classes), result.class_names, fontsize=size, parse_math=False)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.set_title(f"mean class accuracy {result.mean_class_accuracy:.3f}, {result.images} images", fontsize=10)
    if classes <= 20:
        for row, column in zip(*np.nonzero(result.confusion), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, str(result.confusion[row, column]), ha="center", va="center", color=colour,
                      fontsize=8)  # fmt: skip
    figure.colorbar(image, label="share of the true class", shrink=0.6)
    save_figure(figure, path, 110)
