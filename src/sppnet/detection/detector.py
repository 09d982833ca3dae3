"""The detector: selective search, convolutions once, pyramid pooling of every window, fc layers, suppression."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Self, cast, overload

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from sppnet._types import F32, U8
from sppnet.backbones.engines.engine import MapEngine
from sppnet.boxes import as_boxes
from sppnet.checking import check_number
from sppnet.detection.building import build_features
from sppnet.detection.calibration import DEFAULT_THRESHOLD
from sppnet.detection.detections import Detections
from sppnet.detection.inference import decode_detections
from sppnet.detection.maps import ImageMaps, flip_boxes
from sppnet.detection.parts import survives_fork
from sppnet.detection.saving import load_detector, save_detector
from sppnet.detection.trainable import TrainableDetector
from sppnet.errors import ArgumentError
from sppnet.images import ImageSource, load_image
from sppnet.resizing import in_sizes

if TYPE_CHECKING:  # what trains needs torch; what detects does not
    from sppnet.backbones.base import Backbone

__all__ = ["SPPDetector"]


class SPPDetector(TrainableDetector):
    """SPP-net for detection (He et al., 2014, section 4) on frozen convolutions.

    ``SPPDetector.load()`` gives the detector of the 20 VOC classes that comes with the package. One detector may be
    used from several threads at once; it can be copied, pickled and sent to other processes. Parameters are scikit-
    learn's: ``get_params``, ``set_params`` (also of fields: ``features__levels=(2, 1)``), ``clone``.

    Args:
        backbone: name of the convolutions, see :func:`sppnet.backbones.registry.load_backbone`, or a backbone of your
            own.
        features: how windows become vectors: scales and pyramid.
        head: which layers stand behind the pooling.
        suppression: how scored windows become detections.
        finetune: how the fully connected layers are trained.
        tuning: how the last convolutions are trained together with them, after that. None: the convolutions stay
            frozen, as in the paper.
        svm: how SVMs and box regressors are trained.
        proposer: gives the windows of an image. Any callable from image to boxes will do.
        device: ``cpu``, or ``cuda`` for convolutions, pooling, fully connected layers, suppression and training.
            Proposals are computed on the CPU.
        seed: of everything that is drawn at random in training.

    Attributes:
        class_names_: after fit or load.
        weights_: the trained matrices.
        tuned_: the convolutions that were trained; None where all are frozen.
        metadata_: how it was trained, and what was measured.

    Raises:
        ArgumentError: a value out of its range, or a device that isn't there.
    """

    # --- use ---------------------------------------------------------------------------------------------------------

    @survives_fork
    def warm_up(self) -> Self:
        """Load or compile all kernels and the convolutions now, so that no image has to wait for them."""
        pixels = np.zeros((64, 96, 3), np.uint8)
        windows = np.ascontiguousarray(self.proposer(pixels), np.float32)
        # at their own scales the convolutions would take as long over this image as over a large one
        small = build_features(self._engine(), self.features, [64] * len(self.features.short_sides_px))
        self._decode(small.maps(pixels), windows, None, _Clock())
        in_sizes(pixels, [(8, 8)])  # as large images are made small
        return self

    @overload  # a str is an Iterable[str] too, but it is one image
    def detect(self, image: ImageSource, threshold: float | None = None) -> Detections: ...  # type: ignore[overload-overlap]  # so

    @overload
    def detect(self, image: Iterable[ImageSource], threshold: float | None = None) -> list[Detections]: ...

    def detect(
        self, image: ImageSource | Iterable[ImageSource], threshold: float | None = None
    ) -> Detections | list[Detections]:
        """Find objects in an image, or in each of several.

        Args:
            image: path, PIL image or array ``(H, W, 3)``; or a list (any iterable) of them.
            threshold: minimum confidence, in [0, 1]. None: that of each class in :attr:`thresholds_`. 0 gives every
                detection that suppression leaves, up to 100 a class, as evaluation needs them.

        Returns:
            Detections, most confident first, with the seconds that each stage took. For several images a list of them.

        Raises:
            ImageError: an image can't be read.
            NotFittedError: the detector is neither trained nor loaded.
            ArgumentError: ``threshold`` is not in [0, 1].
        """
        if threshold is not None:
            check_number("threshold", threshold, 0, 1)
        self._fitted()
        one = isinstance(image, str | bytes | os.PathLike | Image.Image) or not isinstance(image, Iterable)
        if hasattr(image, "dtype") or hasattr(image, "__array_interface__"):  # an image, if it isn't an array of paths
            one = getattr(getattr(image, "dtype", None), "kind", None) not in ("O", "U", "S")
        if one:
            return self._detect_one(cast(ImageSource, image), threshold)
        return list(self._detect_each(cast(Iterable[ImageSource], image), threshold))

    @survives_fork
    def propose(self, image: ImageSource) -> F32:
        """Windows of ``image`` that may hold an object: ``(K, 4)`` in pixels of the image, best first."""
        return as_boxes(self.proposer(load_image(image)), "windows of the proposer")

    @survives_fork
    def feature_maps(self, image: ImageSource) -> ImageMaps:
        """Run the convolutions over ``image``: one feature map a scale, also of the mirror image where it counts."""
        return self._maps(load_image(image))

    @survives_fork
    def detect_windows(self, maps: ImageMaps, windows: ArrayLike, threshold: float | None = None) -> Detections:
        """Find objects in an image whose maps and windows are known already.

        Args:
            maps: of :meth:`feature_maps` or :meth:`TrainingImages.load`.
            windows: ``(K, 4)`` in pixels of the image, for example of :meth:`propose`.
            threshold: as for :meth:`detect`.

        Returns:
            What :meth:`detect` gives for the same maps and windows.

        Raises:
            ArgumentError: maps of other convolutions, or without those of the mirror image where ``features.mirror``
                asks for them, or windows that aren't finite numbers ``(K, 4)``; ``threshold`` is not in [0, 1]. Maps in
                the other precision are taken.
        """
        if threshold is not None:
            check_number("threshold", threshold, 0, 1)
        features = self.window_features()
        mirrored = maps.mirrored if isinstance(maps, ImageMaps) else None
        maps = features.accepted(maps)
        if self.features.mirror:
            if mirrored is None:
                raise ArgumentError(
                    "maps: those of the mirror image are missing, which features.mirror asks for; compute them with "
                    "feature_maps(image)"
                )
            maps = replace(maps, mirrored=features.accepted(mirrored))
        return self._decode(maps, as_boxes(windows, "windows"), threshold, _Clock())

    @survives_fork
    def pool(self, maps: ImageMaps, windows: ArrayLike) -> F32:
        """Pooled vectors ``(K, dims)``, float32, of ``windows (K, 4)`` in pixels of the image."""
        features = self.window_features()
        return features.vectors(features.accepted(maps), as_boxes(windows, "windows"))

    @survives_fork
    def fc(self, pooled: ArrayLike) -> F32:
        """Fully connected features ``(K, H)`` of pooled vectors ``(K, dims)``, float32."""
        return self._head(quantised=False).fc(self.window_features().accepted_vectors(pooled))

    @survives_fork
    def fc_of_windows(self, maps: ImageMaps, windows: ArrayLike) -> F32:
        """Fully connected features ``(K, H)``, float32, of ``windows (K, 4)``, as :meth:`detect` computes them."""
        maps = self.window_features().accepted(maps)
        head = self._head(quantised=maps.quantised is not None)
        with self._pooled()(maps, as_boxes(windows, "windows")) as pooled:
            return head.fc(pooled)

    @property
    def thresholds_(self) -> dict[str, float]:
        """Minimum confidence that :meth:`detect` shows, of each class: that of best F1 where it was calibrated."""
        self._fitted()
        tuned = self.metadata_.get("thresholds", {})
        return {name: tuned.get(name, DEFAULT_THRESHOLD) for name in self.class_names_}

    def _detect_each(self, images: Iterable[ImageSource], threshold: float | None) -> Iterator[Detections]:
        """Detections of each image. Where a device does the work, the next image is prepared on the CPU meanwhile."""
        if self.device == "cpu":
            for image in images:
                yield self._detect_one(image, threshold)
            return
        source = iter(images)
        with ThreadPoolExecutor(1, "sppnet-proposals") as ahead:
            coming = [ahead.submit(self._prepare, image) for _, image in zip(range(2), source, strict=False)]
            while coming:
                ready = coming.pop(0).result()
                coming += [ahead.submit(self._prepare, image) for _, image in zip(range(1), source, strict=False)]
                yield self._finish(*ready, threshold)

    @survives_fork
    def _detect_one(self, image: ImageSource, threshold: float | None) -> Detections:
        return self._finish(*self._prepare(image), threshold)

    def _prepare(self, image: ImageSource) -> tuple[U8, F32, _Clock]:
        """Do what the CPU does for an image: decoding and proposals."""
        clock = _Clock()
        pixels = load_image(image)
        clock.lap("decoding")
        windows = as_boxes(self.proposer(pixels), "windows of the proposer")
        clock.lap("proposals")
        return pixels, windows, clock

    def _finish(self, pixels: U8, windows: F32, clock: _Clock, threshold: float | None) -> Detections:
        clock.start()
        maps = self._maps(pixels)
        clock.lap("convolutions")
        return self._decode(maps, windows, threshold, clock)

    def _maps(self, pixels: U8) -> ImageMaps:
        features = self.window_features()
        maps = features.maps(pixels)
        return replace(maps, mirrored=features.maps(pixels, flip=True)) if self.features.mirror else maps

    def _decode(self, maps: ImageMaps, windows: F32, threshold: float | None, clock: _Clock) -> Detections:
        weights, head, vectors = self._fitted(), self._head(quantised=maps.quantised is not None), self._pooled()
        least = np.array(list(self.thresholds_.values()), np.float32) if threshold is None else threshold

        def score_in(seen: ImageMaps, boxes: F32) -> tuple[F32, F32]:
            with vectors(seen, boxes) as pooled:
                clock.lap("pooling")
                return head.scores(head.fc(pooled))

        def score(boxes: F32) -> tuple[F32, F32]:
            found = score_in(maps, boxes)
            if maps.mirrored is None or not self.features.mirror:
                return found
            clock.lap("fc")
            margins, deltas = score_in(maps.mirrored, flip_boxes(boxes, maps.width))
            turned = deltas * np.array([-1, 1, 1, 1], np.float32)  # of the horizontal step of the centre
            half = np.float32(0.5)
            return (found[0] + margins) * half, (found[1] + turned) * half

        boxes, confidence, class_id = decode_detections(
            weights, score, windows, maps.height, maps.width, self.suppression, threshold=least, lap=clock.lap
        )
        return Detections(boxes, confidence, class_id, self.class_names_, clock.seconds, len(windows))

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], precision: str = "int8") -> None:
        """Write the detector, with its whole recipe, to one safetensors file with JSON metadata.

        Args:
            path: of the file. It appears when it is complete.
            precision: of the large matrices: ``int8`` (one scale a row), ``float16`` or ``float32``.

        Raises:
            NotFittedError: there is nothing to save yet.
            ArgumentError: an unknown precision, or a proposer or backbone of your own that a file can't hold.
        """
        save_detector(self, self._learned(), self._engine(), path, precision, self._stored)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        backbone: Backbone | MapEngine | None = None,
    ) -> SPPDetector:
        """Load the detector of a model file, or the detector of the 20 VOC classes that comes with the package.

        Args:
            path: of the file. None: the detector that comes with the package.
            device: ``cpu`` or ``cuda``.
            backbone: the convolutions, where the file was made with a backbone of your own.

        Raises:
            ModelFileError: the file is missing, damaged or no detector.
            WeightsError: the weights of its backbone are missing or other ones.
            ArgumentError: the device isn't there.
        """
        detector, fitted, stored = load_detector(cls, path, device, backbone)
        detector.weights_, detector.class_names_, detector.metadata_ = (
            fitted.weights,
            fitted.class_names,
            fitted.metadata,
        )
        detector._stored = stored  # noqa: SLF001 - of the same class
        return detector


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
