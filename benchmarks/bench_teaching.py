"""How good a detector is that the studio taught from 1, 3, 10, 30 and 100 images; beside it what ``add-class`` gives.

    python benchmarks/bench_teaching.py --bccd BCCD --cache DIR --json teaching.json --plot teaching.png
    python benchmarks/bench_teaching.py --bccd BCCD --cache DIR --train --counts 30 100   against ``sppnet train``, too

Measured on images that were not learned from: of BCCD its ``test`` split, of the generated digits others of the same
making. With each seed other images are chosen, and the fewer are among the more. The studio's head is trained as the
studio does it: by its number of steps, from the lessons of finished images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from sppnet.datasets.example import make_example
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.detection.detections import Detections
from sppnet.detection.detector import SPPDetector
from sppnet.detection.measure import detect_dataset
from sppnet.detection.teaching import HeadTeacher, Lesson, suggest
from sppnet.errors import SppnetError
from sppnet.evaluation.voc import evaluate_voc
from sppnet.storage.atomic import write_atomic
from sppnet.studio.describe import Describer
from sppnet.studio.worker import WHOLE_STEPS

COUNTS = (1, 3, 10, 30, 100)


@dataclass(frozen=True)
class Task:
    """Images to choose lessons from, and unseen ones."""

    name: str
    learn: DetectionDataset
    unseen: DetectionDataset


def subset(data: DetectionDataset, records: Sequence[ImageRecord]) -> DetectionDataset:
    return DetectionDataset(records, data.class_names, data.name, data.split)


def tasks(bccd: Path | None, folder: Path, unseen: int) -> Iterator[Task]:
    if bccd is not None:
        both = [load_dataset(bccd, split, on_error="skip") for split in ("train", "test")]
        yield Task("BCCD", both[0], subset(both[1], both[1].records[:unseen]))
    digits = make_example(folder / "digits", 100 + unseen, 3, 0)
    yield Task("digits", subset(digits, digits.records[:100]), subset(digits, digits.records[100:]))


class Taught:
    """The studio's teaching, without the studio."""

    def __init__(self, detector: SPPDetector, cache: Path) -> None:
        self.detector = detector
        self.describer = Describer(detector, cache)
        self._lessons: dict[Path, Lesson] = {}

    def lesson(self, record: ImageRecord) -> Lesson:
        """What the studio learns from when the image is finished; none was suggested, so none was rejected."""
        if record.path not in self._lessons:
            none = np.zeros((0, 4), np.float32)
            boxes = record.boxes.astype(np.float32)
            self._lessons[record.path] = self.describer.lesson(record.path, boxes, record.labels, none)
        return self._lessons[record.path]

    def found(self, head: HeadTeacher, data: DetectionDataset) -> list[Detections]:
        """What the head suggests on each image."""
        weights, result = head.weights(), []
        for record in data:
            known = self.describer.describe(record.path)
            boxes, confidence, labels = suggest(
                weights, known.vectors, known.windows, known.width, known.height, least=0.001
            )
            result.append(Detections(boxes, confidence, labels, data.class_names))
        return result

    def run(self, records: Sequence[ImageRecord], task: Task, seed: int) -> tuple[float, float]:
        """Teach from some images; ``voc-area`` on the unseen ones, and seconds of the teaching."""
        lessons = [self.lesson(record) for record in records]
        started = time.perf_counter()
        head = HeadTeacher(self.detector.weights_, len(task.learn.class_names), seed=seed)
        head.learn(lessons, WHOLE_STEPS)
        seconds = time.perf_counter() - started
        return area(self.found(head, task.unseen), task.unseen), seconds


def trained(records: Sequence[ImageRecord], task: Task, cache: Path, seed: int) -> float:
    """What ``train`` makes of the same images: a detector of its own, from nothing."""
    detector = SPPDetector(seed=seed).fit(subset(task.learn, records), cache=cache / "maps")
    return area(*detect_dataset(detector, task.unseen))


def area(found: Sequence[Detections], data: DetectionDataset) -> float:
    return evaluate_voc(found, data, protocol="voc-area").map


