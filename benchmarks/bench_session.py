"""A whole session at the studio by mouse and keyboard: how many boxes had to be drawn, corrected, accepted.

    python benchmarks/bench_session.py --data BCCD --split train --unseen test --json session.json
    python benchmarks/bench_session.py --digits 60 --json session-digits.json

A script that knows the truth labels all images in the order of their names, in a real browser: it rejects suggestions
that are wrong, adds what is missing by a click that snaps to a window, steps through the windows, and draws by hand
where no window fits with an IoU of 0.7. A suggestion fits with an IoU of 0.5.

Then it exports the data set, presses "Train fully", exports the detector, and tries it on unseen images, by the page.
``sppnet eval`` measures the exported detector on all unseen images. ``--labels-only`` leaves this out.

Needs the extras ``studio`` and ``dev``, and Debian's chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.datasets.example import make_example
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.writing import write_dataset
from sppnet.storage.atomic import write_atomic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "studio"))
from person import (
    Person,
    Studio,
    Truth,
    browser_page,
    call,
    export,
    free_port,
    iou,
    open_first_by_name,
    train_fully,
    try_images,
)  # fmt: skip

if TYPE_CHECKING:
    from playwright.sync_api import Page

UNSEEN_DIGITS = 60
TRIED = 20  # unseen images that are tried in the page


def boxes_by_image(data: DetectionDataset) -> dict[str, list[tuple[list[float], str]]]:
    """What is in each image, by its file's name."""
    return {
        record.path.name: [
            (box, data.class_names[c]) for box, c in zip(record.boxes.tolist(), record.labels, strict=True)
        ]
        for record in data
    }


def unlabelled(data: DetectionDataset, folder: Path) -> None:
    """Copy the images into a folder, without labels."""
    folder.mkdir()
    for record in data:
        shutil.copy(record.path, folder / record.path.name)


def agreement(found: Truth, truth: Truth) -> dict[str, int]:
    """Boxes of a class with an IoU above 0.5, each of them counted once."""
    right = wrong = objects = 0
    for name, wanted in truth.items():
        left = list(wanted)
        objects += len(left)
        for box, kind in found.get(name, ()):
            fits = next((w for w in left if w[1] == kind and iou(w[0], box) > 0.5), None)
            if fits is None:
                wrong += 1
            else:
                left.remove(fits)
                right += 1
    return {"objects": objects, "right": right, "wrong": wrong, "missed": objects - right}


def label_all(page: Page, person: Person, truth: Truth) -> tuple[list[dict[str, int]], float]:
    """Finish image after image; what the hands did in each, and the seconds of all."""
    rows = []
    started = time.monotonic()
    for _ in truth:
        before = dict(person.count)
        person.finish_image()
        rows.append({k: v - before.get(k, 0) for k, v in person.count.items() if v != before.get(k, 0)})
        print(len(rows), rows[-1], round(time.monotonic() - started), flush=True)
    seconds = time.monotonic() - started
    while page.evaluate("window.__s.waiting.value"):  # the page shows a change before the server has it
        page.wait_for_timeout(50)
    return rows, seconds


def go_on(page: Page, truth: Truth, unseen: DetectionDataset, work: Path) -> dict[str, Any]:
    """Export, train and detect by the page; then ``sppnet eval`` on all unseen images."""
    with zipfile.ZipFile(export(page, "Labels and images", work)) as archive:
        archive.extractall(work / "exported")
    exported = boxes_by_image(load_dataset(work / "exported"))
    started = time.monotonic()
    training = train_fully(page)
    seconds = time.monotonic() - started
    model = export(page, "Detector (one file)", work)
    tried = unseen.records[:TRIED]
    found = try_images(page, [record.path for record in tried])
    seen = {r.path.name: [(d["box"], d["class"]) for d in rows] for r, rows in zip(tried, found, strict=True)}
    wanted = boxes_by_image(DetectionDataset(tried, unseen.class_names, unseen.name, unseen.split))
    write_dataset(unseen, work / "unseen", "coco")
    figures = work / "figures.json"
    command = [sys.executable, "-m", "sppnet", "eval", str(work / "unseen"), "--split", "all"]
    subprocess.run([*command, "--model", str(model), "--json", str(figures)], check=True, stdout=subprocess.DEVNULL)
    measured = json.loads(figures.read_text(encoding="utf-8"))
    return {
        "exported": {"images": len(exported), **agreement(exported, truth)},
        "training": {"seconds": round(seconds), "before": training["before"], "after": training["after"]},
        "tried_in_the_page": {"images": len(tried), **agreement(seen, wanted)},
        "unseen": {"images": len(unseen), **{protocol: row["map"] for protocol, row in measured.items()}},
    }


def session(data: DetectionDataset, unseen: DetectionDataset | None, work: Path) -> dict[str, Any]:
    """Label all images, and go on to a detector where unseen images are given."""
    folder, truth = work / "images", boxes_by_image(data)
    unlabelled(data, folder)
    studio = Studio(folder, free_port(), work / "state")
    try:
        with browser_page() as page:
            open_first_by_name(page, studio)
            person = Person(page, truth)
            rows, seconds = label_all(page, person, truth)
            images = [row["id"] for row in call(studio, "GET", "/api/images")["images"]]
            origins = Counter(
                box[5] for image in images for box in call(studio, "GET", f"/api/images/{image}")["boxes"]
            )
            then = {} if unseen is None else go_on(page, truth, unseen, work)
    finally:
        studio.stop()
        print("".join(studio.said[3:]), end="", flush=True)  # what it logged
    count, total = dict(person.count), sum(origins.values())
    return {
        "images": len(truth), "boxes": count["boxes"], "boxes_in_the_labels": total, "by_origin": dict(origins),
        "drawn_or_moved_by_hand": origins["drawn"] + origins["corrected"],
        "share_by_hand": round((origins["drawn"] + origins["corrected"]) / max(1, total), 4),
        "rejected": count.get("rejected", 0), "steps_through_windows": count.get("steps", 0),
        "restarts_of_the_worker": sum("it is started again" in line for line in studio.said),
        "seconds": round(seconds), **then, "by_image": rows,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set; its labels are the truth")
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--digits", type=int, metavar="N", help="N generated images of digits instead")
    parser.add_argument("--unseen", default="test", help="split of --data to measure the detector on")
    parser.add_argument("--labels-only", action="store_true", help="don't go on to a detector")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if (arguments.data is None) == (arguments.digits is None):
        parser.error("name --data or --digits")
    with tempfile.TemporaryDirectory(prefix="bench-session-") as name:
        root = Path(name)
        if arguments.data is not None:
            data = load_dataset(arguments.data, arguments.split, on_error="skip")
            unseen = load_dataset(arguments.data, arguments.unseen, on_error="skip")
            records = data.records[: arguments.images]
        else:
            data = make_example(root / "example", arguments.digits + UNSEEN_DIGITS, 3, 0)
            unseen = DetectionDataset(data.records[arguments.digits :], data.class_names, data.name, "test")
            records = data.records[: arguments.digits]
        chosen = DetectionDataset(records, data.class_names, data.name, data.split)
        result = session(chosen, None if arguments.labels_only else unseen, root)
    report = {"data": data.name, **result, "load_average": os.getloadavg()}
    print(json.dumps({k: v for k, v in report.items() if k != "by_image"}, indent=1))
    if arguments.json:
        with write_atomic(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
