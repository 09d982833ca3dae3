"""A person at the studio's page, who knows the truth: mouse and keyboard only, and a count of what the hands did."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route
    from still import StillStudio

BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")  # the last is GitHub's
CHROMIUM = next((path for path in BROWSERS if Path(path).exists()), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--disable-quic"]  # fmt: skip

Box = Sequence[float]
Truth = Mapping[str, Sequence[tuple[Box, str]]]

_STATE = """(() => {
  const s = window.__s, o = s.open.value;
  return {
    name: o.name, width: o.width, height: o.height, ready: o.windows !== null, done: o.done,
    selected: s.selected.value !== null, active: s.classOf(s.activeClass.value)?.name ?? "",
    keys: Object.fromEntries(s.classes.value.map((c) => [c.name, c.key])),
    boxes: o.boxes.map((b) => ({ rect: b.rect, name: s.classOf(b.cls)?.name ?? "" })),
    suggestions: s.visible.value.map((v) => ({ rect: v.rect, name: s.classOf(v.cls)?.name ?? "", p: v.confidence })),
  };
})()"""
_STAGE = """(() => {
  const r = document.querySelector(".stage svg").getBoundingClientRect();
  return [r.left, r.top, r.width, r.height];
})()"""


def iou(a: Box, b: Box) -> float:
    """Overlap of two boxes."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def hear_signals() -> None:
    """In a child: signals end it, also where the tests run under ``nohup`` or in the background of a shell."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Studio:
    """A studio in a process of its own."""

    def __init__(self, folder: Path, port: int, state_home: Path, options: Sequence[str] = ()) -> None:
        self.folder, self.port, self.options = folder, port, options
        # as a user starts it: Python keeps back what is printed into a pipe
        env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        self.env = env | {"XDG_STATE_HOME": str(state_home), "OMP_NUM_THREADS": "1"}
        self.address = ""
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "sppnet", "studio", str(self.folder), "--no-browser", "--port", str(self.port)]
        command += self.options
        self.process = subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=hear_signals if os.name == "posix" else None,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.said: list[str] = []  # what it printed and logged
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"http://\S+", line):
                self.address = found[0]
                threading.Thread(target=self.said.extend, args=(self.process.stdout,), daemon=True).start()
                return
        raise AssertionError("".join(self.said))

    @property
    def token(self) -> str:
        return self.address.partition("token=")[2]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(studio: Studio | StillStudio, method: str, path: str, body: Any = None) -> Any:
    """Ask the studio's API; the answer's JSON."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{studio.port}{path}", None if body is None else json.dumps(body).encode(),
        {"authorization": f"Bearer {studio.token}"}, method=method,
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def open_first_by_name(page: Page, studio: Studio | StillStudio) -> None:
    """Open the studio's page, and the image whose name comes first."""
    page.goto(studio.address)
    page.locator(".tile").first.wait_for()
    page.select_option(".filters select >> nth=0", "name")
    page.locator(".tile").first.click()


_shared: list[Browser] = []  # the browser of the module whose tests run, if it has one