def added(detector: SPPDetector, records: Sequence[ImageRecord], task: Task, cache: Path, seed: int) -> float | None:
    """``add-class`` on the same images; None where it refuses so few."""
    try:
        with TemporaryDirectory(dir=cache) as folder:
            taught = detector.add_classes(subset(task.learn, records), cache=folder, seed=seed)
        found, data = detect_dataset(taught, task.unseen)
    except SppnetError as error:
        print(f"  add-class refuses: {error}", flush=True)
        return None
    names = taught.class_names_
    place = np.array([data.class_names.index(n) if n in data.class_names else -1 for n in names])
    mine = []
    for item in found:
        kept = place[item.class_id] >= 0
        mine.append(
            Detections(item.xyxy[kept], item.confidence[kept], place[item.class_id[kept]], task.unseen.class_names)
        )
    return area(mine, data)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from sppnet.plots import figure_for, save_figure

    path, figure = figure_for(path, (9.0, 3.8))
    names = list(dict.fromkeys(row["task"] for row in rows))
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), place)
        for key, label in (("studio", "studio"), ("add_class", "add-class")):
            counts = sorted({r["images"] for r in rows if r["task"] == name and r[key] is not None})
            values = [[r[key] for r in rows if r["task"] == name and r["images"] == n and r[key]] for n in counts]
            if counts:
                middle = [float(np.mean(v)) for v in values]
                spread = [[m - min(v) for m, v in zip(middle, values, strict=True)],
                          [max(v) - m for m, v in zip(middle, values, strict=True)]]  # fmt: skip
                axes.errorbar(counts, middle, yerr=spread, marker="o", capsize=3, label=label)
        axes.set_xscale("log")
        axes.set_xticks(COUNTS, [str(n) for n in COUNTS])
        axes.set_ylim(0, 1)
        axes.set_title(name)
        axes.set_xlabel("images taught")
        axes.set_ylabel("voc-area on unseen images")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bccd", type=Path, help="folder of BCCD; without it only the digits are measured")
    add("--cache", type=Path, required=True, help="folder for features; what is there is not computed again")
    add("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of images taught")
    add("--seeds", type=int, default=3)
    add("--unseen", type=int, default=60, help="images to measure on, of each task")
    add("--model", help="detector to start from (default: the one that comes with sppnet)")
    add("--no-add-class", action="store_true", help="leave add-class out; it takes most of the time")
    add("--train", action="store_true", help="also train on the same images, as `sppnet train` does")
    add("--json", type=Path)
    add("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    arguments.cache.mkdir(parents=True, exist_ok=True)
    detector = SPPDetector.load(arguments.model)
    rows: list[dict[str, Any]] = []
    if arguments.json and arguments.json.is_file():  # goes on from there
        rows = json.loads(arguments.json.read_text(encoding="utf-8"))["rows"]
    known = {(row["task"], row["images"], row["seed"]): row for row in rows}
    for task in tasks(arguments.bccd, arguments.cache, arguments.unseen):
        studio = Taught(detector, arguments.cache / "features")
        for seed in range(arguments.seeds):
            order = np.random.default_rng(seed).permutation(len(task.learn))
            for count in arguments.counts:
                before = known.get((task.name, count, seed))
                if (
                    before is not None
                    and (arguments.no_add_class or before["add_class"] is not None)
                    and (not arguments.train or before.get("train") is not None)
                ):
                    continue
                if before is not None:
                    rows.remove(before)
                records = [task.learn[int(i)] for i in order[:count]]
                score, seconds = studio.run(records, task, seed)
                other = None if arguments.no_add_class else added(detector, records, task, arguments.cache, seed)
                whole = round(trained(records, task, arguments.cache, seed), 4) if arguments.train else None
                rows.append({"task": task.name, "images": count, "seed": seed, "studio": round(score, 4),
                             "add_class": None if other is None else round(other, 4), "train": whole,
                             "teaching_seconds": round(seconds, 2)})  # fmt: skip
                print(rows[-1], flush=True)
                if arguments.json:
                    report = {"rows": rows, "steps": WHOLE_STEPS, "unseen": arguments.unseen,
                              "cpu": platform.processor() or platform.machine(),
                              "threads": torch.get_num_threads(), "load_average": os.getloadavg()}  # fmt: skip
                    with write_atomic(arguments.json) as temporary:
                        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
