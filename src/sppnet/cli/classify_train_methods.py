"""The two ways in which ``sppnet classify-train`` trains: linear SVMs on frozen convolutions, and gradient descent."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from sppnet.cli.classify_eval import measure
from sppnet.cli.common import progress

if TYPE_CHECKING:
    import torch

    from sppnet.classification.classifier import SPPClassifier
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.multisize import Batch
    from sppnet.classification.processes import Processes
    from sppnet.datasets.folder_splits import FolderSplits

__all__ = ["as_saved", "fit_svms", "train_by_gradient"]


def as_saved(classifier: ImageClassifier, device: torch.device) -> ImageClassifier:
    """The same as it will be loaded from its file, on ``device``: what is measured is what is saved."""
    from sppnet.classification.image_classifier import ImageClassifier

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.safetensors"
        classifier.save(path)
        loaded = ImageClassifier.load(path)
    loaded.network_.to(device)
    return loaded


def fit_svms(
    arguments: argparse.Namespace, parts: FolderSplits, cache: Path, _processes: Processes
) -> ImageClassifier:  # fmt: skip
    """Frozen convolutions, pooled vectors, one linear SVM a class. Vectors are kept in ``cache``."""
    from sppnet.backbones.registry import backbone_spec
    from sppnet.classification.image_classifier import FROZEN_BACKBONE, ImageClassifier
    from sppnet.classification.views import View
    from sppnet.errors import ArgumentError

    name = arguments.backbone or FROZEN_BACKBONE
    if backbone_spec(name).source is None:
        raise ArgumentError(
            f"--backbone {name}: has no published weights, so there is nothing to leave as it is; take another, or "
            "train it: --method sgd --from-scratch"
        )
    flips = (False, True) if arguments.flip else (False,)
    classifier = ImageClassifier(
        name,
        tuple(arguments.levels),
        arguments.mode or "avg",
        [View(side, arguments.view or "full", flip) for side in arguments.sizes or (224,) for flip in flips],
        tuple(arguments.costs),
        seed=arguments.seed,
    )

    def bar(items: Iterable[int], what: str, total: int) -> Iterable[int]:
        unit = "image" if what == "pooling" else "part"
        return progress(items, what, total=total, quiet=arguments.quiet, unit=unit)

    classifier.fit(parts.train, cache=cache, progress=bar, report=print)
    classifier.metadata_["training"]["drawn_from"] = parts.sha256
    return classifier


def train_by_gradient(
    arguments: argparse.Namespace, parts: FolderSplits, cache: Path, processes: Processes
) -> ImageClassifier:  # fmt: skip
    """The whole network by gradient descent. The state after every epoch is kept in ``cache``."""
    import torch

    from sppnet.classification.classifier import FixedPool
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.training import TrainingOptions, plot_history, train_network
    from sppnet.classification.views import View
    from sppnet.errors import MissingDependencyError

    sizes = tuple(arguments.sizes or ((224,) if arguments.no_pyramid else (224, 180)))
    options = TrainingOptions(
        epochs=arguments.epochs, batch_size=arguments.batch_size, sizes_px=sizes, size_choice=arguments.size_choice,
        how=arguments.view or "crop", learning_rate=arguments.learning_rate, precision=arguments.precision,
        seed=arguments.seed,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(arguments.seed)
        network = _network(arguments, sizes, len(parts.train.class_names)).to(processes.device)
    if isinstance(network.pool, FixedPool):
        view = View(max(sizes), "crop")
    elif options.how == "full":
        view = View(max(sizes))
    else:  # what is in the photo is as large as in the square crops of it
        view = View(round(max(sizes) * 256 / 224))
    names = parts.train.class_names
    validation = parts.validation

    def validate(network: SPPClassifier) -> dict[str, float]:
        assert validation is not None
        now = ImageClassifier.from_network(network, names, (view,))
        return {"validation_accuracy": measure(now, validation, processes, quiet=arguments.quiet)[0].top1}

    def bar(items: Iterable[Batch], what: str, total: int) -> Iterable[Batch]:
        quiet = arguments.quiet or not processes.first
        return progress(items, what, total=total, quiet=quiet, unit="batch")

    checkpoint = cache / "training.safetensors"
    if processes.first and checkpoint.exists():
        print(f"going on from {checkpoint}")
    history = train_network(
        network,
        parts.train,
        options,
        checkpoint=checkpoint,
        validate=validate if validation is not None else None,
        progress=bar,
        report=_TimeLeft(options.epochs) if processes.first else lambda _entry: None,
    )
    if processes.first:
        curve = Path(arguments.output).with_name(f"{Path(arguments.output).stem}-curve.png")
        try:
            plot_history(history, curve)
            print(f"learning curve: {curve}")
        except MissingDependencyError as error:
            print(f"no learning curve: {error}")
    training = {
        "data": parts.train.name,
        "split": parts.train.split,
        "images": len(parts.train),
        "drawn_from": parts.sha256,
        "seed": arguments.seed,
        "from_scratch": arguments.from_scratch,
        "options": asdict(options),
        "history": history,
        "processes": processes.world,
    }
    return ImageClassifier.from_network(network, names, (view,), metadata={"training": training})


def _network(arguments: argparse.Namespace, sizes: tuple[int, ...], classes: int) -> SPPClassifier:
    import torch

    from sppnet.backbones.registry import backbone_spec, load_backbone
    from sppnet.classification.classifier import FixedPool, SPPClassifier
    from sppnet.classification.image_classifier import FROZEN_BACKBONE
    from sppnet.errors import ArgumentError

    name = arguments.backbone or FROZEN_BACKBONE
    if backbone_spec(name).source is None and not arguments.from_scratch:
        raise ArgumentError(f"--backbone {name}: has no published weights to begin with; add --from-scratch")
    backbone = load_backbone(name, pretrained=not arguments.from_scratch, trainable=True)
    backbone.layers.to(memory_format=torch.channels_last)  # as its input is; a third less time on a CPU
    levels: Any = tuple(arguments.levels)
    if arguments.no_pyramid:
        (side, *others), step = sizes, backbone.size_multiple
        if others or side % step:
            raise ArgumentError(
                f"--sizes {' '.join(map(str, sizes))}: a network without pyramid takes one size, here a multiple of "
                f"{step}"
            )
        levels = FixedPool(3, 2, backbone.map_size(side, side))
    return SPPClassifier(
        backbone, levels, classes, mode=arguments.mode or "max", hidden=tuple(arguments.hidden),
        dropout=arguments.dropout,
    )  # fmt: skip


class _TimeLeft:
    """A line an epoch, with the time that all the others will take."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.started = time.perf_counter()
        self.done = 0

    def __call__(self, entry: dict[str, float]) -> None:
        self.done += 1
        each = (time.perf_counter() - self.started) / self.done
        left = tqdm.format_interval(each * (self.epochs - entry["epoch"]))
        figures = ", ".join(
            f"{name.replace('_', ' ')} {entry[name]:.4f}"
            for name in ("loss", "accuracy", "validation_accuracy")
            if name in entry
        )
        tqdm.write(f"epoch {entry['epoch']:.0f} of {self.epochs}: {figures} ({each:.3g} s an epoch, {left} left)")
