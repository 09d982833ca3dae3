"""Processor time of the frozen convolutions and of the head: torch, ONNX Runtime in float32 and in int8, one thread.

    python benchmarks/bench_engines.py --output bench_engines.json

All of them run in one process, in turn. The figure is the median of the processor time, not of the clock, so that other
work on the machine disturbs little. Sizes are those of an image of 500 x 375 at the default detector's two scales.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from sppnet.backbones.engines.load import load_engine
from sppnet.backbones.registry import load_backbone
from sppnet.detection.heads import HeadEngine
from sppnet.detection.maps import MapScale

SIZES = ((608, 816), (352, 480))
WINDOWS, BINS = 2000, 21


def in_turn(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median processor time in ms of each, after one run to warm up."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.process_time()
            run()
            times[name].append(1000 * (time.process_time() - started))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def convolutions(name: str, repeats: int) -> list[dict[str, Any]]:
    """One row for each size."""
    network = load_backbone(name)
    engines = {f"ONNX Runtime {p}": load_engine(name, p, threads=1) for p in ("float32", "int8")}
    rows = []
    for height, width in SIZES:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

        def in_torch(image: Any = image) -> object:
            return network(network.preprocess(image))

        runs: dict[str, Callable[[], object]] = {"torch float32": in_torch}
        runs |= {key: (lambda engine=engine, image=image: engine(image)) for key, engine in engines.items()}  # type: ignore[misc]  # lambdas with defaults
        rows.append({"what": f"{name}, {height} x {width}", "cpu_ms": in_turn(runs, repeats)})
    return rows


def head(channels: int, repeats: int) -> dict[str, Any]:
    """The layers behind the pooling, of the shapes of the default detector."""
    rng = np.random.default_rng(0)
    shapes = {
        "reduce_weight": (256, channels * BINS), "reduce_bias": (256,), "fc6_weight": (1024, 256), "fc6_bias": (1024,),
        "class_weight": (20, 1024), "class_bias": (20,), "box_weight": (80, 1024), "box_bias": (80,),
    }  # fmt: skip
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    exact = HeadEngine(weights, threads=1)
    whole = HeadEngine(weights, MapScale(np.ones(channels, np.float32), np.zeros(channels, np.float32)), threads=1)
    pooled = rng.integers(0, 256, (WINDOWS, channels * BINS), np.uint8)
    floats = pooled.astype(np.float32)
    runs: dict[str, Callable[[], object]] = {
        "ONNX Runtime float32": lambda: exact.scores(exact.fc(floats)),
        "ONNX Runtime int8": lambda: whole.scores(whole.fc(pooled)),
    }
    return {"what": f"head, {WINDOWS} windows of {channels * BINS} numbers", "cpu_ms": in_turn(runs, repeats)}


def processor() -> str:
    """Name of the processor, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--backbone", default="efficientnet-lite0+mid")
    parser.add_argument("--output", default="bench_engines.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    channels = load_engine(arguments.backbone, threads=1).channels
    rows = [*convolutions(arguments.backbone, arguments.repeats), head(channels, arguments.repeats)]
    for row in rows:
        print(row["what"] + ": " + ", ".join(f"{name} {ms:.1f}" for name, ms in row["cpu_ms"].items()) + " ms")
    versions = {"torch": torch.__version__, "onnxruntime": version("onnxruntime")}
    document = {"processor": processor(), "threads": 1, "versions": versions, "rows": rows}
    Path(arguments.output).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
