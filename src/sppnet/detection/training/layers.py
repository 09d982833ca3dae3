"""Training what stands behind the pooling: fully connected layer, SVMs, box regression."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet._types import F32, Progress, no_progress
from sppnet.backbones.engines.engine import LiteEngine
from sppnet.backbones.engines.lite import lite_network
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.detection.building import build_engine, build_head
from sppnet.detection.fc_head import FcHead
from sppnet.detection.features import PooledWindows, WindowFeatures
from sppnet.detection.options import FinetuneOptions, HeadOptions, SvmOptions, TuningOptions
from sppnet.detection.training.finetune import finetune, standardise
from sppnet.detection.training.hard_negatives import mine_hard_negatives
from sppnet.detection.training.images import TrainingImage, TrainingImages
from sppnet.detection.training.projection import project
from sppnet.detection.training.tuning import tune
from sppnet.detection.weights import DetectorWeights
from sppnet.processes import Processes, alone
from sppnet.storage.checkpoints import Checkpoints
from sppnet.storage.tensors import to_tensors

__all__ = ["Start", "Trained", "train_layers", "training_identity"]

logger = logging.getLogger("sppnet")


@dataclass(frozen=True)
class Start:
    """A trained detector from which the tuning of the convolutions goes on: its layers, and what was tuned before."""

    weights: DetectorWeights
    tuned: TunedConvolutions | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, hexadecimal."""
        found = hashlib.sha256(b"" if self.tuned is None else self.tuned.digest.encode())
        for name, value in self.weights.arrays().items():
            found.update(f"{name} {value.shape}\0".encode() + np.ascontiguousarray(value).tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Trained:
    """What came out of training.

    Attributes:
        weights: the matrices.
        losses: mean loss of each epoch.
        seconds: of each stage, in the run that finished it.
        tuned: the convolutions that were trained.
        tuning_losses: mean loss of each epoch of them.
    """

    weights: DetectorWeights
    losses: list[float]
    seconds: dict[str, float]
    tuned: TunedConvolutions | None = None
    tuning_losses: tuple[float, ...] = ()


def train_layers(
    data: TrainingImages,
    head_options: HeadOptions,
    finetune_options: FinetuneOptions,
    svm_options: SvmOptions,
    *,
    seed: int,
    fc_checkpoints: Checkpoints,
    checkpoints: Checkpoints,
    progress: Progress = no_progress,
    tuning: TuningOptions | None = None,
    tunable: LiteEngine | None = None,
    processes: Processes | None = None,
    start: Start | None = None,
) -> Trained:
    """Train what stands behind the pooling. A stage that a checkpoint holds is not run again.

    Args:
        data: images whose windows and maps are ready.
        head_options: which layers there are.
        finetune_options: how the fully connected layers are trained.
        svm_options: how SVMs and box regressors are trained.
        seed: of all that is drawn at random.
        fc_checkpoints: of the fully connected layers, which trainings with other classifiers share.
        checkpoints: of the rest.
        progress: shows how far each stage is.
        tuning: how the last convolutions are trained; None: not at all.
        tunable: these convolutions, where they are trained.
        processes: that tune the convolutions together; the first one does the rest.
        start: layers to begin with; they aren't trained alone then.
    """
    processes = processes or alone()
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[stage], started = round(now - started, 1), now

    done = checkpoints.load("done")
    if done is not None:
        logger.info("this training was finished before: its result is taken from the cache")
        return _restored(data, done[0], done[1], tuning)
    classes = len(data.dataset.class_names)
    losses: list[float] = []
    tuned: TunedConvolutions | None = None
    tuning_losses: list[float] = []
    options = head_options
    if options.hidden:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = FcHead(
                data.features.dims, classes, options.rank, options.hidden, options.dropout, options.layers
            ).to(data.features.device)
        if start is not None:
            standardise(head, data, np.random.default_rng(seed), finetune_options.foreground_share)
            head.continue_from(start.weights)
        elif processes.first:
            losses = finetune(head, data, finetune_options, seed=seed, checkpoints=fc_checkpoints, progress=progress)
        processes.from_first(head.state_dict().values())
        lap("fully connected layer")
        if tuning is not None and tunable is not None:
            tuned, tuning_losses = tune(
                head, data, tuning, tunable, seed=seed, checkpoints=checkpoints, processes=processes, progress=progress,
                before=None if start is None else start.tuned,
            )  # fmt: skip
            lap("convolutions")
        weights = head.cpu().weights()
    else:
        weights, kept = project(
            data, classes, options.rank, finetune_options, seed=seed, checkpoints=fc_checkpoints, progress=progress
        )
        lap("principal components")
        logger.info(
            f"{weights.features} principal components keep {100 * kept:.1f} % of the variance of pooled windows"
        )
    if not processes.first:
        return Trained(weights, losses, seconds, tuned, tuple(tuning_losses))
    if options.classifier == "svm" or options.box_regression == "ridge":
        if tuned is not None:
            data = _on_tuned(data, tuned, progress)
        weights = _svms_and_boxes(weights, data, options, svm_options, seed, checkpoints, progress)
        lap("SVMs and box regression")
    arrays = weights.arrays() | ({} if tuned is None else {f"tuned/{n}": v for n, v in tuned.arrays().items()})
    state = {"losses": losses, "tuning_losses": tuning_losses, "seconds": seconds}
    checkpoints.save("done", to_tensors(arrays), state)
    checkpoints.remove("svm", "tuning")
    return Trained(weights, losses, seconds, tuned, tuple(tuning_losses))


def _restored(
    data: TrainingImages, tensors: Mapping[str, Tensor], state: Mapping[str, Any], tuning: TuningOptions | None
) -> Trained:
    """What an earlier run finished."""
    arrays = {name: value.numpy() for name, value in tensors.items()}
    late = {name.removeprefix("tuned/"): arrays.pop(name) for name in list(arrays) if name.startswith("tuned/")}
    tuned = None
    if tuning is not None:
        tuned = TunedConvolutions.from_arrays(lite_network(data.features.engine.name), tuning.blocks, late)
    losses = tuple(state.get("tuning_losses", ()))
    return Trained(DetectorWeights(**arrays), state["losses"], state.get("seconds", {}), tuned, losses)


def _on_tuned(data: TrainingImages, tuned: TunedConvolutions, progress: Progress) -> TrainingImages:
    """The same images with maps of the tuned convolutions."""
    frozen = data.features
    precision = "float32" if frozen.quantised is None else "int8"
    engine = build_engine(frozen.engine.name, precision, frozen.device, tuned)
    features = WindowFeatures(
        engine, frozen.levels, frozen.short_sides_px, mode=frozen.mode, max_long_ratio=frozen.max_long_ratio
    )
    again = TrainingImages(data.dataset, features, None, data.proposer, data.cache)
    again.prepare(progress)
    return again


def _svms_and_boxes(
    weights: DetectorWeights,
    data: TrainingImages,
    options: HeadOptions,
    svm_options: SvmOptions,
    seed: int,
    checkpoints: Checkpoints,
    progress: Progress,
) -> DetectorWeights:
    hidden = weights.features
    pool = PooledWindows(data.features)
    layers = build_head(weights, data.features.quantised, data.features.device)

    @torch.inference_mode()
    def scorer(image: TrainingImage, windows: F32) -> Tensor:
        with pool(image.maps, windows) as pooled:
            return torch.from_numpy(layers.fc(pooled))

    parts = to_tensors(weights.arrays())
    with torch.inference_mode():
        svms, factor, boxes = mine_hard_negatives(
            data, scorer, hidden, svm_options,
            # drawn to the layer's own classifier; without a layer to zero, as the paper's
            prior=(parts["class_weight"], parts["class_bias"]) if len(weights.fc6_bias) else None,
            ridge=options.box_regression == "ridge", seed=seed, checkpoints=checkpoints, progress=progress,
        )  # fmt: skip
        if options.classifier == "svm":
            parts["class_weight"], parts["class_bias"] = svms.weight * factor, svms.bias
        if boxes is not None:
            parts["box_weight"] = boxes[0].reshape(-1, hidden) * factor
            parts["box_bias"] = boxes[1].reshape(-1)
    return DetectorWeights(**{name: value.numpy() for name, value in parts.items()})


def training_identity(data: TrainingImages, *options: object) -> tuple[object, ...]:
    """Everything that the result of :func:`train_layers` depends on, for the name of its checkpoints."""
    plain = tuple(asdict(o) if isinstance(o, FinetuneOptions | SvmOptions) else o for o in options)
    return (*plain, data.identity(), torch.__version__.partition("+")[0])
