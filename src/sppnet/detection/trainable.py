"""How the detector learns: training, tuning, calibration, classes that come and go; and the parts it is built of."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from sppnet._types import Progress, no_progress
from sppnet.backbones.engines.engine import MapEngine
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.backbones.sources import DEFAULT_BACKBONE
from sppnet.checking import check_whole
from sppnet.detection import classes
from sppnet.detection.building import build_engine, build_features, build_head, check_backbone, check_dims
from sppnet.detection.calibration import calibrate_scores, rescore
from sppnet.detection.classes import Fitted
from sppnet.detection.detections import Detections
from sppnet.detection.features import PooledWindows, WindowFeatures
from sppnet.detection.heads import Head
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
from sppnet.detection.weights import DetectorWeights
from sppnet.devices import check_device
from sppnet.errors import ArgumentError, NotFittedError
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

__all__ = ["TrainableDetector"]

_FEATURES, _HEAD, _SUPPRESSION = FeatureOptions(), HeadOptions(), SuppressionOptions()
_FINETUNE, _SVM, _TUNING, _PROPOSER = FinetuneOptions(), SvmOptions(), TuningOptions(), SelectiveSearch()


class TrainableDetector(Parameters):
    """What :class:`~sppnet.detection.detector.SPPDetector` is made of, and how it learns; see there."""

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
        check_whole("seed", values["seed"], 0, 2**63 - 1)
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
        features, head = self.features, self.head
        shapes = {
            "reduce_weight": (1, frozen.window_features().dims),
            "reduce_bias": (head.rank,),
            "fc6_bias": (head.hidden,),
            "box_bias": (4 * len(dataset.class_names),),
        }
        problem = training_problem(
            dataset.class_names, features.levels, features.short_sides_px, features.flip_short_sides_px, windows, shapes
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

    @survives_fork
    def tune(
        self,
        dataset: DetectionDataset,
        *,
        tuning: TuningOptions = _TUNING,
        cache: str | os.PathLike[str] | None = None,
        seed: int = 0,
        progress: Progress = no_progress,
        processes: Processes | None = None,
    ) -> Self:
        """Give a detector whose last convolutions were trained further, together with the layers behind the pooling.

        It begins with what this detector has learned, so of at most 256 images maps are computed, and no layer is
        trained alone before. This detector doesn't change. The new one shows probabilities again once it is calibrated.

        Args:
            dataset: images of the classes that the detector knows.
            tuning: how it is trained. Blocks that were tuned before must be among those that are tuned now.
            cache: folder for windows and checkpoints; a run that was stopped goes on from there. None uses a temporary
                one.
            seed: of everything that is drawn at random.
            progress: shows how far each stage is.
            processes: that work together, see :meth:`fit`.

        Raises:
            ArgumentError: other classes, SVMs, no fully connected layer, or convolutions that can't be tuned.
            DatasetError: a class has no object that isn't difficult.
            ImageError: an image can't be read.
            NotFittedError: the detector isn't trained.
        """
        weights = self._fitted()
        seed = check_whole("seed", seed, 0, 2**63 - 1)
        self.check_tunable(dataset.class_names, tuning)
        if cache is None:
            with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
                return self.tune(
                    dataset, tuning=tuning, cache=folder, seed=seed, progress=progress, processes=processes
                )
        from sppnet.detection.training.fit import fit_detector
        from sppnet.detection.training.layers import Start
        from sppnet.devices import plain_precision

        result = copy.copy(self)
        result.tuned_, result.tuning, result.seed = None, tuning, seed
        with plain_precision():
            data = result.training_images(dataset.with_classes(self.class_names_), cache)
            trained = fit_detector(
                data, self.head, self.finetune, self.svm, seed, cache, progress, tuning=tuning,
                precision=self.features.precision, processes=processes, start=Start(weights, self.tuned_),
            )  # fmt: skip
        result = result.with_weights(trained.fitted.weights, trained.fitted.class_names, trained.fitted.metadata)
        result.metadata_["training"]["began_with"] = copy.deepcopy(self.metadata_.get("training", {}))
        if "changes" in self.metadata_:
            result.metadata_["changes"] = copy.deepcopy(self.metadata_["changes"])
        result.tuned_, result.fit_seconds_ = trained.tuned, trained.seconds
        result._stored = {}  # noqa: SLF001 - of the same class
        return result

    def check_tunable(self, class_names: Sequence[str], tuning: TuningOptions = _TUNING) -> None:
        """Check what :meth:`tune` needs, before anything is computed.

        Args:
            class_names: of the images to tune on.
            tuning: how it is to be trained.

        Raises:
            ArgumentError: other classes, SVMs, no fully connected layer, or convolutions that can't be tuned.
            NotFittedError: the detector isn't trained.
        """
        from sppnet.detection.training.tuning import tunable_engine

        weights = self._fitted()
        if not isinstance(tuning, TuningOptions):
            raise ArgumentError(f"tuning: got {type(tuning).__name__}, expected TuningOptions")
        if not isinstance(self.backbone, str):
            raise ArgumentError("backbone: got one of your own, but only convolutions known by name can be tuned")
        if not self.head.hidden:
            raise ArgumentError("hidden: got 0, but convolutions are tuned together with a fully connected layer")
        if self.head.classifier == "svm":
            raise ArgumentError("head: got classifier svm, but only a softmax goes on learning; train it anew")
        features = self.window_features()
        tunable_engine(features, self.features.precision, tuning.blocks)
        wanted = {"rank": self.head.rank, "hidden": self.head.hidden, "layers": self.head.layers}
        there = {"rank": weights.reduce_bias.size, "hidden": weights.fc6_bias.size,
                 "layers": 2 if weights.fc7_bias.size else 1}  # fmt: skip
        for name, value in there.items():
            if wanted[name] != value:
                raise ArgumentError(
                    f"head: got {name} {wanted[name]}, but the detector has learned with {value}; set it back, or "
                    "train anew with fit"
                )
        check_dims(weights, features.dims)
        if self.tuned_ is not None and self.tuned_.blocks > tuning.blocks:
            raise ArgumentError(
                f"blocks: got {tuning.blocks}, expected at least {self.tuned_.blocks}: so many were tuned before"
            )
        classes.check_same_classes(class_names, self.class_names_)

    def calibrate(self, found: Sequence[Detections], dataset: DetectionDataset) -> list[Detections]:
        """Fit the sigmoids that turn margins into probabilities, on detections of images not trained on.

        The thresholds of best F1 are stored too, as what :meth:`detect` shows by default. Confidence is calibrated
        last, so boxes do not change, nor the order within a class: no second detection pass is needed.

        Args:
            found: what :meth:`detect` gave for each image of ``dataset`` with threshold 0.
            dataset: the images and their annotations.

        Returns:
            ``found`` with the new confidences: what :meth:`detect` gives from now on.

        Raises:
            ArgumentError: ``found`` isn't one result for each image, of this detector's classes.
            DatasetError: ``dataset`` lacks a class of the detector. Their order may differ.
            NotFittedError: the detector isn't trained.
        """
        weights = self._fitted()
        dataset = dataset.with_classes(self.class_names_)
        from sppnet.evaluation.voc import check_detections

        found = list(found)
        check_detections(found, dataset)
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
    ) -> Self:
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

    def remove_classes(self, names: Sequence[str]) -> Self:
        """Give a detector without the classes ``names``; this one doesn't change, nor what is found of the others.

        Raises:
            ArgumentError: one isn't known, or none would be left.
            NotFittedError: the detector isn't trained.
        """
        return self._with(classes.remove_classes(self._learned(), names))

    def rename_class(self, old: str, new: str) -> Self:
        """Give a detector in which the class ``old`` is called ``new``; this one doesn't change.

        Raises:
            ArgumentError: ``old`` isn't known, or ``new`` is empty or another class's name.
            NotFittedError: the detector isn't trained.
        """
        return self._with(classes.rename_class(self._learned(), old, new))

    def with_weights(
        self, weights: DetectorWeights, class_names: Sequence[str], metadata: Mapping[str, Any] | None = None
    ) -> Self:
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

    def _with(self, fitted: Fitted) -> Self:
        result = copy.copy(self)
        result.weights_, result.class_names_, result.metadata_ = fitted.weights, fitted.class_names, fitted.metadata
        return result

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
