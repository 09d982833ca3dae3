"""What tuned convolutions do to classes that are added later: three classes of VOC07, left out of the training.

    python benchmarks/bench_left_out.py --data VOC2007 --cache DIR --output DIR --json left_out.json

Trains two detectors on the images of ``train`` that hold none of the classes, with frozen and with tuned convolutions;
a detector that is in ``--output`` already isn't trained again. Then each is taught the classes from few images of
``train``, in the studio's way and by ``add-class``, and measured on ``val``: all images that hold one of them, and
others. AP (``voc-area``) of each class. Seeds choose the images; both detectors are taught from the same ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_teaching import Task, Taught, subset
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.detections import Detections
from sppnet.detection.detector import SPPDetector
from sppnet.detection.measure import detect_dataset
from sppnet.detection.options import TuningOptions
from sppnet.detection.teaching import HeadTeacher
from sppnet.evaluation.voc import evaluate_voc
from sppnet.storage.atomic import write_text
from sppnet.studio.worker import WHOLE_STEPS


def holding(data: DetectionDataset, labels: set[int]) -> list[bool]:
    """Whether each image holds one of the classes."""
    return [bool(labels & set(record.labels.tolist())) for record in data]


def without(data: DetectionDataset, names: list[str]) -> DetectionDataset:
    """The images that hold none of the classes, and the other classes."""
    held = holding(data, {data.class_names.index(name) for name in names})
    rest = data.subset([i for i, has in enumerate(held) if not has])
    return rest.with_classes([name for name in data.class_names if name not in names])


def task_of(train: DetectionDataset, val: DetectionDataset, names: list[str], others: int) -> Task:
    """Images to choose from; images of ``val`` with the classes and ``others`` more, evenly spread."""
    labels = {val.class_names.index(name) for name in names}
    held = holding(val, labels)
    rest = val.subset([i for i, has in enumerate(held) if not has]).spread(others)
    unseen = subset(val, [*(r for r, has in zip(val, held, strict=True) if has), *rest]).with_classes(names)
    return Task("VOC07", train.with_classes(names), unseen)


def chosen(data: DetectionDataset, count: int, seed: int) -> DetectionDataset:
    """``count`` images of each class (fewer where there are fewer); an image with two classes counts for both."""
    order = np.random.default_rng(seed).permutation(len(data)).tolist()
    easy = [set(r.labels[~r.difficult].tolist()) for r in data]
    kept: set[int] = set()
    for label in range(len(data.class_names)):
        kept.update([i for i in order if label in easy[i]][:count])
    return data.subset([i for i in order if i in kept])


def by_class(found: list[Detections], data: DetectionDataset) -> dict[str, float]:
    """AP of each class."""
    ap = evaluate_voc(found, data, protocol="voc-area").ap
    return {name: round(float(value), 4) for name, value in zip(data.class_names, ap, strict=True)}


def studio(taught: Taught, lessons: DetectionDataset, task: Task, seed: int) -> dict[str, float]:
    """Teach as the studio does, and measure."""
    head = HeadTeacher(taught.detector.weights_, len(task.learn.class_names), seed=seed)
    head.learn([taught.lesson(record) for record in lessons], WHOLE_STEPS)
    return by_class(taught.found(head, task.unseen), task.unseen)


def added(detector: SPPDetector, lessons: DetectionDataset, task: Task, cache: Path, seed: int) -> dict[str, float]:
    """Add the classes, and measure them."""
    larger = detector.add_classes(lessons, cache=cache, seed=seed)
    only = larger.remove_classes([n for n in larger.class_names_ if n not in task.unseen.class_names])
    assert only.class_names_ == task.unseen.class_names
    return by_class(*detect_dataset(only, task.unseen))


def trained(kind: str, data: DetectionDataset, folder: Path, cache: Path) -> SPPDetector:
    """Train a detector, or take the one that is in ``folder``."""
    path = folder / f"{kind}.safetensors"
    if not path.exists():
        detector = SPPDetector(tuning=TuningOptions() if kind == "tuned" else None)
        detector.fit(data, cache=cache)
        print(f"{kind}: {detector.fit_seconds_}", flush=True)
        detector.save(path)
    return SPPDetector.load(path)


def main() -> None:
    """Train, teach, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help="VOC2007 in VOC layout")
    add("--cache", type=Path, required=True, help="maps and windows")
    add("--output", type=Path, required=True, help="folder of the two detectors")
    add("--classes", nargs="+", default=["cow", "sofa", "train"])
    add("--counts", type=int, nargs="+", default=[10, 50], help="images of each class")
    add("--seeds", type=int, default=2)
    add("--others", type=int, default=300, help="images of val without the classes")
    add("--json", type=Path, default=Path("left_out.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    arguments.output.mkdir(parents=True, exist_ok=True)
    train, val = (load_dataset(arguments.data, split, on_error="skip") for split in ("train", "val"))
    task = task_of(train, val, arguments.classes, arguments.others)
    learned = without(train, arguments.classes)
    print(f"trained on {len(learned)} images of {len(train)}, measured on {len(task.unseen)}", flush=True)
    rows: list[dict[str, Any]] = []
    for kind in ("frozen", "tuned"):
        detector = trained(kind, learned, arguments.output, arguments.cache)
        taught = Taught(detector, arguments.output / f"{kind}-features")
        for seed in range(arguments.seeds):
            for count in arguments.counts:
                lessons = chosen(task.learn, count, seed)
                for way, ap in (
                    ("studio", studio(taught, lessons, task, seed)),
                    ("add-class", added(detector, lessons, task, arguments.cache, seed)),
                ):
                    rows.append({"convolutions": kind, "way": way, "images_a_class": count, "images": len(lessons),
                                 "seed": seed, "mean": round(statistics.mean(ap.values()), 4), "ap": ap})  # fmt: skip
                    print(rows[-1], flush=True)
                    document = {
                        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
                        "trained_on": len(learned),
                        "measured_on": len(task.unseen),
                        "rows": rows,
                    }
                    write_text(arguments.json, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
