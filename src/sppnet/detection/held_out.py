"""How good a taught head is, measured on images that it did not learn from; and whether more images would help.

The finished images are divided into folds. For each fold a head learns from the other images, and another one from half
of them; both look at the fold. So each image is looked at by heads that never saw it. What half the images give, and
what all give, is one doubling of the learning curve.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sppnet._types import F32, F64, I64
from sppnet.boxes import box_iou
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.detection.detections import Detections
from sppnet.detection.teaching import F16, HeadTeacher, Lesson, OnlineCalibration, suggest
from sppnet.detection.weights import DetectorWeights
from sppnet.evaluation.voc import evaluate_voc

__all__ = ["HeldOut", "HeldOutOptions", "Looked", "images_for", "measure_held_out"]


@dataclass(frozen=True)
class HeldOutOptions:
    """How heads are measured.

    Attributes:
        folds: of the images, at most.
        least_images: below this many nothing is measured.
        steps: of each head's training.
        resamples: of the images, for the spread.
        inner: share of the resamples between the low and the high figure.
        seed: of everything that is drawn.
    """

    folds: int = 4
    least_images: int = 4
    steps: int = 200
    resamples: int = 60
    inner: float = 0.8
    seed: int = 0


@dataclass(frozen=True)
class Looked:
    """All windows of an image: vectors ``(K, R)``, windows ``(K, 4)`` in pixels, and the image's size in pixels."""

    vectors: F16
    windows: F32
    width: int
    height: int


@dataclass(frozen=True)
class HeldOut:
    """What was measured. Arrays have one item for each class, NaN where a class has no object.

    Attributes:
        folds: into which the images were divided.
        images: of which each was held out once.
        learned: images that a head learned from, on average.
        ap: ``voc-area`` over all held-out images.
        low, high: between them lie the inner resamples of the images.
        half_ap: the same of heads that learned from half as many images.
        gain_low, gain_high: of ``ap - half_ap``, over the same resamples.
        found: by image: boxes ``(n, 4)``, probabilities ``(n,)`` and classes ``(n,)``. The probabilities are
            calibrated on these detections.
    """

    folds: int
    images: int
    learned: float
    ap: F64
    low: F64
    high: F64
    half_ap: F64
    gain_low: F64
    gain_high: F64
    found: dict[str, tuple[F32, F32, I64]]


