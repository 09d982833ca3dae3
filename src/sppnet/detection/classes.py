"""Classes added to a trained detector, removed from it and renamed, without a trace on the others.

The convolutions and the fully connected layers stay as they are, so a new class needs only what SPP-net trains for each
class by itself (paper, section 4.2): a linear SVM and a box regressor on the fc features, in closed form or nearly so.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sppnet
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.calibration import calibrate_scores
from sppnet.detection.detections import Detections
from sppnet.detection.features import PooledWindows
from sppnet.detection.inference import find_objects
from sppnet.detection.training.hard_negatives import SvmOptions, mine_hard_negatives
from sppnet.detection.training.images import Progress, TrainingImage, TrainingImages, no_progress
from sppnet.detection.weights import CLASS_ROWS, DetectorWeights
from sppnet.errors import ArgumentError, DatasetError, did_you_mean
from sppnet.evaluation.voc import evaluate_voc

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["add_classes", "remove_classes", "rename_class"]

F32 = NDArray[np.float32]

# fc features of all windows are kept in memory (float16) up to this; beyond it they are computed at each pass
_MEMORY_BYTES = 1 << 30


def add_classes(
    detector: SPPDetector,
    dataset: DetectionDataset,
    *,
    class_names: Sequence[str] | None = None,
    background: DetectionDataset | None = None,
    folds: int = 4,
    svm_options: SvmOptions | None = None,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
    report: Callable[[str], None] | None = None,
) -> SPPDetector:
    """A detector that knows more classes; ``detector`` itself, and what it finds of the old classes, doesn't change.

    Scores and thresholds of the new classes are calibrated by cross-validation: each part of the images is looked at by
    SVMs that were trained on the other parts.

    Args:
        dataset: images with objects of the new classes. Objects of other classes count as background.
        class_names: the new ones, among those of ``dataset``; None takes all that the detector doesn't know.
        background: more images. Where nobody annotated the new classes in them, their objects count as background
            too: look through such images first.
        folds: parts of the cross-validation, at least 2.
        cache: folder for maps and windows; what is there already isn't computed again. None uses a temporary one.
        seed: of the windows and the parts that are drawn.

    Raises:
        ArgumentError: no new class, a class that the detector knows already, or one that isn't in ``dataset``.
        DatasetError: a new class has no object that isn't difficult. ImageError: a picture can't be read.
        NotFittedError: ``detector`` isn't trained.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
            return add_classes(
                detector, dataset, class_names=class_names, background=background, folds=folds,
                svm_options=svm_options, cache=folder, seed=seed, progress=progress, report=report,
            )  # fmt: skip
    if folds < 2:
        raise ArgumentError(f"folds: got {folds}, expected at least 2")
    old = detector._fitted()
    new_names = _new_names(detector.class_names_, dataset, class_names)
    merged = _merge(dataset.with_classes(new_names), background)
    counts = merged.count_objects()
    for name, count in zip(new_names, counts.tolist(), strict=True):
        if not count:
            raise DatasetError(f"class {name!r} has no object (that isn't difficult) in {len(dataset)} images")
    options = svm_options or SvmOptions()
    data = detector.training_images(merged, cache)
    data.prepare(progress)
    # where a class was seen too seldom to say, its sigmoid is like those of the others
    centre = (float(old.slope.mean()), float(old.offset.mean()))
    images = _FcImages(data, old, centre, progress)
    with torch.inference_mode():
        rows = images.train(range(len(data)), options, seed)
        found, tested = _cross_validate(detector, images, rows, options, folds, seed, progress)
    held_out = merged.subset(tested)
    calibration = calibrate_scores(found, held_out, rows["slope"].numpy(), rows["offset"].numpy(), centre)
    rows |= {"slope": torch.from_numpy(calibration.slope), "offset": torch.from_numpy(calibration.offset)}
    result = _with_rows(detector, _append(old, rows), (*detector.class_names_, *new_names))
    result.metadata_.setdefault("thresholds", {}).update(zip(new_names, calibration.thresholds.tolist(), strict=True))
    ap = {}
    if tested:
        score = evaluate_voc(found, held_out, protocol="voc-area")
        ap = {name: round(float(value), 4) for name, value in zip(new_names, score.ap, strict=True) if value == value}
    _note(
        result,
        {
            "added": list(new_names),
            "data": dataset.name,
            "images": len(dataset),
            "background_images": len(merged) - len(dataset),
            "objects": dict(zip(new_names, counts.tolist(), strict=True)),
            "cross_validation": {"folds": folds, "images": len(tested), "voc-area": ap},
            "svm": asdict(options),
            "seed": seed,
        },
    )
    if report is not None:
        for name in new_names:
            measured = f"AP {ap[name]:.3f} (voc-area)" if name in ap else "too few images to measure"
            report(f"{name}: {measured} in cross-validation over {len(tested)} images with {folds} parts")
    return result


