"""Classes added to a trained detector without a trace on the others.

The convolutions and the fully connected layers stay as they are, so a new class needs only what SPP-net trains for each
class by itself (paper, section 4.2): a linear SVM and a box regressor on the fc features, in closed form or nearly so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet._types import F32, Progress, no_progress
from sppnet.checking import check_whole
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.seen import seen_digests
from sppnet.detection.building import build_head
from sppnet.detection.calibration import calibrate_scores
from sppnet.detection.classes import Fitted, append_classes, changed, only_classes
from sppnet.detection.detections import Detections
from sppnet.detection.features import PooledWindows
from sppnet.detection.heads import Head
from sppnet.detection.inference import decode_detections
from sppnet.detection.options import SuppressionOptions, SvmOptions
from sppnet.detection.training.hard_negatives import mine_hard_negatives
from sppnet.detection.training.images import TrainingImage, TrainingImages
from sppnet.detection.weights import DetectorWeights
from sppnet.errors import ArgumentError, DatasetError, did_you_mean
from sppnet.evaluation.voc import evaluate_voc
from sppnet.storage.names import real_path

__all__ = ["add_classes"]

# fc features of all windows are kept in memory (float16) up to this; beyond it they are computed at each pass
_MEMORY_BYTES = 1 << 30

logger = logging.getLogger("sppnet")


def add_classes(
    fitted: Fitted,
    dataset: DetectionDataset,
    training_images: Callable[[DetectionDataset], TrainingImages],
    suppression: SuppressionOptions,
    options: SvmOptions,
    *,
    class_names: Sequence[str] | None = None,
    background: DetectionDataset | None = None,
    folds: int = 4,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Fitted:
    """Add classes; the arguments are those of ``SPPDetector.add_classes``.

    Args:
        fitted: what the detector has learned.
        dataset: images with objects of the new classes.
        training_images: gives access to maps and windows of a data set.
        suppression: of the detector.
        options: how SVMs and box regressors are trained.
        class_names: the new ones; None takes all that aren't known.
        background: more images.
        folds: of the cross-validation.
        seed: of the windows and folds that are drawn.
        progress: shows how far each stage is.
    """
    folds, seed = check_whole("folds", folds, 2, 1 << 20), check_whole("seed", seed, 0, 2**63 - 1)
    old = fitted.weights
    new_names = _new_names(fitted.class_names, dataset, class_names)
    merged = _merge(dataset.with_classes(new_names), background)
    counts = merged.count_objects()
    for name, count in zip(new_names, counts.tolist(), strict=True):
        if not count:
            raise DatasetError(f"class {name!r} has no object (that isn't difficult) in {len(dataset)} images")
    data = training_images(merged)
    data.prepare(progress)
    # where a class was seen too seldom to say, its sigmoid is like those of the others
    centre = (float(old.slope.mean()), float(old.offset.mean()))
    images = _FcImages(data, old, centre, progress)
    with torch.inference_mode():
        rows = images.train(range(len(data)), options, seed)
        found, tested = _cross_validate(suppression, images, options, folds, seed, progress)
    held_out = merged.subset(tested)
    calibration = calibrate_scores(found, held_out, rows["slope"], rows["offset"], centre)
    rows |= {"slope": calibration.slope, "offset": calibration.offset}
    ap = {}
    if tested:
        score = evaluate_voc(found, held_out, protocol="voc-area")
        ap = {name: round(float(value), 4) for name, value in zip(new_names, score.ap, strict=True) if value == value}
    change = {
        "added": list(new_names),
        "data": dataset.name,
        "split": dataset.split,
        "images": len(dataset),
        "seen": seen_digests(record.path for record in merged),
        "background_images": len(merged) - len(dataset),
        "objects": dict(zip(new_names, counts.tolist(), strict=True)),
        "cross_validation": {"folds": folds, "images": len(tested), "voc-area": ap},
        "svm": asdict(options),
        "seed": seed,
    }
    metadata = changed(fitted.metadata, change)
    metadata.setdefault("thresholds", {}).update(zip(new_names, calibration.thresholds.tolist(), strict=True))
    for name in new_names:
        measured = f"AP {ap[name]:.3f} (voc-area)" if name in ap else "too few images to measure"
        logger.info(f"{name}: {measured} in cross-validation over {len(tested)} images with {folds} folds")
    return Fitted(append_classes(old, rows), (*fitted.class_names, *new_names), metadata)


class _FcImages:
    """Training images, the fc features of whose windows are computed once."""

    def __init__(
        self, data: TrainingImages, weights: DetectorWeights, centre: tuple[float, float], progress: Progress
    ) -> None:
        self.data = data
        self.centre = centre
        self.weights = weights
        self.hidden = weights.features
        self._pool = PooledWindows(data.features)
        self._layers = build_head(weights, data.features.quantised, data.features.device)
        self._memo: dict[int, Tensor] = {}
        self._bytes = 0
        with torch.inference_mode():
            for i in progress(range(len(data)), "fc features", total=len(data)):
                image = self.load(i)
                self.score(image, image.windows)

    def load(self, i: int) -> TrainingImage:
        return self.data.load(i)

    def score(self, image: TrainingImage, windows: F32) -> Tensor:
        """Fc features ``(K, H)`` of ``windows``, from memory where they are all those of the image."""
        everything = windows is image.windows
        if everything and image.index in self._memo:
            return self._memo[image.index].float()
        with self._pool(image.maps, windows) as pooled:
            h = torch.from_numpy(self._layers.fc(pooled))
        if everything and self._bytes + 2 * h.nbytes // 4 <= _MEMORY_BYTES:
            # rounded at the first use too, so that no result depends on what is in memory
            self._memo[image.index] = h.half()
            self._bytes += 2 * h.nbytes // 4
        return h.half().float() if everything else h

    def train(self, chosen: Sequence[int], options: SvmOptions, seed: int) -> dict[str, F32]:
        """Rows of all new classes, from the images ``chosen``; with the sigmoid ``centre``."""
        fold = _Fold(self, list(chosen))
        svms, factor, boxes = mine_hard_negatives(fold, self.score, self.hidden, options, seed=seed)
        if boxes is None:  # with ridge regression there are always some
            raise RuntimeError("no box regressors")
        classes = len(svms.bias)
        return {
            "class_weight": (svms.weight * factor).numpy(),
            "class_bias": svms.bias.numpy(),
            "box_weight": (boxes[0].reshape(-1, self.hidden) * factor).numpy(),
            "box_bias": boxes[1].reshape(-1).numpy(),
            "slope": np.full(classes, self.centre[0], np.float32),
            "offset": np.full(classes, self.centre[1], np.float32),
        }


class _Fold:
    """Some of the images, as :func:`mine_hard_negatives` takes them."""

    def __init__(self, images: _FcImages, chosen: list[int]) -> None:
        self.images, self.chosen = images, chosen
        self.dataset = images.data.dataset.subset(chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def load(self, i: int) -> TrainingImage:
        return self.images.load(self.chosen[i])


def _cross_validate(
    suppression: SuppressionOptions,
    images: _FcImages,
    options: SvmOptions,
    folds: int,
    seed: int,
    progress: Progress,
) -> tuple[list[Detections], list[int]]:
    """What SVMs trained on the other folds find in each image, and which images these are.

    A fold that holds all objects of a class is left out: there would be nothing to learn from.
    """
    dataset = images.data.dataset
    fold_of = _folds(dataset, folds, seed)
    found: list[Detections] = []
    tested: list[int] = []
    for k in progress(range(folds), "cross-validation", total=folds):
        rest = [i for i in range(len(dataset)) if fold_of[i] != k]
        mine = [i for i in range(len(dataset)) if fold_of[i] == k]
        if not mine or not dataset.subset(rest).count_objects().all():
            continue
        weights = only_classes(images.weights, images.train(rest, options, seed))
        head = build_head(weights, images.data.features.quantised, images.data.features.device)
        for i in mine:
            image = images.load(i)
            found.append(Detections(*_decode(images, weights, head, image, suppression), dataset.class_names))
            tested.append(i)
    return found, tested


def _folds(dataset: DetectionDataset, folds: int, seed: int) -> NDArray[np.int64]:
    """Fold 0 .. folds - 1 of each image; those of a class are spread evenly, rare classes first."""
    rng = np.random.default_rng(seed)
    part = np.full(len(dataset), -1, np.int64)
    having = [[i for i, r in enumerate(dataset) if (r.labels == c).any()] for c in range(len(dataset.class_names))]
    for group in (*sorted(having, key=len), list(range(len(dataset)))):  # then those without any
        left = np.array([i for i in group if part[i] < 0], np.int64)
        taken = np.bincount(part[[i for i in group if part[i] >= 0]], minlength=folds)
        for i in rng.permutation(left):
            size = np.bincount(part[part >= 0], minlength=folds)
            part[i] = min(range(folds), key=lambda k: (taken[k], size[k]))
            taken[part[i]] += 1
    return part


def _decode(
    images: _FcImages, weights: DetectorWeights, head: Head, image: TrainingImage, suppression: SuppressionOptions
) -> tuple[F32, F32, NDArray[np.int64]]:
    def score(windows: F32) -> tuple[F32, F32]:
        return head.scores(images.score(image, windows).numpy())

    return decode_detections(weights, score, image.windows, image.maps.height, image.maps.width, suppression)


def _new_names(known: Sequence[str], dataset: DetectionDataset, wanted: Sequence[str] | None) -> tuple[str, ...]:
    if wanted is None:
        new = tuple(name for name in dataset.class_names if name not in known)
        if not new:
            raise ArgumentError(
                f"the detector has every class of the data set already ({', '.join(dataset.class_names)}); "
                "to train one anew, remove or rename it first"
            )
        return new
    for name in wanted:
        if name in known:
            raise ArgumentError(f"the detector has a class {name!r} already; remove or rename that one first")
        if name not in dataset.class_names:
            hint = did_you_mean(name, dataset.class_names)
            raise ArgumentError(f"no class {name!r} in the data set; {hint}there are {', '.join(dataset.class_names)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ArgumentError(f"class_names: got {list(wanted)}, expected new classes, each once")
    return tuple(wanted)


def _merge(dataset: DetectionDataset, background: DetectionDataset | None) -> DetectionDataset:
    """``dataset`` and the images of ``background`` that aren't in it; what those know of the new classes counts."""
    if background is None:
        return dataset
    shared = [name for name in dataset.class_names if name in background.class_names]
    more = background.with_classes(shared)
    place = np.array([dataset.class_names.index(name) for name in shared] + [0], np.int64)
    here = {real_path(r.path) for r in dataset}
    records = [replace(r, image_id=f"data/{r.image_id}") for r in dataset]
    records += [
        replace(r, labels=place[r.labels], image_id=f"background/{r.image_id}")
        for r in more
        if real_path(r.path) not in here
    ]
    return replace(dataset, records=records)
