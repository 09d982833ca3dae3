"""From folders of images to a classifier: which images can be used, and training of a whole network."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

import torch

from sppnet._types import OnError, Progress, no_progress
from sppnet.backbones.registry import backbone_spec, load_backbone
from sppnet.classification.checks import labels_by_name
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.classifier_file import check_storable_views
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.classification.measure import measure_classifier
from sppnet.classification.options import GradientOptions, NetworkOptions
from sppnet.classification.training import train_network
from sppnet.classification.views import View
from sppnet.datasets.folder_splits import FolderSplits, refuse_small_classes
from sppnet.datasets.judging import refuse_many_bad
from sppnet.datasets.readable import DecodedImages, damage_of, refuse_problems
from sppnet.datasets.seen import seen_digests
from sppnet.errors import ArgumentError
from sppnet.evaluation.classification import ClassificationResult
from sppnet.pooling.bins import Levels
from sppnet.processes import Processes, alone

__all__ = [
    "measure_as_saved",
    "new_network",
    "readable_splits",
    "train_by_gradient",
    "train_frozen",
]

_log = logging.getLogger("sppnet")


def readable_splits(
    splits: FolderSplits,
    root: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str],
    on_error: OnError = "skip",
    processes: Processes | None = None,
    progress: Progress = no_progress,
) -> FolderSplits:
    """Leave out images that can't be decoded, before hours of training. Each process decodes its share.

    Args:
        splits: images to train and to measure on.
        root: their folder, for messages.
        cache: folder that notes which images were decoded.
        on_error: ``skip`` lists damaged images in ``problems``; ``fail`` raises.
        processes: those that train together. None: this process alone.
        progress: shows how far it is.

    Returns:
        The splits without damaged images.

    Raises:
        DatasetError: images are damaged, with ``on_error="fail"``; more than a tenth are; or a class has too few left.
    """
    processes = processes or alone()
    both = [data for data in (splits.train, splits.validation) if data is not None]
    paths = [path for data in both for path in data.paths]
    known = DecodedImages(Path(cache))
    todo = [i for i in processes.share(len(paths)) if paths[i] not in known]
    bad = torch.zeros(len(paths))
    for i in progress(todo, "checking images", total=len(todo)):
        bad[i] = float(bool(damage_of(paths[i])))
    good = (processes.total(bad) == 0).numpy()
    if processes.first:
        known.add(path for path, fine in zip(paths, good, strict=True) if fine)
    if good.all() and not any(data.problems for data in both):
        return splits
    problems = [damage_of(path) for path, fine in zip(paths, good, strict=True) if not fine]
    if on_error == "fail":
        refuse_problems(problems)
    unreadable = [*(problem for data in both for problem in data.problems), *problems]
    refuse_many_bad(os.fspath(root), len(paths) + len(unreadable) - len(problems), len(unreadable), unreadable, "")
    if not problems:
        return splits
    train = splits.train.subset(good[: len(splits.train)])
    train = replace(train, problems=(*splits.train.problems, *problems))
    refuse_small_classes(Path(root), train)
    if splits.validation is None:
        return replace(splits, train=train)
    validation = splits.validation.subset(good[len(splits.train) :])
    return replace(splits, train=train, validation=replace(validation, problems=splits.validation.problems))


def train_frozen(
    splits: FolderSplits,
    classifier: ImageClassifier,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> ImageClassifier:
    """Train linear SVMs on frozen convolutions.

    Args:
        splits: images to train on.
        classifier: not trained yet; says which convolutions, pyramid and views.
        cache: folder from which a stopped training goes on, see :meth:`ImageClassifier.fit`.
        progress: shows how far it is.

    Returns:
        The classifier itself, which knows by its metadata which images were kept to measure on.

    Raises:
        ArgumentError: options that don't fit together.
        DatasetError: images to measure on have a class that those to train on lack.
        ImageError: an image can't be read.
    """
    _check_validation(splits)
    classifier.fit(splits.train, cache=cache, progress=progress)
    classifier.metadata_["training"]["drawn_from"] = splits.sha256
    return classifier


def measure_as_saved(
    classifier: ImageClassifier,
    splits: FolderSplits,
    *,
    processes: Processes | None = None,
    progress: Progress = no_progress,
) -> tuple[ImageClassifier, ClassificationResult | None]:
    """Measure a trained classifier as it will be loaded from its file.

    Args:
        classifier: trained.
        splits: images to measure on, or none.
        processes: each measures its share. None: this process alone.
        progress: shows how far it is.

    Returns:
        The classifier with what was measured in its metadata, to be saved; and the figures, or None.
    """
    saved, validation = classifier.as_saved(), splits.validation
    if validation is None:
        return saved, None
    result, _ = measure_classifier(saved, validation, processes=processes, progress=progress)
    saved.metadata_["metrics"] = result.to_dict() | {"data": f"{validation.name} {validation.split}".strip()}
    return saved, result


def train_by_gradient(
    splits: FolderSplits,
    network_options: NetworkOptions,
    options: GradientOptions,
    *,
    checkpoint: str | os.PathLike[str],
    processes: Processes | None = None,
    progress: Progress = no_progress,
) -> ImageClassifier:
    """Train a whole network by gradient descent.

    Args:
        splits: images to train on, and images to measure on after each epoch, or None.
        network_options: the network.
        options: of the training.
        checkpoint: file that keeps the state after each epoch; a stopped training goes on from there.
        processes: those that train together. None: this process alone, on the CPU.
        progress: shows how far an epoch is.

    Returns:
        The classifier; ``metadata_["training"]["history"]`` has the figures of each epoch.

    Raises:
        ArgumentError: options that don't fit together; or the loss is no longer a number.
        DatasetError: images to measure on have a class that those to train on lack.
        ModelFileError: the checkpoint is of another training.
        ImageError: an image can't be read.
    """
    processes = processes or alone()
    names, sizes = splits.train.class_names, options.sizes_px
    _check_validation(splits)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        network = new_network(network_options, len(names), sizes).to(processes.device)
    if isinstance(network.pool, FixedPool):
        view = View(max(sizes), "crop")
    elif options.how == "full":
        view = View(max(sizes))
    else:  # what is in the image is as large as in the square crops of it
        view = View(round(max(sizes) * 256 / 224))
    check_storable_views((view,))
    validation = splits.validation

    def validate(network: SPPClassifier) -> dict[str, float]:
        if validation is None:
            return {}
        now = ImageClassifier.from_network(network, names, (view,))
        return {"validation_accuracy": measure_classifier(now, validation, processes=processes)[0].top1}

    if processes.first and Path(checkpoint).exists():
        _log.info(f"going on from {os.fspath(checkpoint)}")
    history = train_network(
        network, splits.train, options, checkpoint=checkpoint, validate=validate, progress=progress
    )  # fmt: skip
    training = {
        "data": splits.train.name,
        "split": splits.train.split,
        "images": len(splits.train),
        "seen": seen_digests(splits.train.paths),
        "drawn_from": splits.sha256,
        "seed": options.seed,
        "from_scratch": network_options.from_scratch,
        "options": asdict(options),
        "history": history,
        "processes": processes.world,
    }
    return ImageClassifier.from_network(network, names, (view,), metadata={"training": training})


def _check_validation(splits: FolderSplits) -> None:
    """Refuse classes that won't be known, before hours of training."""
    if splits.validation is not None:
        labels_by_name(splits.train.class_names, splits.validation)


