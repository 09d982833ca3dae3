"""From a folder of images to a classifier: SVMs on frozen convolutions, or a whole network by gradient descent."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from sppnet._types import OnError, Progress, no_progress
from sppnet.backbones.registry import backbone_spec, load_backbone
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.image_classifier import FROZEN_BACKBONE, ImageClassifier
from sppnet.classification.measure import measure_classifier
from sppnet.classification.processes import Processes, alone
from sppnet.classification.training import TrainingOptions, train_network
from sppnet.classification.views import View
from sppnet.datasets.folder_splits import FolderSplits, refuse_small_classes
from sppnet.datasets.readable import DecodedImages, damage_of, refuse_problems
from sppnet.errors import ArgumentError

__all__ = ["NetworkOptions", "as_saved", "new_frozen_classifier", "readable_splits", "train_by_gradient"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkOptions:
    """The network that :func:`train_by_gradient` trains.

    Attributes:
        backbone: name of the convolutions.
        levels: of the pyramid.
        pyramid: without it a fixed window is pooled, for comparison, and there is one training size.
        mode: of pooling.
        hidden: widths of the fully connected layers before the last.
        dropout: before each of those.
        from_scratch: begin with random weights, not with published ones.
    """

    backbone: str = FROZEN_BACKBONE
    levels: tuple[int, ...] = (3, 2, 1)
    pyramid: bool = True
    mode: Literal["avg", "max"] = "max"
    hidden: tuple[int, ...] = (512,)
    dropout: float = 0.5
    from_scratch: bool = False


def new_frozen_classifier(
    backbone: str = FROZEN_BACKBONE,
    levels: Sequence[int] = (3, 2, 1),
    mode: Literal["avg", "max"] = "avg",
    views: Sequence[View] = (View(),),
    costs: Sequence[float] = (1.0, 10.0, 100.0),
    *,
    seed: int = 0,
) -> ImageClassifier:
    """Make an untrained classifier on frozen convolutions.

    Args:
        backbone: name of the convolutions, which need published weights.
        levels: of the pyramid.
        mode: of pooling.
        views: how an image is looked at.
        costs: of the SVMs; cross-validation takes the best.
        seed: of the folds.

    Raises:
        ArgumentError: the convolutions have no published weights.
    """
    if backbone_spec(backbone).source is None:
        raise ArgumentError(
            f"--backbone {backbone}: has no published weights, so frozen convolutions would know nothing; take "
            "another, or train it: --method sgd --from-scratch"
        )
    return ImageClassifier(backbone, tuple(levels), mode, list(views), tuple(costs), seed=seed)


def as_saved(classifier: ImageClassifier, device: torch.device | None = None) -> ImageClassifier:
    """The classifier as it will be loaded from its file: what is measured is what is saved.

    Args:
        classifier: trained.
        device: where it shall compute.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.safetensors"
        classifier.save(path)
        loaded = ImageClassifier.load(path)
    if device is not None:
        loaded.network_.to(device)
    return loaded


