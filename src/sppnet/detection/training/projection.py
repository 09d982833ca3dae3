"""Pooled windows without a fully connected layer: standardised, and seen along their principal components.

The paper's first row (pool5 features straight into SVMs). The pooled vectors have thousands of numbers that say much
the same; along the first thousand directions of their spread, linear SVMs and ridge regression see most of it, and fit
into memory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sppnet._types import Progress, no_progress
from sppnet.detection.options import FinetuneOptions
from sppnet.detection.training.finetune import training_windows
from sppnet.detection.training.images import TrainingImages
from sppnet.detection.weights import DetectorWeights
from sppnet.storage.checkpoints import Checkpoints

__all__ = ["principal_components", "project"]

_SAMPLE = 16384  # windows that the components are found on
_IMAGES = 1024  # of at most so many images


def principal_components(sample: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor, float]:
    """The ``count`` directions along which standardised vectors spread most (randomised; Halko et al., 2011).

    Args:
        sample: ``(n, D)`` float32.
        count: of directions.
        seed: of the random start.

    Returns:
        weight ``(count, D)`` and bias ``(count,)`` float32, such that ``weight @ x + bias`` are the coordinates of x,
        and the share of the variance of the sample that they keep, in [0, 1]. There are ``min(n, D)`` at most.
    """
    mean, scale = sample.mean(0), 1 / (sample.std(0) + 1e-3)
    standard = (sample - mean) * scale
    count = min(count, *sample.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, spread, directions = torch.svd_lowrank(standard, min(count + 32, *sample.shape), niter=3)
    directions = directions[:, :count]
    kept = float(spread[:count].double().square().sum() / standard.double().square().sum())
    weight = (directions * scale[:, None]).T.contiguous()
    return weight, -(weight @ mean), min(kept, 1.0)


def project(
    data: TrainingImages,
    classes: int,
    components: int,
    options: FinetuneOptions,
    *,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    progress: Progress = no_progress,
) -> tuple[DetectorWeights, float]:
    """Weights that give windows their coordinates along the principal components; classes and boxes are zero yet.

    The components are those of windows drawn as for the fully connected layer. Returns the kept share of variance too.
    """
    checkpoints = checkpoints or Checkpoints(None)
    saved = checkpoints.load("components")
    if saved is None:
        rng = np.random.default_rng(seed)
        chosen = np.linspace(0, len(data) - 1, min(len(data), _IMAGES)).astype(int)
        each = min(64, max(16, _SAMPLE // len(chosen)))
        sample = [
            training_windows(data, int(chosen[k]), False, each, rng, options.foreground_share)[0]
            for k in progress(range(len(chosen)), "principal components", total=len(chosen))
        ]
        weight, bias, kept = principal_components(torch.cat(sample), components, seed)
        checkpoints.save("components", {"weight": weight, "bias": bias}, {"kept": kept})
    else:
        weight, bias, kept = saved[0]["weight"], saved[0]["bias"], float(saved[1]["kept"])
    count = len(weight)
    shapes = {
        "fc6_weight": (0, count), "fc6_bias": (0,), "class_weight": (classes, count), "class_bias": (classes,),
        "box_weight": (classes * 4, count), "box_bias": (classes * 4,), "offset": (classes,),
    }  # fmt: skip
    rest = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    weights = DetectorWeights(
        reduce_weight=weight.numpy(), reduce_bias=bias.numpy(), slope=np.ones(classes, np.float32), **rest
    )
    return weights, kept
