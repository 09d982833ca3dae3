"""Classifier of images: frozen convolutions, pyramid pooling and linear SVMs, or a network that was trained whole."""

from __future__ import annotations

import copy
import logging
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sppnet
from sppnet._types import F32, Progress, no_progress
from sppnet.backbones.registry import backbone_spec, load_backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.classifier_file import ClassifierFile, read_classifier, write_classifier
from sppnet.classification.frozen import cross_validate, fit_scale, fit_svms
from sppnet.classification.imagenet import imagenet_class_names, imagenet_classifier
from sppnet.classification.multiview import AnyView, choose_views, view_vectors
from sppnet.classification.options import FROZEN_BACKBONE
from sppnet.classification.vectors import pooled_vectors
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder
from sppnet.devices import as_device, plain_inference
from sppnet.errors import ArgumentError, DatasetError, NotFittedError
from sppnet.images import ImageSource, load_image
from sppnet.pooling.tensors.layers import SpatialPyramidPool

__all__ = ["IMAGENET_VIEWS", "Guess", "ImageClassifier"]

IMAGENET_VIEWS = (View(224), View(224, "crop"))
"""All of the image, and its middle, where photographers put the subject and for which the weights were trained."""

_log = logging.getLogger("sppnet")


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

    Attributes:
        network_: the :class:`~sppnet.classification.classifier.SPPClassifier`, after ``fit`` or ``load``.
        class_names_: of its outputs.
        scale_: probabilities are ``softmax(scale_ * outputs)``.
        metadata_: how it was trained, and what was measured.
    """

    network_: SPPClassifier
    class_names_: tuple[str, ...]
    scale_: float
    metadata_: dict[str, Any]

    def __init__(
        self,
        backbone: str = FROZEN_BACKBONE,
        levels: Sequence[int] = (3, 2, 1),
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
            ArgumentError: the convolutions have neither published weights nor a weights file; or there is no such
                device.
            DatasetError: fewer than two classes, or a class with fewer than two images.
            ImageError: an image can't be read.
        """
        counts = dataset.counts()
        if len(counts) < 2:
            raise DatasetError(f"{dataset!r}: expected at least two classes")
        if counts.min() < 2:
            name = dataset.class_names[int(counts.argmin())]
            raise DatasetError(f"class {name!r} has {counts.min()} images to train on, expected at least 2; add some")
        start = time.perf_counter()
        network = self._new_network(len(counts))
        vectors = pooled_vectors(network, self.views, dataset.paths, cache=cache, progress=progress)
        pooled = time.perf_counter()
        folds = max(2, min(self.folds, int(counts.min())))
        steps = iter(progress(range(folds * len(self.costs)), "cross-validation", total=folds * len(self.costs)))
        next(steps, None)

        def step() -> None:
            next(steps, None)

        choice = cross_validate(
            vectors, dataset.labels, len(counts), self.costs, folds=folds, seed=self.seed, step=step
        )  # fmt: skip
        for c, accuracy in choice.accuracy.items():
            _log.info(f"C = {c:g}: mean class accuracy {accuracy:.4f} on held-out folds")
        svms = fit_svms(vectors, dataset.labels, len(counts), choice.c)
        self.network_ = network.set_last_layer(svms.weight, svms.bias).eval()
        self.class_names_ = dataset.class_names
        self.scale_ = fit_scale(choice.margins, dataset.labels)
        self.metadata_ = {
            "training": {
                "data": dataset.name,
                "split": dataset.split,
                "images": len(dataset),
                "c": choice.c,
                "cross_validation": {f"{c:g}": round(a, 4) for c, a in choice.accuracy.items()},
                "folds": folds,
                "seed": self.seed,
                "seconds": {
                    "pooling": round(pooled - start, 1),
                    "SVMs": round(time.perf_counter() - pooled, 1),
                },
                "threads": torch.get_num_threads(),
            }
        }
        return self

    def _new_network(self, classes: int) -> SPPClassifier:
        if self.weights is None and backbone_spec(self.backbone).source is None:
            raise ArgumentError(
                f"backbone {self.backbone}: has no published weights, so frozen convolutions would know nothing. Take "
                "another, give a weights file (--weights), or train the whole network (--method sgd --from-scratch)"
            )
        bone = load_backbone(self.backbone, None if self.weights is None else Path(self.weights))
        network = SPPClassifier(bone, tuple(self.levels), classes, mode=self.mode, hidden=(), normalise=True)
        return network.eval().to(as_device(self.device))

    def vectors(
        self,
        paths: Sequence[Path],
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = no_progress,
    ) -> Tensor:
        """Pool images to the vectors that the fully connected layers get.

        Args:
            paths: of the images.
            cache: folder for pooled vectors; what is there isn't computed again.
            progress: shows how far it is.

        Returns:
            float32 ``(n, dims)``, the mean over the views, on the CPU.

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
            ArgumentError: the number of names isn't that of the outputs, or there is no such device.
        """
        if len(class_names) != network.num_classes:
            raise ArgumentError(f"class_names: got {len(class_names)} for {network.num_classes} outputs")
        device = str(_device_of(network)) if device is None else device
        classifier = cls(network.backbone.name, views=tuple(views), device=device)
        classifier.network_ = network.eval().to(as_device(device))
        classifier.class_names_ = tuple(class_names)
        classifier.scale_ = scale
        classifier.metadata_ = metadata or {}
        return classifier

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
        if choice in ("10", "96") and not isinstance(self._fitted().pool, SpatialPyramidPool):
            raise ArgumentError(f"views {choice}: this model has no pyramid, so it can't pool windows of a feature map")
        other = copy.copy(self)
        other.views = choose_views(self.views, choice, scales_px)
        return other

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
        pixels = load_image(image)
        with plain_inference():
            if network.normalise and len(network.fc) == 1:  # the mean of the margins is the margin of the mean
                outputs = network.fc(view_vectors(network, pixels, self.views).mean(0)[None])[0]
            else:
                logits = network.fc(view_vectors(network, pixels, self.views)).double() * self.scale_
                outputs = (logits.log_softmax(1).logsumexp(0) - math.log(len(logits))) / self.scale_
            return np.asarray(outputs.float().cpu().numpy(), np.float32)

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
            ArgumentError: ``top`` is less than 1.
        """
        if top < 1:
            raise ArgumentError(f"top: got {top}, expected at least 1")
        scores = self.scores(image).astype(np.float64) * self.scale_
        p = np.exp(scores - scores.max())
        p /= p.sum()
        order = np.argsort(-p, kind="stable")[:top]
        return [Guess(self.class_names_[i], float(p[i]), int(i)) for i in order]

    def _fitted(self) -> SPPClassifier:
        network: SPPClassifier | None = getattr(self, "network_", None)
        if network is None:
            raise NotFittedError(
                "this ImageClassifier is not trained: call fit(dataset), or use ImageClassifier.load(path)"
            )
        return network

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
        content = ClassifierFile(self._fitted(), self.class_names_, tuple(self.views), self.scale_, self.metadata_)
        write_classifier(path, content, sppnet.__version__)

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
            return self.load(path, device=self.device)

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
        as_device(device)
        if path is None:
            return cls.from_network(imagenet_classifier(), imagenet_class_names(), IMAGENET_VIEWS, device=device)
        found = read_classifier(path)
        return cls.from_network(
            found.network, found.class_names, found.views, scale=found.scale, metadata=found.metadata, device=device
        )


def _device_of(network: SPPClassifier) -> torch.device:
    return network.last.weight.device
