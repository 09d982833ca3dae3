"""A detector trained on a data set: maps and windows of every image once, then what stands behind the pooling."""

from __future__ import annotations

import logging
import os
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

import sppnet
from sppnet._types import Progress
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.seen import seen_digests
from sppnet.detection.classes import Fitted
from sppnet.detection.options import FinetuneOptions, HeadOptions, SvmOptions, TuningOptions
from sppnet.detection.training.images import TrainingImages
from sppnet.detection.training.layers import Start, Trained, train_layers, training_identity
from sppnet.detection.training.tuning import product_precision, tunable_engine
from sppnet.errors import ArgumentError, DatasetError
from sppnet.processes import Processes, alone
from sppnet.storage.checkpoints import Checkpoints

__all__ = ["FitResult", "fit_detector"]

logger = logging.getLogger("sppnet")


@dataclass(frozen=True)
class FitResult:
    """What training gave, the convolutions that were tuned, and the seconds that each stage took."""

    fitted: Fitted
    seconds: dict[str, float]
    tuned: TunedConvolutions | None = None


def fit_detector(
    data: TrainingImages,
    head: HeadOptions,
    finetune: FinetuneOptions,
    svm: SvmOptions,
    seed: int,
    cache: str | os.PathLike[str],
    progress: Progress,
    *,
    tuning: TuningOptions | None = None,
    precision: str = "float32",
    processes: Processes | None = None,
    start: Start | None = None,
) -> FitResult:
    """Train on ``data``; a run that was stopped goes on from its checkpoints in ``cache``.

    Args:
        data: the training images.
        head: which layers there are.
        finetune: how the fully connected layers are trained.
        svm: how SVMs and box regressors are trained.
        seed: of all that is drawn at random.
        cache: folder for checkpoints.
        progress: shows how far each stage is.
        tuning: how the last convolutions are trained; None: not at all.
        precision: of the tuned convolutions.
        processes: that tune the convolutions together; the first one does the rest.
        start: trained layers, to be tuned with the convolutions; None: layers are trained on frozen ones first.

    Raises:
        DatasetError: there are no images, or a class has no object that isn't difficult.
        ArgumentError: convolutions that can't be tuned, or no fully connected layer to tune them with.
    """
    dataset = data.dataset
    _check_trainable(dataset)
    tunable = None if tuning is None else tunable_engine(data.features, precision, tuning.blocks)
    if tuning is not None and not head.hidden:
        raise ArgumentError("hidden: got 0, but convolutions are tuned together with a fully connected layer")
    started = time.perf_counter()
    processes = processes or alone()
    if processes.first and start is not None:
        data.prepare_windows(progress)
    elif processes.first:
        logger.info(f"maps and windows of {len(dataset)} images take {data.estimated_bytes() / 1e9:.2f} GB in {cache}")
        data.prepare(progress)
    processes.wait()
    prepared = round(time.perf_counter() - started, 1)
    common = training_identity(data, sppnet.__version__, head.rank, head.hidden, head.dropout, seed, finetune)
    if head.layers != 1:
        common = (*common, "fc layers", head.layers)
    if data.features.device != "cpu":
        common = (*common, "device", data.features.device.partition(":")[0])
    own: tuple[object, ...] = (head.classifier, head.box_regression, asdict(svm))
    if tuning is not None:
        products = product_precision(tuning, data.features.device)
        own = (*own, "tuning", asdict(tuning), precision, products)
    if start is not None:
        own = (*own, "start", start.digest)
    trained = train_layers(
        data,
        head,
        finetune,
        svm,
        seed=seed,
        fc_checkpoints=Checkpoints(cache, common),
        checkpoints=Checkpoints(cache, (common, own)),
        progress=progress,
        tuning=tuning,
        tunable=tunable,
        processes=processes,
        start=start,
    )
    return FitResult(
        Fitted(trained.weights, dataset.class_names, _metadata(data, head, finetune, svm, seed, trained)),
        {"windows and maps": prepared} | trained.seconds,
        trained.tuned,
    )


def _metadata(
    data: TrainingImages, head: HeadOptions, finetune: FinetuneOptions, svm: SvmOptions, seed: int, trained: Trained
) -> dict[str, Any]:
    """How it was trained. Nothing that differs from run to run belongs in here: one seed and machine give one file."""
    dataset, drawn = data.dataset, data.dataset.drawn
    return {
        "sppnet_version": sppnet.__version__,
        "training": {
            "images": len(dataset),
            "objects": dict(zip(dataset.class_names, map(int, dataset.count_objects()), strict=True)),
            "data": dataset.name,
            "split": dataset.split,
            # of images that weren't drawn it says so, unlike files of earlier versions
            "drawn": None if drawn is None else {"seed": drawn.seed, "images": drawn.images, "split": drawn.split},
            "seen": seen_digests(record.path for record in dataset),
            "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            "seed": seed,
            "finetune": asdict(finetune),
            "classifier": head.classifier,
            "box_regression": head.box_regression,
            "svm": asdict(svm),
            "flip_short_sides_px": list(() if data.flip_features is None else data.flip_features.short_sides_px),
            "losses": [round(v, 4) for v in trained.losses],
            **({"tuning_losses": [round(v, 4) for v in trained.tuning_losses]} if trained.tuning_losses else {}),
            "threads": torch.get_num_threads(),
        },
    }


def _check_trainable(dataset: DetectionDataset) -> None:
    if not len(dataset):
        raise DatasetError("the data set has no images; training needs some, with objects")
    for name, count in zip(dataset.class_names, dataset.count_objects(), strict=True):
        if not count:
            raise DatasetError(f"class {name!r} has no object (that isn't difficult) in {len(dataset)} images")
