"""Caltech-101 with the last convolutions trained, too, through the pyramid pooling: one recipe, frozen and joint.

    python benchmarks/bench_caltech_joint.py DATA --validate          # on the training list alone: a fifth is held out
    python benchmarks/bench_caltech_joint.py DATA --json joint.json   # all of the training list; reads the test list

DATA holds ``101_ObjectCategories``, ``train.txt`` and ``test.txt``. The start is the frozen network with pyramid
pooling (averages and maxima of 3x3, 2x2, 1x1 bins) and least-squares SVMs, turned into a softmax. Then the SVMs and the
last blocks are trained together, on whole images at random sizes. A run that was stopped goes on where
it was with ``--checkpoint FILE``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from sppnet.backbones.engines.engine import LiteEngine
from sppnet.backbones.engines.lite import lite_network, split_network
from sppnet.backbones.engines.load import published_layers
from sppnet.backbones.tail import ConvTail, has_fast_bfloat16
from sppnet.classification.frozen import fit_least_squares, fit_scale, folds_of
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.detection.training.finetune import one_cycle
from sppnet.detection.training.tuning import jitter_colours
from sppnet.evaluation.classification import evaluate_classification
from sppnet.images import load_image
from sppnet.pooling.pyramid import spatial_pyramid_pool
from sppnet.solvers.adamw import AdamW
from sppnet.storage.atomic import write_atomic, write_text

LEVELS = (3, 2, 1)
SMOOTHING = 0.1


class Joint(nn.Module):
    """The last blocks, the pyramid and one linear layer."""

    def __init__(self, tail: ConvTail, dtype: torch.dtype) -> None:
        super().__init__()
        self.tail, self.dtype = tail, dtype
        self.weight, self.bias = nn.Parameter(torch.zeros(0)), nn.Parameter(torch.zeros(0))

    def vectors(self, early: Tensor) -> Tensor:
        """Pooled map of one image, of unit length, ``(1, D)``."""
        found = self.tail(early, self.dtype)
        parts = [normalize(spatial_pyramid_pool(found, LEVELS, mode), dim=1) for mode in ("avg", "max")]
        return torch.cat(parts, 1) / 2**0.5

    def forward(self, early: Tensor) -> Tensor:
        """Logits ``(1, classes)`` of one image."""
        return self.vectors(early) @ self.weight.T + self.bias


class Images:
    """What the early blocks give of each image; they run in ONNX Runtime."""

    def __init__(self, data: ImageFolder, name: str, blocks: int) -> None:
        self.data = data
        early = split_network(lite_network(name), blocks)[0]
        self.engine = LiteEngine(early, published_layers(name), threads=1)
        self.multiple = lite_network(name).stride

    def early(self, i: int, view: View, colour: float, rng: np.random.Generator) -> Tensor:
        """Of image ``i``, ``(1, C, h, w)``."""
        pixels = view.apply(jitter_colours(load_image(self.data.paths[i]), colour, rng), self.multiple)
        return torch.from_numpy(self.engine(pixels)).permute(2, 0, 1)[None]


def everything(joint: Joint, images: Images, sides: list[int], pool: ThreadPoolExecutor) -> Tensor:
    """Vectors ``(sides, n, D)`` of whole images."""
    rng = np.random.default_rng(0)

    @torch.inference_mode()
    def one(job: tuple[int, int]) -> Tensor:
        side, i = job
        return joint.vectors(images.early(i, View(side), 0, rng))[0]

    count = len(images.data)
    found = pool.map(one, [(side, i) for side in sides for i in range(count)])
    return torch.stack(list(found)).view(len(sides), count, -1)


def start(joint: Joint, x: Tensor, labels: NDArray[np.int64], classes: int, c: float) -> None:
    """Least-squares SVMs of the frozen vectors, as the logits of a softmax."""
    fold = folds_of(labels, 5)
    kept, out = torch.from_numpy(fold != 0), torch.from_numpy(fold == 0)
    part = fit_least_squares(x[kept], labels[kept.numpy()], classes, c)
    scale = fit_scale(x[out] @ part.weight.T + part.bias, labels[out.numpy()])
    svms = fit_least_squares(x, labels, classes, c)
    joint.weight = nn.Parameter((svms.weight * scale).float().contiguous())
    joint.bias = nn.Parameter((svms.bias * scale).float())


def accuracy(joint: Joint, x: Tensor, data: ImageFolder) -> dict[str, float]:
    """Mean class accuracy, and top-1; probabilities of the views are averaged."""
    with torch.inference_mode():
        probability = (x @ joint.weight.T + joint.bias).softmax(2).mean(0)
    result = evaluate_classification(probability.numpy(), data.labels, data.class_names)
    return {"mean_class_accuracy": round(result.mean_class_accuracy, 4), "top1": round(result.top1, 4)}


def train(joint: Joint, images: Images, arguments: argparse.Namespace, pool: ThreadPoolExecutor) -> list[float]:
    """Train in place; the result is the moving average over the last tenth. Mean loss of each epoch."""
    count, batch = len(images.data), arguments.batch
    per_epoch = count // batch
    steps = per_epoch * arguments.epochs
    parameters = list(joint.parameters())
    rates = (arguments.learning_rate, arguments.classes_rate)
    optimiser = AdamW([list(joint.tail.parameters()), [joint.weight, joint.bias]], rates, 1e-4)
    names = [name for name, _ in joint.named_parameters()]
    average = [p.detach().clone() for p in parameters]
    labels = torch.from_numpy(np.array(images.data.labels))
    first, losses, sums = 0, [], []
    if arguments.checkpoint and arguments.checkpoint.exists():
        stored = load_file(arguments.checkpoint)
        state = json.loads(bytes(stored.pop("state").tolist()))
        first, losses, sums = state["done"], state["losses"], state["sums"]
        with torch.no_grad():
            for name, parameter, mean in zip(names, parameters, average, strict=True):
                parameter.copy_(stored[f"now.{name}"])
                mean.copy_(stored[f"average.{name}"])
        optimiser.restore(stored)

    def of_one(job: tuple[int, int]) -> tuple[float, tuple[Tensor, ...]]:
        step, i = job
        rng = np.random.default_rng([arguments.seed, step, i])
        spread = math.log(1 + arguments.scale_jitter)
        side = round(arguments.side * math.exp(rng.uniform(-spread, spread)))
        flip = bool(rng.random() < 0.5) and arguments.mirror
        early = images.early(i, View(side, flip=flip), arguments.colour, rng)
        loss = cross_entropy(joint(early), labels[i : i + 1], label_smoothing=SMOOTHING) / batch
        return float(loss.detach()), torch.autograd.grad(loss, parameters)

    started = saved = time.perf_counter()
    for step in range(first, steps):
        order = np.random.default_rng([arguments.seed, step // per_epoch]).permutation(count)
        chosen = order[step % per_epoch * batch : (step % per_epoch + 1) * batch].tolist()
        optimiser.zero_grad()
        total = 0.0
        for loss, gradients in pool.map(of_one, [(step, i) for i in chosen]):
            total += loss
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        optimiser.rates = [rate * one_cycle(step / steps) for rate in rates]
        optimiser.step()
        with torch.no_grad():
            for mean, parameter in zip(average, parameters, strict=True):
                mean.lerp_(parameter, 1 / max(1.0, min(step + 1.0, 0.1 * steps)))
        sums.append(total)
        if (step + 1) % per_epoch == 0:
            losses.append(sum(sums) / len(sums))
            sums = []
            print(f"epoch {len(losses)}: loss {losses[-1]:.4f}, {time.perf_counter() - started:.0f} s", flush=True)
        if arguments.checkpoint and (time.perf_counter() - saved > 60 or step + 1 == steps):
            saved = time.perf_counter()
            state = {"done": step + 1, "losses": losses, "sums": sums}
            tensors = {f"now.{name}": p.detach().clone() for name, p in zip(names, parameters, strict=True)}
            tensors |= {f"average.{name}": p.clone() for name, p in zip(names, average, strict=True)}
            tensors |= {name: value.clone() for name, value in optimiser.tensors().items()}
            tensors["state"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
            with write_atomic(arguments.checkpoint) as temporary:
                save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    return losses


def main() -> None:
    """Measure the frozen start, train, measure again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", type=Path)
    add("--backbone", default="efficientnet-lite0+stride32")
    add("--blocks", type=int, default=8, help="last blocks that are trained")
    add("--epochs", type=int, default=12)
    add("--batch", type=int, default=16)
    add("--side", type=int, default=224, help="short side in pixels")
    add("--learning-rate", type=float, default=1e-4, help="of the convolutions")
    add("--classes-rate", type=float, default=1e-4, help="learning rate of the SVMs")
    add("--scale-jitter", type=float, default=0.25, help="training takes sides up to so much longer or shorter")
    add("--colour", type=float, default=0.3, help="brightness, contrast and saturation change by up to so much")
    add("--mirror", action="store_true", help="half of the images that are trained on are mirrored")
    add("--cost", type=float, default=3.0, help="C of the least-squares SVMs")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=2, help="images that are worked on at a time")
    add("--validate", action="store_true", help="hold out a fifth of the training list; the test list isn't read")
    add("--checkpoint", type=Path)
    add("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = arguments.data / "101_ObjectCategories"
    data = load_image_folder(root, arguments.data / "train.txt", split="train")
    if arguments.validate:
        fold = folds_of(data.labels, 5, seed=1)
        learned, other = (data.subset(np.flatnonzero(kept)) for kept in (fold != 0, fold == 0))
    else:
        learned = data
        other = load_image_folder(root, arguments.data / "test.txt", class_names=data.class_names, split="test")
    tail = ConvTail(lite_network(arguments.backbone), published_layers(arguments.backbone), arguments.blocks)
    joint = Joint(tail, torch.bfloat16 if has_fast_bfloat16("cpu") else torch.float32)
    images, unseen = (Images(d, arguments.backbone, arguments.blocks) for d in (learned, other))
    sides = [arguments.side, round(arguments.side * 1.25)]
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "arguments": vars(arguments) | {"data": ""},
        "train": len(learned), "unseen": len(other), "sides_px": sides,
    }  # fmt: skip
    with ThreadPoolExecutor(arguments.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        began = time.perf_counter()
        vectors = everything(joint, images, sides[:1], pool)
        start(joint, vectors[0], learned.labels, len(learned.class_names), arguments.cost)
        seconds = {"start": round(time.perf_counter() - began)}
        for stage in ("frozen", "joint"):
            if stage == "joint":
                began = time.perf_counter()
                report["losses"] = train(joint, images, arguments, pool)
                seconds["joint"] = round(time.perf_counter() - began)
            x = everything(joint, unseen, sides, pool)
            report[stage] = {"one size": accuracy(joint, x[:1], other), "two sizes": accuracy(joint, x, other)}
            print(stage, report[stage], seconds, flush=True)
    report["seconds"] = seconds
    if arguments.json:
        write_text(arguments.json, json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
