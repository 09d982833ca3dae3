"""What an image costs in a step of ``--tune-convolutions``, and what makes it cheaper or dearer.

    python benchmarks/bench_tuning_step.py --data VOC2007 --json step.json

Each setting in turn, ``--rounds`` times: milliseconds to prepare a view (decoding, colours, early blocks in int8), and
to go forwards and backwards through the last blocks, the pooling and the layers. One thread, the images of the folder
that are spread evenly. Medians of the rounds, and the ratio of the sum to that of the recipe, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.datasets.formats.voc import load_voc
from sppnet.detection.detector import SPPDetector
from sppnet.detection.options import HeadOptions, TuningOptions
from sppnet.detection.training.images import TrainingImages
from sppnet.detection.training.tuning import ViewSource, product_precision, seconds_a_view, tunable_engine
from sppnet.proposals import SelectiveSearch
from sppnet.storage.atomic import write_text
from sppnet.storage.feature_cache import FeatureCache

SETTINGS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "five blocks": {"blocks": 5},
    "nine blocks": {"blocks": 9},
    "48 windows an image": {"windows_per_image": 48},
    "192 windows an image": {"windows_per_image": 192},
    "four images joined in every view": {"mosaic": 1.0},
    "products in float32": {"precision": "float32"},
    "depthwise gradients of torch": {},
    "the same, in float32": {"precision": "float32"},
}
OF_TORCH = ("depthwise gradients of torch", "the same, in float32")


def of_torch(x: Tensor, kernel: Tensor, bias: Tensor, dilation: int = 1) -> Tensor:
    """Convolve depthwise with nothing of our own."""
    return functional.conv2d(x, kernel, bias, 1, dilation * (kernel.shape[-1] // 2), dilation, len(kernel))


def main() -> None:
    """Time all, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="VOC2007 in VOC layout")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="of two images each, a round")
    parser.add_argument("--json", type=Path, default=Path("tuning_step.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    detector = SPPDetector()
    features = detector.window_features()
    times: dict[str, dict[str, list[float]]] = {name: {"view": [], "step": []} for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        images = load_voc(arguments.data, "train", on_error="skip").spread(arguments.images)
        data = TrainingImages(images, features, None, SelectiveSearch("fast"), FeatureCache(folder))
        for i in range(len(data)):
            data.windowed(i)
        for turn in range(arguments.rounds + 1):
            for name, changed in SETTINGS.items():
                options = TuningOptions(**changed)
                engine = tunable_engine(features, "int8", options.blocks)
                views = ViewSource(data, engine, options, turn)
                started = time.perf_counter()
                for i in range(len(data)):
                    views.view(0, i)
                prepared = (time.perf_counter() - started) / len(data)
                whose = patch("sppnet.backbones.tail.depthwise", of_torch) if name in OF_TORCH else nullcontext()
                with whose:
                    stepped = seconds_a_view(data, options, HeadOptions(), engine, arguments.steps)
                if turn:  # the first round warms up
                    times[name]["view"].append(prepared)
                    times[name]["step"].append(stepped)
            print(f"round {turn} of {arguments.rounds}", flush=True)
    whole = {name: [v + s for v, s in zip(t["view"], t["step"], strict=True)] for name, t in times.items()}
    first = whole["the recipe"]
    print(f"{'':30} {'view':>7} {'step':>7}  ratio (range)")
    rows = {}
    for name, t in times.items():
        ratios = [w / r for w, r in zip(whole[name], first, strict=True)]
        view, step = (1000 * statistics.median(t[part]) for part in ("view", "step"))
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name:30} {view:7.0f} {step:7.0f}  {statistics.median(ratios):.2f} ({spread})")
        rows[name] = {"view_ms": view, "step_ms": step, "ratios": ratios}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, 1 thread, torch {torch.__version__}"
    products = product_precision(TuningOptions(), "cpu")
    document = {"machine": machine, "products": products, "images": arguments.images, "rows": rows}
    write_text(arguments.json, json.dumps(document, indent=1) + "\n", named=True)


if __name__ == "__main__":
    main()
