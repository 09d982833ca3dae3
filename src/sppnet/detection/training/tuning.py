"""Training the last convolutions together with the layers behind the pooling, through the pooling.

The paper's convolutions are frozen (section 4.2). Early blocks still are: they run in the precision in which they are
used (int8 on the CPU), so the tuned ones learn on the very numbers that they will get.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from sppnet._types import F32, U8, Progress, no_progress
from sppnet.backbones.engines.engine import LiteEngine
from sppnet.backbones.engines.lite import lite_network, split_network
from sppnet.backbones.engines.load import has_engine, load_engine, published_layers
from sppnet.backbones.engines.quantise import quantise_from
from sppnet.backbones.engines.quantised import QuantisedLayers
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.backbones.sources import SOURCES, find_checked
from sppnet.backbones.tail import ConvTail, has_fast_bfloat16
from sppnet.detection.fc_head import FcHead
from sppnet.detection.features import WindowFeatures, locate_windows
from sppnet.detection.options import HeadOptions, TuningOptions
from sppnet.detection.training.finetune import one_cycle, sample_windows
from sppnet.detection.training.images import TrainingImages, WindowedImage
from sppnet.detection.training.mosaic import join_four
from sppnet.errors import ArgumentError
from sppnet.image_budget import give_back_memory
from sppnet.pooling.tensors.windows import pool_tensor_windows
from sppnet.processes import Processes, alone
from sppnet.solvers.adamw import AdamW
from sppnet.storage.checkpoints import Checkpoints
from sppnet.threads import num_threads, threads_limited

__all__ = [
    "CALIBRATION_IMAGES",
    "ViewSource",
    "jitter_colours",
    "product_precision",
    "seconds_a_view",
    "tunable_engine",
    "tune",
]

logger = logging.getLogger("sppnet")

_AHEAD = 3  # views that are prepared beforehand
CALIBRATION_IMAGES = 12
"""Tuned convolutions are quantised on so many images."""
_CHECKPOINT_S = 60.0
# Threads that take and free large arrays in turn keep many of them: 1.6 GB become 2.7 GB in 20 steps, 5 GB in thousands
_TRIM_STEPS = 20
_TORCH_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class View:
    """An image as a step sees it: at one of the scales, with windows that are pooled at this scale.

    Attributes:
        early: what the early blocks give, float32 ``(h, w, C)``.
        windows: ``(n, 4)`` in input pixels.
        labels: ``(n,)``; background is last.
        deltas: ``(n, 4)``.
    """

    early: F32
    windows: F32
    labels: NDArray[np.int64]
    deltas: F32


def tunable_engine(features: WindowFeatures, precision: str, blocks: int) -> LiteEngine:
    """Give the convolutions whose last blocks can be tuned; the early ones run on the CPU, also beside a CUDA device.

    Args:
        features: of the training; they name the backbone.
        precision: in which the detector will be used on the CPU.
        blocks: how many are to be tuned.

    Raises:
        ArgumentError: they can't be tuned, or not so many blocks of them.
    """
    engine = features.engine
    if type(features) is not WindowFeatures:
        raise ArgumentError("features: got rcnn, but convolutions are tuned through the pooling; expected spp")
    if not has_engine(engine.name):
        raise ArgumentError(
            f"backbone: got {engine.name!r}, whose convolutions can't be tuned; expected an EfficientNet-Lite"
        )
    network = lite_network(engine.name)
    split_network(network, blocks)  # refuses other numbers
    find_checked(SOURCES[network.variant])  # now, and not when the layers have been trained for an hour
    if isinstance(engine, LiteEngine):
        return engine
    return load_engine(engine.name, "int8" if precision == "int8" else "float32")


class ViewSource:
    """Draws what a step sees of an image: mirrored or not, at a scale and in colours of chance, some of its windows.

    It shows one scale of the detector, that of many objects more often: the other one costs as much again, and another
    image teaches more. What is drawn depends on the seed, the epoch and the image alone.

    Args:
        data: the images.
        engine: the whole convolutions; the early ones run here.
        options: how views are drawn.
        seed: of all that is drawn.
    """

    def __init__(self, data: TrainingImages, engine: LiteEngine, options: TuningOptions, seed: int) -> None:
        self.data, self.options, self.seed = data, options, seed
        early = split_network(engine.network, options.blocks)[0]
        self.engine = LiteEngine(early, engine.weights, engine.weights_sha256, threads=1)
        self.engine.size_multiple = engine.size_multiple

    def features(self, sides: Sequence[int]) -> WindowFeatures:
        """Maps of the early blocks at the scales ``sides``."""
        features = self.data.features
        return WindowFeatures(self.engine, features.levels, sides, max_long_ratio=features.max_long_ratio)

    def view(self, epoch: int, i: int) -> View:
        """Draw the view of image ``i`` in ``epoch``."""
        options, classes = self.options, len(self.data.dataset.class_names)
        rng = np.random.default_rng([self.seed, epoch, i])
        flip = bool(rng.random() < 0.5)
        low, high = (math.log(f) for f in options.scale_range)
        factor = math.exp(rng.uniform(low, high))
        sides = [max(16, round(side * factor)) for side in self.data.features.short_sides_px]
        if options.mosaic and rng.random() < options.mosaic:  # its four images are mirrored one by one
            pixels, image = self._mosaic(i, flip, max(sides), rng)
            flip = False
        else:
            pixels, image = self.data.pixels(i), self.data.windowed(i, flip=flip)
        pixels = jitter_colours(pixels, options.colour, rng)
        many = options.windows_per_image * len(sides)
        share = options.foreground_share
        windows, labels, deltas = sample_windows(image, classes, many, rng, share)
        located, at = locate_windows(windows, self.features(sides).scales(image.height, image.width))
        objects = labels < classes
        worth = [float((objects & (at == s)).sum() + 0.1 * (at == s).sum()) for s in range(len(sides))]
        chosen = int(rng.choice(len(sides), p=np.array(worth) / sum(worth))) if sum(worth) else 0
        shown = rng.permutation(np.flatnonzero(at == chosen))
        first = shown[objects[shown]][: round(share * options.windows_per_image)]
        rest = shown[~objects[shown]][: options.windows_per_image - len(first)]
        kept = np.concatenate([first, rest])
        maps = self.features([sides[chosen]]).maps(pixels, flip=flip).float()
        early = np.ascontiguousarray(np.asarray(maps.maps[0]).transpose(1, 2, 0))
        return View(early, located[kept], labels[kept], deltas[kept])

    def _mosaic(self, i: int, flip: bool, side: int, rng: np.random.Generator) -> tuple[U8, WindowedImage]:
        """Join image ``i`` and three others, not larger than to be shown at the short side ``side``."""
        others = rng.integers(len(self.data), size=3).tolist()
        flips = [flip, *(rng.random(3) < 0.5).tolist()]
        first = self.data.dataset[i]
        factor = min(1.0, side / (2 * min(first.height, first.width)))
        height, width = (max(1, round(factor * s)) for s in (first.height, first.width))
        parts = []
        for k, mirrored in zip([i, *others], flips, strict=True):
            pixels = self.data.pixels(k, max(height, width))  # no side of an image becomes longer than that
            parts.append((pixels[:, ::-1] if mirrored else pixels, self.data.windowed(k, flip=mirrored)))
        return join_four([parts[k] for k in rng.permutation(4)], height, width)

    def calibration(self) -> list[NDArray[np.uint8]]:
        """Bytes of what the tuned blocks read, of some images at each scale."""
        chosen = np.unique(np.linspace(0, len(self.data) - 1, CALIBRATION_IMAGES).round().astype(int))
        features = self.features(self.data.features.short_sides_px)
        found = [m for i in chosen for m in features.maps(self.data.pixels(int(i))).maps]
        return [np.ascontiguousarray(np.asarray(m).transpose(1, 2, 0)) for m in found]


def jitter_colours(pixels: NDArray[np.uint8], most: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Multiply brightness, contrast and saturation by numbers of ``[1 - most, 1 + most]``, in this order."""
    factors = rng.uniform(1 - most, 1 + most, 3)
    if not most:
        return pixels
    image = Image.fromarray(pixels)
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        image = enhance(image).enhance(float(factor))
    return np.asarray(image)


