"""Training the fully connected layer on pooled windows; the convolutions stay as they are (paper, section 4.2)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet._types import Progress, no_progress
from sppnet.detection.fc_head import FcHead
from sppnet.detection.options import SCALING_IMAGES, FinetuneOptions
from sppnet.detection.training.images import TrainingImage, TrainingImages, WindowedImage
from sppnet.detection.training.sampling import assign_windows, draw_windows
from sppnet.errors import ArgumentError
from sppnet.solvers.adamw import AdamW
from sppnet.storage.checkpoints import (
    Checkpoints,
    restore_generator,
    state_of_generator,
)

__all__ = ["finetune", "jitter_boxes", "one_cycle", "sample_windows", "standardise", "training_windows"]

F32 = NDArray[np.float32]
_Batch = tuple[list[Tensor], dict[str, Any], NDArray[np.int64]]

logger = logging.getLogger("sppnet")


def jitter_boxes(boxes: F32, count: int, rng: np.random.Generator) -> F32:
    """``count`` boxes drawn from ``boxes (n, 4)``, moved by up to 15 % of their size and scaled by up to 1.28.

    They are extra foreground: few proposals overlap a small object well.
    """
    chosen = boxes[rng.integers(len(boxes), size=count)]
    size = chosen[:, 2:] - chosen[:, :2]
    centre = 0.5 * (chosen[:, :2] + chosen[:, 2:]) + size * rng.uniform(-0.15, 0.15, (count, 2))
    half = 0.5 * size * np.exp(rng.uniform(-0.25, 0.25, (count, 2)))
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def sample_windows(
    image: TrainingImage | WindowedImage, classes: int, count: int, rng: np.random.Generator, foreground_share: float
) -> tuple[F32, NDArray[np.int64], F32]:
    """Draw windows of an image to learn from.

    Args:
        image: its proposals and objects.
        classes: how many there are.
        count: windows to draw.
        rng: draws them.
        foreground_share: at most this share overlaps an object.

    Returns:
        Windows ``(n, 4)``, their classes ``(n,)`` (background is ``classes``), and deltas ``(n, 4)`` to their objects.
    """
    windows, easy = image.windows, image.boxes[~image.difficult]
    if len(easy):
        windows = np.concatenate([windows, easy, jitter_boxes(easy, 2 * len(easy) + 4, rng)])
        limit = np.array([image.width, image.height] * 2, np.float32)
        windows = np.clip(windows, 0, limit)
        windows = windows[((windows[:, 2:] - windows[:, :2]) > 4).all(1)]
    assignment = assign_windows(windows, image.boxes, image.labels, image.difficult)
    index, label = draw_windows(assignment, count, rng, foreground_share=foreground_share)
    return windows[index], np.where(label < 0, classes, label), assignment.deltas[index]


def training_windows(
    data: TrainingImages, i: int, flip: bool, count: int, rng: np.random.Generator, foreground_share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A mini-batch of one image: pooled ``(n, D)``, labels ``(n,)`` (background last), deltas ``(n, 4)``."""
    image = data.load(i, flip=flip)
    windows, label, deltas = sample_windows(image, len(data.dataset.class_names), count, rng, foreground_share)
    features = data.flip_features if flip and data.flip_features is not None else data.features
    pooled = torch.from_numpy(features.vectors(image.maps, windows))
    return pooled, torch.from_numpy(label), torch.from_numpy(deltas)


def standardise(head: FcHead, data: TrainingImages, rng: np.random.Generator, foreground_share: float) -> None:
    """Take mean and spread of the inputs of ``head`` from windows of at most :data:`SCALING_IMAGES` images."""
    sample = [
        training_windows(data, int(i), False, 16, rng, foreground_share)[0]
        for i in np.linspace(0, len(data) - 1, min(len(data), SCALING_IMAGES)).astype(int)
    ]
    head.standardise(torch.cat(sample))


