"""Training the fully connected layer on pooled windows; the convolutions stay as they are (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.detection.fc_head import FcHead
from sppnet.detection.sampling import assign_windows, draw_windows
from sppnet.detection.training_images import Progress, TrainingImages, no_progress

__all__ = ["FinetuneOptions", "finetune", "jitter_boxes"]

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class FinetuneOptions:
    """How the fully connected layer are trained.

    Attributes:
        epochs: passes over all images and their mirror images.
        images_per_batch, windows_per_image: a mini-batch is drawn from that many images, that many windows each.
        foreground_share: at most this share of them overlaps an object (IoU >= 0.5).
        learning_rate: the highest of the one-cycle schedule. weight_decay: of AdamW.
    """

    epochs: int = 6
    images_per_batch: int = 8
    windows_per_image: int = 64
    foreground_share: float = 0.25
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4


def jitter_boxes(boxes: F32, count: int, rng: np.random.Generator) -> F32:
    """``count`` boxes drawn from ``boxes (n, 4)``, moved by up to 15 % of their size and scaled by up to 1.28.

    They are extra foreground: few proposals overlap a small object well.
    """
    chosen = boxes[rng.integers(len(boxes), size=count)]
    size = chosen[:, 2:] - chosen[:, :2]
    centre = 0.5 * (chosen[:, :2] + chosen[:, 2:]) + size * rng.uniform(-0.15, 0.15, (count, 2))
    half = 0.5 * size * np.exp(rng.uniform(-0.25, 0.25, (count, 2)))
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def training_windows(
    data: TrainingImages, i: int, flip: bool, count: int, rng: np.random.Generator, foreground_share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A mini-batch of one image: pooled ``(n, D)``, labels ``(n,)`` (background last), deltas ``(n, 4)``."""
    image = data.load(i, flip=flip)
    windows, easy = image.windows, image.boxes[~image.difficult]
    if len(easy):
        windows = np.concatenate([windows, easy, jitter_boxes(easy, 2 * len(easy) + 4, rng)])
        limit = np.array([image.maps.width, image.maps.height] * 2, np.float32)
        windows = np.clip(windows, 0, limit)
        windows = windows[((windows[:, 2:] - windows[:, :2]) > 4).all(1)]
    assignment = assign_windows(windows, image.boxes, image.labels, image.difficult)
    index, label = draw_windows(assignment, count, rng, foreground_share=foreground_share)
    features = data.flip_features if flip else data.features
    assert features is not None
    pooled = features.pool(image.maps, windows[index])
    label = np.where(label < 0, len(data.dataset.class_names), label)
    return pooled, torch.from_numpy(label), torch.from_numpy(assignment.deltas[index])


def finetune(
    head: FcHead,
    data: TrainingImages,
    options: FinetuneOptions,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    report: Callable[[str], None] | None = None,
) -> list[float]:
    """Train ``head`` in place by AdamW on sampled mini-batches. Returns the mean loss of each epoch.

    Deterministic for a seed and a number of threads: windows, order and dropout are drawn from ``seed``.
    """
    rng = np.random.default_rng(seed)
    flips = 1 if data.flip_features is None else 2
    views = len(data) * flips
    batch = min(options.images_per_batch, views)
    steps = options.epochs * (views // batch)
    sample = [
        training_windows(data, int(i), False, 16, rng, options.foreground_share)[0]
        for i in np.linspace(0, len(data) - 1, min(len(data), 256)).astype(int)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head.standardise(torch.cat(sample))
        optimiser = torch.optim.AdamW(head.parameters(), options.learning_rate, weight_decay=options.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, options.learning_rate, total_steps=max(steps, 2) + 1, pct_start=0.05, cycle_momentum=False
        )
        head.train()
        losses: list[float] = []
        total, done = 0.0, 0
        order = rng.permutation(views)
        for step in progress(range(steps), "fully connected layer", steps):
            start = step % (views // batch) * batch
            parts = [
                training_windows(
                    data,
                    int(v) % len(data),
                    int(v) >= len(data),
                    options.windows_per_image,
                    rng,
                    options.foreground_share,
                )
                for v in order[start : start + batch]
            ]
            loss = head.loss(*(torch.cat(part) for part in zip(*parts, strict=True)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total, done = total + float(loss.detach()), done + 1
            if (step + 1) % (views // batch) == 0:
                losses.append(total / done)
                if report is not None:
                    report(f"epoch {len(losses)} of {options.epochs}: mean loss {losses[-1]:.4f}")
                total, done = 0.0, 0
                order = rng.permutation(views)
        head.eval()
    return losses