class _Joint(torch.nn.Module):
    """Everything that is trained, and the loss of one image."""

    def __init__(self, tail: ConvTail, head: FcHead, features: WindowFeatures, dtype: torch.dtype) -> None:
        super().__init__()
        self.tail, self.head = tail, head
        self.levels, self.mode = features.levels, features.mode
        self.stride, self.offset = features.engine.stride, features.engine.offset
        self.dtype = dtype

    def forward(self, view: View, seed: int) -> Tensor:
        """The loss of one image; ``seed`` is that of what is dropped."""
        device = next(self.head.parameters()).device
        early = torch.from_numpy(view.early).to(device).permute(2, 0, 1)[None]
        pooled = pool_tensor_windows(
            self.tail(early, self.dtype), torch.from_numpy(view.windows).to(device), self.levels, self.mode,
            stride=self.stride, offset=self.offset, map_index=None, out=None,
        )  # fmt: skip
        labels, deltas = (torch.from_numpy(v).to(device) for v in (view.labels, view.deltas))
        generator = torch.Generator(device).manual_seed(seed)
        return self.head.loss(pooled.flatten(1), labels, deltas, generator)


class _Gradients:
    """Adds up the gradients of the images of a step. On the CPU each image is worked on by one thread.

    So the result depends on no number of threads, and two threads are nearly twice as fast. (Two threads for one image
    are as fast as one: a third of the time goes into small operations.)

    Args:
        joint: what is trained.
        batch: how many images a step has in all processes.
    """

    def __init__(self, joint: _Joint, batch: int) -> None:
        self.joint, self.batch = joint, batch
        self.parameters = list(joint.parameters())
        self.device = self.parameters[0].device.type

    def __enter__(self) -> Self:
        threads = num_threads()
        self.workers = ThreadPoolExecutor(
            max(1, min(threads, self.batch)), "sppnet-tuning", torch.set_num_threads, (1,)
        )
        self.limited = threads_limited(1 if self.device == "cpu" else None, torch_too=True)
        self.limited.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.workers.shutdown(cancel_futures=True)
        self.limited.__exit__(None, None, None)

    def add(self, views: Sequence[tuple[View, int]]) -> Tensor:
        """Set ``grad`` of each parameter to the sum over ``views``, each with its seed; returns the sum of losses."""
        for parameter in self.parameters:
            parameter.grad = None
        total = torch.zeros(1)
        mapped = map if self.device != "cpu" or len(views) == 1 else self.workers.map
        for loss, gradients in mapped(self._of_one, *zip(*views, strict=True)) if views else ():
            total += loss
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return total

    def _of_one(self, view: View, seed: int) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        loss = self.joint(view, seed) / self.batch
        return loss.detach().cpu(), torch.autograd.grad(loss, self.parameters, allow_unused=True)


