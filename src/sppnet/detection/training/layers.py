"""Training what stands behind the pooling: fully connected layer, SVMs, box regression."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.detection.fc_head import FcHead
from sppnet.detection.features import PooledWindows
from sppnet.detection.training.finetune import FinetuneOptions, finetune
from sppnet.detection.training.hard_negatives import SvmOptions, mine_hard_negatives
from sppnet.detection.training.images import Progress, TrainingImage, TrainingImages, no_progress
from sppnet.detection.training.projection import project
from sppnet.detection.weights import DetectorWeights
from sppnet.storage.checkpoints import Checkpoints

__all__ = ["Trained", "train_layers", "training_identity"]


@dataclass(frozen=True)
class Trained:
    """What came out: the matrices, the mean loss of each epoch, and the seconds of each stage (of the run that
    finished it).
    """

    weights: DetectorWeights
    losses: list[float]
    seconds: dict[str, float]


def train_layers(
    data: TrainingImages,
    *,
    rank: int,
    hidden: int,
    dropout: float,
    fc_layers: int,
    classifier: str,
    box_regression: str,
    finetune_options: FinetuneOptions,
    svm_options: SvmOptions,
    seed: int,
    fc_checkpoints: Checkpoints,
    checkpoints: Checkpoints,
    progress: Progress = no_progress,
    report: Callable[[str], None] | None = None,
) -> Trained:
    """Train on ``data``, whose windows and maps are ready. The options are those of ``SPPDetector``.

    Goes on from ``fc_checkpoints`` (of the fully connected layer, which trainings with other classifiers share) and
    ``checkpoints``; each stage that is finished there isn't run again.
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[stage], started = round(now - started, 1), now

    done = checkpoints.load("done")
    if done is not None:
        if report is not None:
            report("this training was finished before: its result is taken from the cache")
        return Trained(DetectorWeights(**done[0]), done[1]["losses"], done[1].get("seconds", {}))
    classes = len(data.dataset.class_names)
    losses: list[float] = []
    if hidden:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = FcHead(data.features.dims, classes, rank, hidden, dropout, fc_layers)
        losses = finetune(
            head, data, finetune_options, seed=seed, checkpoints=fc_checkpoints, progress=progress, report=report
        )
        lap("fully connected layer")
        weights = DetectorWeights.from_head(head)
    else:
        weights, kept = project(
            data, classes, rank, finetune_options, seed=seed, checkpoints=fc_checkpoints, progress=progress
        )
        lap("principal components")
        if report is not None:
            report(f"{weights.features} principal components keep {100 * kept:.1f} % of the variance of pooled windows")
    if classifier == "svm" or box_regression == "ridge":
        weights = _svms_and_boxes(
            weights, data, classifier, box_regression, svm_options, seed, checkpoints, progress, report
        )
        lap("SVMs and box regression")
    checkpoints.save("done", weights.tensors(), {"losses": losses, "seconds": seconds})
    checkpoints.remove("svm")
    return Trained(weights, losses, seconds)


def _svms_and_boxes(
    weights: DetectorWeights,
    data: TrainingImages,
    classifier: str,
    box_regression: str,
    svm_options: SvmOptions,
    seed: int,
    checkpoints: Checkpoints,
    progress: Progress,
    report: Callable[[str], None] | None,
) -> DetectorWeights:
    hidden = weights.features
    pool = PooledWindows(data.features)

    @torch.inference_mode()
    def scorer(image: TrainingImage, windows: NDArray[np.float32]) -> Tensor:
        return weights.fc(pool(image.maps, windows))

    parts = weights.tensors()
    with torch.inference_mode():
        svms, factor, boxes = mine_hard_negatives(
            data, scorer, hidden, svm_options,
            # drawn to the layer's own classifier; without a layer to zero, as the paper's
            prior=(weights.class_weight, weights.class_bias) if len(weights.fc6_bias) else None,
            ridge=box_regression == "ridge", seed=seed, checkpoints=checkpoints, progress=progress, report=report,
        )  # fmt: skip
        if classifier == "svm":
            parts["class_weight"], parts["class_bias"] = svms.weight * factor, svms.bias
        if boxes is not None:
            parts["box_weight"] = boxes[0].reshape(-1, hidden) * factor
            parts["box_bias"] = boxes[1].reshape(-1)
    return DetectorWeights(**parts)


def training_identity(data: TrainingImages, *options: object) -> tuple[object, ...]:
    """Everything that the result of :func:`train_layers` depends on, for the name of its checkpoints."""
    plain = tuple(asdict(o) if isinstance(o, FinetuneOptions | SvmOptions) else o for o in options)
    return (*plain, data.identity(), torch.__version__.partition("+")[0])
