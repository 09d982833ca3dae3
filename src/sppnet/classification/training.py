"""Training of a whole network by gradient descent: several sizes, checkpoints, mixed precision, several processes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist

from sppnet._types import Progress, no_progress
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.multisize import Batch, aspects_of_groups, augment, batches_of_epoch
from sppnet.datasets.folder import ImageFolder
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.images import image_size, load_image, resize_short_side
from sppnet.plots import figure_for, save_figure
from sppnet.storage.envelope import read_envelope, write_envelope
from sppnet.storage.tensors import to_arrays, to_tensors

__all__ = ["TrainingOptions", "plot_history", "train_network"]

_CHECKPOINT = "sppnet-training"
_PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Attributes:
        epochs: passes over the photos. batch_size: photos a step, over all processes together.
        sizes_px: sides to which photos are brought; one, or several (the paper: 224 and 180).
        size_choice: ``alternate``: in turn, one an epoch; ``random``: any size between the least and the greatest, for
            each batch.
        how: ``crop``: squares, the paper's augmentation. ``full``: whole photos at about their own aspect, in batches
            of one aspect each (:func:`~sppnet.classification.multisize.aspects_of_groups`); for a network with pyramid.
        learning_rate: at the start, after ``warmup_epochs``; falls to 0 as a cosine. momentum, weight_decay: of SGD.
        precision: ``float32``, or ``bf16`` / ``fp16``: convolutions and matrix products in that (autocast). ``fp16``
            needs CUDA.
        label_smoothing: of the cross-entropy. clip_norm: greatest length of the gradient. seed: of all that is random.
    """

    epochs: int = 30
    batch_size: int = 32
    sizes_px: tuple[int, ...] = (224, 180)
    size_choice: Literal["alternate", "random"] = "alternate"
    how: Literal["crop", "full"] = "crop"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    label_smoothing: float = 0.0
    clip_norm: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, *self.sizes_px) < 1 or not self.learning_rate > 0:
            raise ArgumentError(f"expected positive epochs, batch_size, sizes_px and learning_rate, got {self}")
        if self.how not in ("crop", "full"):
            raise ArgumentError(f"how: got {self.how!r}, expected crop or full")
        if self.precision not in _PRECISIONS:
            raise ArgumentError(f"precision: got {self.precision!r}, expected one of {', '.join(_PRECISIONS)}")


