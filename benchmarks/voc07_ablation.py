"""What each part of the detector is worth on VOC07: trains and measures it in several ways, and writes a table.

    python benchmarks/voc07_ablation.py --data VOC2007 --cache DIR --output docs/results.md

Trained on ``train``, measured on ``val`` (``--limit N`` takes N images of each). Maps, windows, every training and
every image's detections are kept in the cache folder: it may be stopped at any time and goes on, and another row
costs only itself. ``--rows`` does only some, by their keys (``--rows list`` prints them). From an empty cache on two
cores: 10 to 15 minutes for the maps and windows of a set of scales, 6 to 10 for a fully connected layer, as much for
SVMs, 2 to 5 for measuring each of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from tqdm import tqdm

import sppnet
from sppnet._types import F32
from sppnet.datasets.formats.voc import load_voc
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.building import build_head
from sppnet.detection.detections import Detections
from sppnet.detection.detector import SPPDetector
from sppnet.detection.features import PooledWindows, WindowFeatures
from sppnet.detection.heads import Head
from sppnet.detection.inference import decode_detections
from sppnet.detection.options import SuppressionOptions, TuningOptions
from sppnet.detection.training.images import TrainingImages
from sppnet.detection.weights import DetectorWeights
from sppnet.evaluation.failures import find_failures, recall_by_size
from sppnet.evaluation.voc import VocResult, evaluate_voc
from sppnet.proposals import SelectiveSearch
from sppnet.storage.atomic import write_atomic
from sppnet.storage.envelope import Array
from sppnet.storage.feature_cache import FeatureCache

# What is written stands between these lines of the file; the rest of it stays
START, END = "<!-- ablation -->", "<!-- end of ablation -->"
PROTOCOLS = ("voc07-11pt", "voc-area")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what it is. parameters: of the detector. boxes: whether boxes are regressed. options: of suppression.
        test_px: short sides of the maps that it is tested on, where those are others than it was trained on.
        tuning: of the convolutions, as fields of ``TuningOptions``; None: they are frozen.
        windows: mode of selective search in training. test_windows: in use, where that is another.
    """

    name: str
    parameters: dict[str, Any]
    boxes: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    test_px: tuple[int, ...] = ()
    tuning: dict[str, Any] | None = None
    windows: Literal["fast", "quality"] = "fast"
    test_windows: Literal["fast", "quality"] | None = None


