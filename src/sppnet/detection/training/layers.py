"""Training what stands behind the pooling: fully connected layer, SVMs, box regression."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from sppnet._types import F32, Progress, no_progress
from sppnet.detection.building import build_head
from sppnet.detection.fc_head import FcHead
from sppnet.detection.features import PooledWindows
from sppnet.detection.options import FinetuneOptions, HeadOptions, SvmOptions
from sppnet.detection.training.finetune import finetune
from sppnet.detection.training.hard_negatives import mine_hard_negatives
from sppnet.detection.training.images import TrainingImage, TrainingImages
from sppnet.detection.training.projection import project
from sppnet.detection.weights import DetectorWeights
from sppnet.storage.checkpoints import Checkpoints
from sppnet.storage.tensors import to_tensors

__all__ = ["Trained", "train_layers", "training_identity"]

logger = logging.getLogger("sppnet")


@dataclass(frozen=True)
class Trained:
    """What came out of training.

    Attributes:
        weights: the matrices.
        losses: mean loss of each epoch.
        seconds: of each stage, in the run that finished it.
    """

    weights: DetectorWeights
    losses: list[float]
    seconds: dict[str, float]


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
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[stage], started = round(now - started, 1), now

    done = checkpoints.load("done")
    if done is not None:
        logger.info("this training was finished before: its result is taken from the cache")
        arrays = {name: value.numpy() for name, value in done[0].items()}
        return Trained(DetectorWeights(**arrays), done[1]["losses"], done[1].get("seconds", {}))
    classes = len(data.dataset.class_names)
    losses: list[float] = []
    options = head_options
    if options.hidden:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = FcHead(
                data.features.dims, classes, options.rank, options.hidden, options.dropout, options.layers
            ).to(data.features.device)
        losses = finetune(head, data, finetune_options, seed=seed, checkpoints=fc_checkpoints, progress=progress)
        lap("fully connected layer")
        weights = head.cpu().weights()
    else:
        weights, kept = project(
            data, classes, options.rank, finetune_options, seed=seed, checkpoints=fc_checkpoints, progress=progress
        )
        lap("principal components")
        logger.info(
            f"{weights.features} principal components keep {100 * kept:.1f} % of the variance of pooled windows"
        )
    if options.classifier == "svm" or options.box_regression == "ridge":
        weights = _svms_and_boxes(weights, data, options, svm_options, seed, checkpoints, progress)
        lap("SVMs and box regression")
    checkpoints.save("done", to_tensors(weights.arrays()), {"losses": losses, "seconds": seconds})
    checkpoints.remove("svm")
    return Trained(weights, losses, seconds)


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
