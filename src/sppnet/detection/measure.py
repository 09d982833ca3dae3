"""How good a detector is on annotated images: detect, calibrate, count, measure, save with the figures."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sppnet._types import I64, OnError, Progress, no_progress
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.seen import count_seen
from sppnet.datasets.splits import plain_split
from sppnet.detection.detections import Detections
from sppnet.detection.identity import identity_of_detector
from sppnet.detection.run import detect_many
from sppnet.errors import DatasetError
from sppnet.evaluation.failures import judge_detections
from sppnet.evaluation.voc import VocResult, evaluate_voc
from sppnet.storage.feature_cache import FeatureCache, Layout

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.training.images import TrainingImages

__all__ = [
    "Measured",
    "calibrate_and_measure",
    "detect_dataset",
    "doubts_about",
    "hits_and_misses",
    "measured_table",
    "metrics_of",
    "split_seed",
    "trained_on",
]

_log = logging.getLogger(__name__)

_COVERS = {"trainval": ("train", "val")}

_FOUND: Layout = {"xyxy": ("float32", (None, 4)), "confidence": ("float32", (None,)), "class_id": ("int64", (None,))}


@dataclass(frozen=True)
class Measured:
    """What a detector finds in annotated images, and how good that is.

    Attributes:
        detector: the detector that was measured.
        dataset: the images that could be read.
        found: detections of each image, with threshold 0.
        results: one for each protocol.
    """

    detector: SPPDetector
    dataset: DetectionDataset
    found: list[Detections]
    results: list[VocResult]

    def table(self) -> str:
        """Average precision, hits and misses of each class as text, see :func:`measured_table`."""
        return measured_table(self.results, self.found, self.dataset, self.detector.thresholds_)


def detect_dataset(
    detector: SPPDetector,
    dataset: DetectionDataset,
    *,
    on_error: OnError = "skip",
    progress: Progress = no_progress,
) -> tuple[list[Detections], DetectionDataset]:
    """Detections of every image of a data set, as evaluation needs them: with threshold 0.

    Args:
        detector: trained or loaded.
        dataset: annotated images.
        on_error: ``skip`` leaves out images that can't be read; ``fail`` raises.
        progress: shows how far it is.

    Returns:
        The detections, and the data set of the images that they belong to; ``problems`` names those left out.

    Raises:
        ImageError: an image can't be read, with ``on_error="fail"``. DatasetError: no image can be read.
    """
    paths = [record.path for record in dataset]
    with detect_many(detector, paths, threshold=0.0, on_error=on_error, progress=progress) as run:
        found = {result.path: result.detections for result in run}
    if run.failed:
        if not found:
            raise DatasetError(f"{dataset!r}: none of the images can be read; the first: {run.failed[0].message}")
        left = dataset.subset([i for i, path in enumerate(paths) if path in found])
        dataset = replace(left, problems=(*dataset.problems, *(item.message for item in run.failed)))
    return [found[record.path] for record in dataset], dataset


def calibrate_and_measure(
    detector: SPPDetector,
    dataset: DetectionDataset,
    output: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str],
    precision: str = "int8",
    progress: Progress = no_progress,
) -> Measured:
    """Calibrate a detector on images that it wasn't trained on, measure it there, and save it with the figures.

    What is measured is what is saved: the detector goes through its file, in its precision, before it is measured.

    Args:
        detector: trained.
        dataset: annotated images that can be read.
        output: the model file. It appears when everything is done.
        cache: folder for windows, feature maps and detections; what is there already isn't computed again.
        precision: of the large matrices in the file, see :meth:`SPPDetector.save`.
        progress: shows how far it is.
    """
    from sppnet.detection.detector import SPPDetector

    dataset = dataset.with_classes(detector.class_names_)
    with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
        detector.save(Path(folder) / "fitted.safetensors", precision)
        saved = SPPDetector.load(Path(folder) / "fitted.safetensors")
    found = saved.calibrate(_detect_and_keep(saved, dataset, Path(cache), progress), dataset)
    results = [evaluate_voc(found, dataset, protocol=protocol) for protocol in ("voc07-11pt", "voc-area")]
    saved.metadata_["metrics"] = metrics_of(results, dataset)
    saved.save(output, precision)
    return Measured(saved, dataset, found, results)


def doubts_about(detector: SPPDetector, dataset: DetectionDataset) -> list[str]:
    """Say why figures of ``dataset`` may be too good: the detector may have learned from some of its images.

    Args:
        detector: trained or loaded.
        dataset: images to measure it on.

    Returns:
        A sentence each.
    """
    metadata = detector.metadata_
    asked = dataset.drawn.split if dataset.drawn is not None else dataset.split
    paths = [record.path for record in dataset]
    doubts = [doubt for training in _trainings(metadata) if (doubt := _doubt_about(training, dataset, paths))]
    doubts = list(dict.fromkeys(doubts))
    taught = [
        name for change in metadata.get("changes", [])
        if (change.get("data") == dataset.name and _may_share(change.get("split", ""), asked))
        or count_seen(paths, str(change.get("seen", "")))[0]
        for name in change.get("added", []) if name in dataset.class_names
    ]  # fmt: skip
    if taught:
        doubts.append(f"these classes were added from images of this data set: {', '.join(map(str, taught))}")
    return [f"figures may be too good: {doubt}" for doubt in doubts]


def _trainings(metadata: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The training of a detector, and those of the detectors that it began with."""
    training = metadata.get("training", {})
    while isinstance(training, dict):
        yield training
        training = training.get("began_with")