def tune(
    head: FcHead,
    data: TrainingImages,
    options: TuningOptions,
    engine: LiteEngine,
    *,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    processes: Processes | None = None,
    progress: Progress = no_progress,
    before: TunedConvolutions | None = None,
) -> tuple[TunedConvolutions, list[float]]:
    """Train ``head``, which has been trained already, and the last convolutions together.

    Deterministic for a seed and a precision of the products, with any number of threads. Goes on from ``checkpoints``
    where an earlier run was stopped, and ends with the same result.

    Args:
        head: is changed.
        data: images whose windows are ready; its features name the convolutions.
        options: how it is trained.
        engine: of :func:`tunable_engine`.
        seed: of all that is drawn.
        checkpoints: where it goes on from.
        processes: that share the images of each step.
        progress: shows how far it is.
        before: convolutions of an earlier tuning to go on from, of no more blocks. None: the published ones.

    Returns:
        The tuned convolutions, in the precision of ``engine``, and the mean loss of each epoch.

    Raises:
        ArgumentError: the loss is no longer a number.
    """
    checkpoints = checkpoints or Checkpoints(None)
    checkpoints.every_seconds = _CHECKPOINT_S
    device = next(head.parameters()).device
    processes = processes or alone(device.type)
    views = ViewSource(data, engine, options, seed)
    layers = published_layers(engine.name)
    if before is not None:
        layers = layers | before.folded(engine.network)
    tail = ConvTail(engine.network, layers, options.blocks).to(device)
    joint = _Joint(tail, head, data.features, _TORCH_TYPES[product_precision(options, device.type)])
    losses = _train(joint, views, options, seed, checkpoints, processes, progress)
    tuned = tail.folded()
    if not isinstance(engine.weights, QuantisedLayers):
        return TunedConvolutions(engine.network.name, options.blocks, tuned), losses
    logger.info("quantising the tuned convolutions")
    scale = engine.weights.tensors[tail.source]
    layers_done = iter(progress(range(len(tail.layers)), "quantising", total=len(tail.layers)))

    def next_layer(_: str = "") -> None:
        next(layers_done, None)

    integers = quantise_from(tail.layers, tuned, tail.source, views.calibration(), scale, next_layer)
    next_layer()  # the bar ends
    return TunedConvolutions(engine.network.name, options.blocks, integers), losses


