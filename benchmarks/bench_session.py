"""A whole session at the studio by mouse and keyboard: how many boxes had to be drawn, corrected, accepted.

    python benchmarks/bench_session.py --data BCCD --split train --images 40 --json session.json
    python benchmarks/bench_session.py --digits 60 --json session-digits.json

A script that knows the truth labels all images in the order of their names, in a real browser: it rejects suggestions
that are wrong, adds what is missing by a click that snaps to a window, steps through the windows, and draws by hand
where no window fits with an IoU of 0.7. A suggestion fits with an IoU of 0.5. Needs the extras ``studio`` and ``dev``,
and Debian's chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sppnet.datasets.example import make_example
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset
from sppnet.storage.atomic import write_atomic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "studio"))
from person import Person, Studio, browser_page, free_port, open_first_by_name


def unlabelled(data: DetectionDataset, folder: Path) -> dict[str, list[tuple[list[float], str]]]:
    """Copy the images into a folder; what is in them, by name."""
    folder.mkdir()
    truth = {}
    for record in data:
        shutil.copy(record.path, folder / record.path.name)
        boxes = record.boxes.tolist()
        truth[record.path.name] = [(box, data.class_names[c]) for box, c in zip(boxes, record.labels, strict=True)]
    return truth


def session(folder: Path, truth: dict[str, list[tuple[list[float], str]]], state: Path) -> dict[str, Any]:
    studio = Studio(folder, free_port(), state)
    rows = []
    try:
        with browser_page() as page:
            open_first_by_name(page, studio)
            person = Person(page, truth)
            started = time.monotonic()
            for _ in truth:
                before = dict(person.count)
                person.finish_image()
                rows.append({k: v - before.get(k, 0) for k, v in person.count.items() if v != before.get(k, 0)})
                print(len(rows), rows[-1], round(time.monotonic() - started), flush=True)
            seconds = time.monotonic() - started
            while page.evaluate("window.__s.waiting.value"):  # the page shows a change before the server has it
                page.wait_for_timeout(50)
    finally:
        studio.stop()
    found = load_dataset(folder)
    count = dict(person.count)
    by_hand = count.get("drawn", 0)
    return {
        "images": len(truth), "boxes": count["boxes"], "accepted": count.get("accepted", 0),
        "snapped": count["boxes"] - count.get("accepted", 0) - by_hand, "drawn_by_hand": by_hand,
        "rejected": count.get("rejected", 0), "steps_through_windows": count.get("steps", 0),
        "share_by_hand": round(by_hand / max(1, count["boxes"]), 4), "boxes_in_the_labels": sum(map(len, found)),
        "seconds": round(seconds), "by_image": rows,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set; its labels are the truth")
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--digits", type=int, metavar="N", help="N generated images of digits instead")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if (arguments.data is None) == (arguments.digits is None):
        parser.error("name --data or --digits")
    with tempfile.TemporaryDirectory(prefix="bench-session-") as name:
        root = Path(name)
        if arguments.data is not None:
            data = load_dataset(arguments.data, arguments.split, on_error="skip")
        else:
            data = make_example(root / "example", arguments.digits, 3, 0)
        records = data.records[: arguments.images]
        chosen = DetectionDataset(records, data.class_names, data.name, data.split)
        result = session(root / "images", unlabelled(chosen, root / "images"), root / "state")
    report = {"data": data.name, **result, "load_average": os.getloadavg()}
    print(json.dumps({k: v for k, v in report.items() if k != "by_image"}, indent=1))
    if arguments.json:
        with write_atomic(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
