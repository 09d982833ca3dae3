"""Selective search: time, recall, memory and cold start, beside OpenCV's and the package ``selectivesearch``.

    python benchmarks/bench_proposals.py --data VOC2007 --images 50          times, peers taken in turn on each image
    python benchmarks/bench_proposals.py --data VOC2007 --images 0 --recall  all images of the split, quality of windows
    (with --keep DIR OpenCV's as well: two hours; the first 2000 windows an image are kept there, so it may be stopped)

Each peer gets the same pixels and its own defaults. OpenCV runs with ``cv2.setNumThreads(2)``. Prints tables and writes
JSON (``--output``). Peers that aren't installed are left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sppnet.datasets.formats.voc import load_voc
from sppnet.evaluation.proposals import best_overlaps, summarise
from sppnet.images import load_image
from sppnet.proposals import GridProposer, SelectiveSearch

Search = Callable[[np.ndarray], np.ndarray]
COUNTS = (100, 500, 1000, 2000)
COLD = """
import sys, time
import numpy as np
import torch, sppnet.proposals
image = (np.indices((375, 500)).sum(0)[..., None] * [1, 2, 3] % 251).astype(np.uint8)
start = time.perf_counter(); sppnet.proposals.selective_search(image); first = time.perf_counter() - start
again = []
for _ in range(5):
    start = time.perf_counter(); sppnet.proposals.selective_search(image); again.append(time.perf_counter() - start)
