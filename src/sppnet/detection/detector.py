"""The detector: selective search, convolutions once, pyramid pooling of every window, fc layers, suppression."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast, overload

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from sppnet._types import F32, U8, Progress, no_progress
from sppnet.backbones.engines.engine import MapEngine
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.backbones.sources import DEFAULT_BACKBONE
from sppnet.boxes import as_boxes
from sppnet.detection import classes
from sppnet.detection.building import build_engine, build_features, build_head, check_backbone
from sppnet.detection.calibration import DEFAULT_THRESHOLD, calibrate_scores, rescore
from sppnet.detection.classes import Fitted
from sppnet.detection.detections import Detections
from sppnet.detection.features import PooledWindows, WindowFeatures
from sppnet.detection.heads import Head
from sppnet.detection.inference import decode_detections
from sppnet.detection.maps import ImageMaps
from sppnet.detection.model_checks import training_problem
from sppnet.detection.options import (
    FeatureOptions,
    FinetuneOptions,
    HeadOptions,
    SuppressionOptions,
    SvmOptions,
    TuningOptions,
)
from sppnet.detection.parts import Parts, survives_fork
from sppnet.detection.saving import load_detector, save_detector
from sppnet.detection.weights import DetectorWeights
from sppnet.devices import check_device
from sppnet.errors import ArgumentError, NotFittedError
from sppnet.images import ImageSource, load_image
from sppnet.parameters import Parameters
from sppnet.proposals.base import Proposer
from sppnet.proposals.search import SelectiveSearch
from sppnet.storage.envelope import Array
from sppnet.storage.feature_cache import FeatureCache

if TYPE_CHECKING:  # what trains needs torch; what detects does not
    from sppnet.backbones.base import Backbone
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.training.images import TrainingImages
    from sppnet.processes import Processes

__all__ = ["SPPDetector"]

_FEATURES, _HEAD, _SUPPRESSION = FeatureOptions(), HeadOptions(), SuppressionOptions()
_FINETUNE, _SVM, _PROPOSER = FinetuneOptions(), SvmOptions(), SelectiveSearch()


class SPPDetector(Parameters):
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

    class_names_: tuple[str, ...]
    weights_: DetectorWeights
    tuned_: TunedConvolutions | None = None
    metadata_: dict[str, Any]
    fit_seconds_: dict[str, float]

    def __init__(
        self,
        backbone: str | Backbone | MapEngine = f"{DEFAULT_BACKBONE}+mid",
        features: FeatureOptions = _FEATURES,
        head: HeadOptions = _HEAD,
        suppression: SuppressionOptions = _SUPPRESSION,
        finetune: FinetuneOptions = _FINETUNE,
        svm: SvmOptions = _SVM,
        proposer: Proposer = _PROPOSER,
        device: str = "cpu",
        seed: int = 0,
        tuning: TuningOptions | None = None,
    ) -> None:
        self.backbone = backbone
        self.features = features
        self.head = head
        self.suppression = suppression
        self.finetune = finetune
        self.svm = svm
        self.proposer = proposer
        self.device = device
        self.seed = seed
        self.tuning = tuning
        self._parts = Parts()
        self._stored: dict[str, Array] = {}  # of the file it was loaded from
        self._check_parameters(self.get_params(deep=False))

    def _check_parameters(self, values: Mapping[str, Any]) -> None:
        for name, kind in (
            ("features", FeatureOptions),
            ("head", HeadOptions),
            ("suppression", SuppressionOptions),
            ("finetune", FinetuneOptions),
            ("svm", SvmOptions),
        ):
            if not isinstance(values[name], kind):
                raise ArgumentError(f"{name}: got {values[name]!r}, expected {kind.__name__}(...)")
        if not isinstance(values["tuning"], TuningOptions | None):
            raise ArgumentError(f"tuning: got {values['tuning']!r}, expected TuningOptions(...) or None")
        check_backbone(values["backbone"])
        if not callable(values["proposer"]):
            raise ArgumentError(
                f"proposer: got {values['proposer']!r}, expected a function from an image to boxes (K, 4)"
            )
        seed = values["seed"]
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise ArgumentError(f"seed: got {seed!r}, expected a whole number of at least 0")
        check_device(values["device"])

    # --- training ----------------------------------------------------------------------------------------------------

    @survives_fork
    def fit(
        self,
        dataset: DetectionDataset,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = no_progress,
        processes: Processes | None = None,
    ) -> Self:
        """Train on ``dataset``: windows and maps of every image once, then what stands behind the pooling.

        Args:
            dataset: images and their annotations.
            cache: folder for maps and windows; what is there isn't computed again. None uses a temporary one.
            progress: shows how far each stage is. Messages go to the logger ``sppnet``.
            processes: that tune the convolutions together, see :func:`sppnet.processes.join_processes`; ``cache`` must
                be a folder that all of them see. The first one does the other stages; only it has the SVMs and box
                regressors that are trained after the convolutions.

        Raises:
            DatasetError: there are no images, or a class has no object that isn't difficult.
            ImageError: an image can't be read.
            ArgumentError: it couldn't be saved, or its convolutions can't be tuned.
        """
        if cache is None:
            with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
                return self.fit(dataset, cache=folder, progress=progress, processes=processes)
        windows = getattr(self.proposer, "max_windows", 1)
        frozen = copy.copy(self)
        frozen.tuned_ = None  # of an earlier training
        features, dims = self.features, frozen.window_features().dims
        problem = training_problem(
            dataset.class_names, features.levels, features.short_sides_px, features.flip_short_sides_px, windows, dims
        )
        if problem:
            raise ArgumentError(f"this detector couldn't be saved: {problem}")
        from sppnet.detection.training.fit import fit_detector
        from sppnet.devices import plain_precision

        if self.tuning is not None and not isinstance(self.backbone, str):
            raise ArgumentError("backbone: got one of your own, but only convolutions known by name can be tuned")
        with plain_precision():
            data = frozen.training_images(dataset, cache, mirrored=True)
            trained = fit_detector(
                data, self.head, self.finetune, self.svm, self.seed, cache, progress, tuning=self.tuning,
                precision=self.features.precision, processes=processes,
            )  # fmt: skip
        self.weights_, self.class_names_ = trained.fitted.weights, trained.fitted.class_names
        self.metadata_, self.fit_seconds_ = trained.fitted.metadata, trained.seconds
        self.tuned_ = trained.tuned
        self._stored = {}
        return self

    def calibrate(self, found: Sequence[Detections], dataset: DetectionDataset) -> list[Detections]:
        """Fit the sigmoids that turn margins into probabilities, on detections of images not trained on.

        The thresholds of best F1 are stored too, as what :meth:`detect` shows by default. Confidence is calibrated
        last, so boxes do not change, nor the order within a class: no second detection pass is needed.

        Args:
            found: what :meth:`detect` gave for each image of ``dataset`` with threshold 0.
            dataset: the images and their annotations.

        Returns:
            ``found`` with the new confidences: what :meth:`detect` gives from now on.
        """
        weights = self._fitted()
        new = calibrate_scores(found, dataset, weights.slope, weights.offset)
        self.weights_ = replace(weights, slope=new.slope, offset=new.offset)
        self.metadata_ = copy.deepcopy(self.metadata_) | {
            "thresholds": dict(zip(self.class_names_, new.thresholds.tolist(), strict=True)),
            "calibrated_on": f"{dataset.name} {dataset.split} ({len(dataset)} images)",
        }
        return [rescore(item, weights, self.weights_) for item in found]

    def training_images(
        self, dataset: DetectionDataset, cache: str | os.PathLike[str], *, mirrored: bool = False
    ) -> TrainingImages:
        """Give access to the maps and windows of ``dataset``: computed at first use, then read from ``cache``.

        Args:
            dataset: images with their annotations.
            cache: folder for maps and windows.
            mirrored: whether mirror images belong to them, at the scales of ``features.flip_short_sides_px``.
        """
        from sppnet.detection.training.images import TrainingImages

        sides = self.features.flip_short_sides_px
        flipped = build_features(self._engine(), self.features, sides) if mirrored and sides else None
        return TrainingImages(dataset, self.window_features(), flipped, self.proposer, FeatureCache(cache))

    # --- use ---------------------------------------------------------------------------------------------------------

    @survives_fork
    def warm_up(self) -> Self:
        """Load or compile all kernels and the convolutions now, so that no image has to wait for them."""
        pixels = np.zeros((64, 96, 3), np.uint8)
        windows = np.ascontiguousarray(self.proposer(pixels), np.float32)
        # at their own scales the convolutions would take as long over this image as over a large one
        small = build_features(self._engine(), self.features, [64] * len(self.features.short_sides_px))
        self._decode(small.maps(pixels), windows, None, _Clock())
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
        if threshold is not None and not 0 <= threshold <= 1:
            raise ArgumentError(f"threshold: got {threshold}, expected a number in [0, 1]")
        self._fitted()
        one = isinstance(image, str | bytes | os.PathLike | Image.Image | np.ndarray) or hasattr(image, "dtype")
        if one or hasattr(image, "__array_interface__") or not isinstance(image, Iterable):
            return self._detect_one(cast(ImageSource, image), threshold)
        return list(self._detect_each(image, threshold))

    @survives_fork
    def propose(self, image: ImageSource) -> F32:
        """Windows of ``image`` that may hold an object: ``(K, 4)`` in pixels of the image, best first."""
        return as_boxes(self.proposer(load_image(image)), "windows of the proposer")

    @survives_fork
    def feature_maps(self, image: ImageSource) -> ImageMaps:
        """Run the convolutions over ``image``: one feature map a scale."""
        return self.window_features().maps(load_image(image))

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
            ArgumentError: maps of other convolutions, or windows that aren't finite numbers ``(K, 4)``. Maps in the
                other precision are taken.
        """
        maps = self.window_features().accepted(maps)
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
        maps = self.window_features().maps(pixels)
        clock.lap("convolutions")
        return self._decode(maps, windows, threshold, clock)

    def _decode(self, maps: ImageMaps, windows: F32, threshold: float | None, clock: _Clock) -> Detections:
        weights, head, vectors = self._fitted(), self._head(quantised=maps.quantised is not None), self._pooled()
        least = np.array(list(self.thresholds_.values()), np.float32) if threshold is None else threshold

        def score(boxes: F32) -> tuple[F32, F32]:
            with vectors(maps, boxes) as pooled:
                clock.lap("pooling")
                return head.scores(head.fc(pooled))

        boxes, confidence, class_id = decode_detections(
            weights, score, windows, maps.height, maps.width, self.suppression, threshold=least, lap=clock.lap
        )
        return Detections(boxes, confidence, class_id, self.class_names_, clock.seconds, len(windows))

    # --- classes: each gives a new detector, and leaves the other classes as they are to the last bit ----------------

    @survives_fork
    def add_classes(
        self,
        dataset: DetectionDataset,
        *,
        class_names: Sequence[str] | None = None,
        background: DetectionDataset | None = None,
        folds: int = 4,
        svm: SvmOptions = _SVM,
        cache: str | os.PathLike[str] | None = None,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> SPPDetector:
        """Give a detector that knows more classes; this one, and what is found of the old classes, doesn't change.

        Confidence and thresholds of the new classes are calibrated by cross-validation: SVMs trained on the other
        folds look at each fold of the images.

        Args:
            dataset: images with objects of the new classes. Objects of other classes count as background.
            class_names: the new ones, among those of ``dataset``. None takes all that the detector doesn't know.
            background: more images. Where nobody annotated the new classes in them, their objects count as background
                too: look through such images first.
            folds: of the cross-validation, at least 2.
            svm: how SVMs and box regressors are trained.
            cache: folder for maps and windows; what is there isn't computed again. None uses a temporary one.
            seed: of the windows and the folds that are drawn.
            progress: shows how far each stage is.

        Raises:
            ArgumentError: no new class, a class that the detector knows already, or one that isn't in ``dataset``.
            DatasetError: a new class has no object that isn't difficult.
            ImageError: an image can't be read.
            NotFittedError: the detector isn't trained.
        """
        fitted = self._learned()
        if cache is None:
            with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
                return self.add_classes(
                    dataset, class_names=class_names, background=background, folds=folds, svm=svm, cache=folder,
                    seed=seed, progress=progress,
                )  # fmt: skip
        from sppnet.detection.training.add_classes import add_classes
        from sppnet.devices import plain_precision

        with plain_precision():
            return self._with(
                add_classes(
                    fitted, dataset, lambda images: self.training_images(images, cache), self.suppression, svm,
                    class_names=class_names, background=background, folds=folds, seed=seed, progress=progress,
                )
            )  # fmt: skip

    def remove_classes(self, names: Sequence[str]) -> SPPDetector:
        """Give a detector without the classes ``names``; this one doesn't change, nor what is found of the others.

        Raises:
            ArgumentError: one isn't known, or none would be left.
            NotFittedError: the detector isn't trained.
        """
        return self._with(classes.remove_classes(self._learned(), names))

    def rename_class(self, old: str, new: str) -> SPPDetector:
        """Give a detector in which the class ``old`` is called ``new``; this one doesn't change.

        Raises:
            ArgumentError: ``old`` isn't known, or ``new`` is empty or another class's name.
            NotFittedError: the detector isn't trained.
        """
        return self._with(classes.rename_class(self._learned(), old, new))

    def with_weights(
        self, weights: DetectorWeights, class_names: Sequence[str], metadata: Mapping[str, Any] | None = None
    ) -> SPPDetector:
        """Give a detector with the same convolutions and other layers behind the pooling.

        Args:
            weights: the layers, for example of :meth:`sppnet.detection.teaching.HeadTeacher.weights`.
            class_names: of the rows of ``weights``.
            metadata: how it was trained.

        Returns:
            The new detector; this one does not change.

        Raises:
            ArgumentError: there are not as many names as classes.
        """
        if len(class_names) != weights.classes:
            raise ArgumentError(f"class_names: got {len(class_names)} for weights of {weights.classes} classes")
        return self._with(Fitted(weights, tuple(class_names), dict(metadata or {})))

    def _learned(self) -> Fitted:
        return Fitted(self._fitted(), self.class_names_, self.metadata_)

    def _with(self, fitted: Fitted) -> SPPDetector:
        result = copy.copy(self)
        result.weights_, result.class_names_, result.metadata_ = fitted.weights, fitted.class_names, fitted.metadata
        return result

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

    # --- parts: built once, and again when a parameter changes -------------------------------------------------------

    def window_features(self, *, mirrored: bool = False) -> WindowFeatures:
        """Maps and vectors of this detector: convolutions, scales and pyramid.

        Args:
            mirrored: at the scales of mirror images in training, where there are any.
        """
        engine, name = self._engine(), "features"
        sides = self.features.short_sides_px
        if mirrored and self.features.flip_short_sides_px:
            sides, name = self.features.flip_short_sides_px, "mirrored features"
        return self._parts.get(name, (engine, self.features), lambda: build_features(engine, self.features, sides))

    def _engine(self) -> MapEngine:
        key = (self.backbone, self.features.precision, self.device, self.tuned_)
        return self._parts.get("engine", key, lambda: build_engine(*key))

    def _pooled(self) -> PooledWindows:
        features = self.window_features()
        return self._parts.get("pooled", features, lambda: PooledWindows(features))

    def _head(self, *, quantised: bool) -> Head:
        weights, features = self._fitted(), self.window_features()
        name = "head of bytes" if quantised else "head"
        scale = features.quantised if quantised else None
        key = (weights, self.device, features)
        return self._parts.get(name, key, lambda: build_head(weights, scale, self.device, features.dims))

    def _fitted(self) -> DetectorWeights:
        weights: DetectorWeights | None = getattr(self, "weights_", None)
        if weights is None:
            raise NotFittedError("this SPPDetector is not trained: call fit(dataset), or use SPPDetector.load(path)")
        return weights

    def __copy__(self) -> Self:
        result = type(self).__new__(type(self))
        result.__dict__.update(self.__dict__)
        result._parts = copy.copy(self._parts)  # noqa: SLF001 - of the same class
        return result


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
