"""Photos in, class names out: a classifier with its way of looking at photos, to be trained, kept, and used."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sppnet
from sppnet._types import Progress, no_progress
from sppnet.backbones.registry import Backbone, load_backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.classifier_file import ClassifierFile, read_classifier, write_classifier
from sppnet.classification.frozen import cross_validate, fit_scale, fit_svms
from sppnet.classification.imagenet import imagenet_class_names, imagenet_classifier
from sppnet.classification.multiview import AnyView, chosen_views, view_vectors
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder
from sppnet.errors import ArgumentError, DatasetError, ImageError, NotFittedError
from sppnet.images import ImageSource, load_image
from sppnet.pooling.pyramid import SpatialPyramidPool
from sppnet.storage.feature_cache import FeatureCache

__all__ = ["FROZEN_BACKBONE", "IMAGENET_VIEWS", "Guess", "ImageClassifier"]

FROZEN_BACKBONE = "efficientnet-lite0+stride32"
IMAGENET_VIEWS = (View(224), View(224, "crop"))
"""All of the photo, and its middle, where photographers put what matters and for which the weights were trained."""


@dataclass(frozen=True)
class Guess:
    """One of the classes a photo may belong to. ``probability`` is in [0, 1]; ``index`` is that of the class."""

    class_name: str
    probability: float
    index: int


class ImageClassifier:
    """Classifies photos of any size and aspect: frozen convolutions, pyramid pooling, one linear SVM a class.

    ``ImageClassifier.load()`` gives the classifier of the 1000 ImageNet classes. :meth:`from_network` wraps a network
    that was trained otherwise.

    Args:
        backbone: name of the convolutions, see :func:`sppnet.backbones.registry.load_backbone`.
        levels: of the pyramid. mode: ``avg`` or ``max``.
        views: how a photo is looked at (:class:`~sppnet.classification.views.View`, or windows of maps:
            :class:`~sppnet.classification.multiview.MapViews`); pooled vectors are averaged over the views.
        costs: of the SVMs; cross-validation on the training photos chooses one. folds: of the cross-validation.
        seed: of the folds.

    Attributes:
        network_: the :class:`~sppnet.classification.classifier.SPPClassifier`, after ``fit`` or ``load``.
        class_names_: of its outputs.
        scale_: probabilities are ``softmax(scale_ * outputs)``.
        metadata_: how it was trained, and what was measured.
    """

    def __init__(
        self,
        backbone: str = FROZEN_BACKBONE,
        levels: Sequence[int] = (3, 2, 1),
        mode: str = "avg",
        views: Sequence[AnyView] = (View(),),
        costs: Sequence[float] = (1.0, 10.0, 100.0),
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.levels = levels
        self.mode = mode
        self.views = views
        self.costs = costs
        self.folds = folds
        self.seed = seed
        self._network: Backbone | None = None

    # --- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        dataset: ImageFolder,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = no_progress,
        report: Callable[[str], None] = lambda _line: None,
    ) -> ImageClassifier:
        """Pool every photo, choose C by cross-validation, train the SVMs.

        Args:
            cache: folder for pooled vectors; what is there already isn't computed again, so that a training that was
                stopped goes on from there. None keeps them in memory.

        Raises:
            DatasetError: fewer than two classes, or a class with fewer than two photos.
            ImageError: a photo can't be read.
        """
        counts = dataset.counts()
        if len(counts) < 2:
            raise DatasetError(f"{dataset!r}: expected at least two classes")
        if counts.min() < 2:
            name = dataset.class_names[int(counts.argmin())]
            raise DatasetError(f"class {name!r} has {counts.min()} photos to train on, expected at least 2; add some")
        start = time.perf_counter()
        network = self._new_network(len(counts))
        vectors = self.vectors(dataset.paths, network, cache=cache, progress=progress)
        pooled = time.perf_counter()
        folds = max(2, min(self.folds, int(counts.min())))
        bar = iter(progress(range(folds * len(self.costs)), "cross-validation", total=folds * len(self.costs)))

        next(bar, None)

        def step() -> None:
            next(bar, None)

        choice = cross_validate(
            vectors, dataset.labels, len(counts), self.costs, folds=folds, seed=self.seed, step=step
        )  # fmt: skip
        for c, accuracy in choice.accuracy.items():
            report(f"C = {c:g}: mean class accuracy {accuracy:.4f} on held-out folds")
        svms = fit_svms(vectors, dataset.labels, len(counts), choice.c)
        self.network_ = network.set_last_layer(svms.weight, svms.bias).eval()
        self.class_names_ = dataset.class_names
        self.scale_ = fit_scale(choice.margins, dataset.labels)
        self.metadata_: dict[str, Any] = {
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
        if self._network is None or self._network.name != self.backbone:
            self._network = load_backbone(self.backbone)
        return SPPClassifier(
            self._network, tuple(self.levels), classes, mode=self.mode, hidden=(), normalise=True
        ).eval()  # fmt: skip

    @torch.inference_mode()
    def vectors(
        self,
        paths: Sequence[Path],
        network: SPPClassifier | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = no_progress,
    ) -> Tensor:
        """Pooled vectors ``(n, dims)`` of photos, the mean over the views, float32."""
        network = network or self._fitted()
        store = FeatureCache(cache) if cache is not None else None
        bone = network.backbone
        settings = (
            "classification", bone.name, _weights_id(bone) if store is not None else "", str(network.pool),
            network.normalise, [v.to_dict() for v in self.views],
        )  # fmt: skip
        out = torch.empty(len(paths), network.dims)
        for i in progress(range(len(paths)), "pooling", total=len(paths)):
            try:
                key = store.key(paths[i], *settings) if store is not None else ""
            except OSError as error:
                raise ImageError(f"{paths[i]}: can't be read ({error.strerror})") from None
            known = store.get(key) if store is not None else None
            if known is None:
                known = {"vector": self._pooled(network, load_image(paths[i])).to("cpu", torch.float16)}
                if store is not None:
                    store.put(key, known)
            out[i] = known["vector"].float()
        return out

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
    ) -> ImageClassifier:
        """A trained network with the names of its outputs and a way to look at photos.

        Raises:
            ArgumentError: the number of names isn't that of the outputs.
        """
        if len(class_names) != network.num_classes:
            raise ArgumentError(f"class_names: got {len(class_names)} for {network.num_classes} outputs")
        classifier = cls(network.backbone.name, views=tuple(views))
        classifier.network_ = network.eval()
        classifier.class_names_ = tuple(class_names)
        classifier.scale_ = scale
        classifier.metadata_ = metadata or {}
        return classifier

    def with_views(self, choice: str | None = None, scales_px: Sequence[int] | None = None) -> ImageClassifier:
        """The same classifier, which looks at images in another way.

        Args:
            choice: ``full``: all of the image at once; ``10`` or ``96``: so many windows of its feature maps. None:
                as it does now.
            scales_px: short sides of the image. None: as they are now.

        Raises:
            ArgumentError: an unknown choice, or windows of maps for a network without pyramid.
        """
        if choice in ("10", "96") and not isinstance(self._fitted().pool, SpatialPyramidPool):
            raise ArgumentError(f"--views {choice}: this model has no pyramid, so it can't pool windows of a map")
        other = copy.copy(self)
        other.views = chosen_views(self.views, choice, scales_px)
        return other

    @torch.inference_mode()
    def scores(self, image: ImageSource) -> NDArray[np.float32]:
        """Outputs ``(classes,)`` for one photo: ``softmax(scale_ * outputs)`` are the probabilities.

        Margins of the SVMs, averaged over the views; of another network the logarithm of the probabilities, which are
        averaged over the views (as in the paper's section 3.1.5), divided by ``scale_``.

        Raises:
            ImageError: the photo can't be read. NotFittedError: neither trained nor loaded.
        """
        network = self._fitted()
        pixels = load_image(image)
        if network.normalise and len(network.fc) == 1:  # the mean of the margins is the margin of the mean
            outputs = network.fc(self._pooled(network, pixels)[None])[0]
        else:
            logits = network.fc(view_vectors(network, pixels, self.views)).double() * self.scale_
            outputs = (logits.log_softmax(1).logsumexp(0) - math.log(len(logits))) / self.scale_
        return np.asarray(outputs.float().cpu().numpy(), np.float32)

    def classify(self, image: ImageSource, top: int = 5) -> list[Guess]:
        """The ``top`` most probable classes of one photo, best first.

        Raises:
            ImageError: the photo can't be read. NotFittedError: neither trained nor loaded. ArgumentError: ``top``.
        """
        if top < 1:
            raise ArgumentError(f"top: got {top}, expected at least 1")
        scores = self.scores(image).astype(np.float64) * self.scale_
        p = np.exp(scores - scores.max())
        p /= p.sum()
        order = np.argsort(-p, kind="stable")[:top]
        return [Guess(self.class_names_[i], float(p[i]), int(i)) for i in order]

    def _pooled(self, network: SPPClassifier, pixels: NDArray[np.uint8]) -> Tensor:
        return view_vectors(network, pixels, self.views).mean(0)

    def _fitted(self) -> SPPClassifier:
        network: SPPClassifier | None = getattr(self, "network_", None)
        if network is None:
            raise NotFittedError(
                "this ImageClassifier is not trained: call fit(dataset), or use ImageClassifier.load(path)"
            )
        return network

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file: matrices as float16, and JSON. Frozen convolutions are named, not copied.

        Raises:
            NotFittedError: there is nothing to save yet.
            ArgumentError: the backbone has a name by which it can't be loaded again (an adapter's, or your own).
        """
        content = ClassifierFile(self._fitted(), self.class_names_, tuple(self.views), self.scale_, self.metadata_)
        write_classifier(path, content, sppnet.__version__)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> ImageClassifier:
        """The classifier of a model file; without one, that of the 1000 ImageNet classes (EfficientNet-Lite0).

        Raises:
            ModelFileError: the file is missing, damaged or no classifier.
            WeightsError: the weights of its backbone are missing or other ones.
        """
        if path is None:
            return cls.from_network(imagenet_classifier(), imagenet_class_names(), IMAGENET_VIEWS)
        found = read_classifier(path)
        return cls.from_network(
            found.network, found.class_names, found.views, scale=found.scale, metadata=found.metadata
        )


def _weights_id(backbone: Backbone) -> str:
    """What tells weights from others: the digest of the published file, or of the values where they aren't those."""
    if backbone.weights_sha256 and not backbone.trainable:
        return backbone.weights_sha256
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
