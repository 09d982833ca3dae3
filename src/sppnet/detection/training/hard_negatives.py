"""Linear SVMs with hard negatives on the fc features, and the sums of box regression, in one pass over the images."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sppnet._types import Progress, no_progress
from sppnet.detection.options import SvmOptions
from sppnet.detection.training.box_regression import RidgeAccumulator
from sppnet.detection.training.images import ImageSequence, TrainingImage
from sppnet.detection.training.sampling import assign_windows, class_overlaps
from sppnet.detection.weights import DELTA_SCALE
from sppnet.solvers.svm import LinearSVMs, train_svms
from sppnet.storage.checkpoints import Checkpoints

__all__ = ["ExampleSet", "WindowScorer", "mine_hard_negatives"]

WindowScorer = Callable[[TrainingImage, "np.ndarray[tuple[int, int], np.dtype[np.float32]]"], Tensor]
"""fc features ``(K, D)`` of windows ``(K, 4)`` of an image."""

logger = logging.getLogger("sppnet")


class ExampleSet:
    """Features ``(n, D)`` in float16 and labels ``(n, classes)`` in {-1, 0, +1}, growing; memory is doubled at need."""

    def __init__(self, dims: int, classes: int) -> None:
        self._x = torch.empty(4096, dims, dtype=torch.float16)
        self._y = torch.empty(4096, classes, dtype=torch.int8)
        self.count = 0

    @property
    def x(self) -> Tensor:
        """Features ``(count, D)``."""
        return self._x[: self.count]

    @property
    def y(self) -> Tensor:
        """Labels ``(count, classes)``."""
        return self._y[: self.count]

    def add(self, x: Tensor, y: Tensor) -> None:
        """Append the examples ``x (n, D)`` with labels ``y (n, classes)``."""
        need = self.count + len(x)
        if need > len(self._x):
            size = max(need, 2 * len(self._x))
            self._x = torch.cat([self.x, torch.empty(size - self.count, self._x.shape[1], dtype=torch.float16)])
            self._y = torch.cat([self.y, torch.empty(size - self.count, self._y.shape[1], dtype=torch.int8)])
        self._x[self.count : need] = x.to(torch.float16)
        self._y[self.count : need] = y.to(torch.int8)
        self.count = need

    def drop_easy(self, svms: LinearSVMs, below: float) -> int:
        """Remove examples that are positive of no class and have margins under ``below`` in every class."""
        keep = torch.ones(self.count, dtype=torch.bool)
        for start in range(0, self.count, 65536):
            rows = slice(start, start + 65536)
            margin = torch.addmm(svms.bias, self.x[rows].float(), svms.weight.T)
            keep[rows] = (self.y[rows] > 0).any(1) | (margin >= below).any(1)
        x, y = self.x[keep], self.y[keep]
        dropped = self.count - len(x)
        self._x[: len(x)], self._y[: len(x)] = x, y
        self.count = len(x)
        return dropped


def mine_hard_negatives(
    data: ImageSequence,
    scorer: WindowScorer,
    dims: int,
    options: SvmOptions,
    *,
    prior: tuple[Tensor, Tensor] | None = None,
    ridge: bool = True,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    progress: Progress = no_progress,
) -> tuple[LinearSVMs, float, tuple[Tensor, Tensor] | None]:
    """Train the SVMs of all classes, and the box regressors, on the fc features of ``data``.

    First pass: a few windows an image (the objects, windows close around them, random background). Second pass: every
    window; those that a class takes for an object wrongly (margin above ``add_above``) are added, and the SVMs trained
    anew whenever enough have come. A window added for one class is a negative for every class it doesn't overlap: the
    classes share their examples and each matrix product.

    Args:
        data: the images.
        scorer: gives fc features.
        dims: their length.
        options: constants of the SVMs and of box regression.
        prior: weight ``(classes, D)`` and bias ``(classes,)`` of a classifier on the same features, which the SVMs are
            drawn to (see :mod:`sppnet.solvers.svm`); None draws them to zero, as the paper's.
        ridge: whether box regressors are trained too.
        seed: of the windows that are drawn.
        checkpoints: where a stopped run goes on from.
        progress: shows how far each pass is.

    Returns:
        The SVMs (for features times ``norm factor``), that factor, and (with ``ridge``) box regression weight
        ``(classes, 4, D)`` and bias ``(classes, 4)``, in units of DELTA_SCALE, for the same features.
    """
    checkpoints = checkpoints or Checkpoints(None)
    classes = len(data.dataset.class_names)
    examples = ExampleSet(dims, classes)
    boxes = RidgeAccumulator(classes, dims) if ridge else None
    svms: LinearSVMs | None = None
    first, added = 0, 0
    saved = checkpoints.load("svm")
    if saved is None:
        factor = _norm_factor(data, scorer, options.feature_norm)
    else:
        tensors, state = saved
        factor, first, added = state["factor"], state["done"], state["added"]
        examples.add(tensors["x"], tensors["y"])
        if "weight" in tensors:
            svms = LinearSVMs(tensors["weight"], tensors["bias"], tensors["objective"], state["iterations"])
        if boxes is not None:
            boxes.restore(tensors)
        logger.info(f"goes on with the SVMs, {len(data) * 2 - first} images left")
    scaled = None if prior is None else (prior[0] / factor, prior[1])

    def checkpoint(done: int) -> None:
        tensors = {"x": examples.x, "y": examples.y} | ({} if boxes is None else boxes.tensors())
        if svms is not None:
            tensors |= {"weight": svms.weight, "bias": svms.bias, "objective": svms.objective}
        iterations = 0 if svms is None else svms.iterations
        checkpoints.save("svm", tensors, {"factor": factor, "done": done, "added": added, "iterations": iterations})

    for i in progress(range(first, len(data)), "SVMs: first examples", total=max(0, len(data) - first)):
        image = data.load(i)
        some = np.random.default_rng([seed, i]).permutation(image.windows)[:24]
        windows = np.concatenate([image.boxes[~image.difficult], some])
        if len(windows):
            examples.add(scorer(image, windows) * factor, _labels(image, windows, classes, options))
        if checkpoints.due():
            checkpoint(i + 1)
    if svms is None:
        svms = _train(examples, options, scaled, None)
    first = max(0, first - len(data))
    for i in progress(range(first, len(data)), "SVMs: hard negatives", total=len(data) - first):
        image = data.load(i)
        if len(image.windows):
            x = scorer(image, image.windows) * factor
            if boxes is not None:
                _add_boxes(boxes, image, x, options)
            labels = _labels(image, image.windows, classes, options)
            margin = torch.addmm(svms.bias, x, svms.weight.T)
            hard = torch.where((labels < 0) & (margin > options.add_above), margin, -torch.inf)
            top, index = hard.topk(min(options.per_image, len(hard)), dim=0)
            chosen = index[top > -torch.inf].unique()
            chosen = torch.cat([chosen, torch.nonzero((labels > 0).any(1)).flatten()]).unique()
            examples.add(x[chosen], labels[chosen])
            added += len(chosen)
        if added >= options.retrain_every:
            svms = _train(examples, options, scaled, svms)
            dropped = examples.drop_easy(svms, options.drop_below)
            logger.info(f"SVMs trained on {examples.count} examples ({dropped} easy ones dropped)")
            added = 0
        if checkpoints.due():
            checkpoint(len(data) + i + 1)
    svms = _train(examples, options, scaled, svms)
    return svms, factor, None if boxes is None else boxes.solve(options.box_regularisation)


def _train(
    examples: ExampleSet, options: SvmOptions, prior: tuple[Tensor, Tensor] | None, start: LinearSVMs | None
) -> LinearSVMs:
    return train_svms(
        examples.x,
        examples.y,
        c=options.c,
        positive_weight=options.positive_weight,
        bias_scale=options.bias_scale,
        prior=prior,
        start=start,
        tolerance=1e-3,
    )


def _norm_factor(data: ImageSequence, scorer: WindowScorer, wanted: float) -> float:
    norms = []
    for i in np.linspace(0, len(data) - 1, min(len(data), 50)).astype(int):
        image = data.load(int(i))
        if len(image.windows):
            norms.append(scorer(image, image.windows[:200]).norm(dim=1))
    mean = float(torch.cat(norms).mean()) if norms else 0.0
    return wanted / mean if mean > 0 else 1.0


def _labels(
    image: TrainingImage, windows: np.ndarray[tuple[int, int], np.dtype[np.float32]], classes: int, options: SvmOptions
) -> Tensor:
    overlap = class_overlaps(windows, image.boxes, image.labels, classes)
    easy = ~image.difficult
    sure = class_overlaps(windows, image.boxes[easy], image.labels[easy], classes)
    labels = np.where(overlap < options.negative_iou, -1, 0)
    labels[sure >= options.positive_iou] = 1
    return torch.from_numpy(labels.astype(np.int8))


def _add_boxes(ridge: RidgeAccumulator, image: TrainingImage, x: Tensor, options: SvmOptions) -> None:
    assignment = assign_windows(image.windows, image.boxes, image.labels, image.difficult)
    near = np.flatnonzero(assignment.iou >= options.box_iou)
    if len(near):
        targets = torch.from_numpy(assignment.deltas[near]) / torch.tensor(DELTA_SCALE)
        ridge.add(x[torch.from_numpy(near)], torch.from_numpy(assignment.label[near]), targets)