def readable_splits(
    splits: FolderSplits,
    root: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str],
    on_error: OnError = "skip",
    processes: Processes | None = None,
    progress: Progress = no_progress,
) -> FolderSplits:
    """``splits`` without images that can't be decoded. Each process decodes its share.

    Args:
        splits: images to train and to measure on.
        root: their folder, for messages.
        cache: folder that notes which images were decoded.
        on_error: ``skip`` lists damaged images in ``problems``; ``fail`` raises.
        processes: None: this process alone.
        progress: shows how far it is.

    Raises:
        DatasetError: images are damaged, with ``on_error="fail"``; or a class has too few left.
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
    if good.all():
        return splits
    problems = [damage_of(path) for path, fine in zip(paths, good, strict=True) if not fine]
    if on_error == "fail":
        refuse_problems(problems)
    train = splits.train.subset(good[: len(splits.train)])
    train = replace(train, problems=(*splits.train.problems, *problems))
    refuse_small_classes(Path(root), train)
    if splits.validation is None:
        return replace(splits, train=train)
    validation = splits.validation.subset(good[len(splits.train) :])
    return replace(splits, train=train, validation=replace(validation, problems=splits.validation.problems))


def train_by_gradient(
    splits: FolderSplits,
    network_options: NetworkOptions,
    options: TrainingOptions,
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
        checkpoint: file that keeps the state after each epoch; a run that was stopped goes on from there.
        processes: those that train together. None: this process alone.
        progress: shows how far an epoch is.

    Returns:
        The classifier; ``metadata_["training"]["history"]`` has the figures of each epoch.

    Raises:
        ArgumentError: options that don't fit together.
    """
    processes = processes or alone()
    names, sizes, first = splits.train.class_names, options.sizes_px, processes.first
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        network = _network(network_options, sizes, len(names)).to(processes.device)
    if isinstance(network.pool, FixedPool):
        view = View(max(sizes), "crop")
    elif options.how == "full":
        view = View(max(sizes))
    else:  # what is in the image is as large as in the square crops of it
        view = View(round(max(sizes) * 256 / 224))
    validation = splits.validation

    def validate(network: SPPClassifier) -> dict[str, float]:
        assert validation is not None  # noqa: S101 - only called where there is one
        now = ImageClassifier.from_network(network, names, (view,))
        return {"validation_accuracy": measure_classifier(now, validation, processes=processes)[0].top1}

    if first and Path(checkpoint).exists():
        _log.info(f"going on from {checkpoint}")

    history = train_network(
        network,
        splits.train,
        options,
        checkpoint=checkpoint,
        validate=validate if validation is not None else None,
        progress=progress,
        report=_TimeLeft(options.epochs) if first else lambda _entry: None,
    )
    training = {
        "data": splits.train.name,
        "split": splits.train.split,
        "images": len(splits.train),
        "drawn_from": splits.sha256,
        "seed": options.seed,
        "from_scratch": network_options.from_scratch,
        "options": asdict(options),
        "history": history,
        "processes": processes.world,
    }
    return ImageClassifier.from_network(network, names, (view,), metadata={"training": training})


def _network(options: NetworkOptions, sizes: tuple[int, ...], classes: int) -> SPPClassifier:
    if backbone_spec(options.backbone).source is None and not options.from_scratch:
        raise ArgumentError(
            f"--backbone {options.backbone}: has no published weights to begin with; add --from-scratch"
        )
    backbone = load_backbone(options.backbone, pretrained=not options.from_scratch, trainable=True)
    backbone.layers.to(memory_format=torch.channels_last)  # as its input is; a third less time on a CPU
    levels: Sequence[int] | FixedPool = options.levels
    if not options.pyramid:
        (side, *others), step = sizes, backbone.size_multiple
        if others or side % step:
            raise ArgumentError(
                f"--scales {' '.join(map(str, sizes))}: a network without pyramid takes one size, here a multiple of "
                f"{step}"
            )
        levels = FixedPool(3, 2, backbone.map_size(side, side))
    return SPPClassifier(
        backbone, levels, classes, mode=options.mode, hidden=options.hidden, dropout=options.dropout
    )  # fmt: skip


class _TimeLeft:
    """Logs a line for each epoch, with the time that the others will take."""

    def __init__(self, epochs: int, log: Callable[[str], None] = _log.info) -> None:
        self.epochs = epochs
        self.log = log
        self.started = time.perf_counter()
        self.done = 0

    def __call__(self, entry: dict[str, float]) -> None:
        self.done += 1
        each = (time.perf_counter() - self.started) / self.done
        left = each * (self.epochs - entry["epoch"])
        figures = ", ".join(
            f"{name.replace('_', ' ')} {entry[name]:.4f}"
            for name in ("loss", "accuracy", "validation_accuracy")
            if name in entry
        )
        minutes, seconds = divmod(round(left), 60)
        time_left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"
        self.log(f"epoch {entry['epoch']:.0f} of {self.epochs}: {figures} ({each:.3g} s an epoch, {time_left})")
