"""The studio in a real browser: whole sessions by mouse and keyboard."""

from __future__ import annotations

import os
import random
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("uvicorn", reason="needs the extra studio")
from person import (
    CHROMIUM,
    Person,
    Studio,
    Truth,
    browser_page,
    call,
    export,
    free_port,
    iou,
    one_browser,
    open_first_by_name,
    train_fully,
    try_images,
)  # fmt: skip
from still import StillStudio, still_studio

from sppnet import SPPDetector
from sppnet.datasets.example import make_example
from sppnet.datasets.loading import load_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module", autouse=True)
def _browser() -> Iterator[None]:
    with one_browser():
        yield


@pytest.fixture
def digits(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Truth]:
    """Images of digits without labels, and what is in them; 8 where a test doesn't say how many."""
    data = make_example(tmp_path / "digits", getattr(request, "param", 8), 3, 0)
    truth = {
        r.path.name: [(b, data.class_names[c]) for b, c in zip(r.boxes.tolist(), r.labels, strict=True)] for r in data
    }
    for file in (tmp_path / "digits").iterdir():
        if file.suffix != ".jpg":
            file.unlink()
    return tmp_path / "digits", truth


@pytest.fixture
def studio(digits: tuple[Path, Truth], tmp_path: Path) -> Iterator[Studio]:
    server = Studio(digits[0], free_port(), tmp_path / "state")
    yield server
    server.stop()


@pytest.fixture
def still(digits: tuple[Path, Truth]) -> Iterator[StillStudio]:
    """For what has nothing to do with learning."""
    with still_studio(digits[0]) as server:
        yield server