T = TypeVar("T")
BASE = {
    "features__short_sides_px": [608],
    "features__flip_short_sides_px": [512],
    "features__precision": "float32",
}
ALL = {"refinements": 1, "box_voting": True, "nms_iou": 0.3, "soft_sigma": 0.0}
SOFT = ALL | {"nms_iou": 0.5, "soft_sigma": 0.3}
NONE = ALL | {"refinements": 0, "box_voting": False}
ONE, TWO = {"backbone": "efficientnet-lite0"}, {"backbone": "efficientnet-lite0+mid"}
PAPER = {"head__classifier": "svm", "head__box_regression": "ridge"}
POOL = TWO | PAPER | {"head__hidden": 0, "head__rank": 512}
FC7 = TWO | {"head__layers": 2}
SMALL = TWO | {"features__short_sides_px": [352, 608], "features__flip_short_sides_px": [296, 512]}
TINY = TWO | {"features__short_sides_px": [208, 352, 608], "features__flip_short_sides_px": [176, 296, 512]}
INT8 = SMALL | {"features__precision": "int8"}
THREE = TWO | {"features__short_sides_px": [352, 608, 1000], "features__flip_short_sides_px": [296, 512]}
LARGE = {
    "backbone": "efficientnet-lite2+mid",
    "features__precision": "int8",
    "features__short_sides_px": [352, 608, 864],
    "features__flip_short_sides_px": [293, 506, 720],  # as sppnet train --scales 352 608 864 has them
}
REFINED = SOFT | {"refinements": 3}
HEAD_ALONE, FASTER, LONGER = {"learning_rate": 0.0}, {"learning_rate": 1e-4}, {"epochs": 7}
TRIALS: dict[str, tuple[str, dict[str, Any]]] = {
    "five": ("five blocks instead of seven", {"blocks": 5}),
    "nine": ("nine blocks", {"blocks": 9}),
    "windows-48": ("48 windows an image and step instead of 96", {"windows_per_image": 48}),
    "windows-192": ("192 windows", {"windows_per_image": 192}),
    "batch-4": ("four images a step instead of two, as many images in all", {"images_per_batch": 4}),
    "average": ("weights averaged over the last 15 % of the steps instead of 4 %", {"average": 0.15}),
    "colour": ("colours as they are", {"colour": 0.0}),
    "mosaic": ("four images joined in every second view", {"mosaic": 0.5}),
    "faster": ("learning rate 1e-4 instead of 3e-5", FASTER),
    "head": ("learning rate 0: the layers alone, as long and with the same views", HEAD_ALONE),
}
ROWS = {
    "pool": Row("pooled windows (512 principal components), SVMs", POOL, False, NONE),
    "pool-boxes": Row("pooled windows (512 principal components), SVMs, ridge boxes", POOL, True, NONE),
    "fc6-svm": Row("fc6, SVMs", TWO | PAPER, False, NONE),
    "fc6-svm-boxes": Row("fc6, SVMs, ridge boxes", TWO | PAPER, True, NONE),
    "fc7-svm": Row("fc6 and fc7, SVMs", FC7 | PAPER, False, NONE),
    "fc7-svm-boxes": Row("fc6 and fc7, SVMs, ridge boxes", FC7 | PAPER, True, NONE),
    "fc6": Row("fc6, softmax", TWO, False, NONE),
    "fc6-boxes": Row("fc6, softmax, joint boxes", TWO, True, NONE),
    "fc6-voting": Row("the same, voting", TWO, True, ALL | {"refinements": 0}),
    "fc6-look": Row("the same, one refinement", TWO, True, ALL | {"box_voting": False}),
    "fc6-all": Row("the same, one refinement and voting", TWO, True, ALL),
    "fc6-soft": Row("the same, soft suppression", TWO, True, SOFT),
    "one-map": Row("the same with one map (320 channels)", ONE, True, SOFT),
    "svm-soft": Row("the same with SVMs and ridge boxes", TWO | PAPER, True, SOFT),
    "fc7-soft": Row("the same with fc7", FC7, True, SOFT),
    "small-all": Row("two scales (352, 608 px), one refinement and voting", SMALL, True, ALL),
    "small-soft": Row("the same, soft suppression", SMALL, True, SOFT),
    "int8-soft": Row(
        "**the same, convolutions and maps in int8 (the default of `sppnet train`, with one refinement)**",
        INT8,
        True,
        SOFT,
    ),
    "int8-refined": Row("the same, three refinements", INT8, True, REFINED),
    "tuned": Row("**the same, the last seven blocks of the convolutions tuned**", INT8, True, SOFT, (), {}),
    "tuned-refined": Row(
        "**the same, three refinements (the recipe of the detector that comes with sppnet)**",
        INT8,
        True,
        REFINED,
        (),
        {},
    ),
    **{f"tuned-{key}": Row(name, INT8, True, REFINED, (), tuning) for key, (name, tuning) in TRIALS.items()},
    "small-to-three": Row("the default, tested at 352, 608, 1000 px", SMALL, True, SOFT, (352, 608, 1000)),
    "large": Row(
        "larger backbone (`efficientnet-lite2+mid`, int8), 352, 608, 864 px, `quality` windows, three refinements",
        LARGE,
        True,
        REFINED,
        windows="quality",
    ),
    "large-tuned": Row("**the same, tuned for seven epochs**", LARGE, True, REFINED, tuning=LONGER, windows="quality"),
    "large-tuned-fast": Row(
        "the same, used with `fast` windows",
        LARGE,
        True,
        REFINED,
        tuning=LONGER,
        windows="quality",
        test_windows="fast",
    ),
    "tiny-soft": Row("the default, three scales (208, 352, 608 px)", TINY, True, SOFT),
    "three-soft": Row("the default, trained and tested at 352, 608, 1000 px", THREE, True, SOFT),
}


def bar(items: Iterable[T], what: str, *, total: int | None = None) -> Iterable[T]:
    """Progress on stderr."""
    return tqdm(items, what, total, mininterval=10, file=sys.stderr)