def remove_classes(detector: SPPDetector, names: Sequence[str]) -> SPPDetector:
    """A detector without the classes ``names``; ``detector`` doesn't change, nor what is found of the other classes.

    Raises:
        ArgumentError: one isn't known, or none would be left. NotFittedError: ``detector`` isn't trained.
    """
    old = detector._fitted()
    for name in names:
        _index(detector, name)
    kept = [c for c, name in enumerate(detector.class_names_) if name not in names]
    if not kept:
        raise ArgumentError("a detector needs at least one class; all of them were to be removed")
    parts = dict(old.tensors())
    for tensor, rows in CLASS_ROWS.items():
        if parts.get(tensor) is not None:
            parts[tensor] = torch.cat([parts[tensor][rows * c : rows * (c + 1)] for c in kept])
    result = _with_rows(detector, DetectorWeights(**parts), tuple(detector.class_names_[c] for c in kept))
    gone = set(names)
    _edit_names(result.metadata_, lambda name: None if name in gone else name)
    _note(result, {"removed": [name for name in detector.class_names_ if name in gone]})
    return result


def rename_class(detector: SPPDetector, old: str, new: str) -> SPPDetector:
    """A detector in which the class ``old`` is called ``new``; ``detector`` doesn't change.

    Raises:
        ArgumentError: ``old`` isn't known, or ``new`` is empty or another class's name. NotFittedError: not trained.
    """
    weights = detector._fitted()
    index = _index(detector, old)
    if not new.strip():
        raise ArgumentError("the new name of a class is empty")
    if new != old and new in detector.class_names_:
        raise ArgumentError(f"class {new!r} exists already; remove it first, or choose another name")
    names = list(detector.class_names_)
    names[index] = new
    result = _with_rows(detector, weights, tuple(names))
    _edit_names(result.metadata_, lambda name: new if name == old else name)
    _note(result, {"renamed": [old, new]})
    return result


# --- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FcImage(TrainingImage):
    """A training image that knows its place."""

    index: int


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
        self._memo: dict[int, Tensor] = {}
        self._bytes = 0
        with torch.inference_mode():
            for i in progress(range(len(data)), "fc features", len(data)):
                image = self.load(i)
                self.score(image, image.windows)

    def load(self, i: int) -> _FcImage:
        image = self.data.load(i)
        return _FcImage(image.maps, image.windows, image.boxes, image.labels, image.difficult, i)

    def score(self, image: TrainingImage, windows: F32) -> Tensor:
        """Fc features ``(K, H)`` of ``windows``, from memory where they are all those of the image."""
        assert isinstance(image, _FcImage)
        everything = windows is image.windows
        if everything and image.index in self._memo:
            return self._memo[image.index].float()
        h = self.weights.fc(self._pool(image.maps, windows))
        if everything and self._bytes + 2 * h.numel() <= _MEMORY_BYTES:
            # rounded at the first use too, so that no result depends on what is in memory
            self._memo[image.index] = h.half()
            self._bytes += 2 * h.numel()
        return h.half().float() if everything else h

    def train(self, chosen: Sequence[int], options: SvmOptions, seed: int) -> dict[str, Tensor]:
        """Rows of all new classes, from the images ``chosen``; with the sigmoid ``centre``."""
        part = _Part(self, list(chosen))
        svms, factor, boxes = mine_hard_negatives(part, self.score, self.hidden, options, seed=seed)  # type: ignore[arg-type]
        assert boxes is not None
        classes = len(svms.bias)
        return {
            "class_weight": svms.weight * factor,
            "class_bias": svms.bias,
            "box_weight": boxes[0].reshape(-1, self.hidden) * factor,
            "box_bias": boxes[1].reshape(-1),
            "slope": torch.full((classes,), self.centre[0]),
            "offset": torch.full((classes,), self.centre[1]),
        }