def wait_until(page: Any, expression: str, seconds: float = 30) -> None:
    """Wait for something on the page. The browser's own wait evaluates text there, which its policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never became true: {expression}"
        page.wait_for_timeout(20)


@pytest.mark.parametrize("digits", [14], indirect=True)
def test_a_whole_session(studio: Studio, digits: tuple[Path, Truth], tmp_path: Path) -> None:
    """From the first box to detections in other images, by mouse and keyboard."""
    folder, truth = digits
    unseen = make_example(tmp_path / "others", 6, 3, 1)  # another seed: other images
    with browser_page() as page:
        open_first_by_name(page, studio)
        person = Person(page, truth)
        for _ in truth:
            person.finish_image()
        page.locator(".finished").wait_for()
        wait_until(page, "window.__s.waiting.value === 0")  # the page shows a change before the server has it
        count = dict(person.count)
        assert count["images"] == len(truth)
        assert count.get("drawn", 0) <= count["boxes"] / 4, count
        assert count.get("accepted", 0) >= count["boxes"] / 4, count
        with zipfile.ZipFile(export(page, "Labels and images", tmp_path, "yolo")) as archive:
            archive.extractall(tmp_path / "exported")
        assert train_fully(page)["after"] > 0.3
        model = export(page, "Detector (one file)", tmp_path)
        found = try_images(page, [record.path for record in unseen])
    studio.stop()
    assert set(SPPDetector.load(model).class_names_) == set(unseen.class_names)
    objects = [
        (i, box, unseen.class_names[c])
        for i, record in enumerate(unseen)
        for box, c in zip(record.boxes.tolist(), record.labels, strict=True)
    ]
    hits = [any(d["class"] == name and iou(d["box"], box) > 0.5 for d in found[i]) for i, box, name in objects]
    assert sum(hits) >= len(hits) / 3, found
    exported = load_dataset(tmp_path / "exported")
    assert len(exported) == len(truth)
    assert sum(map(len, exported)) == sum(map(len, truth.values()))
    data = load_dataset(folder)
    assert len(data) == len(truth)
    for record in data:
        wanted = list(truth[record.path.name])
        assert len(record) == len(wanted)
        for box, c in zip(record.boxes.tolist(), record.labels, strict=True):
            assert any(data.class_names[c] == name and iou(box, other) > 0.5 for other, name in wanted)


def test_a_session_on_blood_cells(shared_data: Path, tmp_path: Path) -> None:
    """Many cells lie close together: at most a quarter of the boxes is drawn by hand, from the first image on."""
    data = load_dataset(shared_data / "bccd" / "BCCD", "train", on_error="skip")
    folder = tmp_path / "cells"
    folder.mkdir()
    truth: dict[str, list[tuple[list[float], str]]] = {}
    for record in data.records[:3]:
        (folder / record.path.name).write_bytes(record.path.read_bytes())
        boxes = record.boxes.tolist()
        truth[record.path.name] = [(box, data.class_names[c]) for box, c in zip(boxes, record.labels, strict=True)]
    server = Studio(folder, free_port(), tmp_path / "state")
    try:
        with browser_page() as page:
            open_first_by_name(page, server)
            person = Person(page, truth)
            for _ in truth:
                person.finish_image()
            page.locator(".finished").wait_for()
            assert person.count["drawn"] <= person.count["boxes"] / 4, person.count
    finally:
        server.stop()


def test_undo_keyboard_and_a_server_that_comes_back(studio: Studio) -> None:
    with browser_page() as page:
        page.goto(studio.address)
        page.locator(".tile").first.click()
        person = Person(page, {})
        person.wait_until_ready()
        x0, y0 = person.screen(20, 20)
        x1, y1 = person.screen(90, 80)
        page.mouse.move(x0, y0)
        page.mouse.down()
        page.mouse.move(x1, y1, steps=3)
        page.mouse.up()
        person.answer_what_it_is("thing")
        (box,) = person.state()["boxes"]
        assert box["rect"] == pytest.approx([20, 20, 90, 80], abs=1.5)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
        moved = person.state()["boxes"][0]["rect"]
        assert moved == pytest.approx(
            [box["rect"][0] + 1, box["rect"][1] + 10, box["rect"][2] + 1, box["rect"][3] + 10]
        )
        page.keyboard.press("Control+z")  # nudges in quick succession are one step
        assert person.state()["boxes"][0]["rect"] == pytest.approx(box["rect"])
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(1200)
        page.keyboard.press("ArrowLeft")  # later: another step
        page.keyboard.press("Control+z")
        assert person.state()["boxes"][0]["rect"][0] == pytest.approx(box["rect"][0] - 1)
        page.keyboard.press("Control+z")
        assert person.state()["boxes"][0]["rect"] == pytest.approx(box["rect"])
        page.keyboard.press("x")
        assert not person.state()["boxes"]
        page.keyboard.press("Control+z")
        assert len(person.state()["boxes"]) == 1
        page.wait_for_timeout(300)
        studio.kill()
        page.locator(".banner").wait_for(timeout=15000)
        page.mouse.click(*person.screen(50, 50))
        page.keyboard.press("ArrowLeft")  # worked while nobody listens
        kept = person.state()["boxes"][0]["rect"]
        studio.start()
        page.locator(".banner").wait_for(state="detached", timeout=20000)
        page.wait_for_timeout(1500)
        image = page.evaluate("window.__s.open.value.id")
        stored = call(studio, "GET", f"/api/images/{image}")["boxes"]
        assert stored[0][:4] == pytest.approx(kept)


@pytest.mark.parametrize("deaf", [False, True])
def test_two_people_do_not_overwrite_each_other(still: StillStudio, deaf: bool) -> None:
    """Changes of others are shown at once; where a page did not hear of them, it asks before it overwrites."""
    with browser_page() as page:
        if deaf:
            page.route("**/api/events", lambda route: route.abort())
        page.goto(still.address)
        page.locator(".tile").first.click()
        person = Person(page, {})
        person.wait_until_ready()
        image = page.evaluate("window.__s.open.value.id")
        cls = call(still, "POST", "/api/classes", {"name": "other"})["id"]
        change = {"version": 0, "boxes": [[1, 1, 30, 30, cls]], "done": False, "rejected": []}
        call(still, "PUT", f"/api/images/{image}/labels", change)
        if not deaf:
            wait_until(page, "window.__s.open.value.boxes.length === 1")
            assert [b["name"] for b in person.state()["boxes"]] == ["other"]
            return
        page.mouse.move(*person.screen(50, 50))
        page.mouse.down()
        page.mouse.move(*person.screen(90, 90), steps=3)
        page.mouse.up()
        person.answer_what_it_is("mine")
        page.locator("dialog[open]").wait_for()
        assert [b[:4] for b in call(still, "GET", f"/api/images/{image}")["boxes"]] == [[1, 1, 30, 30]]
        page.locator("dialog .primary").click()  # keep mine
        wait_until(page, "window.__s.waiting.value === 0")
        (box,) = call(still, "GET", f"/api/images/{image}")["boxes"]
        assert box[:4] == pytest.approx([50, 50, 90, 90], abs=1.5)


def test_images_are_added_and_snapshots_restored_by_the_page(still: StillStudio, tmp_path: Path) -> None:
    import io

    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.full((60, 80, 3), 120, np.uint8)).save(buffer, "PNG")
    (tmp_path / "new.png").write_bytes(buffer.getvalue())
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("deep/inside.png", buffer.getvalue())
        archive.writestr("../outside.png", buffer.getvalue())
    before = len(call(still, "GET", "/api/images")["images"])
    cls = call(still, "POST", "/api/classes", {"name": "thing"})["id"]
    first = call(still, "GET", "/api/images")["images"][0]["id"]
    change = {"version": 0, "boxes": [[1, 1, 30, 30, cls]], "done": True, "rejected": []}
    call(still, "PUT", f"/api/images/{first}/labels", change)
    with browser_page() as page:
        page.goto(still.address)
        page.locator(".tile").first.wait_for()
        files = page.locator(".add-images input[type=file]").first
        files.set_input_files([tmp_path / "new.png", tmp_path / "more.zip"])
        page.locator("dialog[open]").wait_for()  # it says what was left out
        assert page.get_by_text("../outside.png").count() == 1
        wait_until(page, f"window.__s.rows.value.length === {before + 2}")
        names = {row["name"] for row in call(still, "GET", "/api/images")["images"]}
        assert {"new.png", "more/deep/inside.png"} <= names
        assert not (tmp_path / "outside.png").exists()
        page.get_by_role("button", name="Make a snapshot").click()
        page.locator(".snapshots li").first.wait_for()
        change |= {"version": 1, "boxes": []}
        call(still, "PUT", f"/api/images/{first}/labels", change)
        page.on("dialog", lambda dialog: dialog.accept())
        page.locator(".snapshots button").last.click()
        wait_until(page, "document.querySelectorAll('.snapshots li').length === 2")
        boxes = call(still, "GET", f"/api/images/{first}")["boxes"]
        assert [b[:4] for b in boxes] == [[1, 1, 30, 30]]


def test_names_of_files_never_become_html(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("<img src=x onerror=window.hacked=1>.png", "line\nbreak.png", "'\"&amp;.png"):
        Image.fromarray(np.full((30, 40, 3), 128, np.uint8)).save(folder / name)
    (tmp_path / "outside.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    with still_studio(folder) as server, browser_page() as page:
        page.goto(server.address)
        page.locator(".tile").first.wait_for()
        page.locator(".tile").first.click()
        page.locator(".canvas").wait_for()
        assert page.evaluate("window.hacked") is None


def test_kills_lose_nothing_that_was_acknowledged(studio: Studio) -> None:
    """``SPPNET_KILLS=20`` kills it more often than there is time for in every run."""
    cls = call(studio, "POST", "/api/classes", {"name": "thing"})["id"]
    images = [row["id"] for row in call(studio, "GET", "/api/images")["images"]][:6]
    known: dict[str, tuple[int, list[list[float]]]] = {image: (0, []) for image in images}
    rng = random.Random(0)
    for _ in range(int(os.environ.get("SPPNET_KILLS", "4"))):
        until = time.monotonic() + rng.uniform(0.02, 0.3)
        while time.monotonic() < until:
            image = rng.choice(images)
            version, _ = known[image]
            x = rng.randrange(50)
            boxes = [[x, 5, x + 20, 40, cls, "drawn"]] * rng.randrange(3)
            change = {"version": version, "boxes": boxes, "done": True, "rejected": []}
            known[image] = (call(studio, "PUT", f"/api/images/{image}/labels", change)["version"], boxes)
        studio.kill()
        studio.start()
        for image, (version, boxes) in known.items():
            found = call(studio, "GET", f"/api/images/{image}")
            assert (found["version"], found["boxes"]) == (version, boxes)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080), (390, 844)])
def test_screens_fit_and_are_kept(tmp_path: Path, width: int, height: int) -> None:
    """Screens of the documentation (``SPPNET_SCREENSHOTS=docs/images``): nothing sticks out at any size."""
    source = Path(str(pytest.importorskip("skimage.data").__file__)).parent
    folder = tmp_path / "holiday"
    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket"):
        file = next(source.glob(f"{name}.*"))
        (folder / file.name).write_bytes(file.read_bytes())
    kept = Path(os.environ.get("SPPNET_SCREENSHOTS", str(tmp_path)))
    server = Studio(folder, free_port(), tmp_path / "state")

    def shot(page: Any, name: str) -> None:
        sticks_out = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not sticks_out, name
        page.screenshot(path=kept / f"studio-{name}-{width}.png")

    try:
        with browser_page(width, height, color_scheme="dark" if width == 1920 else "light") as page:
            page.goto(server.address)
            page.locator(".tile img").first.wait_for()
            page.wait_for_timeout(600)
            page.get_by_label("chelsea.png").click()
            person = Person(page, {})
            person.wait_until_ready()
            page.mouse.click(*person.screen(225, 150))
            person.answer_what_it_is("cat")
            page.mouse.move(*person.screen(330, 40))
            page.wait_for_timeout(300)
            shot(page, "image")
            page.keyboard.press("?")
            page.locator("dialog[open]").wait_for()
            shot(page, "keys")
            page.keyboard.press("Escape")
            page.keyboard.press("g")
            page.wait_for_timeout(600)
            shot(page, "grid")
    finally:
        server.stop()


def test_without_a_mouse(studio: Studio) -> None:
    """The grid by arrows, a box by keys: made, moved, resized, named, finished."""
    with browser_page() as page:
        page.goto(studio.address)
        page.locator(".tile").first.wait_for()
        page.select_option(".filters select >> nth=0", "name")
        page.locator(".tile").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        page.wait_for_function("document.activeElement.dataset.n === '1'")
        wanted = page.evaluate("window.__s.shown.value[1].name")
        assert page.evaluate("document.activeElement.ariaLabel").startswith(wanted)
        page.keyboard.press("Enter")
        person = Person(page, {})
        person.wait_until_ready()
        assert person.state()["name"] == wanted
        page.keyboard.press("q")  # nobody moved a pointer: the middle of the image
        person.answer_what_it_is("thing")
        (box,) = person.state()["boxes"]
        assert box == {"rect": pytest.approx([130, 90, 190, 150], abs=0.1), "name": "thing"}
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Alt+ArrowDown")
        assert person.state()["boxes"][0]["rect"] == pytest.approx([140, 90, 200, 151], abs=0.1)
        page.keyboard.press("x")
        page.keyboard.press("s")  # snaps in the middle of what is seen
        (box,) = person.state()["boxes"]
        assert box["name"] == "thing"
        assert box["rect"][0] <= 160 <= box["rect"][2]
        assert box["rect"][1] <= 120 <= box["rect"][3]
        page.keyboard.press("Enter")
        wait_until(page, "window.__s.waiting.value === 0")
        image = next(row for row in call(studio, "GET", "/api/images")["images"] if row["name"] == wanted)
        assert image["done"]


def test_orders_and_filters(still: StillStudio, digits: tuple[Path, Truth]) -> None:
    folder, _ = digits
    names = sorted(path.name for path in folder.glob("*.jpg"))
    for i, name in enumerate(names):
        os.utime(folder / name, (1_000_000, 1_000_000 + 10 * ((i * 3) % len(names))))
    call(still, "POST", "/api/rescan", {})
    ids = {row["name"]: row["id"] for row in call(still, "GET", "/api/images")["images"]}
    first, second = (call(still, "POST", "/api/classes", {"name": name})["id"] for name in ("a", "b"))
    for name, cls, done in ((names[2], second, True), (names[4], first, False)):
        change = {"version": 0, "boxes": [[1, 1, 30, 30, cls]], "done": done, "rejected": []}
        call(still, "PUT", f"/api/images/{ids[name]}/labels", change)
    with browser_page() as page:
        page.goto(still.address)
        page.locator(".tile").first.wait_for()

        def shown(order: str, filter: str = "All") -> list[str]:
            page.select_option(".filters select >> nth=0", order)
            page.locator(".segments").get_by_role("button", name=filter, exact=True).click()
            found: list[str] = page.evaluate("window.__s.shown.value.map((r) => r.name)")
            return found

        assert shown("name") == names
        assert shown("date") == sorted(names, key=lambda name: -((names.index(name) * 3) % len(names)))
        assert shown("class")[:2] == [names[4], names[2]]
        assert shown("name", "Done") == [names[2]]
        assert shown("name", "To do") == [name for name in names if name != names[2]]
        assert shown("name", "Untouched") == [name for name in names if name not in (names[2], names[4])]


def test_frames_of_a_video_in_the_folder(still: StillStudio, digits: tuple[Path, Truth]) -> None:
    av = pytest.importorskip("av", reason="needs the extra video")
    import numpy as np

    with av.open(str(digits[0] / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 64, 48
        for i in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with browser_page() as page:
        page.goto(still.address)
        page.locator(".tile").first.wait_for()
        page.get_by_role("button", name="Take an image of every second").click()
        wait_until(page, f"window.__s.rows.value.length === {len(digits[1]) + 2}")
        names = {row["name"] for row in call(still, "GET", "/api/images")["images"]}
        assert {"clip/clip_000000000.jpg", "clip/clip_000001000.jpg"} <= names
        wait_until(page, "window.__s.project.value.videos.length === 0")  # nothing is offered twice
        assert page.get_by_role("button", name="Take an image of every second").count() == 0