print(first, sorted(again)[2])
"""
PEAK = """
import sys, threading
import numpy as np, psutil
from sppnet.proposals import selective_search
shape, mode = (int(sys.argv[1]), int(sys.argv[2]), 3), sys.argv[3]
selective_search(np.zeros((64, 64, 3), np.uint8), mode)  # libraries and kernels are loaded
image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
process, done = psutil.Process(), threading.Event()
before = peak = process.memory_info().rss
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, process.memory_info().rss)
thread = threading.Thread(target=watch); thread.start()
selective_search(image, mode)
done.set(); thread.join()
print((peak - before) / 2**20)
"""


def opencv(mode: str) -> Search:
    """OpenCV's selective search at its defaults, 2 threads."""
    import cv2

    cv2.setNumThreads(2)

    def search(image: np.ndarray) -> np.ndarray:
        engine = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        engine.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
        if mode == "fast":
            engine.switchToSelectiveSearchFast()
        else:
            engine.switchToSelectiveSearchQuality()
        boxes = np.asarray(engine.process(), np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    return search


def package(image: np.ndarray) -> np.ndarray:
    """The package ``selectivesearch`` with the parameters of its example."""
    import selectivesearch

    regions = selectivesearch.selective_search(image, scale=500, sigma=0.9, min_size=10)[1]
    boxes = np.array([region["rect"] for region in regions], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def peers(modes: list[str], with_package: bool) -> dict[str, Search]:
    """Everything that is installed, by name."""
    found: dict[str, Search] = {}
    for mode in modes:
        found[f"sppnet {mode}"] = SelectiveSearch(mode)
        try:
            found[f"opencv {mode}"] = opencv(mode)
        except ImportError as error:
            print(f"left out: opencv {mode} ({error})")
    found["sppnet grid"] = GridProposer()
    if with_package:
        try:
            import selectivesearch  # noqa: F401

            found["selectivesearch"] = package
        except ImportError as error:
            print(f"left out: selectivesearch ({error})")
    return found


def kept(name: str, search: Search, folder: Path) -> Search:
    """``search``, whose results are kept as one file an image (found by its pixels) in ``folder``."""

    def look_up(image: np.ndarray) -> np.ndarray:
        path = folder / name.replace(" ", "-") / f"{hashlib.sha256(image.tobytes()).hexdigest()[:24]}.npy"
        if not path.is_file():
            boxes = search(image)[: COUNTS[-1]]
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, boxes)
            temporary.rename(path)
        boxes = np.load(path)
        return np.asarray(boxes)

    return look_up


def measure(records: list[Any], searches: dict[str, Search], repeat: int, slow_images: int) -> dict[str, Any]:
    """Times and windows of every peer, image by image in turn, so that a busy moment meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    overlaps: dict[str, list[Any]] = {name: [] for name in searches}
    labels: dict[str, list[Any]] = {name: [] for name in searches}
    windows: dict[str, list[int]] = {name: [] for name in searches}
    for number, record in enumerate(records):
        image = load_image(record.path)
        keep = ~record.difficult
        for name, search in searches.items():
            slow = not name.startswith("sppnet")
            if name == "selectivesearch" and number >= slow_images:
                continue
            if number == 0 and not slow:
                search(image)  # kernels are loaded or compiled
            times = []
            for _ in range(1 if slow else repeat):
                start = time.perf_counter()
                boxes = search(image)
                times.append(time.perf_counter() - start)
            seconds[name].append(statistics.median(times))
            overlaps[name].append(best_overlaps(record.boxes[keep], boxes[: COUNTS[-1]], COUNTS))
            labels[name].append(record.labels[keep])
            windows[name].append(len(boxes))
        if (number + 1) % 10 == 0:
            print(f"{number + 1} of {len(records)} images", file=sys.stderr, flush=True)
    return {
        name: summarise(overlaps[name], labels[name], windows[name], COUNTS, seconds=seconds[name])
        for name in searches
        if seconds[name]
    }


def large_image(repeat: int) -> dict[str, float]:
    """Median seconds of a 12-megapixel image and of the same image at 500x375."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (24, 32, 3)).repeat(16, 0).repeat(16, 1)[:375, :500].astype(np.uint8)
    large = small.repeat(8, 0).repeat(8, 1)
    search = SelectiveSearch()
    times: dict[str, list[float]] = {"500x375": [], "4000x3000": []}
    for _ in range(repeat):
        for name, image in (("500x375", small), ("4000x3000", large)):
            start = time.perf_counter()
            search(image)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def child(script: str, *arguments: str, cache: str | None = None) -> list[float]:
    """Numbers that a fresh process prints."""
    import os

    environment = {**os.environ, **({"SPPNET_KERNEL_CACHE": cache} if cache else {})}
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return [float(value) for value in run.stdout.split()]


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a data set in VOC layout")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=50, help="drawn at random with a fixed seed; 0 for all")
    parser.add_argument("--modes", default="fast,quality")
    parser.add_argument("--repeat", type=int, default=3, help="runs of sppnet an image, of which the median counts")
    parser.add_argument("--slow-images", type=int, default=5, help="images for the package selectivesearch")
    parser.add_argument("--recall", action="store_true", help="quality of windows only, without peers")
    parser.add_argument("--keep", type=Path, help="with --recall: OpenCV's windows too, kept in this folder")
    parser.add_argument("--output", default="bench_proposals.json")
    arguments = parser.parse_args()

    records = list(load_voc(arguments.data, arguments.split))
    if arguments.images:
        chosen = np.random.default_rng(0).permutation(len(records))[: arguments.images]
        records = [records[i] for i in sorted(chosen)]
    modes = arguments.modes.split(",")
    searches = peers(modes, with_package=not arguments.recall)
    if arguments.recall:
        if arguments.keep:
            slow = {name: kept(name, s, arguments.keep) for name, s in searches.items() if name.startswith("opencv")}
            searches |= slow
        else:
            searches = {name: search for name, search in searches.items() if name.startswith("sppnet")}
    reports = measure(records, searches, 1 if arguments.recall else arguments.repeat, arguments.slow_images)
    result: dict[str, Any] = {"images": len(records), "peers": {n: r.to_dict() for n, r in reports.items()}}
    print(f"{'':18}{'median ms':>10}{'windows':>9}{'recall@.5':>10}{'recall@.7':>10}{'ABO':>7}{'MABO':>7}  images")
    for name, report in reports.items():
        print(
            f"{name:18}{1000 * report.seconds:10.1f}{report.windows:9.0f}{report.recall[0, -1]:10.4f}"
            f"{report.recall[1, -1]:10.4f}{report.overlap[-1]:7.4f}{report.class_overlap[-1]:7.4f}  {report.images}"
        )
    for mode in modes:
        if f"opencv {mode}" in reports and not arguments.recall:  # kept windows take no time
            ratio = reports[f"opencv {mode}"].seconds / reports[f"sppnet {mode}"].seconds
            result[f"ratio {mode}"] = ratio
            print(f"{mode}: {ratio:.1f} times faster than OpenCV")
    if not arguments.recall:
        import tempfile

        result["large image"] = times = large_image(9)
        print("large image: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in times.items()))
        with tempfile.TemporaryDirectory() as cache:
            result["cold start, no cache"] = child(COLD, cache=cache)
            result["cold start, cached"] = child(COLD, cache=cache)
        print("first call in a new process, s: no cache {:.2f}".format(result["cold start, no cache"][0]), end="")
        first, again = result["cold start, cached"]
        print(f", cached {first:.2f} (of which {again:.2f} is the search itself)")
        for height, width, mode in ((375, 500, "fast"), (375, 500, "quality"), (3000, 4000, "fast")):
            result[f"peak MB {width}x{height} {mode}"] = peak = child(PEAK, str(height), str(width), mode)[0]
            print(f"peak memory beyond the image, {width}x{height} {mode}: {peak:.0f} MB")
    Path(arguments.output).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
