"""How fast the studio feels, measured in a real browser; and the memory that it takes with many images.

    python benchmarks/bench_studio.py --images 200 --json studio.json
    python benchmarks/bench_studio.py --images 1000 --json studio-1000.json
    python benchmarks/bench_studio.py --many 10000 --json studio-many.json

Needs the extras ``studio`` and ``dev``, and Debian's chromium. The images are the generated digits; their labels are
known, so that a share of them is finished before the clock starts. The features of all are computed first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image

from sppnet.datasets.example import make_example
from sppnet.datasets.records import DetectionDataset
from sppnet.storage.atomic import write_atomic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "studio"))
from person import Person, Studio, browser_page, call, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

# From the finished image to the first suggestions of a head that learned from it, and to those of all thumbnails.
_WATCH = """(count) => {
  const s = window.__s, seen = new Map(s.rows.value.map((r) => [r.id, r.suggested]));
  const w = (window.__watch = { start: 0, visible: null, thumbnails: null });
  let learned = false, before = null;
  window.addEventListener("keydown", () => (w.start = performance.now()), { once: true, capture: true });
  s.status.subscribe((now) => {
    if (!learned && w.start && now?.teaching.images >= count && now.teaching.state === "ready") {
      learned = true;
      w.learned = performance.now() - w.start;
      before = s.open.value?.suggestions;
      for (const r of s.rows.value) seen.set(r.id, r.suggested);
    }
  });
  s.open.subscribe((o) => {
    if (!learned || w.visible !== null) return;
    if (o?.suggestions && o.suggestions !== before) w.visible = performance.now() - w.start;
  });
  s.rows.subscribe((rows) => {
    if (!learned || w.thumbnails !== null) return;
    if (rows.every((r) => r.done || r.id === s.open.value?.id || seen.get(r.id) !== r.suggested)) {
      w.thumbnails = performance.now() - w.start;
    }
  });
}"""
_FRAMES = """() => {
  const f = (window.__frames = { stop: false, times: [] });
  const tick = (now) => { f.times.push(now); if (!f.stop) requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""
# From the key to the frame after the next image is there.
_NEXT = """() => new Promise((done) => {
  const s = window.__s, before = s.open.value.id;
  let start = 0;
  window.addEventListener("keydown", () => (start = performance.now()), { once: true, capture: true });
  const look = () => {
    const img = document.querySelector(".stage img");
    if (start && s.open.value.id !== before && img?.complete && img.naturalWidth && img.src.includes(s.open.value.id)) {
      requestAnimationFrame(() => done(performance.now() - start));
    } else requestAnimationFrame(look);
  };
  window.__next = null;
  look();
}).then((ms) => { window.__next = ms; })"""


def until(what: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        if time.monotonic() > end:
            raise SystemExit("bench_studio: waited too long; is the machine busy?")
        time.sleep(0.05)
    return value


def frames(page: Page, work: Callable[[], None]) -> dict[str, float]:
    """Frames a second and the slow frames while ``work`` moves the mouse."""
    page.evaluate(_FRAMES)
    work()
    times = np.array(page.evaluate("(() => { window.__frames.stop = true; return window.__frames.times; })()"))
    gaps = np.diff(times)
    return {
        "frames_per_second": round(1000 * len(gaps) / float(gaps.sum()), 1),
        "median_ms": round(float(np.median(gaps)), 1),
        "p95_ms": round(float(np.quantile(gaps, 0.95)), 1),
        "longest_ms": round(float(gaps.max()), 1),
    }


def first_paint(page: Page, studio: Studio) -> dict[str, float]:
    page.goto(studio.address)
    page.locator(".tile").first.wait_for()
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    tiles = page.evaluate("performance.now()")
    return {"first_contentful_paint_ms": round(paint, 1), "grid_is_there_ms": round(tiles, 1)}


def teach(studio: Studio, data: DetectionDataset, count: int) -> None:
    """Finish ``count`` images over HTTP."""
    numbers = [call(studio, "POST", "/api/classes", {"name": name})["id"] for name in data.class_names]
    ids = {row["name"]: row["id"] for row in call(studio, "GET", "/api/images")["images"]}
    for record in data.records[:count]:
        rows = [
            [*box, numbers[c], "drawn"] for box, c in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
        ]
        change = {"version": 0, "boxes": rows, "done": True, "rejected": []}
        call(studio, "PUT", f"/api/images/{ids[record.path.name]}/labels", change)


def drag(page: Page, person: Person) -> dict[str, float]:
    """Move a box about for two seconds."""
    (x, y), (x1, y1) = person.screen(60, 60), person.screen(140, 120)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x1, y1, steps=4)
    page.mouse.up()
    person.answer_what_it_is("zero")
    middle = ((x + x1) / 2, (y + y1) / 2)
    page.mouse.move(*middle)

    def work() -> None:
        page.mouse.down()
        end = time.monotonic() + 2
        turn = 0
        while time.monotonic() < end:
            turn += 1
            page.mouse.move(middle[0] + 40 * np.sin(turn / 9), middle[1] + 30 * np.cos(turn / 9))
        page.mouse.up()

    result = frames(page, work)
    page.keyboard.press("x")
    return result


def open_next(page: Page, count: int) -> dict[str, float]:
    times = []
    for _ in range(count):
        page.wait_for_timeout(250)  # as fast as anybody looks at an image
        page.evaluate(f"void ({_NEXT})()")
        page.keyboard.press("d")
        times.append(until(lambda: page.evaluate("window.__next"), 20))
    return {"median_ms": round(float(np.median(times)), 1), "p95_ms": round(float(np.quantile(times, 0.95)), 1)}


def finish(page: Page, studio: Studio, rounds: int) -> list[dict[str, float]]:
    """Finish images by Enter; the time until the page shows what was learned from each."""
    found = []
    for _ in range(rounds):
        until(lambda: call(studio, "GET", "/api/status")["teaching"]["state"] == "ready", 120)
        page.wait_for_timeout(1500)  # a person looks at the image
        count = call(studio, "GET", "/api/status")["teaching"]["images"] + 1
        page.evaluate(_WATCH, count)
        page.keyboard.press("Enter")
        watch = until(
            lambda: (w := page.evaluate("window.__watch")) and w["visible"] and w["thumbnails"] and w, 300
        )  # fmt: skip
        found.append({f"{name}_ms": round(watch[name], 1) for name in ("learned", "visible", "thumbnails")})
        print(found[-1], flush=True)
    return found


def measure_loop(folder: Path, images: int, finished: int, rounds: int) -> dict[str, Any]:
    data = make_example(folder / "digits", images, 3, 0)
    for file in (folder / "digits").iterdir():
        if file.suffix != ".jpg":
            file.unlink()
    studio = Studio(folder / "digits", free_port(), folder / "state")
    result: dict[str, Any] = {"images": images, "finished_before": finished}
    try:
        with browser_page() as page:
            result["first_paint"] = first_paint(page, studio)
            started = time.monotonic()

            def all_known() -> bool:
                features = call(studio, "GET", "/api/status")["features"]
                return bool(features["done"] == features["total"])

            until(all_known, 7200)
            result["features_seconds"] = round(time.monotonic() - started, 1)
            print(result, flush=True)
            teach(studio, data, finished)
            until(lambda: call(studio, "GET", "/api/status")["teaching"]["images"] == finished, 600)
            page.select_option(".filters select >> nth=0", "name")
            page.get_by_role("button", name="To do").click()
            page.locator(".tile").first.click()
            person = Person(page, {})
            person.wait_until_ready(120)
            result["drag"] = drag(page, person)
            result["open_next"] = open_next(page, min(15, (images - finished) // 2))
            result["finish"] = finish(page, studio, rounds)
            for name in ("visible_ms", "thumbnails_ms"):
                result[f"median_{name}"] = float(np.median([row[name] for row in result["finish"]]))
            result["memory"] = memory(studio, page)
    finally:
        studio.stop()
    return result


def memory(studio: Studio, page: Page) -> dict[str, float]:
    """Megabytes of the server, of its worker, and of the page."""
    server = psutil.Process(studio.process.pid)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    renderers = [
        p for p in psutil.Process().children(recursive=True)
        if any(a == "--type=renderer" for a in p.cmdline()) and "--extension-process" not in p.cmdline()
    ]  # fmt: skip
    mb = 1 << 20
    return {
        "server_mb": round(server.memory_full_info().pss / mb, 1),
        "worker_mb": round(max((p.memory_full_info().pss for p in server.children(True)), default=0) / mb, 1),
        "page_mb": round(max((p.memory_full_info().pss for p in renderers), default=0) / mb, 1),
        "page_heap_mb": round(metrics["JSHeapUsedSize"] / mb, 1),
        "page_elements": metrics["Nodes"],
    }


def measure_many(folder: Path, count: int) -> dict[str, Any]:
    """A folder of many small images: memory, first paint, scrolling."""
    images = folder / "many"
    rng = np.random.default_rng(0)
    for k in range(count):
        place = images / f"{k // 500:03}"
        place.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(small).resize((320, 240), Image.Resampling.BILINEAR).save(place / f"{k:05}.jpg", quality=80)
    studio = Studio(images, free_port(), folder / "state")
    result: dict[str, Any] = {"images": count}
    try:
        with browser_page() as page:
            result["first_paint"] = first_paint(page, studio)
            page.wait_for_timeout(3000)
            box = page.locator("div.grid").bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

            def work() -> None:
                for _ in range(150):
                    page.mouse.wheel(0, 180)
                    page.wait_for_timeout(16)

            result["scroll"] = frames(page, work)
            page.evaluate("document.querySelector('div.grid').scrollTop = 1e7")
            page.wait_for_timeout(1500)
            result["last_name_is_there"] = page.locator(".tile").last.get_attribute("aria-label")
            page.locator(".tile").last.click()
            Person(page, {}).wait_until_ready(300)
            page.keyboard.press("g")
            page.wait_for_timeout(1000)
            result["memory"] = memory(studio, page)
    finally:
        studio.stop()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--finished", type=int, default=20, help="images that are finished before the clock starts")
    parser.add_argument("--rounds", type=int, default=7, help="images that are finished by Enter")
    parser.add_argument("--many", type=int, help="measure the memory with so many images, and nothing else")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="bench-studio-") as name:
        folder = Path(name)
        if arguments.many:
            result = {"many": measure_many(folder, arguments.many)}
        else:
            result = {"loop": measure_loop(folder, arguments.images, arguments.finished, arguments.rounds)}
    report = {**result, "cores": len(os.sched_getaffinity(0)), "load_before": load, "load_after": os.getloadavg()}
    print(json.dumps(report, indent=1))
    if arguments.json:
        with write_atomic(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