class _Part:
    """Some of the images, as :func:`mine_hard_negatives` takes them."""

    def __init__(self, images: _FcImages, chosen: list[int]) -> None:
        self.images, self.chosen = images, chosen
        self.dataset = images.data.dataset.subset(chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def load(self, i: int) -> TrainingImage:
        return self.images.load(self.chosen[i])


def _cross_validate(
    detector: SPPDetector,
    images: _FcImages,
    rows: dict[str, Tensor],
    options: SvmOptions,
    folds: int,
    seed: int,
    progress: Progress,
) -> tuple[list[Detections], list[int]]:
    """What SVMs trained on the other parts find in each image, and which images these are.

    A part that holds all objects of a class is left out: there would be nothing to learn from.
    """
    dataset = images.data.dataset
    parts = _parts(dataset, folds, seed)
    found: list[Detections] = []
    tested: list[int] = []
    for k in progress(range(folds), "cross-validation", folds):
        rest = [i for i in range(len(dataset)) if parts[i] != k]
        mine = [i for i in range(len(dataset)) if parts[i] == k]
        if not mine or not dataset.subset(rest).count_objects().all():
            continue
        weights = _only(images.weights, images.train(rest, options, seed))
        for i in mine:
            image = images.load(i)

            def fc(windows: F32, image: _FcImage = image) -> Tensor:
                return images.score(image, windows)

            boxes, score, label = find_objects(
                weights, fc, image.windows, image.maps.height, image.maps.width,
                nms_iou=detector.nms_iou, soft_sigma=detector.soft_sigma, second_look=detector.second_look,
                voting=detector.box_voting,
            )  # fmt: skip
            found.append(Detections(boxes, score, label, dataset.class_names))
            tested.append(i)
    return found, tested


def _parts(dataset: DetectionDataset, folds: int, seed: int) -> NDArray[np.int64]:
    """Part 0 .. folds - 1 of each image; those of a class are spread evenly, rare classes first."""
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


# --- rows and names --------------------------------------------------------------------------------------------------


def _append(old: DetectorWeights, rows: dict[str, Tensor]) -> DetectorWeights:
    """``old`` with the rows of new classes below; tensors that know nothing of them get zeros."""
    parts = dict(old.tensors())
    classes = len(rows["class_bias"])
    for name, each in CLASS_ROWS.items():
        before = parts.get(name)
        if before is not None:
            new = rows.get(name, torch.zeros(each * classes, *before.shape[1:]))
            parts[name] = torch.cat([before, new.to(before.dtype).reshape(each * classes, *before.shape[1:])])
    return DetectorWeights(**parts)


def _only(old: DetectorWeights, rows: dict[str, Tensor]) -> DetectorWeights:
    """The common layers of ``old`` with no classes but the new ones."""
    parts = dict(old.tensors())
    for name in CLASS_ROWS:
        if parts.get(name) is not None:
            parts[name] = parts[name][:0]
    return _append(DetectorWeights(**parts), rows)


def _with_rows(detector: SPPDetector, weights: DetectorWeights, names: tuple[str, ...]) -> SPPDetector:
    result = copy.copy(detector)
    result._pool = None
    result.weights_, result.class_names_ = weights, names
    result.metadata_ = copy.deepcopy(detector.metadata_)
    return result


def _note(detector: SPPDetector, change: dict[str, Any]) -> None:
    detector.metadata_.setdefault("changes", []).append({"sppnet_version": sppnet.__version__} | change)


def _index(detector: SPPDetector, name: str) -> int:
    if name not in detector.class_names_:
        hint = did_you_mean(name, detector.class_names_)
        raise ArgumentError(f"class {name!r} isn't in the detector; {hint}it has {', '.join(detector.class_names_)}")
    return detector.class_names_.index(name)


def _edit_names(metadata: dict[str, Any], edit: Callable[[str], str | None]) -> None:
    """Apply ``edit`` (None removes) to the names of classes in thresholds, counts of objects and measured APs."""

    def of(table: dict[str, Any]) -> dict[str, Any]:
        return {new: value for name, value in table.items() if (new := edit(name)) is not None}

    if "thresholds" in metadata:
        metadata["thresholds"] = of(metadata["thresholds"])
    training = metadata.get("training", {})
    if "objects" in training:
        training["objects"] = of(training["objects"])
    for measured in metadata.get("metrics", {}).values():
        if isinstance(measured, dict) and isinstance(measured.get("ap"), dict):
            before = len(measured["ap"])
            measured["ap"] = of(measured["ap"])
            if len(measured["ap"]) < before and "map" in measured and measured["ap"]:
                measured["map"] = round(float(np.mean(list(measured["ap"].values()))), 4)


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
    here = {r.path.resolve() for r in dataset}
    records = [replace(r, image_id=f"data/{r.image_id}") for r in dataset]
    records += [
        replace(r, labels=place[r.labels], image_id=f"background/{r.image_id}")
        for r in more
        if r.path.resolve() not in here
    ]
    return replace(dataset, records=records)
