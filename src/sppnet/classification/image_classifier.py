"""Classifier of images: frozen convolutions, pyramid pooling and linear SVMs, or a network that was trained whole."""

from __future__ import annotations

import copy
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sppnet
from sppnet._types import F32, Progress, no_progress
from sppnet.checking import check_number, check_whole
from sppnet.classification.checks import check_views, short_levels, svm_parameters
from sppnet.classification.classifier_file import StoredClassifier, read_classifier, write_classifier
from sppnet.classification.imagenet import imagenet_class_names, imagenet_classifier, imagenet_engine
from sppnet.classification.multiview import AnyView, choose_views
from sppnet.classification.networks import EngineNetwork, Network
from sppnet.classification.options import FROZEN_BACKBONE
from sppnet.classification.vectors import pooled_vectors
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder
from sppnet.detection.parts import survives_fork
from sppnet.devices import as_device, check_device, check_torch
from sppnet.errors import ArgumentError, NotFittedError
from sppnet.images import ImageSource, load_image
from sppnet.pooling.bins import Level, Levels

if TYPE_CHECKING:
    from sppnet.classification.classifier import SPPClassifier

__all__ = ["IMAGENET_VIEWS", "MAX_TOP", "Guess", "ImageClassifier"]

MAX_TOP = 1 << 31
"""The most classes that may be asked for; no more than there are come."""

IMAGENET_VIEWS = (View(224), View(224, "crop"))
"""All of the image, and its middle, where photographers put the subject and for which the weights were trained."""


@dataclass(frozen=True)
class Guess:
    """One of the classes that an image may belong to.

    Attributes:
        class_name: of the class.
        probability: in [0, 1].
        class_id: index of the class.
    """

    class_name: str
    probability: float
    class_id: int