def seconds_a_view(
    data: TrainingImages, options: TuningOptions, head: HeadOptions, engine: LiteEngine, count: int = 3
) -> float:
    """Time views of a few images, forwards and backwards.

    Args:
        data: images whose windows are computed first, where the cache lacks them.
        options: how it will be trained.
        head: which layers there are.
        engine: of :func:`tunable_engine`.
        count: how many steps.

    Returns:
        Seconds each, without the first one.
    """
    for i in range(len(data)):
        data.windowed(i)
    views = ViewSource(data, engine, options, 0)
    device = data.features.device
    tail = ConvTail(engine.network, published_layers(engine.name), options.blocks)
    layers = FcHead(data.features.dims, len(data.dataset.class_names), head.rank, head.hidden, layers=head.layers)
    joint = _Joint(tail, layers, data.features, _TORCH_TYPES[product_precision(options, device)]).to(device)
    optimiser = AdamW([joint.parameters()], [1e-3])
    batch = min(options.images_per_batch, len(data))
    shown = [views.view(0, k % len(data)) for k in range(batch * (count + 1))]
    with _Gradients(joint, batch) as gradients:
        for k in range(count + 1):
            if k == 1:
                started = time.perf_counter()
            gradients.add([(view, 0) for view in shown[k * batch : (k + 1) * batch] if len(view.windows)])
            optimiser.step()
    return (time.perf_counter() - started) / (count * batch)


def product_precision(options: TuningOptions, device: str) -> str:
    """In which precision products are made on ``device``: the one of ``options``, or what ``auto`` means here."""
    if options.precision != "auto":
        return options.precision
    return "bfloat16" if has_fast_bfloat16(device.partition(":")[0]) else "float32"


