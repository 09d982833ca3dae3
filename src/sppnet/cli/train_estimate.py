"""How long ``sppnet train`` will take and how much disk it needs, measured on a few of the pictures themselves."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sppnet.cli.common import progress

if TYPE_CHECKING:
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.options import FinetuneOptions

__all__ = ["Estimate", "estimate", "refuse_full_disk"]

# Measured with the default model (docs/training.md), 2 cores: seconds an image for windows and maps at short sides 608
# and 512 (0.84 megapixels of input at 4:3), for an epoch of the fully connected layer, and for the SVMs.
_WINDOWS_AND_MAPS, _MEGAPIXELS, _EPOCH, _SVMS = 0.32, 0.84, 0.030, 0.19
_WINDOW_BYTES = 2000 * 16
_CROPS = 32  # windows of a picture that R-CNN's way is timed on


@dataclass(frozen=True)
class Estimate:
    """Seconds of each stage, bytes of the cache, and how many pictures that was measured on."""

    prepare_s: float
    layers_s: float
    measure_s: float
    cache_bytes: float
    images: int
    measured: int
    validation: int

    def text(self, cache: Path) -> str:
        """Two lines for the user."""
        whole = self.prepare_s + self.layers_s + self.measure_s
        parts = [f"windows and maps {_minutes(self.prepare_s)}", f"layers {_minutes(self.layers_s)}"]
        if self.validation:
            parts.append(f"measuring on {self.validation} pictures {_minutes(self.measure_s)}")
        free = shutil.disk_usage(_existing(cache)).free
        return (
            f"estimate, from {self.measured} of the pictures: {_minutes(whole)} "
            f"({', '.join(parts)}); a run that was stopped before takes less\n"
            f"disk: {_size(self.cache_bytes)} in {cache} while it trains ({_size(free)} free)"
        )


def estimate(
    detector: SPPDetector, dataset: DetectionDataset, validation: DetectionDataset | None, *, quiet: bool = False
) -> Estimate:
    """Time a few pictures of ``dataset`` through selective search and convolutions; the rest is experience."""
    from sppnet.backbones.registry import load_backbone
    from sppnet.detection.crops import CropFeatures
    from sppnet.detection.features import WindowFeatures, half_precision
    from sppnet.images import load_image

    search = detector.proposer
    backbone = load_backbone(detector.backbone)
    sides = [side for side in (detector.features.short_sides_px, detector.features.flip_short_sides_px) if side]
    crops = CropFeatures(backbone, detector.features.levels)
    rcnn = detector.features.method == "rcnn"
    views: list[WindowFeatures] = [
        crops if rcnn else WindowFeatures(backbone, detector.features.levels, side) for side in sides
    ]
    # The first picture loads kernels and warms caches, so it isn't timed; a few spread over the data set are
    chosen = np.unique(np.linspace(0, len(dataset) - 1, 4).round().astype(int))
    seconds, sizes, pixels, window_s, windows = [], [], [], [], []
    for k, i in enumerate(progress([chosen[0], *chosen], "estimating", quiet=quiet)):
        started = time.perf_counter()
        picture = load_image(dataset[int(i)].path)
        found = search(picture)
        maps = [m for view in views for m in half_precision(view.maps(picture))]
        if k:
            seconds.append(time.perf_counter() - started)
            sizes.append(sum(m.numel() * m.element_size() for m in maps))
            pixels.append(sum(m.shape[0] * m.shape[1] for m in maps) * backbone.stride**2 / 1e6)
            windows.append(len(found))
            if rcnn:
                started = time.perf_counter()
                crops.pool(crops.maps(picture), found[:_CROPS])
                window_s.append((time.perf_counter() - started) / len(found[:_CROPS]))
    each = float(np.mean(seconds))
    # This machine against the one of the figures above, at as many pixels; a part of the work doesn't depend on pixels
    factor = each / (_WINDOWS_AND_MAPS * max(float(np.mean(pixels)) / _MEGAPIXELS, 0.25))
    finetuning = detector.finetune
    epochs = finetuning.epochs
    if rcnn:
        window, count_a_picture, size = (float(np.mean(values)) for values in (window_s, windows, sizes))
        return _estimate_rcnn(
            detector, len(dataset), validation, each, window, count_a_picture, size, len(chosen), finetuning
        )
    layers = (_EPOCH * epochs + (_SVMS if detector.head.classifier == "svm" else 0)) * factor
    count = len(validation) if validation is not None else 0
    # Without the mirror image, but twice with the layers behind the pooling
    share = len(detector.features.short_sides_px) / max(1, sum(map(len, sides)))
    return Estimate(
        each * len(dataset),
        layers * len(dataset),
        each * (share + 0.4) * count,
        len(dataset) * (float(np.mean(sizes)) + _WINDOW_BYTES)
        + count * (share * float(np.mean(sizes)) + _WINDOW_BYTES),
        len(dataset),
        len(chosen),
        count,
    )


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
) -> Estimate:
    """A pass of the convolutions a window: whenever windows are drawn, for SVMs, and twice over when measuring."""
    views = 2 if detector.features.flip_short_sides_px else 1
    drawn = finetuning.epochs * finetuning.windows_per_image * views
    every = windows if detector.head.classifier == "svm" or detector.head.box_regression == "ridge" else 0
    count = len(validation) if validation is not None else 0
    return Estimate(
        each * images,
        (drawn + every) * window_s * images,
        2 * windows * window_s * count,
        images * (size + _WINDOW_BYTES),
        images,
        measured,
        count,
    )


def refuse_full_disk(expected: Estimate, cache: Path) -> None:
    """Better now than after an hour.

    Raises:
        ArgumentError: the cache wouldn't fit on its disk (what is in it already counts as room).
    """
    from sppnet.errors import ArgumentError
    from sppnet.storage.feature_cache import FeatureCache

    free = shutil.disk_usage(_existing(cache)).free
    there = FeatureCache(cache).size()[1]
    if expected.cache_bytes > free + there:
        raise ArgumentError(
            f"{cache}: maps and windows need {_size(expected.cache_bytes)}, but {_size(free)} are free; "
            "name a folder on another disk (--cache) or a smaller --short-side"
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
