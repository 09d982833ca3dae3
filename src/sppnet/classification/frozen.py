"""Linear SVMs on pooled vectors of frozen convolutions (the paper's section 3.3): minutes instead of days.

The cost C is chosen by cross-validation on the training photos, and so is the scale that turns margins into
probabilities; no other photo is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.errors import ArgumentError, DatasetError
from sppnet.solvers.svm import LinearSVMs, train_svms

__all__ = ["SvmChoice", "cross_validate", "fit_least_squares", "fit_scale", "fit_svms", "folds_of"]


@dataclass(frozen=True)
class SvmChoice:
    """What cross-validation found.

    Attributes:
        c: the cost with the best held-out accuracy (of equal ones the smallest).
        accuracy: mean class accuracy on held-out folds, for each cost tried.
        margins: float32 ``(n, classes)``: of each photo, from the SVMs that haven't seen it, at the chosen cost.
    """

    c: float
    accuracy: dict[float, float]
    margins: Tensor


def folds_of(labels: NDArray[np.int64], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold 0 ... ``folds - 1`` of each photo; each class is spread over all folds as evenly as can be."""
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(labels), np.int64)
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        fold[rng.permutation(members)] = (np.arange(len(members)) + int(rng.integers(folds))) % folds
    return fold


def fit_svms(
    vectors: Tensor, labels: NDArray[np.int64], classes: int, c: float, *, tolerance: float = 1e-4,
    start: LinearSVMs | None = None,
) -> LinearSVMs:  # fmt: skip
    """One linear SVM a class against all others, all at once. ``vectors (n, D)`` float32, of unit length or so."""
    y = torch.full((len(labels), classes), -1, dtype=torch.int8)
    y[torch.arange(len(labels)), torch.from_numpy(np.array(labels))] = 1
    if start is None:  # nearly all photos are negatives of a class: there a bias of -1 is right at once
        zero = torch.zeros(classes, vectors.shape[1])
        start = LinearSVMs(zero, -torch.ones(classes), torch.zeros(classes, dtype=torch.float64), 0)
    return train_svms(vectors, y, c=c, tolerance=tolerance, start=start)


def fit_least_squares(vectors: Tensor, labels: NDArray[np.int64], classes: int, c: float) -> LinearSVMs:
    """One least-squares SVM a class: the squared distance from +1 or -1 in place of the squared hinge, in closed form.

    ``0.5 |w|^2 + c * sum_i (y_i - x_i . w - b)^2``. Every photo counts, not only those near the border; where vectors
    are long and photos few (several nets, each photo looked at in several ways) it was the better one.
    ``vectors (n, D)`` float32; takes n^2 (or, if that is less, D^2) numbers of memory.

    Source: Suykens and Vandewalle, "Least squares support vector machine classifiers", 1999.
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
    labels: NDArray[np.int64],
    classes: int,
    costs: Sequence[float] = (1.0, 10.0, 100.0),
    *,
    folds: int = 5,
    seed: int = 0,
    step: Callable[[], None] = lambda: None,
    least_squares: bool = False,
) -> SvmChoice:
    """Choose C: train on all folds but one, measure mean class accuracy on that one, for every fold and cost.

    Args:
        vectors: ``(n, D)``. labels: ``(n,)``, 0 ... ``classes - 1``.
        folds: at most the number of photos of the smallest class is used, at least 2. step: called after every one of
            the ``folds * len(costs)`` trainings.
        least_squares: by :func:`fit_least_squares`, not :func:`fit_svms`.

    Raises:
        DatasetError: a class has fewer than two photos.
        ArgumentError: no costs, or one that isn't positive.
    """
    if not costs or not all(c > 0 for c in costs):
        raise ArgumentError(f"costs: got {costs!r}, expected positive numbers")
    smallest = int(np.bincount(labels, minlength=classes).min())
    if smallest < 2:
        raise DatasetError(f"class number {int(np.bincount(labels, minlength=classes).argmin())} has {smallest} photos")
    folds = max(2, min(folds, smallest))
    fold = folds_of(labels, folds, seed)
    costs = sorted(costs)
    margins = {c: torch.zeros(len(labels), classes) for c in costs}
    for k in range(folds):
        kept, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        x = vectors[torch.from_numpy(kept)]
        svms: LinearSVMs | None = None
        for c in costs:
            if least_squares:
                svms = fit_least_squares(x, labels[kept], classes, c)
            else:  # the solution at a smaller cost is a good start
                svms = fit_svms(x, labels[kept], classes, c, tolerance=1e-3, start=svms)
            margins[c][held] = vectors[torch.from_numpy(held)] @ svms.weight.T + svms.bias
            step()
    accuracy = {c: _mean_class_accuracy(m, labels, classes) for c, m in margins.items()}
    best = max(costs, key=lambda c: (round(accuracy[c], 6), -c))
    return SvmChoice(best, accuracy, margins[best])


def fit_scale(margins: Tensor, labels: NDArray[np.int64]) -> float:
    """The factor s for which ``softmax(s * margins)`` fits ``labels`` best (least cross-entropy).

    Margins must be of photos that the SVMs haven't seen.
    """
    y = torch.from_numpy(np.array(labels))
    grid = torch.logspace(-1, 2, 121, dtype=torch.float64)
    losses = [float(torch.nn.functional.cross_entropy(margins.double() * s, y)) for s in grid]
    return float(grid[int(np.argmin(losses))])


def _mean_class_accuracy(margins: Tensor, labels: NDArray[np.int64], classes: int) -> float:
    hit = (margins.argmax(1).numpy() == labels).astype(np.float64)
    count = np.bincount(labels, minlength=classes)
    return float((np.bincount(labels, hit, classes)[count > 0] / count[count > 0]).mean())