class _Photos:
    """Decoded photos, kept in memory at the size that training needs, up to a budget."""

    def __init__(self, data: ImageFolder, side_px: int, budget_bytes: int = 1 << 30) -> None:
        self.data, self.side_px, self.left = data, side_px, budget_bytes
        self.kept: dict[int, NDArray[np.uint8]] = {}

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
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
    options: TrainingOptions,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    validate: Callable[[SPPClassifier], dict[str, float]] | None = None,
    progress: Progress = no_progress,
    report: Callable[[dict[str, float]], None] = lambda _entry: None,
    stop_after: int | None = None,
) -> list[dict[str, float]]:
    """Train ``network`` in place by stochastic gradient descent on the cross-entropy.

    What is random depends on the seed, the epoch and the photo alone, so a training that was stopped and goes on from
    its checkpoint ends with the same weights as one that wasn't. Where ``torch.distributed`` is initialised, every
    process takes its share of each batch and the gradients are averaged (DistributedDataParallel): the same step as of
    one process with the whole batch (but for batch normalisation and dropout, which see the share).

    Args:
        network: its backbone should be ``trainable``; of a frozen one only the layers behind it are trained.
        checkpoint: file for the state after every epoch. If it is there, the training goes on from it.
        validate: called after every epoch; what it returns is put into the history.
        report: called after every epoch with its part of the history.
        stop_after: end after this epoch, as if killed (for tests, and for training in portions).

    Returns:
        The history: for each epoch ``epoch``, ``side_px`` (mean), ``learning_rate``, ``loss``, ``accuracy`` on the
        augmented training photos, and what ``validate`` returned.

    Raises:
        ModelFileError: the checkpoint is of another network, of other options or photos. ImageError: a photo can't be
            read. ArgumentError: ``fp16`` without CUDA; whole photos for a network without pyramid; or the loss is no
            longer a number (the checkpoint is removed then).
    """
    device = next(network.parameters()).device
    if options.precision == "fp16" and device.type != "cuda":
        raise ArgumentError("precision: fp16 needs CUDA; take bf16 or float32 on this machine")
    if options.how == "full" and isinstance(network.pool, FixedPool):
        raise ArgumentError("how: a network without pyramid takes one size; train it on crops")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        [
            {"params": [p for _, p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [p for _, p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=options.learning_rate, momentum=options.momentum,
    )  # fmt: skip
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    state = _State(network, optimizer, scaler, trained, asdict(options) | _identity(network, data))
    history = state.resume(checkpoint) if checkpoint is not None else []
    model: nn.Module = network
    if world > 1:
        _same_everywhere(len(history), device)
        model = nn.parallel.DistributedDataParallel(network)
    photos = _Photos(data, math.ceil(max(options.sizes_px) * 256 / 224))
    aspects: NDArray[np.float64] | None = None
    if options.how == "full":
        sizes = [image_size(path) for path in data.paths]
        least = max(options.batch_size // 2, world)  # so that no batch is smaller than that
        aspects = aspects_of_groups([width / height for height, width in sizes], least)
    for epoch in range(len(history), options.epochs):
        if stop_after is not None and epoch >= stop_after:
            break
        network.train()
        batches = batches_of_epoch(
            len(data), options.batch_size, options.sizes_px, options.size_choice, epoch=epoch, seed=options.seed,
            rank=rank, world=world, aspects=aspects,
        )  # fmt: skip
        totals = torch.zeros(4, dtype=torch.float64)  # loss, hits, photos, sides
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(options.seed * 1_000_003 + epoch * 101 + rank)  # dropout
            for step, batch in enumerate(progress(batches, f"epoch {epoch + 1}", total=len(batches))):
                rate = _learning_rate(options, epoch + step / len(batches))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                counted, finite = _step(model, optimizer, scaler, photos, batch, epoch, options, world)
                if not finite:
                    if checkpoint is not None and rank == 0:  # it would only lead here again
                        Path(checkpoint).unlink(missing_ok=True)
                    raise ArgumentError(
                        f"learning_rate: the loss is no longer a number, in epoch {epoch + 1}, step {step + 1} of "
                        f"{len(batches)}; take a smaller one than {options.learning_rate:g}"
                    )
                totals += counted
        if world > 1:
            totals = totals.to(device)  # NCCL takes CUDA tensors only
            dist.all_reduce(totals)
            for buffer in network.buffers():  # each process has its own means of batch normalisation
                dist.broadcast(buffer, 0)
        loss, hits, seen, sides = totals.tolist()
        entry = {
            "epoch": epoch + 1.0, "side_px": sides / seen, "learning_rate": _learning_rate(options, float(epoch)),
            "loss": loss / seen, "accuracy": hits / seen,
        }  # fmt: skip
        if validate is not None:
            network.eval()
            entry |= validate(network)
        history.append(entry)
        report(entry)
        if checkpoint is not None and rank == 0:
            state.save(checkpoint, history)
    network.eval()
    return history


def _step(
    model: nn.Module, optimizer: torch.optim.SGD, scaler: Any, photos: _Photos, batch: Batch, epoch: int,
    options: TrainingOptions, world: int,
) -> tuple[Tensor, bool]:  # fmt: skip
    """Sums over this process's photos: loss, hits, photos, sides; and whether the loss is finite in all processes."""
    network = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    assert isinstance(network, SPPClassifier)
    device = next(network.parameters()).device
    # seeded by the photo, so that it doesn't matter which process works on it
    pixels = [
        augment(photos[i], batch.side_px, np.random.default_rng((options.seed, epoch, i)), batch.aspect)
        for i in batch.indices
    ]
    x = network.backbone.preprocess(np.stack(pixels)).to(device)
    y = torch.from_numpy(photos.data.labels[list(batch.indices)].copy()).to(device)
    kind = _PRECISIONS[options.precision]
    with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
        logits = model(x)
        summed = nn.functional.cross_entropy(
            logits.float(), y, reduction="sum", label_smoothing=options.label_smoothing
        )
    # The mean over the whole batch, also where the shares of the processes differ by a photo: DDP averages gradients.
    everywhere = torch.stack([torch.tensor(float(len(y)), device=device), summed.detach()])
    if world > 1:
        dist.all_reduce(everywhere)
    count, loss = everywhere.tolist()
    if not math.isfinite(loss):
        return torch.zeros(4, dtype=torch.float64), False
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(summed * (world / count)).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], options.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    hits = float((logits.argmax(1) == y).sum())
    sums = [float(summed.detach()), hits, len(y), batch.side_px * len(y)]
    return torch.tensor(sums, dtype=torch.float64), True


def _learning_rate(options: TrainingOptions, epoch: float) -> float:
    warm = min(1.0, (epoch + 0.1) / options.warmup_epochs) if options.warmup_epochs > 0 else 1.0
    return options.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / options.epochs)))