def new_network(options: NetworkOptions, num_classes: int, sizes_px: tuple[int, ...]) -> SPPClassifier:
    """Build a network to be trained whole.

    Args:
        options: of the network.
        num_classes: number of outputs.
        sizes_px: sides at which it will be trained; matters only without pyramid.

    Returns:
        The network; fully connected layers have random weights (from torch's generator).

    Raises:
        ArgumentError: the convolutions have no published weights, and neither a weights file nor random weights are
            asked for; or a network without pyramid has several sizes, or one that isn't a multiple of the stride.
    """
    name = options.backbone
    if backbone_spec(name).source is None and not options.from_scratch and options.weights is None:
        raise ArgumentError(
            f"backbone {name}: has no published weights to begin with; give a weights file (--weights), or begin with "
            "random weights (--from-scratch)"
        )
    path = None if options.weights is None else Path(options.weights)
    backbone = load_backbone(name, path, pretrained=not options.from_scratch, trainable=True)
    backbone.layers.to(memory_format=torch.channels_last)  # as its input is; a third less time on a CPU
    levels: Levels | FixedPool = options.levels
    if not options.pyramid:
        (side, *others), step = sizes_px, backbone.size_multiple
        if others or side % step:
            raise ArgumentError(
                f"sizes {' '.join(map(str, sizes_px))} px: a network without pyramid takes one size, here a multiple "
                f"of {step}"
            )
        levels = FixedPool(3, 2, backbone.map_size(side, side))
    return SPPClassifier(
        backbone, levels, num_classes, mode=options.mode, hidden=options.hidden, dropout=options.dropout
    )  # fmt: skip
