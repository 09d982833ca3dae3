"""A small network trained from nothing for a fixed budget: pyramid against fixed pooling, one size against two.

    python benchmarks/bench_from_nothing.py DATA --json from_nothing.json

DATA holds ``101_ObjectCategories``, ``train.txt`` and ``test.txt`` of Caltech-101; every fifth class is used. The net
is ZF-5 with a quarter of its channels, for images of 96 pixels (77 is to 96 as 180 to 224). All runs see the same
images in the same order, and as many of them. Tested on the middle crop of 96 pixels, and (pyramid only) on the whole
image.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.options import GradientOptions
from sppnet.classification.training import train_network
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.evaluation.classification import evaluate_classification
from sppnet.images import load_image
from sppnet.storage.atomic import write_atomic

SIDE, SMALL = 96, 77
# pooling, sizes
RUNS = {
    "fixed pooling 3x3, one size": ("fixed", (SIDE,)),
    "pyramid 3 2 1, one size": ("pyramid", (SIDE,)),
    "pyramid 3 2 1, two sizes in turn": ("pyramid", (SIDE, SMALL)),
}


def every_fifth(data: ImageFolder) -> ImageFolder:
    kept = list(range(0, len(data.class_names), 5))
    index = [i for i, label in enumerate(data.labels) if label in kept]
    labels = np.searchsorted(kept, data.labels[index]).astype(np.int64)
    return ImageFolder(tuple(data.paths[i] for i in index), labels, tuple(data.class_names[k] for k in kept))


@torch.inference_mode()
def accuracy(network: SPPClassifier, data: ImageFolder, view: View) -> float:
    scores = []
    for path in data.paths:
        pixels = view.apply(load_image(path), 1)
        scores.append(network(network.backbone.preprocess(pixels))[0].numpy())
    return evaluate_classification(np.stack(scores), data.labels, data.class_names).mean_class_accuracy


def run(pooling: str, sizes: tuple[int, ...], seed: int, epochs: int, train: ImageFolder, test: ImageFolder) -> Any:
    torch.manual_seed(seed)
    backbone = load_backbone("zf5@0.25", pretrained=False, trainable=True)
    fixed = FixedPool(3, 1, backbone.map_size(SIDE, SIDE))
    network = SPPClassifier(
        backbone, fixed if pooling == "fixed" else (3, 2, 1), len(train.class_names), hidden=(256,), dropout=0.5
    )
    options = GradientOptions(epochs=epochs, batch_size=32, sizes_px=sizes, learning_rate=0.02, seed=seed)
    start = time.perf_counter()
    history = train_network(network, train, options)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "loss": round(history[-1]["loss"], 4),
        "crop": round(accuracy(network, test, View(SIDE, "crop")), 4),
        "full": None if pooling == "fixed" else round(accuracy(network, test, View(SIDE)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = arguments.data / "101_ObjectCategories"
    train = every_fifth(load_image_folder(root, arguments.data / "train.txt"))
    test = every_fifth(load_image_folder(root, arguments.data / "test.txt"))
    print(f"{len(train)} images to train on, {len(test)} to test, {len(train.class_names)} classes", flush=True)
    found: dict[str, list[Any]] = {name: [] for name in RUNS}
    for seed in range(arguments.seeds):
        for name, (pooling, sizes) in RUNS.items():
            result = run(pooling, sizes, seed, arguments.epochs, train, test)
            found[name].append(result)
            print(f"{name}, seed {seed}: {result}", flush=True)
            if arguments.json:
                report = {
                    "runs": found, "epochs": arguments.epochs, "train": len(train), "test": len(test),
                    "classes": len(train.class_names), "threads": 1, "load_average": os.getloadavg(),
                }  # fmt: skip
                with write_atomic(arguments.json) as temporary:
                    temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\nmean class accuracy{'':<16}  middle crop       whole image     (mean, least to greatest of the seeds)")
    for name, results in found.items():
        cells = []
        for key in ("crop", "full"):
            values = [r[key] for r in results if r[key] is not None]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else f"{'-':<19}")
        print(f"{name:<34}  {'  '.join(cells)}")


if __name__ == "__main__":
    main()