class ImageClassifier:
    """Classifies images of any size and aspect: frozen convolutions, pyramid pooling, one linear SVM for each class.

    ``ImageClassifier.load()`` loads the classifier of the 1000 ImageNet classes. :meth:`from_network` wraps a network
    that was trained otherwise, see :func:`~sppnet.classification.recipes.train_by_gradient`.

    Args:
        backbone: name of the convolutions, see :func:`~sppnet.backbones.registry.backbone_names`.
        levels: of the pyramid.
        mode: ``avg`` or ``max`` pooling.
        views: of an image that are classified (:class:`~sppnet.classification.views.View`, or windows of feature maps:
            :class:`~sppnet.classification.multiview.MapViews`). Pooled vectors are averaged over the views.
        costs: C of the SVMs; cross-validation on the training images chooses one.
        folds: of the cross-validation.
        seed: of the folds.
        weights: a weights file of your own for the convolutions, see :func:`~sppnet.backbones.registry.load_backbone`.
        device: ``cpu`` or ``cuda``, for everything but the SVMs, which are trained on the CPU.

    Without a GPU, frozen EfficientNet-Lites run in ONNX Runtime, and use needs no torch. Training does.

    Attributes:
        class_names_: of its outputs.
        scale_: probabilities are ``softmax(scale_ * outputs)``.
        metadata_: how it was trained, and what was measured.
    """

    class_names_: tuple[str, ...]
    scale_: float
    metadata_: dict[str, Any]

    def __init__(
        self,
        backbone: str = FROZEN_BACKBONE,
        levels: Levels = (3, 2, 1),
        mode: str = "avg",
        views: Sequence[AnyView] = (View(),),
        costs: Sequence[float] = (1.0, 10.0, 100.0),
        folds: int = 5,
        seed: int = 0,
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str = "cpu",
    ) -> None:
        self.backbone = backbone
        self.levels = levels
        self.mode = mode
        self.views = views
        self.costs = costs
        self.folds = folds
        self.seed = seed
        self.weights = weights
        self.device = device
        self._computes: Network | None = None
        self._network: SPPClassifier | None = None
        self._stored: StoredClassifier | None = None

    # --- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        dataset: ImageFolder,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = no_progress,
    ) -> ImageClassifier:
        """Pool every image, choose C by cross-validation, train the SVMs.

        Args:
            dataset: images to train on.
            cache: folder for pooled vectors. What is there isn't computed again, so a stopped training goes on from
                there. None keeps them in memory.
            progress: shows how far it is.

        Returns:
            The classifier itself.

        Raises:
            ArgumentError: the convolutions have neither published weights nor a weights file; there is no such device;
                a parameter is out of its range, or no model file could hold it; or the classifier was loaded and has a
                network that was trained otherwise.
            DatasetError: fewer than two classes, a class with fewer than two images, or a name that no file could hold.
            ImageError: an image can't be read.
        """
        check_torch()
        from sppnet.classification.fitting import fit_frozen, refuse_other_network

        if self._network is not None:
            refuse_other_network(self, self._network)
        done = fit_frozen(self, dataset, cache=cache, progress=progress)
        self._computes, self._network, self._stored = done.computes, done.network, None
        self.class_names_, self.scale_, self.metadata_ = dataset.class_names, done.scale, {"training": done.training}
        return self

    def vectors(
        self,
        paths: Sequence[Path],
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = no_progress,
    ) -> F32:
        """Pool images to the vectors that the fully connected layers get.

        Args:
            paths: of the images.
            cache: folder for pooled vectors; what is there isn't computed again.
            progress: shows how far it is.

        Returns:
            float32 ``(n, dims)``, the mean over the views.

        Raises:
            ImageError: an image can't be read.
            NotFittedError: neither trained nor loaded.
        """
        return pooled_vectors(self._fitted(), self.views, paths, cache=cache, progress=progress)

    # --- use ---------------------------------------------------------------------------------------------------------

    @classmethod
    def from_network(
        cls,
        network: SPPClassifier,
        class_names: Sequence[str],
        views: Sequence[AnyView] = (View(),),
        *,
        scale: float = 1.0,
        metadata: dict[str, Any] | None = None,
        device: str | None = None,
    ) -> ImageClassifier:
        """Make a classifier of a trained network.

        Args:
            network: is used itself, not copied.
            class_names: of its outputs.
            views: of an image that are classified; outputs are averaged over them.
            scale: probabilities are ``softmax(scale * outputs)``.
            metadata: how it was trained, and what was measured.
            device: the network is moved there. None leaves it where it is.

        Returns:
            The classifier.

        Raises:
            ArgumentError: the number of names isn't that of the outputs; views are none; or there is no such device.
        """
        views = check_views(views)
        check_number("scale", scale, -1e6, 1e6)
        if len(class_names) != network.num_classes:
            raise ArgumentError(f"class_names: got {len(class_names)} for {network.num_classes} outputs")
        from sppnet.classification.classifier import FixedPool
        from sppnet.classification.torch_network import TorchNetwork

        device = str(network.last.weight.device) if device is None else device
        pyramid = None if isinstance(network.pool, FixedPool) else (network.pool.levels, network.pool.mode)
        parameters = _parameters(pyramid, metadata or {})
        classifier = cls(network.backbone.name, views=views, device=device, **parameters)
        classifier._network = network.eval().to(as_device(device))
        classifier._computes = TorchNetwork(classifier._network)
        classifier.class_names_ = tuple(class_names)
        classifier.scale_ = float(scale)
        classifier.metadata_ = metadata or {}
        return classifier

    @property
    def network_(self) -> SPPClassifier:
        """The network of torch: the one of :meth:`from_network` itself; otherwise a copy, to look at or to train on.

        Raises:
            NotFittedError: neither trained nor loaded.
            MissingDependencyError: torch isn't installed.
        """
        self.check_fitted()
        if self._network is None:
            check_torch()
            self._network = imagenet_classifier() if self._stored is None else self._stored.torch_network()
            self._network.eval().to(as_device(self.device))
        return self._network

    def with_views(self, choice: str | None = None, scales_px: Sequence[int] | None = None) -> ImageClassifier:
        """Make a classifier with the same network and other views.

        Args:
            choice: ``full``: all of the image at once. ``10`` or ``96``: so many windows of its feature maps. None: as
                now.
            scales_px: short sides of the image. None: as now.

        Returns:
            The other classifier.

        Raises:
            ArgumentError: an unknown choice, or windows of feature maps for a network without pyramid.
        """
        if choice in ("10", "96") and not self._fitted().has_pyramid:
            raise ArgumentError(f"views {choice}: this model has no pyramid, so it can't pool windows of a feature map")
        other = copy.copy(self)
        options = self.metadata_.get("training", {}).get("options", {})
        # a network that was trained on squares looks at larger images by itself; windows are those squares
        trained = max(options["sizes_px"]) if options.get("how") == "crop" and options.get("sizes_px") else None
        other.views = choose_views(self.views, choice, scales_px, window_px=trained)
        return other

    @survives_fork
    def scores(self, image: ImageSource) -> F32:
        """Compute the outputs for one image; ``softmax(scale_ * outputs)`` are the probabilities.

        Outputs are the margins of the SVMs, averaged over the views. For a network that was trained whole, they are the
        logarithms of the probabilities, which are averaged over the views (paper, section 3.1.5), divided by
        ``scale_``.

        Args:
            image: a path, a Pillow image or an array, see :func:`~sppnet.images.load_image`.

        Returns:
            float32 ``(classes,)``.

        Raises:
            ImageError: the image can't be read.
            NotFittedError: neither trained nor loaded.
        """
        network = self._fitted()
        vectors = network.vectors(load_image(image), self.views)
        if network.linear:  # the mean of the margins is the margin of the mean
            margins: F32 = network.outputs(vectors.mean(0)[None])[0]
            return margins
        logits = network.outputs(vectors).astype(np.float64) * self.scale_
        logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
        outputs = np.logaddexp.reduce(logits, axis=0) - math.log(len(logits))
        scores: F32 = (outputs / self.scale_).astype(np.float32)
        return scores

    def classify(self, image: ImageSource, top: int = 5) -> list[Guess]:
        """Find the most probable classes of one image.

        Args:
            image: a path, a Pillow image or an array, see :func:`~sppnet.images.load_image`.
            top: how many classes.

        Returns:
            The classes, best first.

        Raises:
            ImageError: the image can't be read.
            NotFittedError: neither trained nor loaded.
            ArgumentError: ``top`` is no whole number from 1.
        """
        top = check_whole("top", top, 1, MAX_TOP)
        scores = self.scores(image).astype(np.float64) * self.scale_
        p = np.exp(scores - scores.max())
        p /= p.sum()
        order = np.argsort(-p, kind="stable")[:top]
        return [Guess(self.class_names_[i], float(p[i]), int(i)) for i in order]

    def check_fitted(self) -> None:
        """Check that it can be used.

        Raises:
            NotFittedError: neither trained nor loaded.
        """
        self._fitted()

    def _fitted(self) -> Network:
        if self._computes is None:
            raise NotFittedError(
                "this ImageClassifier is not trained: call fit(dataset), or use ImageClassifier.load(path)"
            )
        return self._computes

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file: matrices as float16, and JSON. Published convolutions are named, not copied.

        Args:
            path: of the file.

        Raises:
            NotFittedError: there is nothing to save yet.
            ArgumentError: the backbone has a name by which it can't be loaded again (an adapter's, or your own).
            OutputError: it can't be written.
        """
        from sppnet.classification.stored_network import describe_network

        described, arrays = describe_network(self.network_)
        own = {"class_names": list(self.class_names_), "views": [v.to_dict() for v in self.views], "scale": self.scale_}
        version = {"sppnet_version": sppnet.__version__}
        write_classifier(path, self.metadata_ | version | described | own, arrays)

    def as_saved(self) -> ImageClassifier:
        """Make the classifier that will be loaded from its file: what is measured on it holds for the file.

        Returns:
            The other classifier, on the same device.

        Raises:
            ArgumentError: as of :meth:`save`.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "classifier.safetensors"
            self.save(path)
            loaded = self.load(path, device=self.device)
        loaded.weights = self.weights  # so that it can be fitted again
        return loaded

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, device: str = "cpu") -> ImageClassifier:
        """Load a classifier.

        Args:
            path: of a model file. None loads the classifier of the 1000 ImageNet classes (EfficientNet-Lite0).
            device: ``cpu`` or ``cuda``.

        Returns:
            The classifier.

        Raises:
            ModelFileError: the file is missing, damaged or no classifier.
            WeightsError: the weights of its backbone are missing or other ones.
            ArgumentError: there is no such device.
        """
        check_device(device)
        if path is None:
            names = imagenet_class_names()
            if device != "cpu":
                return cls.from_network(imagenet_classifier(), names, IMAGENET_VIEWS, device=device)
            return cls._of_engine(imagenet_engine(), names, IMAGENET_VIEWS, 1.0, {}, None)
        stored = read_classifier(path)
        if device == "cpu" and stored.runs_without_torch:
            network, views = stored.engine_network(), stored.views
            return cls._of_engine(network, stored.class_names, views, stored.scale, stored.notes, stored)
        check_torch()
        return cls.from_network(
            stored.torch_network(), stored.class_names, stored.views, scale=stored.scale, metadata=stored.notes,
            device=device,
        )  # fmt: skip

    @classmethod
    def _of_engine(
        cls,
        network: EngineNetwork,
        class_names: tuple[str, ...],
        views: Sequence[AnyView],
        scale: float,
        metadata: dict[str, Any],
        stored: StoredClassifier | None,
    ) -> ImageClassifier:
        parameters = _parameters((network.levels, network.mode), metadata)
        classifier = cls(network.name, views=tuple(views), **parameters)
        classifier._computes, classifier._stored = network, stored
        classifier.class_names_, classifier.scale_, classifier.metadata_ = class_names, scale, metadata
        return classifier


def _parameters(pyramid: tuple[Sequence[Level], str] | None, metadata: dict[str, Any]) -> dict[str, Any]:
    """Give the parameters of a network that is there, as far as they are known, so that it can be fitted again."""
    known = svm_parameters(metadata.get("training"))
    return known if pyramid is None else known | {"levels": short_levels(pyramid[0]), "mode": pyramid[1]}