# --- checkpoints -----------------------------------------------------------------------------------------------------


@dataclass
class _State:
    """What changes while a network is trained, and what it depends on (``identity``)."""

    network: SPPClassifier
    optimizer: torch.optim.SGD
    scaler: Any
    trained: list[tuple[str, nn.Parameter]]
    identity: dict[str, Any]

    def save(self, path: str | os.PathLike[str], history: list[dict[str, float]]) -> None:
        tensors = {f"network.{n}": t for n, t in self.network.state_dict().items()}
        for name, parameter in self.trained:
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        metadata = {"identity": self.identity, "history": history, "scaler": self.scaler.state_dict()}
        write_envelope(path, to_arrays(tensors), metadata, _CHECKPOINT, 1)

    def resume(self, path: str | os.PathLike[str]) -> list[dict[str, float]]:
        """The history of the training that was stopped; empty where there is no file."""
        if not Path(path).exists():
            return []
        found = read_envelope(path, _CHECKPOINT, 1, "a checkpoint of a training")
        tensors, metadata = to_tensors(found.arrays), found.metadata
        mine, stored = json.loads(json.dumps(self.identity)), metadata.get("identity", {})
        for key, value in mine.items():
            if stored.get(key) != value:
                raise ModelFileError(
                    f"{os.fspath(path)}: the training that was stopped had {key} = {stored.get(key)!r}, now it is "
                    f"{value!r}; give the same data and options, or remove the file to begin anew"
                )
        parts = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
        try:
            self.network.load_state_dict(parts)
            history = list(metadata["history"])
        except (RuntimeError, KeyError, TypeError) as error:
            raise ModelFileError(f"{os.fspath(path)}: is of another network, or damaged ({error})") from None
        for name, parameter in self.trained:
            buffer = tensors.get(f"momentum.{name}")
            if buffer is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = buffer.to(parameter.device)
        if self.scaler.is_enabled() and metadata.get("scaler"):
            self.scaler.load_state_dict(metadata["scaler"])
        return history


def _identity(network: SPPClassifier, data: ImageFolder) -> dict[str, Any]:
    """What the result depends on, besides the options."""
    bone = network.backbone
    return {
        "backbone": bone.name,
        "weights": bone.weights_sha256,
        "trainable": bone.trainable,
        "pooling": str(network.pool),
        "hidden": list(network.hidden),
        "dropout": network.dropout,
        "normalise": network.normalise,
        "photos": f"{len(data)} of {len(data.class_names)} classes, sha256 of their names {data.sha256()[:16]}",
    }


def _same_everywhere(epochs: int, device: torch.device) -> None:
    """Otherwise some processes would wait for the others for ever."""
    least, most = torch.tensor(epochs, device=device), torch.tensor(epochs, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    if int(least) != int(most):
        raise ModelFileError(
            f"checkpoint: processes found {int(least)} to {int(most)} epochs done; put it where all can read it"
        )


def plot_history(history: list[dict[str, float]], path: str | Path) -> None:
    """Draw the learning curve (loss; accuracies) to ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        MissingDependencyError: matplotlib isn't installed. ArgumentError: another extension, or no epoch.
    """
    if not history:
        raise ArgumentError("history: is empty, expected at least one epoch")
    path, figure = figure_for(path, (9, 3.6))
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    left.plot(epochs, [entry["loss"] for entry in history], marker="o", markersize=3)
    left.set(title="loss on training photos", xlabel="epoch", ylim=(0, None))
    right.plot(epochs, [entry["accuracy"] for entry in history], marker="o", markersize=3, label="training, augmented")
    for key in sorted(
        {k for entry in history for k in entry} - {"epoch", "side_px", "learning_rate", "loss", "accuracy"}
    ):
        known = [(entry["epoch"], entry[key]) for entry in history if key in entry]
        right.plot([e for e, _ in known], [v for _, v in known], marker="o", markersize=3, label=key.replace("_", " "))
    right.set(title="accuracy", xlabel="epoch", ylim=(0, 1))
    right.legend(loc="lower right")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save_figure(figure, path, 110)