def measure_held_out(
    base: DetectorWeights,
    num_classes: int,
    lessons: Mapping[str, Lesson],
    look: Callable[[str], Looked | None],
    options: HeldOutOptions | None = None,
) -> Generator[None, None, HeldOut | None]:
    """Measure heads by cross-validation, in small pieces of work.

    Args:
        base: the detector that the heads start from.
        num_classes: of the heads.
        lessons: finished images.
        look: gives the windows of an image, or None where it can't be read.
        options: how to measure.

    Yields:
        Nothing, after each piece.

    Returns:
        What was measured; None where there are too few images.
    """
    options = options or HeldOutOptions()
    rng = np.random.default_rng(options.seed)
    keys = [sorted(lessons)[int(i)] for i in rng.permutation(len(lessons))]
    if len(keys) < max(2, options.least_images):
        return None
    folds = min(options.folds, len(keys))
    whole: dict[str, Detections] = {}
    half: dict[str, Detections] = {}
    records: list[ImageRecord] = []
    names = tuple(f"class {c}" for c in range(num_classes))
    learned = []
    for fold in range(folds):
        held, others = keys[fold::folds], [k for i, k in enumerate(keys) if i % folds != fold]
        learned.append(len(others))
        for kept, found in ((others, whole), (others[: max(1, len(others) // 2)], half)):
            chosen = [lessons[k] for k in kept]
            if not any(len(lesson.boxes) for lesson in chosen):
                return None
            head = HeadTeacher(base, num_classes, seed=options.seed)
            for _ in head.learning(chosen, options.steps):
                yield
            weights = head.weights()
            for key in held:
                seen = look(key)
                yield
                if seen is None:
                    continue
                boxes, confidence, label = suggest(weights, seen.vectors, seen.windows, seen.width, seen.height)
                found[key] = Detections(boxes, confidence, label, names)
                if found is whole:
                    records.append(_record(key, lessons[key], seen))
                yield
    records = [r for r in records if r.image_id in half]
    return (yield from _summary(records, whole, half, names, folds, float(np.mean(learned)), options))


def images_for(points: float, gain: float, images: float) -> int | None:
    """How many more images raise the average precision by ``points``, if each doubling goes on giving ``gain``.

    Args:
        points: wanted, such as 0.05.
        gain: of the last doubling, that is from half of ``images`` to ``images``.
        images: learned from now.

    Returns:
        The number; None where the curve does not rise, or where more than another doubling would be needed: that far
        nobody has measured.
    """
    if gain <= 0 or not np.isfinite(gain) or points > gain:
        return None
    return max(1, round(images * (2 ** (points / gain) - 1)))


def _record(key: str, lesson: Lesson, seen: Looked) -> ImageRecord:
    limit = np.array([seen.width, seen.height] * 2, np.float32)
    boxes = np.clip(lesson.boxes, 0, limit)
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    boxes, labels = np.ascontiguousarray(boxes[kept]), lesson.labels[kept]
    return ImageRecord(Path(key), boxes, labels, np.zeros(len(labels), np.bool_), seen.width, seen.height, key)


def _summary(
    records: Sequence[ImageRecord],
    whole: Mapping[str, Detections],
    half: Mapping[str, Detections],
    names: tuple[str, ...],
    folds: int,
    learned: float,
    options: HeldOutOptions,
) -> Generator[None, None, HeldOut | None]:
    if not records:
        return None

    def both(chosen: Sequence[ImageRecord]) -> tuple[F64, F64]:
        # an image that was drawn twice needs another name
        data = DetectionDataset([replace(r, image_id=str(i)) for i, r in enumerate(chosen)], names)
        return tuple(  # type: ignore[return-value]  # two items
            evaluate_voc([found[r.image_id] for r in chosen], data, protocol="voc-area").ap for found in (whole, half)
        )

    ap, half_ap = both(records)
    rng = np.random.default_rng(options.seed + 1)
    drawn = []
    for _ in range(options.resamples):
        drawn.append(both([records[int(i)] for i in rng.integers(len(records), size=len(records))]))
        yield
    full, less = (np.stack([d[i] for d in drawn]) for i in (0, 1))
    edges = ((1 - options.inner) / 2, (1 + options.inner) / 2)
    low, high = (_quantile(full, q) for q in edges)
    gain_low, gain_high = (_quantile(full - less, q) for q in edges)
    calibrated = _calibrated(records, whole)
    return HeldOut(
        folds, len(records), learned, ap, low, high, half_ap, gain_low, gain_high, calibrated
    )  # fmt: skip


def _quantile(values: F64, q: float) -> F64:
    """Quantile of each column without its NaN; NaN where there is nothing else."""
    result = np.full(values.shape[1], np.nan)
    for c, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if len(known):
            result[c] = np.quantile(known, q)
    return result


def _calibrated(records: Sequence[ImageRecord], found: Mapping[str, Detections]) -> dict[str, tuple[F32, F32, I64]]:
    """Detections with probabilities that are right for these images."""
    confidences: list[float] = []
    right: list[bool] = []
    for record in records:
        item = found[record.image_id]
        overlap = box_iou(item.xyxy, record.boxes)
        overlap[item.class_id[:, None] != record.labels[None]] = 0
        best = overlap.max(1, initial=0)
        clear = (best <= 0.4) | (best >= 0.5)  # others are neither right nor wrong
        confidences += item.confidence[clear].tolist()
        right += (best[clear] >= 0.5).tolist()
    calibration = OnlineCalibration(len(confidences) + 1)
    calibration.add_all(confidences, right)
    return {
        record.image_id: (item.xyxy, calibration(item.confidence), item.class_id)
        for record in records
        for item in (found[record.image_id],)
    }
