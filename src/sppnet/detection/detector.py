"""The detector: selective search, convolutions once, pyramid pooling of every window, fc layers, scores, NMS."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

import sppnet
from sppnet.backbones.registry import DEFAULT_BACKBONE, Backbone, load_backbone
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.calibration import DEFAULT_THRESHOLD, calibrate_scores, rescore
from sppnet.detection.classes import add_classes, remove_classes, rename_class
from sppnet.detection.crops import CropFeatures
from sppnet.detection.detections import Detections
from sppnet.detection.features import ImageMaps, PooledWindows, WindowFeatures
from sppnet.detection.inference import find_objects
from sppnet.detection.model_file import read_stored, write_model
from sppnet.detection.training.finetune import FinetuneOptions
from sppnet.detection.training.hard_negatives import SvmOptions
from sppnet.detection.training.images import Progress, TrainingImages, no_progress
from sppnet.detection.training.layers import train_layers, training_identity
from sppnet.detection.weights import DetectorWeights
from sppnet.errors import ArgumentError, DatasetError, ModelFileError, NotFittedError
from sppnet.images import ImageSource, load_image
from sppnet.parameters import Parameters
from sppnet.proposals.base import Proposer
from sppnet.proposals.search import SelectiveSearch
from sppnet.storage.checkpoints import Checkpoints
from sppnet.storage.feature_cache import FeatureCache

__all__ = ["SPPDetector"]


class SPPDetector(Parameters):
    """SPP-net for detection (He et al., 2014, section 4) on frozen convolutions.

    ``SPPDetector.load()`` gives the detector of the 20 VOC classes that comes with the package.

    Args:
        backbone: name of the convolutions, see :func:`sppnet.backbones.registry.load_backbone`.
        features: ``spp``: the convolutions run once over the image, or ``rcnn``: once for each window, cut out and
            warped (the baseline, about 2000 times the work).
        levels: of the pyramid; each window becomes ``channels * sum(n * n for n in levels)`` numbers.
        short_sides_px: scales at which the convolutions run; a window uses the one where its area is nearest 224 x 224.
        flip_short_sides_px: scales of the mirror images in training; empty trains without mirror images.
        max_windows: of selective search, for each image.
        rank, hidden, dropout: of the fully connected layer, see :class:`sppnet.detection.fc_head.FcHead`. With
            ``hidden`` 0 there is none: SVMs and ridge regression see the pooled windows along their first ``rank``
            principal components (the paper's pool5 row).
        fc_layers: 1, or 2 for a second fully connected layer (the paper's fc7).
        classifier: ``softmax``: the log odds of each class against background, as they are trained with the
            fully connected layer, or ``svm`` (the paper's): linear SVMs with hard negatives on its features.
        box_regression: ``joint``: the layer trained with the fully connected one, or ``ridge``: in closed form after it
            (the paper's).
        finetune_options, svm_options: how the parts are trained.
        nms_iou: overlap above which the worse of two detections of a class is dropped (paper: 0.3, with soft_sigma 0).
        soft_sigma: above 0, the worse of two detections that overlap less loses a part of its score (soft suppression).
        second_look: the most probable boxes are pooled, scored and regressed once more (iterated box regression).
        box_voting: a detection's box is the mean of all boxes of its class that overlap it, weighted by score.
        proposer: gives the windows instead of selective search; any callable from image to boxes.
        seed: of everything that is drawn at random in training.

    Attributes:
        class_names_: after fit or load.
        weights_: the trained matrices.
        metadata_: how it was trained, and what was measured.
    """

    def __init__(
        self,
        backbone: str = f"{DEFAULT_BACKBONE}+mid",
        features: Literal["spp", "rcnn"] = "spp",
        levels: Sequence[int] = (4, 2, 1),
        short_sides_px: Sequence[int] = (352, 608),
        flip_short_sides_px: Sequence[int] = (296, 512),
        max_windows: int = 2000,
        rank: int = 256,
        hidden: int = 1024,
        dropout: float = 0.5,
        fc_layers: int = 1,
        classifier: Literal["softmax", "svm"] = "softmax",
        box_regression: Literal["joint", "ridge"] = "joint",
        finetune_options: FinetuneOptions | None = None,
        svm_options: SvmOptions | None = None,
        nms_iou: float = 0.5,
        soft_sigma: float = 0.3,
        second_look: bool = True,
        box_voting: bool = True,
        proposer: Proposer | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.features = features
        self.levels = levels
        self.short_sides_px = short_sides_px
        self.flip_short_sides_px = flip_short_sides_px
        self.max_windows = max_windows
        self.rank = rank
        self.hidden = hidden
        self.dropout = dropout
        self.fc_layers = fc_layers
        self.classifier = classifier
        self.box_regression = box_regression
        self.finetune_options = finetune_options
        self.svm_options = svm_options
        self.nms_iou = nms_iou
        self.soft_sigma = soft_sigma
        self.second_look = second_look
        self.box_voting = box_voting
        self.proposer = proposer
        self.seed = seed
        self._network: Backbone | None = None
        self._pool: PooledWindows | None = None
        self._stored: dict[str, Tensor] = {}  # of the file it was loaded from

    # --- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        dataset: DetectionDataset,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = no_progress,
        report: Callable[[str], None] | None = None,
    ) -> SPPDetector:
        """Train on ``dataset``: windows and maps of every image once, then what stands behind the pooling.

        Args:
            cache: folder for maps and windows; what is there already isn't computed again. None uses a temporary one.
            progress: shows how far each stage is. report: called with a line of text now and then.

        Raises:
            DatasetError: there are no images, or a class has no object that isn't difficult.
            ImageError: a picture can't be read.
        """
        _check_trainable(dataset)
        options_known: tuple[tuple[str, object, Sequence[object]], ...] = (
            ("features", self.features, ("spp", "rcnn")),
            ("classifier", self.classifier, ("svm", "softmax")),
            ("box_regression", self.box_regression, ("joint", "ridge")),
            ("fc_layers", self.fc_layers, (1, 2)),
        )
        for name, value, known in options_known:
            if value not in known:
                raise ArgumentError(f"{name}: got {value!r}, expected one of {', '.join(map(str, known))}")
        if not self.hidden and (self.classifier, self.box_regression) != ("svm", "ridge"):
            raise ArgumentError(
                f"hidden: got 0 (no fully connected layer) with classifier={self.classifier!r} and box_regression="
                f"{self.box_regression!r}, which are trained with that layer; expected 'svm' and 'ridge'"
            )
        if cache is None:
            with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
                return self.fit(dataset, cache=folder, progress=progress, report=report)
        started = time.perf_counter()
        data = self.training_images(dataset, cache, mirrored=True)
        if report is not None:
            report(f"maps and windows of {len(dataset)} images take {data.estimated_bytes() / 1e9:.2f} GB in {cache}")
        data.prepare(progress)
        prepared = round(time.perf_counter() - started, 1)

        options = self.finetune_options or FinetuneOptions()
        svm_options = self.svm_options or SvmOptions()
        common = training_identity(data, sppnet.__version__, self.rank, self.hidden, self.dropout, self.seed, options)
        if self.fc_layers != 1:
            common = (*common, "fc layers", self.fc_layers)
        own = (self.classifier, self.box_regression, vars(svm_options))
        trained = train_layers(
            data,
            rank=self.rank,
            hidden=self.hidden,
            dropout=self.dropout,
            fc_layers=self.fc_layers,
            classifier=self.classifier,
            box_regression=self.box_regression,
            finetune_options=options,
            svm_options=svm_options,
            seed=self.seed,
            fc_checkpoints=Checkpoints(cache, common),
            checkpoints=Checkpoints(cache, (common, own)),
            progress=progress,
            report=report,
        )
        self.weights_ = trained.weights
        self.fit_seconds_ = {"windows and maps": prepared} | trained.seconds
        self.class_names_ = dataset.class_names
        # Nothing that differs from run to run belongs in here: the same seed gives the same file
        self.metadata_: dict[str, Any] = {
            "sppnet_version": sppnet.__version__,
            "training": {
                "images": len(dataset),
                "objects": {
                    name: int(sum(int(((r.labels == c) & ~r.difficult).sum()) for r in dataset))
                    for c, name in enumerate(dataset.class_names)
                },
                "split": dataset.split,
                "seed": self.seed,
                "finetune": vars(options),
                "classifier": self.classifier,
                "box_regression": self.box_regression,
                "svm": vars(svm_options),
                "flip_short_sides_px": list(self.flip_short_sides_px),
                "losses": [round(v, 4) for v in trained.losses],
                "threads": torch.get_num_threads(),
            },
        }
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
        new = calibrate_scores(found, dataset, weights.slope.numpy(), weights.offset.numpy())
        parts = weights.tensors() | {"slope": torch.from_numpy(new.slope), "offset": torch.from_numpy(new.offset)}
        self.weights_ = DetectorWeights(**parts)
        self.metadata_["thresholds"] = dict(zip(self.class_names_, new.thresholds.tolist(), strict=True))
        self.metadata_["calibrated_on"] = f"{dataset.name} {dataset.split} ({len(dataset)} images)"
        return [rescore(item, weights, self.weights_) for item in found]

    # --- use ---------------------------------------------------------------------------------------------------------

    def warm_up(self) -> SPPDetector:
        """Load or compile all kernels and the convolutions now, so that no picture has to wait for them."""
        self.detect(np.zeros((64, 96, 3), np.uint8))
        return self

    @torch.inference_mode()
    def detect(self, image: ImageSource, threshold: float | None = None) -> Detections:
        """Find objects in ``image`` (path, PIL image or array).

        Args:
            threshold: least probability, in [0, 1]; None: that of each class in :attr:`thresholds_`. With 0 every
                detection is given that non-maximum suppression leaves, up to 100 a class, as evaluation needs them.

        Returns:
            Detections, best first, with the seconds that each stage took.

        Raises:
            ImageError: the picture can't be read. NotFittedError: neither trained nor loaded. ArgumentError: threshold.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ArgumentError(f"threshold: got {threshold}, expected a probability in [0, 1]")
        self._fitted()
        clock = _Clock()
        pixels = load_image(image)
        clock.lap("decoding")
        windows = self.propose(pixels)
        clock.lap("proposals")
        maps = self.feature_maps(pixels)
        clock.lap("convolutions")
        return self._detect_in(maps, windows, threshold, clock)

    def propose(self, image: ImageSource) -> NDArray[np.float32]:
        """Windows of ``image`` that may hold an object: ``(K, 4)`` in pixels of the image, best first."""
        return np.ascontiguousarray(self._proposer()(load_image(image)), np.float32)

    def feature_maps(self, image: ImageSource) -> ImageMaps:
        """Run the convolutions over ``image``: one feature map a scale."""
        return self._features().maps(load_image(image))

    def detect_windows(self, maps: ImageMaps, windows: ArrayLike, threshold: float | None = None) -> Detections:
        """Find objects in an image whose maps and windows are known already.

        Args:
            maps: of :meth:`feature_maps` or :meth:`TrainingImages.load`, float32 or float16.
            windows: ``(K, 4)`` in pixels of the image, for example of :meth:`propose`.
            threshold: as for :meth:`detect`.

        Returns:
            What :meth:`detect` gives for the same maps and windows.
        """
        return self._detect_in(maps.float(), np.ascontiguousarray(windows, np.float32), threshold)

    def training_images(
        self, dataset: DetectionDataset, cache: str | os.PathLike[str], *, mirrored: bool = False
    ) -> TrainingImages:
        """Give access to the maps and windows of ``dataset``: computed at first use, then read from ``cache``.

        Args:
            dataset: images with their annotations.
            cache: folder for maps and windows.
            mirrored: whether mirror images belong to them, at the scales of ``flip_short_sides_px``.
        """
        flipped = self._features(self.flip_short_sides_px) if mirrored and self.flip_short_sides_px else None
        return TrainingImages(dataset, self._features(), flipped, self._proposer(), FeatureCache(cache))

    @torch.inference_mode()
    def _detect_in(
        self, maps: ImageMaps, windows: NDArray[np.float32], threshold: float | None, clock: _Clock | None = None
    ) -> Detections:
        weights = self._fitted()
        clock = clock or _Clock()
        least = torch.tensor(list(self.thresholds_.values())) if threshold is None else threshold
        pooled = self._pooled()

        def fc(boxes: NDArray[np.float32]) -> Tensor:
            vectors = pooled(maps, boxes)
            clock.lap("pooling")
            return weights.fc(vectors)

        boxes, score, label = find_objects(
            weights,
            fc,
            windows,
            maps.height,
            maps.width,
            threshold=least,
            nms_iou=self.nms_iou,
            soft_sigma=self.soft_sigma,
            second_look=self.second_look,
            voting=self.box_voting,
            lap=clock.lap,
        )
        return Detections(boxes, score, label, self.class_names_, clock.seconds, len(windows))

    @property
    def thresholds_(self) -> dict[str, float]:
        """The least probability that :meth:`detect` shows, of each class: that of best F1 where it was calibrated."""
        self._fitted()
        tuned = self.metadata_.get("thresholds", {})
        return {name: tuned.get(name, DEFAULT_THRESHOLD) for name in self.class_names_}

    # --- classes: each gives a new detector, and leaves the other classes as they are to the last bit ----------------

    add_classes = add_classes
    remove_classes = remove_classes
    rename_class = rename_class

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], precision: str = "int8") -> None:
        """Write the detector to one safetensors file with JSON metadata.

        Args:
            precision: of the large matrices: ``int8`` (one scale a row), ``float16`` or ``float32``.

        Raises:
            NotFittedError: there is nothing to save yet. ArgumentError: another proposer than selective search was
                given, which the file can't hold.
        """
        weights = self._fitted()
        if self.proposer is not None and not isinstance(self.proposer, SelectiveSearch):
            raise ArgumentError("save: this detector uses a proposer of your own, which a model file can't hold")
        network = self._backbone()
        metadata = self.metadata_ | {
            "class_names": list(self.class_names_),
            "backbone": {"name": network.name, "weights_sha256": network.weights_sha256},
            "features": self.features,
            "levels": list(self.levels),
            "short_sides_px": list(self.short_sides_px),
            "proposer": {"name": "selective search", "mode": "fast", "max_windows": self.max_windows},
            "nms_iou": self.nms_iou,
            "soft_sigma": self.soft_sigma,
            "second_look": self.second_look,
            "box_voting": self.box_voting,
            "precision": precision,
        }
        write_model(path, weights.tensors(), metadata, precision, like=self._stored)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> SPPDetector:
        """The detector of a model file; without one, the detector of the 20 VOC classes that comes with the package.

        Raises:
            ModelFileError: the file is missing, damaged or no detector.
            WeightsError: the weights of its backbone are missing or other ones.
        """
        if path is None:
            with resources.as_file(resources.files("sppnet") / "models" / "voc20.safetensors") as default:
                return cls.load(default)
        stored = read_stored(path)
        tensors, metadata = stored.floats(os.fspath(path)), stored.metadata
        try:
            detector = cls(
                backbone=metadata["backbone"]["name"],
                features="rcnn" if metadata.get("features") == "rcnn" else "spp",
                levels=tuple(int(n) for n in metadata["levels"]),
                short_sides_px=tuple(int(n) for n in metadata["short_sides_px"]),
                max_windows=int(metadata["proposer"]["max_windows"]),
                nms_iou=float(metadata["nms_iou"]),
                # earlier files don't know these
                soft_sigma=float(metadata.get("soft_sigma", 0.0)),
                second_look=bool(metadata.get("second_look", False)),
                box_voting=bool(metadata.get("box_voting", False)),
            )
            expected = str(metadata["backbone"]["weights_sha256"])
            detector.class_names_ = tuple(str(name) for name in metadata["class_names"])
            if not all(0 <= float(value) <= 1 for value in dict(metadata.get("thresholds", {})).values()):
                raise ValueError("thresholds")
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{os.fspath(path)}: its metadata lacks or garbles {error}; the file is damaged"
            ) from None
        weights = DetectorWeights.from_tensors(tensors, os.fspath(path))
        if len(detector.class_names_) != weights.class_bias.numel():
            raise ModelFileError(
                f"{os.fspath(path)}: {len(detector.class_names_)} class names for {weights.class_bias.numel()} classes"
            )
        network = detector._backbone()
        if network.weights_sha256 != expected:
            raise ModelFileError(
                f"{os.fspath(path)}: made for weights of {network.name} with sha256 {expected}, "
                f"found {network.weights_sha256}"
            )
        features = detector._features()
        if weights.reduce_weight.shape[1] != features.dims:
            raise ModelFileError(
                f"{os.fspath(path)}: expects vectors of {weights.reduce_weight.shape[1]} numbers, "
                f"its backbone and levels give {features.dims}"
            )
        detector.weights_, detector.metadata_, detector._stored = weights, metadata, stored.tensors
        detector.rank, detector.hidden = weights.reduce_bias.numel(), weights.fc6_bias.numel()
        detector.fc_layers = 2 if weights.fc7_bias.numel() else 1
        return detector

    # --- parts -------------------------------------------------------------------------------------------------------

    def _fitted(self) -> DetectorWeights:
        weights: DetectorWeights | None = getattr(self, "weights_", None)
        if weights is None:
            raise NotFittedError("this SPPDetector is not trained: call fit(dataset), or use SPPDetector.load(path)")
        return weights

    def _backbone(self) -> Backbone:
        if self._network is None or self._network.name != self.backbone:
            self._network = load_backbone(self.backbone)
        return self._network

    def _features(self, short_sides_px: Sequence[int] | None = None) -> WindowFeatures:
        if self.features == "rcnn":
            return CropFeatures(self._backbone(), self.levels)
        return WindowFeatures(self._backbone(), self.levels, short_sides_px or self.short_sides_px)

    def _proposer(self) -> Proposer:
        return self.proposer or SelectiveSearch(max_windows=self.max_windows)

    def _pooled(self) -> PooledWindows:
        """Kept from image to image for its buffer."""
        features = self._features()
        if self._pool is None or self._pool.features.settings() != features.settings():
            self._pool = PooledWindows(features)
        return self._pool


def _check_trainable(dataset: DetectionDataset) -> None:
    if not len(dataset):
        raise DatasetError("the data set has no images; training needs some, with objects")
    for c, name in enumerate(dataset.class_names):
        if not any(bool(((r.labels == c) & ~r.difficult).any()) for r in dataset):
            raise DatasetError(f"class {name!r} has no object (that isn't difficult) in {len(dataset)} images")


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
