"""Teaching a detector of new classes from a few images, in a second or two, again after each image.

The convolutions and the first, low-rank layer of a trained detector stay as they are: a window is its R reduced
numbers, computed once. What is trained is the small rest: a fully connected layer that starts from the trained one,
class scores and box regression. With few images this learns more than linear SVMs on the fixed layer (add_classes):
measured on blood cells (60 unseen images, 10 and 30 images to learn from, mean of 3 seeds) 0.67 and 0.69 voc-area
against 0.59 and 0.65.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sppnet._types import F32, I64
from sppnet.boxes import box_iou, decode_deltas, encode_deltas, nms, soft_nms
from sppnet.detection.torch_head import TorchHead
from sppnet.detection.weights import DELTA_SCALE, DetectorWeights
from sppnet.errors import ArgumentError
from sppnet.solvers.adamw import AdamW, one_cycle_rates

__all__ = ["HeadTeacher", "Lesson", "OnlineCalibration", "TeachingOptions", "jittered_boxes", "suggest"]

F16 = NDArray[np.float16]


@dataclass(frozen=True)
class TeachingOptions:
    """How the head is trained.

    Attributes:
        windows: of one step.
        foreground: share of them that lie on objects.
        foreground_iou: a window that overlaps an object by this much is an example of it.
        background_iou: a window that overlaps no object by this much is background; between the two is neither.
        learning_rate: of AdamW, at its peak.
        few_images: with fewer images the learning rate is half of that. Measured (docs/results.md) with 3 and 10 images
            it gains 0.6 to 5 points; with 50 images the whole one is 1 to 2 points better.
        weight_decay: of AdamW.
        dropout: share of the layer's outputs that a step leaves out.
        rejected: share of the background that is drawn from windows on rejected suggestions, where there are some.
    """

    windows: int = 256
    foreground: float = 0.25
    foreground_iou: float = 0.5
    background_iou: float = 0.4
    learning_rate: float = 1e-3
    few_images: int = 32
    weight_decay: float = 1e-4
    dropout: float = 0.5
    rejected: float = 0.2


@dataclass(frozen=True)
class Lesson:
    """One finished image: what is not an object in it is background.

    Attributes:
        windows: float32 ``(K, 4)`` in pixels; the objects' own boxes and jittered ones should be among them.
        vectors: float16 ``(K, R)``, reduced pooled windows.
        mirrored: the same of the mirror image, or None.
        boxes: float32 ``(n, 4)``, the objects.
        labels: int64 ``(n,)``, their classes.
        rejected: float32 ``(m, 4)``, suggestions that a person turned down.
    """

    windows: F32
    vectors: F16
    mirrored: F16 | None
    boxes: F32
    labels: I64
    rejected: F32


@dataclass
class _Examples:
    """Windows of all lessons, sorted into kinds."""

    vectors: Tensor  # float16 (N, R)
    labels: I64  # (N,): class, or num_classes for background, or -1 for neither
    deltas: Tensor  # float32 (N, 4)
    foreground: list[I64]  # of each class, rows
    background: I64
    rejected: I64


class HeadTeacher:
    """Trains a small head on the reduced vectors of windows.

    Args:
        base: a trained detector's matrices; its first layers are the start.
        num_classes: of the new head.
        options: how to train.
        seed: of the first weights and of the windows that are drawn.

    Raises:
        ArgumentError: ``base`` has no fully connected layer, or there is no class.
    """

    def __init__(
        self, base: DetectorWeights, num_classes: int, options: TeachingOptions | None = None, seed: int = 0
    ) -> None:
        if not base.fc6_bias.size or base.fc7_bias.size:
            raise ArgumentError("base: teaching needs a detector with one fully connected layer")
        if num_classes < 1:
            raise ArgumentError(f"num_classes: got {num_classes}, expected at least 1")
        self.base = base
        self.num_classes = num_classes
        self.options = options or TeachingOptions()
        self.seed = seed
        self.rounds = 0
        generator = torch.Generator().manual_seed(seed)
        hidden = base.fc6_bias.size
        self._fc = nn.Linear(base.fc6_weight.shape[1], hidden)
        self._classes = nn.Linear(hidden, num_classes + 1)
        self._boxes = nn.Linear(hidden, 4 * num_classes)
        with torch.no_grad():
            self._fc.weight.copy_(torch.from_numpy(base.fc6_weight))
            self._fc.bias.copy_(torch.from_numpy(base.fc6_bias))
            self._classes.weight.normal_(0, 0.01, generator=generator)
            self._classes.bias.zero_()
            self._boxes.weight.normal_(0, 0.001, generator=generator)
            self._boxes.bias.zero_()

    def learn(self, lessons: Sequence[Lesson], steps: int) -> float:
        """Train for some steps, on from where the head is.

        Args:
            lessons: all finished images.
            steps: gradient steps; about 4 ms each with one thread.

        Returns:
            Mean loss of the last quarter of the steps.

        Raises:
            ArgumentError: no lesson has an object.
        """
        losses = list(self.learning(lessons, steps))
        last = losses[-max(1, steps // 4) :]
        return float(torch.stack(last).mean()) if last else 0.0

    def learning(self, lessons: Sequence[Lesson], steps: int) -> Iterator[Tensor]:
        """Train as :meth:`learn` does, and give the loss of each step: so that others get their turn in between.

        Args:
            lessons: all finished images.
            steps: gradient steps. The head is of use when all are done: the learning rate falls to the end.

        Yields:
            The loss of a step.

        Raises:
            ArgumentError: no lesson has an object.
        """
        options = self.options
        examples = self._examples(lessons)
        if not examples.foreground:
            raise ArgumentError("lessons: no image has an object; label one first")
        rng = np.random.default_rng((self.seed, self.rounds))
        dropped = np.random.default_rng((self.seed, self.rounds, 1))
        self.rounds += 1
        parameters = [*self._fc.parameters(), *self._classes.parameters(), *self._boxes.parameters()]
        optimiser = AdamW([parameters], [options.learning_rate], options.weight_decay)
        scale = torch.tensor(DELTA_SCALE)
        highest = options.learning_rate / (2 if len(lessons) < options.few_images else 1)
        for step in range(steps):
            rate, beta = one_cycle_rates(step, steps + 1, highest)
            optimiser.rates, optimiser.betas = [rate], (beta, 0.999)
            rows, positives = self._draw(examples, rng)
            label = torch.from_numpy(examples.labels[rows])
            x = examples.vectors[torch.from_numpy(rows)].float()
            h = functional.relu(self._fc(x))
            if options.dropout:
                h = h * _kept(dropped, h.shape, options.dropout)
            loss = functional.cross_entropy(self._classes(h), label)
            moved = self._boxes(h[:positives]).view(positives, self.num_classes, 4)
            moved = moved[torch.arange(positives), label[:positives]]
            target = examples.deltas[torch.from_numpy(rows[:positives])] / scale
            loss = loss + functional.smooth_l1_loss(moved, target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield loss.detach()

    def weights(self) -> DetectorWeights:
        """Matrices of a whole detector with this head, not calibrated."""
        c = self.num_classes
        with torch.no_grad():
            trained = (
                self._fc.weight,
                self._fc.bias,
                self._classes.weight[:c] - self._classes.weight[c:],
                self._classes.bias[:c] - self._classes.bias[c],
                self._boxes.weight,
                self._boxes.bias,
                torch.ones(c),
                torch.zeros(c),
            )
            arrays = (value.detach().numpy().copy() for value in trained)
            return DetectorWeights(self.base.reduce_weight, self.base.reduce_bias, *arrays)

    def _draw(self, examples: _Examples, rng: np.random.Generator) -> tuple[I64, int]:
        """Rows of one step, those of objects first, and how many these are. Each class has the same share."""
        options = self.options
        each = max(1, int(options.windows * options.foreground) // len(examples.foreground))
        chosen = [rng.choice(rows, each) for rows in examples.foreground]
        positives = each * len(chosen)
        rest = max(1, options.windows - positives)
        hard = int(rest * options.rejected) if len(examples.rejected) else 0
        if hard:
            chosen.append(rng.choice(examples.rejected, hard))
        if len(examples.background):
            chosen.append(rng.choice(examples.background, rest - hard))
        return np.concatenate(chosen), positives

    def _examples(self, lessons: Sequence[Lesson]) -> _Examples:
        vectors, labels, deltas, hard = [], [], [], []
        for lesson in lessons:
            label, delta, rejected = self._sorted(lesson)
            for numbers, sign in ((lesson.vectors, 1.0), (lesson.mirrored, -1.0)):
                if numbers is not None:
                    vectors.append(numbers)
                    labels.append(label)
                    deltas.append(delta * np.array([sign, 1, 1, 1], np.float32))
                    hard.append(rejected)
        size = self.base.reduce_bias.size
        all_labels = np.concatenate([np.zeros(0, np.int64), *labels])
        rejected = np.concatenate([np.zeros(0, bool), *hard])
        background = all_labels == self.num_classes
        foreground = [np.flatnonzero(all_labels == c) for c in range(self.num_classes)]
        return _Examples(
            torch.from_numpy(np.concatenate([np.zeros((0, size), np.float16), *vectors])),
            all_labels,
            torch.from_numpy(np.concatenate([np.zeros((0, 4), np.float32), *deltas])),
            [rows for rows in foreground if len(rows)],
            np.flatnonzero(background),
            np.flatnonzero(background & rejected),
        )

    def _sorted(self, lesson: Lesson) -> tuple[I64, F32, NDArray[np.bool_]]:
        """Label and box target of each window of an image, and which lie on rejected suggestions."""
        options, count = self.options, len(lesson.windows)
        label = np.full(count, self.num_classes, np.int64)
        delta = np.zeros((count, 4), np.float32)
        if len(lesson.boxes):
            overlap = box_iou(lesson.windows, lesson.boxes)
            best = overlap.argmax(1)
            iou = overlap[np.arange(count), best]
            on = iou >= options.foreground_iou
            label[on] = lesson.labels[best[on]]
            label[~on & (iou >= options.background_iou)] = -1
            delta = encode_deltas(lesson.windows, lesson.boxes[best]).astype(np.float32)
        rejected = np.zeros(count, bool)
        if len(lesson.rejected):
            rejected = box_iou(lesson.windows, lesson.rejected).max(1) >= options.foreground_iou
        return label, delta, rejected


def _kept(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> Tensor:
    """Factors of dropout: 0 or above 1, with mean 1. A random byte for each: floats took a sixth of a step."""
    least = min(round(256 * share), 255)
    drawn = torch.frombuffer(bytearray(rng.bytes(math.prod(shape))), dtype=torch.uint8).view(shape)
    return (drawn >= least).float().mul_(256 / (256 - least))


def jittered_boxes(boxes: F32, width: int, height: int, each: int = 8, seed: int = 0) -> F32:
    """Boxes near ``boxes``, as more examples of the same objects.

    Args:
        boxes: float32 ``(n, 4)`` in pixels.
        width: of the image in pixels.
        height: of the image in pixels.
        each: how many for each box; its sides move by about a tenth of its size.
        seed: of what is drawn.

    Returns:
        float32 ``(m, 4)`` with ``m <= n * each``, inside the image, at least 2 pixels a side.
    """
    rng = np.random.default_rng(seed)
    if not len(boxes):
        return np.zeros((0, 4), np.float32)
    size = np.concatenate([boxes[:, 2:] - boxes[:, :2]] * 2, 1)
    moved = np.repeat(boxes, each, 0) + rng.normal(0, 0.1, (len(boxes) * each, 4)) * np.repeat(size, each, 0)
    moved[:, 0::2] = moved[:, 0::2].clip(0, width)
    moved[:, 1::2] = moved[:, 1::2].clip(0, height)
    whole = (moved[:, 2] - moved[:, 0] > 2) & (moved[:, 3] - moved[:, 1] > 2)
    return np.ascontiguousarray(moved[whole], np.float32)


_MOST_OF_A_CLASS = 300
_SAME_OBJECT_IOU = 0.6


@torch.inference_mode()
def suggest(
    weights: DetectorWeights, vectors: F16, windows: F32, width: int, height: int, least: float = 0.01
) -> tuple[F32, F32, I64]:
    """Find objects by a head that was taught, from the reduced vectors of windows.

    Classes compete: an object is suggested once, as its likeliest class.

    Args:
        weights: of :meth:`HeadTeacher.weights`.
        vectors: float16 ``(K, R)``.
        windows: float32 ``(K, 4)`` in pixels.
        width: of the image in pixels.
        height: of the image in pixels.
        least: confidence below which nothing is said.

    Returns:
        Boxes float32 ``(n, 4)``, confidences ``(n,)``, not calibrated, best first, and classes ``(n,)``.
    """
    head = TorchHead(weights)
    h = head.features_of_reduced(torch.from_numpy(vectors.astype(np.float32)))
    margins = head.margins(h)
    with_background = torch.cat([margins, torch.zeros(len(margins), 1)], 1)
    probability = torch.softmax(with_background, 1)[:, :-1].numpy()
    limit = np.array([width, height] * 2, np.float32)
    boxes, scores, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for c in range(probability.shape[1]):
        top = np.argsort(-probability[:, c], kind="stable")[:_MOST_OF_A_CLASS]
        top = top[probability[top, c] >= least]
        if not len(top):
            continue
        score = probability[top, c]
        moved = decode_deltas(windows[top], head.box_deltas(h[torch.from_numpy(top)], c).numpy())
        moved = np.clip(moved, 0, limit).astype(np.float32)
        kept = nms(moved, score, 0.5)
        taken, new = soft_nms(moved[kept], score[kept], 0.3, 100)
        kept = kept[taken]
        weight = np.where(box_iou(moved[kept], moved) >= _SAME_OBJECT_IOU, score[None], 0).astype(np.float64)
        weight[np.arange(len(kept)), kept] += 1e-9
        boxes.append((weight @ moved.astype(np.float64) / weight.sum(1, keepdims=True)).astype(np.float32))
        scores.append(new.astype(np.float32))
        labels.append(np.full(len(kept), c, np.int64))
    all_boxes, all_scores, all_labels = np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels)
    side = all_boxes[:, 2:] - all_boxes[:, :2]
    whole = np.flatnonzero((all_scores >= least) & (side >= 2).all(1))
    kept = whole[nms(all_boxes[whole], all_scores[whole], _SAME_OBJECT_IOU)]
    return all_boxes[kept], all_scores[kept], all_labels[kept]


class OnlineCalibration:
    """Turns confidences into probabilities, from suggestions that a person judged. Starts cautious.

    A suggestion is judged when its image is finished, before the image is learned from: so the figures are honest.

    Args:
        most: judged suggestions that are remembered, the newest.
    """

    def __init__(self, most: int = 400) -> None:
        self._most = most
        self._odds: list[float] = []
        self._right: list[bool] = []
        self.slope, self.offset = 1.0, -1.0

    def add(self, confidence: float, right: bool) -> None:
        """Remember one suggestion and whether it was right."""
        self.add_all([confidence], [right])

    def add_all(self, confidences: Sequence[float], right: Sequence[bool]) -> None:
        """Remember several suggestions and whether each was right."""
        self._odds = [*self._odds, *map(_log_odds, confidences)][-self._most :]
        self._right = [*self._right, *map(bool, right)][-self._most :]
        self._fit()

    def __call__(self, confidence: F32) -> F32:
        """Give the probability of each confidence ``(n,)``, float32."""
        odds = np.array([_log_odds(p) for p in confidence], np.float64)
        return (1 / (1 + np.exp(-(self.slope * odds + self.offset)))).astype(np.float32)

    def undone(self, probability: float) -> float:
        """Give the confidence that stands for a probability."""
        odds = (_log_odds(probability) - self.offset) / self.slope
        return float(1 / (1 + np.exp(-odds)))

    def _fit(self) -> None:
        """Fit the sigmoid with a prior (Newton steps): slope near 1, offset near -1."""
        x, y = np.array(self._odds), np.array(self._right, np.float64)
        a, b = 1.0, -1.0
        for _ in range(12):
            p = 1 / (1 + np.exp(-(a * x + b)))
            w = p * (1 - p)
            g = np.array([((p - y) * x).sum() + (a - 1) / 0.25, (p - y).sum() + (b + 1) / 2.0])
            hessian = np.array([[(w * x * x).sum() + 1 / 0.25, (w * x).sum()], [(w * x).sum(), w.sum() + 1 / 2.0]])
            step = np.linalg.solve(hessian, g)
            a, b = float(np.clip(a - step[0], 0.2, 3)), float(np.clip(b - step[1], -8, 4))
        self.slope, self.offset = a, b


def _log_odds(p: float) -> float:
    p = min(max(float(p), 1e-4), 1 - 1e-4)
    return float(np.log(p / (1 - p)))