def _train(
    joint: _Joint,
    views: ViewSource,
    options: TuningOptions,
    seed: int,
    checkpoints: Checkpoints,
    processes: Processes,
    progress: Progress,
) -> list[float]:
    """Train in place; the result is the moving average. Returns the mean loss of each epoch."""
    count = len(views.data)
    batch = min(options.images_per_batch, count)
    per_epoch = count // batch
    steps = options.epochs * per_epoch
    rates = ((joint.tail, options.learning_rate), (joint.head, options.head_learning_rate))
    device = next(joint.parameters()).device.type
    optimiser = AdamW([part.parameters() for part, _ in rates], [rate for _, rate in rates], options.weight_decay)
    average = {name: value.detach().clone() for name, value in joint.named_parameters()}
    losses: list[float] = []
    sums: list[float] = []
    first = 0
    saved = checkpoints.load("tuning")
    if saved is not None:
        tensors, state = saved
        with torch.no_grad():
            for name, value in joint.named_parameters():
                value.copy_(tensors[f"now.{name}"])
                average[name].copy_(tensors[f"average.{name}"])
        optimiser.restore(tensors)
        first, losses, sums = state["done"], state["losses"], state["sums"]
        logger.info(f"goes on with the convolutions at step {first} of {steps}")

    def order() -> Iterator[tuple[int, int, int]]:
        """Step, epoch and image of each view of this process, in order."""
        for epoch in range(options.epochs):
            images = np.random.default_rng([seed, epoch]).permutation(count)
            for k in range(per_epoch):
                step = epoch * per_epoch + k
                if step >= first:
                    for place in processes.share(batch):
                        yield step, epoch, int(images[k * batch + place])

    joint.train()
    mine = len(processes.share(batch))
    source = order()
    with ThreadPoolExecutor(1, "sppnet-views") as reader, _Gradients(joint, batch) as gradients:
        coming: list[tuple[int, int, Future[View]]] = []

        def ahead() -> None:
            while len(coming) < _AHEAD * mine:
                following = next(source, None)
                if following is None:
                    return
                step, epoch, i = following
                coming.append((step, i, reader.submit(views.view, epoch, i)))

        for step in progress(range(first, steps), "convolutions", total=steps - first):
            shown: list[tuple[View, int]] = []
            for _ in range(mine):
                ahead()
                _, i, coming_view = coming.pop(0)
                view = coming_view.result()
                if len(view.windows):  # otherwise all of them lie on difficult objects: there is nothing to learn
                    # dropout depends on the step and the image, not on the process
                    shown.append((view, int(np.random.default_rng([seed, step, i]).integers(1 << 62))))
            sums_of_all = processes.total(torch.cat([gradients.add(shown), torch.tensor([float(len(shown))])]))
            total = sums_of_all[0]
            if not math.isfinite(float(total)):
                raise ArgumentError(
                    f"tuning: the loss is no longer a number at step {step}; take a smaller learning_rate than "
                    f"{options.learning_rate:g} (and head_learning_rate than {options.head_learning_rate:g})"
                )
            if sums_of_all[1]:  # else no process has seen a window, and the moving averages alone would move weights
                _share_gradients(joint, processes)
                optimiser.rates = [rate * one_cycle(step / max(steps, 2)) for _, rate in rates]
                optimiser.step()
            newest = 1 / max(1.0, min(step + 1.0, options.average * steps))
            with torch.no_grad():
                for name, value in joint.named_parameters():
                    average[name].lerp_(value, newest)
            if device == "cpu" and step % _TRIM_STEPS == 0:
                give_back_memory()
            sums.append(float(total))
            if (step + 1) % per_epoch == 0:
                losses.append(sum(sums) / len(sums))
                sums = []
                logger.info(f"convolutions, epoch {len(losses)} of {options.epochs}: mean loss {losses[-1]:.4f}")
            if processes.first and (checkpoints.due() or step + 1 == steps):
                checkpoints.save(
                    "tuning",
                    {f"now.{name}": value for name, value in joint.named_parameters()}
                    | {f"average.{name}": value for name, value in average.items()}
                    | optimiser.tensors(),
                    {"done": step + 1, "losses": losses, "sums": sums},
                )
    with torch.no_grad():
        for name, value in joint.named_parameters():
            value.copy_(average[name])
    joint.eval()
    return losses


def _share_gradients(joint: _Joint, processes: Processes) -> None:
    """Add up the gradients of all processes."""
    if processes.world == 1:
        return
    for value in joint.parameters():
        if value.grad is None:
            value.grad = torch.zeros_like(value)
        torch.distributed.all_reduce(value.grad)
