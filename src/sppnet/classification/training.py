"""Training of a whole network by gradient descent: several sizes, checkpoints, mixed precision, several processes."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from sppnet._types import F64, U8, Progress, no_progress
from sppnet.classification.checkpoint import TrainingState, identity_of
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.multisize import Batch, aspects_of_groups, augment, batches_of_epoch
from sppnet.classification.options import PRECISIONS, GradientOptions
from sppnet.datasets.folder import ImageFolder
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.images import image_size, load_image, resize_short_side

__all__ = ["train_network"]

_log = logging.getLogger("sppnet")


class _Images:
    """Decoded images, kept in memory at the size that training needs, up to a budget."""

    def __init__(self, data: ImageFolder, side_px: int, budget_bytes: int = 1 << 30) -> None:
        self.data, self.side_px, self.left = data, side_px, budget_bytes
        self.kept: dict[int, U8] = {}

    def __getitem__(self, index: int) -> U8:
        if index in self.kept:
            return self.kept[index]
        image = resize_short_side(load_image(self.data.paths[index]), self.side_px, 4 * self.side_px)[0]
        if image.nbytes <= self.left:
            self.left -= image.nbytes
            self.kept[index] = image
        return image


def train_network(
    network: SPPClassifier,
    data: ImageFolder,
    options: GradientOptions,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    validate: Callable[[SPPClassifier], dict[str, float]] | None = None,
    progress: Progress = no_progress,
    stop_after: int | None = None,
) -> list[dict[str, float]]:
    """Train ``network`` in place by stochastic gradient descent on the cross-entropy.

    What is random depends only on the seed, the epoch and the image. So a stopped training that goes on from its
    checkpoint ends with the same weights as one that wasn't stopped. Where ``torch.distributed`` is initialised, every
    process takes its share of each batch and the gradients are averaged (DistributedDataParallel). This is the same
    step as that of one process with the whole batch, except for batch normalisation and dropout, which see the share.
    The figures of each epoch are logged (logger ``sppnet``).

    Args:
        network: its backbone should be ``trainable``; of a frozen one only the layers behind it are trained.
        data: images to train on.
        options: of the training.
        checkpoint: file for the state after each epoch. If it is there, the training goes on from it.
        validate: called after each epoch; what it returns is put into the history.
        progress: shows how far an epoch is.
        stop_after: stop after this epoch, as if killed (for tests, and for training in portions).

    Returns:
        The history: for each epoch ``epoch``, ``side_px`` (mean), ``learning_rate``, ``loss``, ``accuracy`` on the
        augmented training images, and what ``validate`` returned.

    Raises:
        ModelFileError: the checkpoint is of another network, or of other options or images.
        ImageError: an image can't be read.
        ArgumentError: the network has fewer outputs than there are classes; ``fp16`` without CUDA; whole images for a
            network without pyramid; or the loss is no longer a number (the checkpoint is removed then).
    """
    trainer = _Trainer(network, data, options)
    history = trainer.state.resume(checkpoint) if checkpoint is not None else []
    trainer.spread(len(history))
    before, started = len(history), time.perf_counter()
    for epoch in range(before, options.epochs):
        if stop_after is not None and epoch >= stop_after:
            break
        try:
            entry = trainer.train_epoch(epoch, progress)
        except _LossError as error:
            if checkpoint is not None and trainer.rank == 0:  # it would only lead here again
                Path(checkpoint).unlink(missing_ok=True)
            raise ArgumentError(str(error)) from None
        if validate is not None:
            network.eval()
            entry |= validate(network)
        history.append(entry)
        if trainer.rank == 0:
            _log.info(_line(entry, options.epochs, (time.perf_counter() - started) / (len(history) - before)))
            if checkpoint is not None:
                trainer.state.save(checkpoint, history)
    network.eval()
    return history


class _LossError(Exception):
    """The loss is no longer a number."""


class _Trainer:
    """A network with everything that trains it, in this process."""

    def __init__(self, network: SPPClassifier, data: ImageFolder, options: GradientOptions) -> None:
        if network.num_classes < len(data.class_names):
            raise ArgumentError(
                f"network: got {network.num_classes} outputs, expected at least {len(data.class_names)}, one for each "
                f"class of {data!r}"
            )
        self.device = next(network.parameters()).device
        if options.precision == "fp16" and self.device.type != "cuda":
            raise ArgumentError("precision: fp16 needs CUDA; take bf16 or float32 on this machine")
        if options.how == "full" and isinstance(network.pool, FixedPool):
            raise ArgumentError("how: a network without pyramid takes one size; train it on crops")
        self.network, self.data, self.options = network, data, options
        self.model: nn.Module = network
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            [
                {"params": [p for _, p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
                {"params": [p for _, p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=options.learning_rate, momentum=options.momentum,
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        identity = asdict(options) | identity_of(network, data)
        self.state = TrainingState(network, self.optimizer, self.scaler, trained, identity)
        self.images = _Images(data, math.ceil(max(options.sizes_px) * 256 / 224))
        self.aspects: F64 | None = None
        if options.how == "full":
            sizes = [image_size(path) for path in data.paths]
            least = max(options.batch_size // 2, self.world)  # so that no batch is smaller than that
            self.aspects = aspects_of_groups([width / height for height, width in sizes], least)

    def spread(self, epochs: int) -> None:
        """Average gradients over the processes, after ``epochs`` that are done; these must be as many in each.

        Raises:
            ModelFileError: otherwise some processes would wait for the others for ever.
        """
        if self.world == 1:
            return
        least, most = torch.tensor(epochs, device=self.device), torch.tensor(epochs, device=self.device)
        dist.all_reduce(least, dist.ReduceOp.MIN)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        if int(least) != int(most):
            raise ModelFileError(
                f"checkpoint: processes found {int(least)} to {int(most)} epochs done; put it where all can read it"
            )
        self.model = nn.parallel.DistributedDataParallel(self.network)

    def train_epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """Train on every image once, and return the figures of the epoch, over all processes.

        Raises:
            _LossError: the loss is no longer a number.
        """
        options = self.options
        self.network.train()
        batches = batches_of_epoch(
            len(self.data), options.batch_size, options.sizes_px, options.size_choice, epoch=epoch, seed=options.seed,
            rank=self.rank, world=self.world, aspects=self.aspects,
        )  # fmt: skip
        totals = torch.zeros(4, dtype=torch.float64)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed((options.seed * 1_000_003 + epoch * 101 + self.rank) % 2**63)  # dropout
            for step, batch in enumerate(progress(batches, f"epoch {epoch + 1}", total=len(batches))):
                rate = _learning_rate(options, epoch + step / len(batches))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                counted = self._step(batch, epoch)
                if counted is None:
                    raise _LossError(
                        f"learning_rate: the loss is no longer a number, in epoch {epoch + 1}, step {step + 1} of "
                        f"{len(batches)}; take a smaller one than {options.learning_rate:g}"
                    )
                totals += counted
        if self.world > 1:
            totals = totals.to(self.device)  # NCCL takes CUDA tensors only
            dist.all_reduce(totals)
            for buffer in self.network.buffers():  # each process has its own means of batch normalisation
                dist.broadcast(buffer, 0)
        loss, hits, seen, sides = totals.tolist()
        return {
            "epoch": epoch + 1.0, "side_px": sides / seen, "learning_rate": _learning_rate(options, float(epoch)),
            "loss": loss / seen, "accuracy": hits / seen,
        }  # fmt: skip

    def _step(self, batch: Batch, epoch: int) -> Tensor | None:
        """Sums over this process's images: loss, hits, images, sides. None where the loss isn't finite in all."""
        options, device = self.options, self.device
        # seeded by the image, so that it doesn't matter which process works on it
        pixels = [
            augment(self.images[i], batch.side_px, np.random.default_rng((options.seed, epoch, i)), batch.aspect)
            for i in batch.indices
        ]
        x = self.network.backbone.preprocess(np.stack(pixels)).to(device)
        y = torch.from_numpy(self.data.labels[list(batch.indices)].copy()).to(device)
        name = PRECISIONS[options.precision]
        kind = None if name is None else getattr(torch, name)
        with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
            logits = self.model(x)
            summed = nn.functional.cross_entropy(
                logits.float(), y, reduction="sum", label_smoothing=options.label_smoothing
            )
        # The mean over the whole batch, also where the processes' shares differ by an image: DDP averages gradients.
        everywhere = torch.stack([torch.tensor(float(len(y)), device=device), summed.detach()])
        if self.world > 1:
            dist.all_reduce(everywhere)
        count, loss = everywhere.tolist()
        if not math.isfinite(loss):
            return None
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(summed * (self.world / count)).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_([p for p in self.network.parameters() if p.requires_grad], options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        hits = float((logits.argmax(1) == y).sum())
        return torch.tensor([float(summed.detach()), hits, len(y), batch.side_px * len(y)], dtype=torch.float64)


def _line(entry: dict[str, float], epochs: int, seconds_each: float) -> str:
    """The figures of an epoch, and the time that the other epochs will take."""
    figures = ", ".join(
        f"{name.replace('_', ' ')} {entry[name]:.4f}"
        for name in ("loss", "accuracy", "validation_accuracy")
        if name in entry
    )
    minutes, seconds = divmod(round(seconds_each * (epochs - entry["epoch"])), 60)
    left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"
    return f"epoch {entry['epoch']:.0f} of {epochs}: {figures} ({seconds_each:.3g} s an epoch, {left})"


def _learning_rate(options: GradientOptions, epoch: float) -> float:
    warm = min(1.0, (epoch + 0.1) / options.warmup_epochs) if options.warmup_epochs > 0 else 1.0
    return options.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / options.epochs)))
