"""Linear SVMs on pooled vectors of frozen convolutions (the paper's section 3.3): minutes instead of days.

Cross-validation on the training images chooses the cost C and the scale that turns margins into probabilities. No other
image is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sppnet._types import I64
from sppnet.checking import check_whole
from sppnet.classification.checks import FOLDS, SEEDS, check_costs
from sppnet.errors import DatasetError
from sppnet.solvers.svm import LinearSVMs, train_svms

__all__ = ["SvmChoice", "cross_validate", "fit_least_squares", "fit_scale", "fit_svms", "folds_of"]


@dataclass(frozen=True)
class SvmChoice:
    """Result of cross-validation.

    Attributes:
        c: the cost with the best held-out accuracy (of equal ones the smallest).
        accuracy: mean class accuracy on held-out folds, for each cost tried.
        margins: float32 ``(n, classes)``, of each image, from the SVMs that weren't trained on it, at the chosen cost.
    """

    c: float
    accuracy: dict[float, float]
    margins: Tensor


def folds_of(labels: I64, folds: int, seed: int = 0) -> I64:
    """Draw the folds of a cross-validation; each class is spread over them as evenly as possible.

    Args:
        labels: ``(n,)``, class indices.
        folds: how many.
        seed: of the drawing.

    Returns:
        int64 ``(n,)``, the fold of each image, 0 to ``folds - 1``.
    """
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(labels), np.int64)
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        fold[rng.permutation(members)] = (np.arange(len(members)) + int(rng.integers(folds))) % folds
    return fold


def fit_svms(
    vectors: Tensor, labels: I64, classes: int, c: float, *, tolerance: float = 1e-4,
    start: LinearSVMs | None = None,
) -> LinearSVMs:  # fmt: skip
    """Train one linear SVM for each class against all others.

    Args:
        vectors: float32 ``(n, D)``, of about unit length.
        labels: ``(n,)``, 0 to ``classes - 1``.
        classes: how many.
        c: cost of a violated margin.
        tolerance: as of :func:`~sppnet.solvers.svm.train_svms`.
        start: the solution to begin with.

    Returns:
        The SVMs.
    """
    y = torch.full((len(labels), classes), -1, dtype=torch.int8)
    y[torch.arange(len(labels)), torch.from_numpy(np.array(labels))] = 1
    if start is None:  # nearly all images are negatives of a class: a bias of -1 is right for those
        zero = torch.zeros(classes, vectors.shape[1])
        start = LinearSVMs(zero, -torch.ones(classes), torch.zeros(classes, dtype=torch.float64), 0)
    return train_svms(vectors, y, c=c, tolerance=tolerance, start=start)


def fit_least_squares(vectors: Tensor, labels: I64, classes: int, c: float) -> LinearSVMs:
    """Train one least-squares SVM for each class, in closed form.

    It minimises ``0.5 |w|^2 + c * sum_i (y_i - x_i . w - b)^2``: squared distance from +1 or -1 instead of the squared
    hinge. Every image counts, not only those near the border. With long vectors and few images (several backbones,
    several views of each image) it was the better one. Memory: n^2 or D^2 numbers, whichever is less.

    Source: Suykens and Vandewalle, "Least squares support vector machine classifiers", 1999.

    Args:
        vectors: float32 ``(n, D)``.
        labels: ``(n,)``, 0 to ``classes - 1``.
        classes: how many.
        c: cost of a distance.

    Returns:
        The SVMs.
    """
    y = torch.full((len(labels), classes), -1.0, dtype=torch.float64)
    y[torch.arange(len(labels)), torch.from_numpy(np.array(labels))] = 1
    x, middle, share = vectors.double(), vectors.double().mean(0), y.mean(0)
    x = x - middle
    few = x.shape[0] < x.shape[1]
    square = x @ x.T if few else x.T @ x
    square.diagonal().add_(0.5 / c)
    factor = torch.linalg.cholesky(square)
    solved = torch.cholesky_solve(y - share if few else x.T @ (y - share), factor)
    weight = (x.T @ solved if few else solved).T
    bias = share - weight @ middle
    loss = 0.5 * weight.square().sum(1) + c * (y - share - x @ weight.T).square().sum(0)
    return LinearSVMs(weight.float(), bias.float(), loss, 0)


def cross_validate(
    vectors: Tensor,
    labels: I64,
    classes: int,
    costs: Sequence[float] = (1.0, 10.0, 100.0),
    *,
    folds: int = 5,
    seed: int = 0,
    step: Callable[[], None] = lambda: None,
    least_squares: bool = False,
) -> SvmChoice:
    """Choose C: train on all folds but one and measure mean class accuracy on that one, for every fold and cost.

    Args:
        vectors: float32 ``(n, D)``.
        labels: ``(n,)``, 0 to ``classes - 1``.
        classes: how many.
        costs: to be tried.
        folds: how many; at least 2, and at most the number of images of the smallest class is used.
        seed: of the folds.
        step: called after every one of the ``folds * len(costs)`` trainings.
        least_squares: train with :func:`fit_least_squares` instead of :func:`fit_svms`.

    Returns:
        The cost, and what was measured.

    Raises:
        DatasetError: a class has fewer than two images.
        ArgumentError: no costs, or one that isn't positive; or folds or a seed that are no whole numbers.
    """
    tried = sorted(check_costs(costs))
    folds, seed = check_whole("folds", folds, *FOLDS), check_whole("seed", seed, *SEEDS)
    counts = np.bincount(labels, minlength=classes)
    smallest = int(counts.min())
    if smallest < 2:
        raise DatasetError(f"class number {int(counts.argmin())} has {smallest} images, expected at least 2")
    folds = max(2, min(folds, smallest))
    fold = folds_of(labels, folds, seed)
    margins = {c: torch.zeros(len(labels), classes) for c in tried}
    for k in range(folds):
        kept, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        x = vectors[torch.from_numpy(kept)]
        svms: LinearSVMs | None = None
        for c in tried:
            if least_squares:
                svms = fit_least_squares(x, labels[kept], classes, c)
            else:  # the solution at a smaller cost is a good start
                svms = fit_svms(x, labels[kept], classes, c, tolerance=1e-3, start=svms)
            margins[c][held] = vectors[torch.from_numpy(held)] @ svms.weight.T + svms.bias
            step()
    accuracy = {c: _mean_class_accuracy(m, labels, classes) for c, m in margins.items()}
    best = max(tried, key=lambda c: (round(accuracy[c], 6), -c))
    return SvmChoice(best, accuracy, margins[best])


def fit_scale(margins: Tensor, labels: I64) -> float:
    """Find the factor s for which ``softmax(s * margins)`` fits the labels best (least cross-entropy).

    Args:
        margins: ``(n, classes)``, of images that the SVMs weren't trained on.
        labels: ``(n,)``, class indices.

    Returns:
        The factor, from 0.1 to 100.
    """
    y = torch.from_numpy(np.array(labels))
    grid = torch.logspace(-1, 2, 121, dtype=torch.float64)
    losses = [float(torch.nn.functional.cross_entropy(margins.double() * s, y)) for s in grid]
    return float(grid[int(np.argmin(losses))])


def _mean_class_accuracy(margins: Tensor, labels: I64, classes: int) -> float:
    hit = (margins.argmax(1).numpy() == labels).astype(np.float64)
    count = np.bincount(labels, minlength=classes)
    return float((np.bincount(labels, hit, classes)[count > 0] / count[count > 0]).mean())