@contextmanager
def one_browser() -> Iterator[None]:
    """Start a browser for all pages that are opened meanwhile: starting one takes longer than most tests.

    Around the tests of a module, not of a session: Playwright's loop runs in this thread as long.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        _shared.append(playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS))
        try:
            yield
        finally:
            _shared.pop().close()


@contextmanager
def browser_page(width: int = 1280, height: int = 800, **options: Any) -> Iterator[Page]:
    """A page of a real browser, with no memory of earlier ones; errors in its console fail the test."""
    if not _shared:
        with one_browser(), browser_page(width, height, **options) as page:
            yield page
        return
    context = _shared[-1].new_context(viewport={"width": width, "height": height}, **options)
    try:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    finally:
        context.close()
    assert not errors, errors


def playwright_timeout() -> type[Exception]:
    """The error of an element that never came, or went before it was clicked."""
    from playwright.sync_api import TimeoutError as NeverThereError

    return NeverThereError


class Person:
    """Labels images as a person would who sees what is right."""

    def __init__(self, page: Page, truth: Truth, pause_ms: int = 300) -> None:
        self.page, self.truth, self.pause_ms = page, truth, pause_ms
        self.count: Counter[str] = Counter()

    def state(self) -> dict[str, Any]:
        result: dict[str, Any] = self.page.evaluate(_STATE)
        return result

    def screen(self, x: float, y: float) -> tuple[float, float]:
        left, top, width, height = self.page.evaluate(_STAGE)
        now = self.state()
        return left + x * width / now["width"], top + y * height / now["height"]

    def wait_until_ready(self, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.page.evaluate("window.__s?.open.value?.windows != null"):
                return
            self.page.wait_for_timeout(40)
        raise AssertionError("windows of the image were never there")

    def finish_image(self) -> None:
        """Correct the suggestions of the open image, add what is missing, and go on by Enter."""
        self.wait_until_ready()
        assert self.page.locator(".canvas").count(), "no image is open"
        self.page.wait_for_timeout(self.pause_ms)
        wanted = list(self.truth[self.state()["name"]])
        self.count["boxes"] += len(wanted)
        self.count["images"] += 1
        name, drawn = self.state()["name"], 0
        while self.page.locator(".canvas").count() and self.state()["name"] == name:
            while (added_and_rejected := self._correct(wanted)) is not None:  # suggestions may change meanwhile
                drawn += added_and_rejected[0]
            self.page.evaluate("document.activeElement?.blur()")
            self.page.keyboard.press("Enter")
            if self.page.evaluate("window.__s.open.value.done"):  # else it asks to look again first
                self._wait_until_gone(name)
            self.page.wait_for_timeout(150)
        self.count["accepted"] += len(wanted) - drawn

    def _wait_until_gone(self, name: str) -> None:
        """Wait for the next image: a second Enter would finish it unseen."""
        end = time.monotonic() + 60
        while self.page.locator(".canvas").count() and self.state()["name"] == name:
            assert time.monotonic() < end, f"{name} is finished, and no other image came"
            self.page.wait_for_timeout(20)

    def _correct(self, wanted: Sequence[tuple[Box, str]]) -> tuple[int, int] | None:
        """Reject what is wrong and add what is missing. Returns how many boxes were added and rejected, or None."""
        rejected = 0
        taken: set[int] = set()
        for suggestion in self.state()["suggestions"]:
            fits = [
                i for i, (box, name) in enumerate(wanted)
                if i not in taken and iou(suggestion["rect"], box) > 0.5 and suggestion["name"] == name
            ]  # fmt: skip
            taken.update(fits[:1])
            if not fits:
                rects = [s["rect"] for s in self.state()["suggestions"]]
                if suggestion["rect"] in rects:
                    place = rects.index(suggestion["rect"])
                    try:
                        self.page.locator(".boxes .dashed + .icon").nth(place).click(timeout=3000)
                    except playwright_timeout():  # suggestions changed just then: look again
                        return 0, rejected
                    self.count["rejected"] += 1
                    rejected += 1
        added = 0
        for box, name in wanted:
            now = self.state()
            there = [s for s in (*now["suggestions"], *now["boxes"]) if s["name"] == name and iou(s["rect"], box) > 0.5]
            if not there:
                self.add(box, name)
                added += 1
        return (added, rejected) if added or rejected else None

    def add(self, box: Box, name: str) -> None:
        """Click on the object; step through the windows if another one was meant; draw if none fits."""
        page, before = self.page, len(self.state()["boxes"])
        self.announce(name)
        x, y = self.screen((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        page.mouse.move(x, y)
        page.keyboard.down("Alt")
        page.mouse.click(x, y)
        page.keyboard.up("Alt")
        page.wait_for_timeout(80)
        fits = False
        if len(self.state()["boxes"]) > before:
            self.count["clicks"] += 1
            self.answer_what_it_is(name)
            page.mouse.move(x + 1, y)
            for _ in range(10):
                fits = iou(self.state()["boxes"][-1]["rect"], box) >= 0.7
                if fits:
                    break
                page.keyboard.press("s")
                self.count["steps"] += 1
                page.wait_for_timeout(30)
            if not fits:
                page.keyboard.press("x")
                page.wait_for_timeout(60)
        if not fits:
            x0, y0 = self.screen(box[0], box[1])
            x1, y1 = self.screen(box[2], box[3])
            page.mouse.move(x0, y0)
            page.mouse.down()
            page.mouse.move(x1, y1, steps=4)
            page.mouse.up()
            page.wait_for_timeout(80)
            self.count["drawn"] += 1
            self.answer_what_it_is(name)
        if self.state()["boxes"][-1]["name"] != name:
            self.choose_class(name)

    def announce(self, name: str) -> None:
        """Say by its key of which class the next box is."""
        now = self.state()
        if now["active"] != name and now["keys"].get(name):
            if now["selected"]:
                self.page.keyboard.press("Escape")
            self.page.keyboard.press(now["keys"][name])

    def answer_what_it_is(self, name: str) -> None:
        if self.page.locator(".naming input").count():
            self.page.keyboard.type(name)
            self.page.keyboard.press("Enter")
            self.page.locator(".naming").wait_for(state="detached")

    def choose_class(self, name: str) -> None:
        row = self.page.locator(".classes .row", has_text=name)
        if not row.count():
            self.page.fill(".add input", name)
            self.page.click(".add button")
            row.first.wait_for()
        row.first.click()
        self.page.wait_for_timeout(60)


def open_dialog(page: Page, button: str) -> None:
    """Press a button of the bar and wait for what it opens."""
    if page.locator("dialog[open]").count():
        page.keyboard.press("Escape")
        page.locator("dialog[open]").wait_for(state="detached")
    page.locator(".bar nav").get_by_role("button", name=button, exact=True).click()
    page.locator("dialog[open]").wait_for()


def export(page: Page, name: str, into: Path, format: str = "coco") -> Path:
    """Take a file by the page's dialog ``Export``; ``name`` is what stands on its link."""
    open_dialog(page, "Export")
    page.select_option(".downloads select", format)
    with page.expect_download(timeout=120_000) as waiting:
        page.get_by_role("link", name=name, exact=True).click()
    path = into / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def train_fully(page: Page, seconds: float = 1800) -> dict[str, Any]:
    """Press ``Train fully`` and wait for its end; what the page was told of it last."""
    open_dialog(page, "Train fully")
    page.get_by_role("button", name="Start training", exact=True).click()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        page.wait_for_timeout(200)
        now: dict[str, Any] = page.evaluate("window.__s.status.value.training")
        if now["state"] in ("done", "failed"):
            assert now["state"] == "done", now
            page.locator("dialog .pair").wait_for()
            return now
    raise AssertionError(f"the training did not end: {now}")


def try_images(page: Page, files: Sequence[Path]) -> list[list[dict[str, Any]]]:
    """Give images to the page's dialog ``Try it``; what it found in each. It must show as many boxes."""
    open_dialog(page, "Try it")
    found: list[list[dict[str, Any]]] = []

    def listen(route: Route) -> None:
        answer = route.fetch(timeout=120_000)
        found.append(answer.json()["detections"])
        route.fulfill(response=answer)

    page.route("**/api/detect", listen)
    for i, file in enumerate(files, 1):
        page.locator("dialog input[type=file]").set_input_files(file)
        end = time.monotonic() + 120
        while len(found) < i or not page.locator("dialog [role=status]").count():
            assert time.monotonic() < end, f"nothing was found in {file.name}, nor nothing"
            page.wait_for_timeout(20)
        assert page.locator("dialog .shown svg g").count() == len(found[-1])
    page.unroute("**/api/detect")
    return found