def _doubt_about(training: Mapping[str, Any], dataset: DetectionDataset, paths: Sequence[Path]) -> str:
    """Why a detector may have learned from some of these images in this training; an empty text where it has not."""
    drawn = training.get("drawn")
    learned = drawn.get("split") if drawn else training.get("split")
    if drawn and learned is None:  # a file of an earlier version: it says whether, but not from what
        learned = "" if dataset.drawn is not None else None
    asked = dataset.drawn.split if dataset.drawn is not None else dataset.split
    seen, compared = count_seen(paths, str(training.get("seen", "")))
    if seen:
        return f"{seen} of {compared} images that were compared are among those that the detector learned from"
    if paths and compared == len(paths):
        return ""  # their content says so, whatever they are called
    if not _trained_on(training, dataset) or not _may_share(learned, asked):
        return ""
    if dataset.drawn is None:
        return f"the detector was trained on {learned or 'the whole data set'}, so it may have learned from these"
    if "drawn" in training and drawn is None:
        return "no images were kept to measure on when the detector was trained; it may have learned from these"
    if drawn and drawn["images"] != dataset.drawn.images:
        return (
            "images were added or removed since the detector was trained, or this is another data set of that name; "
            "it may have learned from some of these"
        )
    return ""


def trained_on(detector: SPPDetector, dataset: DetectionDataset) -> bool:
    """Whether ``detector`` was trained on this data set: it has its name, or was drawn from the very same images."""
    return _trained_on(detector.metadata_.get("training", {}), dataset)


def _trained_on(training: Mapping[str, Any], dataset: DetectionDataset) -> bool:
    drawn = training.get("drawn")
    same = drawn is not None and dataset.drawn is not None and drawn["images"] == dataset.drawn.images
    return same or training.get("data") == dataset.name


def _may_share(one: str | None, two: str) -> bool:
    """Whether two splits of a data set may have images in common; an empty name is the whole, None isn't known."""
    if one is None:
        return False
    one, two = ("" if name == "all" else name for name in map(plain_split, (one, two)))
    return not one or not two or one == two or one in _COVERS.get(two, ()) or two in _COVERS.get(one, ())


def split_seed(detector: SPPDetector) -> int:
    """The seed by which the images to measure ``detector`` on were drawn."""
    training: dict[str, Any] = detector.metadata_.get("training", {})
    drawn = training.get("drawn")
    return int(drawn["seed"] if drawn else training.get("seed", 0))


def metrics_of(results: Sequence[VocResult], dataset: DetectionDataset) -> dict[str, Any]:
    """The figures as a model file keeps them, by protocol; a mean over no class is left out."""
    return {
        result.protocol: {
            "map": round(result.map, 4),
            "ap": {n: round(float(a), 4) for n, a in zip(result.class_names, result.ap, strict=True) if a == a},
            "data": f"{dataset.name} {dataset.split}",
            "images": len(dataset),
            "iou": result.iou,
        }
        for result in results
        if result.map == result.map  # of images without an object there is none
    }


def hits_and_misses(found: Sequence[Detections], dataset: DetectionDataset, thresholds: Mapping[str, float]) -> I64:
    """Count for each class the objects that are found, those that are missed, and the wrong detections.

    Args:
        found: detections of each image, with threshold 0.
        dataset: the annotated images.
        thresholds: minimum confidence of each class; what is below isn't counted.

    Returns:
        int64 ``(classes, 3)``: found, missed, wrong.
    """
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
    """A table with a line for each class.

    Args:
        results: one for each protocol, all of the same detections; each gets a column.
        found: detections of each image, with threshold 0.
        dataset: the annotated images.
        thresholds: minimum confidence of each class.
    """
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
    images = f"{len(dataset)} image{'s' * (len(dataset) != 1)}"
    title = f"{dataset.name} {dataset.split}".strip()
    return "\n".join(
        [
            f"measured on {title} ({images}); a detection is a hit if its IoU is more than {results[0].iou:g}",
            *(rule, head, rule, *(row.rstrip() for row in rows[:-1]), rule, rows[-1].rstrip()),
            "found, missed, wrong: with the threshold of each class, which `sppnet detect` uses. The thresholds were",
            "tuned on these images; expect a little less on others.",
        ]
    )


def _detect_kept(detector: SPPDetector, data: TrainingImages, i: int) -> Detections:
    """Detections of an image whose windows and maps may be in the cache; of a mirror image it has no maps."""
    if detector.features.mirror:
        return detector.detect_windows(detector.feature_maps(data.pixels(i)), data.windowed(i).windows, 0.0)
    image = data.load(i)
    return detector.detect_windows(image.maps, image.windows, 0.0)


def _detect_and_keep(
    detector: SPPDetector, dataset: DetectionDataset, cache: Path, progress: Progress
) -> list[Detections]:
    """Detections (threshold 0) of every image, kept in ``cache``; what it has isn't done again."""
    store = FeatureCache(cache)
    identity = identity_of_detector(detector)
    data = detector.training_images(dataset, cache)
    found = []
    for i, record in enumerate(progress(dataset, "measuring", total=len(dataset))):
        key = store.key(record.path, "detections, calibrated last", identity)
        entry = store.get(key, _FOUND)
        if entry is None:
            new = _detect_kept(detector, data, i)
            entry = {name: getattr(new, name) for name in ("xyxy", "confidence", "class_id")}
            store.put(key, entry)
        boxes, confidence, class_id = (entry[name] for name in ("xyxy", "confidence", "class_id"))
        found.append(Detections(boxes, confidence, class_id, detector.class_names_))
    return found