def identity(parameters: dict[str, Any], train: DetectionDataset, row: Row | None = None) -> str:
    """Of a training, and of a way to use it, for what is kept of it."""
    version: tuple[object, ...] = (sppnet.__version__, torch.get_num_threads(), len(train))
    if len(train) < 2500:  # which ones
        version = (*version, hashlib.sha256(repr([r.path.name for r in train]).encode()).hexdigest())
    options = None if row is None else (row.boxes, sorted(row.options.items()), *row.test_px)
    if row is not None and (row.windows, row.test_windows) != ("fast", None):
        options = (*(options or ()), row.windows, row.test_windows)
    if row is not None and row.tuning is not None:
        options = (*(options or ()), "tuning", sorted(row.tuning.items()))
    return repr((json.dumps(parameters, sort_keys=True), version, options))


class Measured:
    """Detections of the rows of one training, image by image, kept in the cache."""

    def __init__(
        self, parameters: dict[str, Any], rows: dict[str, Row], detector: SPPDetector, train: DetectionDataset,
        val: DetectionDataset, cache: FeatureCache,
    ) -> None:  # fmt: skip
        self.rows, self.cache, self.val = rows, cache, val
        self.names = {key: identity(parameters, train, row) for key, row in rows.items()}
        self.weights = detector.weights_
        none = ("box_weight", "box_bias")
        parts = self.weights.arrays()
        self.fixed = DetectorWeights(**parts | {n: np.zeros_like(parts[n]) for n in none})
        first = next(iter(rows.values()))  # all are tested on the same maps and windows
        sides = first.test_px or detector.features.short_sides_px
        own = detector.window_features()
        self.features = WindowFeatures(own.engine, own.levels, sides)
        self.heads = {
            boxes: build_head(self.weights if boxes else self.fixed, own.quantised, own.device)
            for boxes in (True, False)
        }
        self.data = TrainingImages(
            val, self.features, None, SelectiveSearch(first.test_windows or first.windows), cache
        )

    def run(self) -> dict[str, list[Detections]]:
        """Detections of each row, in the order of ``val``."""
        pool = PooledWindows(self.features)
        found: dict[str, list[Detections]] = {key: [] for key in self.rows}
        for i in bar(range(len(self.val)), f"measuring {', '.join(self.rows)}", total=len(self.val)):
            keys = {row: self.cache.key(self.val[i].path, "ablation", name) for row, name in self.names.items()}
            stored = {row: self.cache.get(key) for row, key in keys.items()}
            if any(entry is None for entry in stored.values()):
                new = self._image(i, pool, [row for row, entry in stored.items() if entry is None])
                for row, entry in new.items():
                    self.cache.put(keys[row], entry)
                    stored[row] = entry
            for row, kept in stored.items():
                assert kept is not None
                box, score, label = (kept[n] for n in ("xyxy", "confidence", "class_id"))
                found[row].append(Detections(box, score, label, self.val.class_names))
        return found

    def _image(self, i: int, pool: PooledWindows, rows: list[str]) -> dict[str, dict[str, Array]]:
        image = self.data.load(i)
        maps = image.maps.unpacked()
        whole: list[F32] = []

        def fc(boxes: F32) -> F32:
            if boxes is image.windows and whole:  # the rows differ behind it
                return whole[0]
            with pool(maps, boxes) as pooled:
                features = self.heads[True].fc(pooled)
            if boxes is image.windows:
                whole.append(features)
            return features

        out: dict[str, dict[str, Array]] = {}
        for key in rows:
            row = self.rows[key]
            weights, head = (self.weights if row.boxes else self.fixed), self.heads[row.boxes]

            def score(boxes: F32, head: Head = head) -> tuple[F32, F32]:
                return head.scores(fc(boxes))

            boxes, confidence, class_id = decode_detections(
                weights, score, image.windows, maps.height, maps.width, SuppressionOptions(**row.options)
            )
            out[key] = {"xyxy": boxes, "confidence": confidence, "class_id": class_id}
        return out


