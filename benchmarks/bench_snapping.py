"""How often the studio's snapping means the right box: a click on the middle of each object, in the real page.

    sppnet train VOC2007 --split train -o voc-train.safetensors
    python benchmarks/bench_snapping.py --data VOC2007 --model voc-train.safetensors --json snapping.json

Nothing is taught: this is what a person has before the first box. Among the first one, three and ten of the boxes that
a click offers, one with an IoU of 0.7 is looked for. The default model has seen `train` and `val` of VOC2007; so name
a model that was trained on other images. Needs the extras ``studio`` and ``dev``, and Debian's chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset
from sppnet.storage.atomic import write_atomic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "studio"))
from person import Person, Studio, browser_page, call, free_port, iou

FITS = 0.7
FIRST = (1, 3, 10)


def places(data: DetectionDataset, work: Path, model: Path | None) -> list[tuple[int, float]]:
    """Of each object: the place of the first box that fits (from 0; -1 for none), and its share of the image."""
    (work / "images").mkdir()
    for record in data:
        shutil.copy(record.path, work / "images" / record.path.name)
    options = [] if model is None else ["--model", str(model)]
    studio = Studio(work / "images", free_port(), work / "state", options)
    found = []
    try:
        ids = {row["name"]: row["id"] for row in call(studio, "GET", "/api/images")["images"]}
        with browser_page() as page:
            page.goto(studio.address)
            page.locator(".tile").first.wait_for()
            person = Person(page, {})
            for record in data:
                page.evaluate(f"window.__s.openImage('{ids[record.path.name]}')")
                person.wait_until_ready()
                now = person.state()
                for box, difficult in zip(record.boxes.tolist(), record.difficult, strict=True):
                    if difficult:
                        continue
                    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
                    list_of = page.evaluate(f"window.__s.snapsAt({x}, {y})")
                    place = next((i for i, rect in enumerate(list_of) if iou(rect, box) >= FITS), -1)
                    share = (box[2] - box[0]) * (box[3] - box[1]) / (now["width"] * now["height"])
                    found.append((place, share))
    finally:
        studio.stop()
    return found


def shares(found: list[tuple[int, float]]) -> dict[str, Any]:
    """In how many of a hundred objects a box that fits is among the first ones."""
    place = np.array([row[0] for row in found])
    hit = {f"among_first_{n}": round(100 * float(((place >= 0) & (place < n)).mean()), 1) for n in FIRST}
    return {"objects": len(found), **hit, "anywhere": round(100 * float((place >= 0).mean()), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set; its labels are the truth")
    parser.add_argument("--split", default="val")
    parser.add_argument("--every", type=int, default=12, metavar="N", help="only every N-th image (default: 12)")
    parser.add_argument("--model", type=Path, help="detector file (default: the one of sppnet)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    whole = load_dataset(arguments.data, arguments.split, on_error="skip")
    data = whole.subset(range(0, len(whole), arguments.every))
    with tempfile.TemporaryDirectory(prefix="bench-snapping-") as name:
        found = places(data, Path(name), arguments.model)
    small = [row for row in found if row[1] < 0.05]
    large = [row for row in found if row[1] >= 0.05]
    report = {
        "data": f"{data.name} {data.split}, every {arguments.every}th image", "images": len(data), **shares(found),
        "below_5_percent_of_the_image": shares(small), "others": shares(large), "load_average": os.getloadavg(),
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    if arguments.json:
        with write_atomic(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
