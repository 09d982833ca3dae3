"""How long training will take and how much disk it needs, measured on a few of the images themselves."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sppnet._types import Progress, no_progress
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.building import build_engine
from sppnet.detection.crops import CropFeatures
from sppnet.detection.features import WindowFeatures
from sppnet.detection.options import SCALING_IMAGES
from sppnet.errors import ArgumentError
from sppnet.images import load_image
from sppnet.proposals.search import SelectiveSearch
from sppnet.storage.feature_cache import FeatureCache

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.options import FinetuneOptions

__all__ = ["TrainingEstimate", "check_disk", "estimate_training"]

# Measured with the default model (docs/results.md), 2 cores: seconds an image for windows and maps at its four scales
# (1.13 megapixels of input at 4:3), for an epoch of the fully connected layer, and for the SVMs.
_WINDOWS_AND_MAPS, _MEGAPIXELS, _EPOCH, _SVMS = {"int8": 0.138, "float32": 0.28}, 1.13, 0.023, 0.11
_WINDOW_BYTES = 2000 * 16
# Quantising tuned convolutions, measured with 6 and 12 images at two sets of scales (one thread or two, an Intel Xeon):
# seconds at least, and for each image at the default's scales
_QUANTISE_S, _QUANTISE_IMAGE_S, _QUANTISE_PX = 2.3, 1.65, 352**2 + 608**2
_CROPS = 32  # windows of an image that R-CNN's way is timed on


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take.

    Attributes:
        prepare_s: seconds for windows and feature maps.
        layers_s: seconds for the layers behind the pooling.
        measure_s: seconds for measuring.
        cache_bytes: size of the cache folder at its largest.
        images: to train on.
        measured: images that were timed for this.
        validation: images to measure on.
        tuning_s: seconds for the convolutions, where they are tuned.
    """

    prepare_s: float
    layers_s: float
    measure_s: float
    cache_bytes: float
    images: int
    measured: int
    validation: int
    tuning_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds of all stages together."""
        return self.prepare_s + self.layers_s + self.tuning_s + self.measure_s

    def text(self, cache: str | os.PathLike[str]) -> str:
        """Two lines for the user.

        Args:
            cache: the folder for windows and maps.
        """
        parts = [f"windows and maps {_minutes(self.prepare_s)}"]
        if self.layers_s:
            parts.append(f"layers {_minutes(self.layers_s)}")
        if self.tuning_s:
            parts.append(f"convolutions {_minutes(self.tuning_s)}")
        if self.validation:
            parts.append(f"measuring on {self.validation} images {_minutes(self.measure_s)}")
        free = shutil.disk_usage(_existing(Path(cache))).free
        return (
            f"estimate, from {self.measured} of the images: {_minutes(self.total_s)} ({', '.join(parts)}); "
            "less if an earlier run was stopped\n"
            f"disk: {_size(self.cache_bytes)} in {cache} while it trains ({_size(free)} free)"
        )


def estimate_training(
    detector: SPPDetector,
    dataset: DetectionDataset,
    validation: DetectionDataset | None = None,
    *,
    begun: bool = False,
    processes: int = 1,
    progress: Progress = no_progress,
) -> TrainingEstimate:
    """Time a few images through selective search and convolutions, and estimate the rest from experience.

    Args:
        detector: with the options of the training; it need not be trained.
        dataset: to train on.
        validation: to measure on, or None.
        begun: the tuning goes on from a trained detector, so of the training images windows are computed alone.
        processes: that tune the convolutions together.
        progress: shows how far it is.
    """
    search = detector.proposer
    usual = isinstance(search, SelectiveSearch) and search.mode == "fast"
    engine = build_engine(detector.backbone, detector.features.precision, "cpu")
    sides = [side for side in (detector.features.short_sides_px, detector.features.flip_short_sides_px) if side]
    crops = CropFeatures(engine, detector.features.levels)
    rcnn = detector.features.method == "rcnn"
    views: list[WindowFeatures] = [
        crops if rcnn else WindowFeatures(engine, detector.features.levels, side) for side in sides
    ]
    # The first image loads kernels and warms caches, so it isn't timed; a few spread over the data set are
    chosen = np.unique(np.linspace(0, len(dataset) - 1, 4).round().astype(int))
    seconds, sizes, pixels, window_s, windows, search_s, usual_s = [], [], [], [], [], [], []
    for k, i in enumerate(progress([int(chosen[0]), *map(int, chosen)], "estimating", total=len(chosen) + 1)):
        started = time.perf_counter()
        image = load_image(dataset[i].path)
        found = search(image)
        searched = time.perf_counter() - started
        maps = [m for view in views for m in view.maps(image).stored()]
        took = time.perf_counter() - started
        if not usual:
            started = time.perf_counter()
            SelectiveSearch()(image)
        fast = searched if usual else time.perf_counter() - started
        if k:
            seconds.append(took)
            search_s.append(searched)
            usual_s.append(fast)
            sizes.append(sum(m.nbytes for m in maps))
            pixels.append(sum(m.shape[0] * m.shape[1] for m in maps) * engine.stride**2 / 1e6)
            windows.append(len(found))
            if rcnn:
                started = time.perf_counter()
                crops.pool(crops.maps(image), found[:_CROPS])
                window_s.append((time.perf_counter() - started) / len(found[:_CROPS]))
    each = float(np.mean(seconds))
    # This machine against the one of the figures above, at as many pixels and with the same windows; a part of the work
    # doesn't depend on pixels
    like = each - float(np.mean(search_s)) + float(np.mean(usual_s))
    factor = like / (_WINDOWS_AND_MAPS[detector.features.precision] * max(float(np.mean(pixels)) / _MEGAPIXELS, 0.25))
    finetuning = detector.finetune
    epochs = finetuning.epochs
    if rcnn:
        window, count_an_image, size = (float(np.mean(values)) for values in (window_s, windows, sizes))
        return _estimate_rcnn(
            detector, len(dataset), validation, each, window, count_an_image, size, len(chosen), finetuning
        )
    head = detector.head
    layers = (_EPOCH * (epochs if head.hidden else 0) + (_SVMS if head.classifier == "svm" else 0)) * factor
    count = len(validation) if validation is not None else 0
    # Without the mirror image, but twice with the layers behind the pooling
    share = len(detector.features.short_sides_px) / max(1, sum(map(len, sides)))
    # A CUDA device keeps numbers of two bytes, where the CPU has bytes
    size = float(np.mean(sizes)) * (2 if detector.device != "cpu" and detector.features.precision == "int8" else 1)
    mine, kept, images = each * len(dataset), size * len(dataset), len(dataset)
    if begun:  # maps of a sample, by which the layer's inputs are scaled
        sample = share * min(images, SCALING_IMAGES)
        mine, layers, kept = float(np.mean(search_s)) * images + each * sample, 0.0, size * sample
    if detector.tuning is not None and (head.classifier == "svm" or head.box_regression == "ridge"):
        mine, kept = mine + share * each * images, kept + share * size * images  # maps of the tuned convolutions
    return TrainingEstimate(
        mine,
        layers * images,
        each * (share + 0.4) * count,
        kept + images * _WINDOW_BYTES + count * (share * size + _WINDOW_BYTES),
        images,
        len(chosen),
        count,
        _tuning_s(detector, dataset, processes),
    )


def _tuning_s(detector: SPPDetector, dataset: DetectionDataset, processes: int) -> float:
    """Seconds for tuning the convolutions, from a few views; the processes share these, and one quantises."""
    if detector.tuning is None:
        return 0.0
    from sppnet.backbones.engines.quantised import QuantisedLayers
    from sppnet.detection.training.tuning import CALIBRATION_IMAGES, seconds_a_view, tunable_engine

    tuning = detector.tuning
    with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
        data = detector.training_images(dataset.spread(4), folder)
        engine = tunable_engine(data.features, detector.features.precision, tuning.blocks)
        each = seconds_a_view(data, tuning, detector.head, engine)
        seconds = each * len(dataset) * tuning.epochs / processes
    if isinstance(engine.weights, QuantisedLayers):
        share = sum(side**2 for side in detector.features.short_sides_px) / _QUANTISE_PX
        seconds += _QUANTISE_S + _QUANTISE_IMAGE_S * share * min(CALIBRATION_IMAGES, len(dataset))
    return seconds


def _estimate_rcnn(
    detector: SPPDetector,
    images: int,
    validation: DetectionDataset | None,
    each: float,
    window_s: float,
    windows: float,
    size: float,
    measured: int,
    finetuning: FinetuneOptions,
) -> TrainingEstimate:
    """A pass of the convolutions a window: whenever windows are drawn, for SVMs, and twice over when measuring."""
    views = 2 if detector.features.flip_short_sides_px else 1
    drawn = finetuning.epochs * finetuning.windows_per_image * views
    every = windows if detector.head.classifier == "svm" or detector.head.box_regression == "ridge" else 0
    count = len(validation) if validation is not None else 0
    return TrainingEstimate(
        each * images,
        (drawn + every) * window_s * images,
        2 * windows * window_s * count,
        images * (size + _WINDOW_BYTES),
        images,
        measured,
        count,
    )


def check_disk(expected: TrainingEstimate, cache: str | os.PathLike[str]) -> None:
    """Refuse a training whose cache would not fit on its disk: better now than after an hour.

    Args:
        expected: of :func:`estimate_training`.
        cache: the folder for windows and maps. What is in it already counts as room.

    Raises:
        ArgumentError: it would not fit.
    """
    cache = Path(cache)
    free = shutil.disk_usage(_existing(cache)).free
    there = FeatureCache(cache).size()[1]
    if expected.cache_bytes > free + there:
        raise ArgumentError(
            f"{cache}: windows and maps need {_size(expected.cache_bytes)}, but {_size(free)} are free; "
            "name a folder on another disk (--cache) or use smaller --scales"
        )


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _minutes(seconds: float) -> str:
    if seconds < 97:
        return f"about {max(5, round(seconds / 5) * 5)} s"
    if seconds < 600:
        return f"about {round(seconds / 30) / 2:g} min"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{max(1, round(count / 1e6))} MB"
