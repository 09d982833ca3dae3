"""Training of a classifier behind frozen convolutions."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sppnet._types import Progress, no_progress
from sppnet.backbones.engines.load import has_engine, load_engine
from sppnet.backbones.registry import backbone_spec, load_backbone
from sppnet.checking import check_one_of, check_whole
from sppnet.classification.checks import FOLDS, SEEDS, check_costs, check_views
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.classifier_file import check_storable_levels, check_storable_views
from sppnet.classification.frozen import cross_validate, fit_scale, fit_svms
from sppnet.classification.networks import EngineNetwork, Network
from sppnet.classification.torch_network import TorchNetwork
from sppnet.classification.vectors import pooled_vectors
from sppnet.datasets.folder import ImageFolder
from sppnet.datasets.seen import seen_digests
from sppnet.devices import as_device
from sppnet.errors import ArgumentError, DatasetError
from sppnet.pooling.bins import MODES, Level, normalise_levels
from sppnet.storage.names import class_names_problem

if TYPE_CHECKING:
    from sppnet.classification.image_classifier import ImageClassifier

__all__ = ["Fitted", "fit_frozen", "refuse_other_network"]

_log = logging.getLogger("sppnet")


@dataclass(frozen=True)
class Fitted:
    """What training gives.

    Attributes:
        network: of torch, with the SVMs as its last layer.
        computes: the same, as it is used.
        scale: turns margins into probabilities.
        training: how it was trained.
    """

    network: SPPClassifier
    computes: Network
    scale: float
    training: dict[str, Any]


def fit_frozen(
    classifier: ImageClassifier,
    dataset: ImageFolder,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> Fitted:
    """Do what :meth:`ImageClassifier.fit` says, with the parameters of ``classifier``, which isn't changed."""
    counts = dataset.counts()
    most = check_whole("folds", classifier.folds, *FOLDS)
    seed = check_whole("seed", classifier.seed, *SEEDS)
    costs = check_costs(classifier.costs)
    levels, views = normalise_levels(classifier.levels), check_views(classifier.views)
    check_one_of("mode", classifier.mode, MODES)
    check_storable_levels(levels)
    check_storable_views(views)
    problem = class_names_problem(dataset.class_names)
    if problem:
        raise DatasetError(f"{dataset!r}: classes: {problem}; no model file could hold it")
    if len(counts) < 2:
        raise DatasetError(f"{dataset!r}: expected at least two classes")
    if counts.min() < 2:
        name = dataset.class_names[int(counts.argmin())]
        raise DatasetError(f"class {name!r} has {counts.min()} images to train on, expected at least 2; add some")
    start = time.perf_counter()
    network, computes = _new_network(classifier, levels, len(counts))
    vectors = torch.from_numpy(pooled_vectors(computes, views, dataset.paths, cache=cache, progress=progress))
    pooled = time.perf_counter()
    folds = max(2, min(most, int(counts.min())))
    trainings = folds * len(costs)
    steps = iter(progress(range(trainings), "cross-validation", total=trainings))
    next(steps, None)

    def step() -> None:
        next(steps, None)

    choice = cross_validate(vectors, dataset.labels, len(counts), costs, folds=folds, seed=seed, step=step)
    for c, accuracy in choice.accuracy.items():
        _log.info(f"C = {c:g}: mean class accuracy {accuracy:.4f} on held-out folds")
    svms = fit_svms(vectors, dataset.labels, len(counts), choice.c)
    network.set_last_layer(svms.weight, svms.bias)
    if isinstance(computes, EngineNetwork):
        computes = computes.with_layers([(svms.weight.numpy(), svms.bias.numpy())])
    training = {
        "data": dataset.name,
        "split": dataset.split,
        "images": len(dataset),
        "seen": seen_digests(dataset.paths),
        "c": choice.c,
        "cross_validation": {f"{c:g}": round(a, 4) for c, a in choice.accuracy.items()},
        "folds": folds,
        "seed": seed,
        "parameters": {"costs": list(costs), "folds": most, "seed": seed},
        "seconds": {"pooling": round(pooled - start, 1), "SVMs": round(time.perf_counter() - pooled, 1)},
        "threads": torch.get_num_threads(),
    }
    return Fitted(network, computes, fit_scale(choice.margins, dataset.labels), training)


def refuse_other_network(classifier: ImageClassifier, network: SPPClassifier) -> None:
    """Refuse to fit a classifier again whose network is of a kind that :func:`fit_frozen` doesn't make.

    Raises:
        ArgumentError: the convolutions were trained, or are those of a weights file that isn't given; or the network
            has no pyramid.
    """
    bone = network.backbone
    advice = "make a new ImageClassifier(...) to be trained"
    if isinstance(network.pool, FixedPool):
        raise ArgumentError(f"this classifier has a network without pyramid, and fit trains one with it; {advice}")
    if classifier.weights is not None or bone.name != classifier.backbone:
        return
    source = backbone_spec(bone.name).source
    if bone.trainable or source is None or bone.weights_sha256 != source.sha256:
        raise ArgumentError(
            f"weights: this classifier has convolutions {bone.name} of its own, and fit would take the published ones; "
            f"give their file (classifier.weights = ...), or {advice}"
        )


def _new_network(classifier: ImageClassifier, levels: tuple[Level, ...], classes: int) -> tuple[SPPClassifier, Network]:
    """The network to be trained, and what computes its vectors."""
    name, weights = classifier.backbone, classifier.weights
    if weights is None and backbone_spec(name).source is None:
        raise ArgumentError(
            f"backbone {name}: has no published weights, so frozen convolutions would know nothing. Take another, give "
            "a weights file (--weights), or train the whole network (--method sgd --from-scratch)"
        )
    bone = load_backbone(name, None if weights is None else Path(weights))
    network = SPPClassifier(bone, levels, classes, mode=classifier.mode, hidden=(), normalise=True)
    network = network.eval().to(as_device(classifier.device))
    if classifier.device == "cpu" and weights is None and has_engine(name):
        return network, EngineNetwork(load_engine(name, "float32"), levels, classifier.mode, True, [])
    return network, TorchNetwork(network)
