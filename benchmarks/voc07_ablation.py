"""What each part of the detector is worth on VOC07: trains and measures it in several ways, and writes a table.

    python benchmarks/voc07_ablation.py --data VOC2007 --cache DIR --output docs/results.md

Trained on ``train``, measured on ``val`` (``--limit N`` takes N pictures of each). Maps and windows, and every
training, are kept in the cache folder, so that it may be stopped at any time and goes on. With ``--rows`` only some
rows are done. From an empty cache on two cores: about 20 minutes for maps and windows of each backbone, 10 for a fully
connected layer, 10 for SVMs, 4 for each measurement.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import sppnet
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.voc import load_voc
from sppnet.detection.detections import Detections
from sppnet.detection.detector import SPPDetector
from sppnet.detection.features import PooledWindows, WindowFeatures
from sppnet.detection.inference import find_objects
from sppnet.detection.training_images import TrainingImages
from sppnet.detection.weights import DetectorWeights
from sppnet.evaluation.voc import VocResult, evaluate_voc
from sppnet.learning.feature_cache import FeatureCache
from sppnet.proposals import SelectiveSearch

ONE, TWO = "efficientnet-lite0", "efficientnet-lite0+mid"
ALL = {"second_look": True, "voting": True}
NONE = {"second_look": False, "voting": False}
# name: (parameters of the detector, whether boxes are regressed, what happens to them then)
POOL = {"backbone": TWO, "hidden": 0, "rank": 1024, "classifier": "svm", "box_regression": "ridge"}
SCALES = {"short_sides_px": [384, 800], "flip_short_sides_px": [320, 672], "classifier": "softmax"}
ROWS: dict[str, tuple[dict[str, Any], bool, dict[str, bool]]] = {
    "one map, fc, softmax, box regression": ({"backbone": ONE, "classifier": "softmax"}, True, NONE),
    "two maps, fc, softmax": ({"backbone": TWO, "classifier": "softmax"}, False, NONE),
    "+ box regression": ({"backbone": TWO, "classifier": "softmax"}, True, NONE),
    "+ box voting": ({"backbone": TWO, "classifier": "softmax"}, True, {"second_look": False, "voting": True}),
    "+ second look, no voting": (
        {"backbone": TWO, "classifier": "softmax"}, True, {"second_look": True, "voting": False},
    ),
    "+ second look and voting": ({"backbone": TWO, "classifier": "softmax"}, True, ALL),
    "SVMs in place of softmax": ({"backbone": TWO, "classifier": "svm"}, True, ALL),
    "SVMs and ridge box regression (the paper's)": (
        {"backbone": TWO, "classifier": "svm", "box_regression": "ridge"}, True, ALL,
    ),
    "pooled windows, SVMs, no fc (the paper's pool5)": (POOL, False, NONE),
    "pooled windows, SVMs, no fc, ridge box regression": (POOL, True, NONE),
    "two maps at two scales (384, 800 px), fc, softmax, box regression": ({"backbone": TWO} | SCALES, True, NONE),
    "the same, second look and voting": ({"backbone": TWO} | SCALES, True, ALL),
}  # fmt: skip


def bar(items: Iterable[int], what: str, total: int) -> Iterator[int]:
    """Progress on stderr."""
    return iter(tqdm(items, what, total, mininterval=5, file=sys.stderr))


def measure(
    ways: dict[str, tuple[DetectorWeights, dict[str, bool]]], features: WindowFeatures, data: TrainingImages
) -> tuple[dict[str, dict[str, VocResult]], float]:
    """Results of every way by protocol, and the median seconds behind the maps for the last way."""
    pool = PooledWindows(features)
    found: dict[str, list[Detections]] = {name: [] for name in ways}
    seconds = []
    with torch.inference_mode():
        for i in bar(range(len(data)), "measuring", len(data)):
            image = data.load(i)
            maps = dataclasses.replace(image.maps, maps=tuple(m.float() for m in image.maps.maps))
            for name, (weights, options) in ways.items():

                def fc(boxes: NDArray[np.float32], weights: DetectorWeights = weights, maps: Any = maps) -> Tensor:
                    return weights.fc(pool(maps, boxes))

                start = time.perf_counter()
                parts = find_objects(weights, fc, image.windows, maps.height, maps.width, **options)  # type: ignore[arg-type]
                elapsed = time.perf_counter() - start
                found[name].append(Detections(*parts, data.dataset.class_names, {}, len(image.windows)))
            seconds.append(elapsed)
    results = {
        name: {p: evaluate_voc(mine, data.dataset, protocol=p) for p in ("voc07-11pt", "voc-area")}
        for name, mine in found.items()
    }
    return results, float(np.median(seconds))


def table(results: dict[str, dict[str, VocResult]], train: DetectionDataset, val: DetectionDataset) -> str:
    """Markdown: mAP of each row by both protocols, then the AP of each class."""
    lines = ["| | `voc07-11pt` | `voc-area` |", "|---|---|---|"]
    lines += [f"| {n} | {r['voc07-11pt'].map:.4f} | {r['voc-area'].map:.4f} |" for n, r in results.items()]
    lines += ["", "AP of each class (`voc07-11pt`):", ""]
    lines += ["| class | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for c, name in enumerate(val.class_names):
        lines.append(f"| {name} | " + " | ".join(f"{r['voc07-11pt'].ap[c]:.3f}" for r in results.values()) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="VOC2007 in VOC layout")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--rows", default="", help="numbers of the rows to do, from 1, e.g. 2,3,6; default: all")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--output", type=Path, help="Markdown file")
    parser.add_argument("--json", type=Path, default=Path("voc07_ablation.json"))
    arguments = parser.parse_args()

    train, val = (load_voc(arguments.data, split, on_error="skip") for split in ("train", "val"))
    if arguments.limit:
        train, val = (d.subset(range(min(arguments.limit, len(d)))) for d in (train, val))
    wanted = [int(n) - 1 for n in arguments.rows.split(",") if n] or range(len(ROWS))
    results: dict[str, dict[str, VocResult]] = {}
    seconds: dict[str, Any] = {}
    rows = {name: row for i, (name, row) in enumerate(ROWS.items()) if i in wanted}
    for parameters in {json.dumps(p, sort_keys=True): p for p, _, _ in rows.values()}.values():
        detector = SPPDetector(**parameters).fit(
            train, cache=arguments.cache, progress=bar, report=lambda line: tqdm.write(line, file=sys.stderr)
        )
        weights = detector.weights_
        fixed = DetectorWeights(
            **weights.tensors()
            | {n: torch.zeros_like(v) for n, v in weights.tensors().items() if n in ("box_weight", "box_bias")}
        )
        features = WindowFeatures(detector._backbone(), detector.levels, detector.short_sides_px)
        data = TrainingImages(val, features, None, SelectiveSearch(), FeatureCache(arguments.cache))
        data.prepare(bar)
        mine = {n: (weights if boxes else fixed, o) for n, (p, boxes, o) in rows.items() if p == parameters}
        found, median = measure(mine, features, data)
        results |= found
        seconds[json.dumps(parameters)] = {"training": detector.fit_seconds_, "behind the maps, an image": median}
    results = {name: results[name] for name in rows}
    text = table(results, train, val)
    print(text)
    versions = f"torch {torch.__version__}, sppnet {sppnet.__version__}"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {versions}"
    document = {
        "machine": machine,
        "train": len(train),
        "val": len(val),
        "seconds": seconds,
        "map": {n: {p: r.map for p, r in row.items()} for n, row in results.items()},
        "ap": {n: {p: [float(a) for a in r.ap] for p, r in row.items()} for n, row in results.items()},
    }
    arguments.json.write_text(json.dumps(document, indent=1))
    if arguments.output:
        head = f"# Results on VOC07\n\nTrained on train ({len(train)}), measured on val ({len(val)}). {machine}.\n"
        command = (
            f"\n    python benchmarks/voc07_ablation.py --data VOC2007 --cache DIR --rows {arguments.rows or 'all'}\n\n"
        )
        arguments.output.write_text(head + command + text)


if __name__ == "__main__":
    main()