def stage_times(detector: SPPDetector, val: DetectionDataset, count: int) -> dict[str, float]:
    """Median seconds of each stage of ``detect``, from the file to the boxes, on all cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    chosen = [val[int(i)].path for i in np.linspace(0, len(val) - 1, min(count, len(val)))]
    detector.warm_up()
    seconds = [detector.detect(path, threshold=0.0).seconds for path in chosen]
    torch.set_num_threads(threads)
    stages = {name: statistics.median(s[name] for s in seconds) for name in seconds[0]}
    return stages | {"whole": statistics.median(sum(s.values()) for s in seconds)}


def small_objects(found: list[Detections], val: DetectionDataset) -> dict[str, float]:
    """Share of objects found by size, with the 5 surest detections an image and object."""
    few = []
    for item, record in zip(found, val, strict=True):
        few.append(item[np.arange(len(item.confidence)) < 5 * max(1, int((~record.difficult).sum()))])
    failures, _ = find_failures(few, val, dict.fromkeys(val.class_names, 0.0))
    return {name: hit / total if total else float("nan") for name, total, hit in recall_by_size(failures, val)}


def table(results: dict[str, dict[str, VocResult]], sizes: dict[str, dict[str, float]]) -> list[str]:
    """Markdown: mAP of each row by both protocols, and recall by size."""
    names = list(next(iter(sizes.values())))
    lines = [
        f"| | `voc07-11pt` | `voc-area` | {' | '.join(f'{n} px' for n in names)} |",
        "|---" * (3 + len(names)) + "|",
    ]
    for key, r in results.items():
        recalls = " | ".join("-" if v != v else f"{100 * v:.0f} %" for v in sizes[key].values())
        lines.append(f"| {ROWS[key].name} | {r[PROTOCOLS[0]].map:.4f} | {r[PROTOCOLS[1]].map:.4f} | {recalls} |")
    return lines


def class_table(results: dict[str, dict[str, VocResult]], val: DetectionDataset) -> list[str]:
    """Markdown: AP of each class, a column a row."""
    lines = ["| class | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for c, name in enumerate(val.class_names):
        lines.append(f"| {name} | " + " | ".join(f"{r[PROTOCOLS[0]].ap[c]:.3f}" for r in results.values()) + " |")
    return lines


def time_table(times: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown: seconds of training, and milliseconds of each stage of detecting."""
    stages = list(dict.fromkeys(stage for t in times.values() for stage in t["detecting"]))
    lines = [f"| | training | {' | '.join(stages)} |", "|---" * (2 + len(stages)) + "|"]
    for name, t in times.items():
        training = ", ".join(f"{k} {v:.0f} s" for k, v in t["training"].items()) or "-"
        lines.append(
            f"| {name} | {training} | " + " | ".join(f"{1000 * t['detecting'].get(s, 0):.0f}" for s in stages) + " |"
        )
    return lines


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="VOC2007 in VOC layout")
    parser.add_argument("--cache")
    parser.add_argument("--rows", default="", help="keys of the rows to do, e.g. fc6,fc6-all; default: all")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--train-every", type=int, default=1, help="train on every n-th image of train only")
    parser.add_argument("--every", type=int, default=1, help="measure on every n-th image of val only")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random in training")
    parser.add_argument("--timed", type=int, default=24, help="images to time each detector on; 0: none")
    parser.add_argument("--train-only", action="store_true", help="train what the rows need, and measure nothing")
    parser.add_argument("--output", type=Path, help="Markdown file with the two lines to write between, or a new one")
    parser.add_argument("--json", type=Path, default=Path("voc07_ablation.json"))
    arguments = parser.parse_args()
    if arguments.rows == "list":
        print("\n".join(f"{key:<14} {row.name}" for key, row in ROWS.items()))
        return
    if not arguments.data or not arguments.cache:
        parser.error("--data and --cache are needed")
    wanted = [key for key in arguments.rows.split(",") if key] or list(ROWS)
    unknown = [key for key in wanted if key not in ROWS]
    if unknown:
        parser.error(f"--rows: no {unknown[0]!r}; there are {', '.join(ROWS)}")

    if arguments.output:  # looked at before the work
        page = arguments.output.read_text(encoding="utf-8") if arguments.output.is_file() else f"{START}\n{END}\n"
        if START not in page or END not in page:
            parser.error(f"--output: {arguments.output} has no lines {START!r} and {END!r} to write between")

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train, val = (load_voc(arguments.data, split, on_error="skip") for split in ("train", "val"))
    if arguments.limit:
        train, val = (d.subset(range(min(arguments.limit, len(d)))) for d in (train, val))
    train = train.subset(range(0, len(train), arguments.train_every))
    val = val.subset(range(0, len(val), arguments.every))
    cache = FeatureCache(arguments.cache)
    found: dict[str, list[Detections]] = {}
    times: dict[str, dict[str, Any]] = {}
    chosen = {key: ROWS[key] for key in ROWS if key in wanted}
    groups: dict[str, dict[str, Row]] = {}  # rows of one training, tested on the same maps
    for key, row in chosen.items():
        trained = (sorted(row.parameters.items()), row.test_px, row.tuning, row.windows, row.test_windows)
        groups.setdefault(repr(trained), {})[key] = row
    for rows in groups.values():
        first = next(iter(rows.values()))
        seed = {"seed": arguments.seed} if arguments.seed else {}
        parameters, test_px, tuning = first.parameters | seed, first.test_px, first.tuning
        started = time.perf_counter()
        detector = SPPDetector(tuning=None if tuning is None else TuningOptions(**tuning))
        detector.set_params(**(BASE | parameters), proposer=SelectiveSearch(first.windows))
        detector.fit(train, cache=arguments.cache, progress=bar)
        tqdm.write(f"{', '.join(rows)}: {time.perf_counter() - started:.0f} s {detector.fit_seconds_}", file=sys.stderr)
        if arguments.train_only:
            continue
        measured = Measured(parameters, rows, detector, train, val, cache)
        found |= measured.run()
        if test_px:
            detector.set_params(features__short_sides_px=test_px)
        if first.test_windows:
            detector.set_params(proposer=SelectiveSearch(first.test_windows))
        training = {k: v for k, v in detector.fit_seconds_.items() if k != "windows and maps"}
        detecting = stage_times(detector, val, arguments.timed) if arguments.timed else {}
        times[", ".join(rows)] = {"training": training, "detecting": detecting}
    if arguments.train_only:
        return
    found = {key: found[key] for key in chosen}
    results = {key: {p: evaluate_voc(mine, val, protocol=p) for p in PROTOCOLS} for key, mine in found.items()}  # type: ignore[arg-type]
    sizes = {key: small_objects(mine, val) for key, mine in found.items()}
    versions = f"torch {torch.__version__}, sppnet {sppnet.__version__}, Python {platform.python_version()}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {versions}"
    document = {
        "machine": machine,
        "train": len(train),
        "val": len(val),
        "times": times,
        "map": {n: {p: r.map for p, r in row.items()} for n, row in results.items()},
        "ap": {n: {p: [float(a) for a in r.ap] for p, r in row.items()} for n, row in results.items()},
        "recall by size": sizes,
    }
    given = {name: getattr(arguments, name) for name in ("limit", "train_every", "every", "seed")}
    standard = {name: parser.get_default(name) for name in given}
    parts = "".join(f" --{name.replace('_', '-')} {v}" for name, v in given.items() if v != standard[name])
    lines = [
        f"Trained on train ({len(train)} images), measured on val ({len(val)}), IoU > 0.5, seed {arguments.seed}. "
        f"{machine}.",
        "",
        f"    python benchmarks/voc07_ablation.py --data VOC2007 --cache DIR --rows {','.join(chosen)}{parts}",
        "",
        "Right of the two mean average precisions: the share of objects that are among the five surest detections for",
        "each object of an image, by the root of the object's area.",
        "",
        *table(results, sizes),
        "",
        "AP of each class, `voc07-11pt`:",
        "",
        *class_table(results, val),
        "",
    ]
    if arguments.timed:
        lines += [
            "Seconds of training behind the maps (with the threads above; -: not kept), and milliseconds an image on",
            f"all cores, medians of {arguments.timed}:",
            "",
            *time_table(times),
            "",
        ]
    text = "\n".join(lines)
    print(text)
    with write_atomic(arguments.json) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if arguments.output:
        before, rest = page.split(START, 1)
        with write_atomic(arguments.output) as temporary:
            page = f"{before}{START}\n\n{text}\n{END}{rest.split(END, 1)[1]}"
            temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