def finetune(
    head: FcHead,
    data: TrainingImages,
    options: FinetuneOptions,
    *,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    progress: Progress = no_progress,
) -> list[float]:
    """Train ``head`` in place by AdamW on sampled mini-batches. Returns the mean loss of each epoch.

    Deterministic for a seed and a number of threads: windows, order and dropout are drawn from ``seed``. Goes on from
    ``checkpoints`` where an earlier run was stopped, and ends with the same result. The next mini-batch is read and
    pooled while the current one is learned.
    """
    checkpoints = checkpoints or Checkpoints(None)
    rng = np.random.default_rng(seed)
    views = len(data) * (1 if data.flip_features is None else 2)
    batch = min(options.images_per_batch, views)
    per_epoch = views // batch
    steps = options.epochs * per_epoch
    optimiser = AdamW([head.parameters()], [options.learning_rate], options.weight_decay)
    losses: list[float] = []
    sums: list[float] = []
    first, order = 0, np.zeros(0, np.int64)
    with torch.random.fork_rng(devices=[]):
        saved = checkpoints.load("fc")
        if saved is None:
            torch.manual_seed(seed)
            standardise(head, data, rng, options.foreground_share)
        else:
            tensors, state = saved
            head.load_state_dict({n.removeprefix("head."): v for n, v in tensors.items() if n.startswith("head.")})
            optimiser.restore(tensors)
            restore_generator(rng, state["rng"])
            torch.set_rng_state(tensors["torch_rng"])
            first, losses, sums, order = state["done"], state["losses"], state["sums"], tensors["order"].numpy()
            logger.info(f"goes on with the fully connected layer at step {first} of {steps}")

        def batches() -> Iterator[_Batch]:
            nonlocal order
            for step in range(first, steps):
                start = step % per_epoch * batch
                if start == 0:
                    order = rng.permutation(views)
                parts = [
                    training_windows(
                        data, int(v) % len(data), int(v) >= len(data), options.windows_per_image, rng,
                        options.foreground_share,
                    )
                    for v in order[start : start + batch]
                ]  # fmt: skip
                yield [torch.cat(p) for p in zip(*parts, strict=True)], state_of_generator(rng), order

        head.train()
        device = next(head.parameters()).device
        source = batches()
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, source, None)
            for step in progress(range(first, steps), "fully connected layer", total=steps - first):
                (x, label, deltas), rng_state, now_order = cast(_Batch, coming.result())  # there are as many as steps
                coming = reader.submit(next, source, None)
                x, label, deltas = (v.to(device) for v in (x, label, deltas))
                optimiser.rates = [options.learning_rate * one_cycle(step / max(steps, 2))]
                if len(label):  # otherwise all windows lie on difficult objects: there is nothing to learn
                    loss = head.loss(x, label, deltas)
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    sums.append(float(loss.detach()))
                    if not math.isfinite(sums[-1]):
                        raise ArgumentError(
                            f"finetune: the loss is no longer a number at step {step}; take a smaller learning_rate "
                            f"than {options.learning_rate:g}"
                        )
                if (step + 1) % per_epoch == 0:
                    losses.append(sum(sums) / max(1, len(sums)))
                    sums = []
                    logger.info(f"epoch {len(losses)} of {options.epochs}: mean loss {losses[-1]:.4f}")
                if checkpoints.due() or step + 1 == steps:
                    checkpoints.save(
                        "fc",
                        {f"head.{n}": v for n, v in head.state_dict().items()}
                        | optimiser.tensors()
                        | {"torch_rng": torch.get_rng_state(), "order": torch.from_numpy(now_order)},
                        {"done": step + 1, "losses": losses, "sums": sums, "rng": rng_state},
                    )
        head.eval()
    return losses


def one_cycle(progress: float, rise: float = 0.05) -> float:
    """Share of the highest learning rate at ``progress`` in [0, 1) (Smith and Topin, 2018).

    It goes up from 1/25 along a cosine, then down to nothing.
    """
    if progress < rise:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * progress / rise))
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
