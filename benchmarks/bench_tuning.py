"""What ``--tune-convolutions`` gains on small data, and what it costs.

    python benchmarks/bench_tuning.py --bccd BCCD --cache DIR --seeds 3 --json tuning.json

Two data sets: BCCD (its ``train`` split, measured on ``test``), and generated digits of ten classes (200 images,
measured on 100 others). Each seed trains the same layers twice, frozen and tuned. ``voc-area`` and minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sppnet.datasets.example import make_example
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.detector import SPPDetector
from sppnet.detection.measure import detect_dataset
from sppnet.detection.options import TuningOptions
from sppnet.evaluation.voc import evaluate_voc
from sppnet.storage.atomic import write_text

Task = tuple[str, DetectionDataset, DetectionDataset]


def tasks(bccd: Path | None, folder: Path) -> Iterator[Task]:
    """Name, images to train on and others to measure on."""
    if bccd is not None:
        train, test = (load_dataset(bccd, split, on_error="skip") for split in ("train", "test"))
        yield "BCCD", train, test
    digits = make_example(folder / "digits", 300, 10, 0)
    yield "digits", digits.subset(range(200)), digits.subset(range(200, 300))


def run(task: Task, seed: int, tuning: TuningOptions | None, cache: Path) -> dict[str, float]:
    """Train and measure once; seconds without those of the maps, which both ways share."""
    _, train, test = task
    detector = SPPDetector(seed=seed, tuning=tuning)
    started = time.perf_counter()
    detector.fit(train, cache=cache)
    seconds = time.perf_counter() - started - detector.fit_seconds_["windows and maps"]
    found, data = detect_dataset(detector, test)
    return {"area": evaluate_voc(found, data, protocol="voc-area").map, "seconds": round(seconds, 1)}


def main() -> None:
    """Run all, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bccd", type=Path, help="BCCD in VOC layout; without it the digits only")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of the tuning")
    parser.add_argument("--json", type=Path, default=Path("tuning.json"))
    arguments = parser.parse_args()
    options = TuningOptions() if arguments.epochs is None else TuningOptions(epochs=arguments.epochs)
    document: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "epochs": options.epochs,
    }
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(arguments.bccd, Path(folder)):
            rows: dict[str, list[dict[str, float]]] = {"frozen": [], "tuned": []}
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                for name, tuning in (("frozen", None), ("tuned", options)):
                    rows[name].append(run(task, seed, tuning, arguments.cache))
                    print(f"{task[0]}, {len(task[1])} images, seed {seed}, {name}: {rows[name][-1]}", flush=True)
            gains = [b["area"] - a["area"] for a, b in zip(rows["frozen"], rows["tuned"], strict=True)]
            document[task[0]] = {"images": len(task[1]), "gains": gains} | rows
            print(f"{task[0]}: tuned - frozen {statistics.mean(gains):+.4f} ({min(gains):+.4f} to {max(gains):+.4f})")
    write_text(arguments.json, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
