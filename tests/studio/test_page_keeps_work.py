"""The page loses nothing of what a person did, says what went wrong where it is seen, and is usable by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("uvicorn", reason="needs the extra studio")
from person import (
    CHROMIUM,
    Person,
    Studio,
    browser_page,
    call,
    free_port,
    one_browser,
    open_dialog,
    open_first_by_name,
)  # fmt: skip
from still import StillStudio, still_studio
from test_browser import wait_until

from sppnet.datasets.example import make_example
from sppnet.datasets.writing import write_dataset

if TYPE_CHECKING:
    from playwright.sync_api import APIResponse, Route

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]


@pytest.fixture(scope="module", autouse=True)
def _browser() -> Iterator[None]:
    with one_browser():
        yield


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    make_example(tmp_path / "digits", 5, 2, 0)
    for file in (tmp_path / "digits").iterdir():
        if file.suffix != ".jpg":
            file.unlink()
    return tmp_path / "digits"


@pytest.fixture
def studio(digits: Path) -> Iterator[StillStudio]:
    with still_studio(digits) as server:
        yield server


@pytest.fixture
def whole_studio(digits: Path, tmp_path: Path) -> Iterator[Studio]:
    """One that learns."""
    server = Studio(digits, free_port(), tmp_path / "state")
    yield server
    server.stop()


def draw(person: Person, *box: float) -> None:
    page = person.page
    page.mouse.move(*person.screen(box[0], box[1]))
    page.mouse.down()
    page.mouse.move(*person.screen(box[2], box[3]), steps=3)
    page.mouse.up()
    page.wait_for_timeout(80)


def first_box(page: Any, studio: StillStudio, name: str) -> tuple[Person, str]:
    """Open the first image and draw a box of this name in it. Gives the number of the image, too."""
    open_first_by_name(page, studio)
    person = Person(page, {})
    person.wait_until_ready()
    image = str(page.evaluate("__s.open.value.id"))
    draw(person, 20, 20, 90, 80)
    person.answer_what_it_is(name)
    return person, image


def stored(studio: StillStudio, image: str) -> list[tuple[Any, ...]]:
    """Rounded boxes of an image on the server, and the names of their classes."""
    names = {c["id"]: c["name"] for c in call(studio, "GET", "/api/project")["classes"]}
    boxes = call(studio, "GET", f"/api/images/{image}")["boxes"]
    return [(*(round(v, -1) for v in row[:4]), names[row[4]]) for row in boxes]


def test_a_box_without_a_name_holds_nothing_up(studio: StillStudio) -> None:
    """Undo leads back to it; what is done afterwards is saved all the same."""
    with browser_page() as page:
        person, image = first_box(page, studio, "thing")
        page.keyboard.press("Control+z")
        page.locator(".naming input").wait_for()  # it is asked again
        draw(person, 200, 100, 260, 150)
        wait_until(page, "__s.waiting.value === 0")
        assert stored(studio, image) == [(200, 100, 260, 150, "thing")]
        call(studio, "POST", "/api/rescan", {})  # somebody adds images meanwhile
        page.wait_for_timeout(400)
        assert page.locator(".naming input").count() == 1
        page.locator(".naming input").fill("thing")
        page.keyboard.press("Enter")
        wait_until(page, "__s.waiting.value === 0 && __s.naming.value === null")
        assert len(stored(studio, image)) == 2
        page.keyboard.press("Enter")
        wait_until(page, f"__s.open.value.id !== '{image}'")
        page.keyboard.press("a")
        wait_until(page, f"__s.open.value.id === '{image}' && __s.open.value.done")
        page.evaluate("__s.activeClass.value = null")
        draw(person, 200, 20, 260, 80)
        assert not page.evaluate("__s.open.value.done")
        page.keyboard.press("Escape")
        assert page.evaluate("__s.open.value.done")  # a slip of the hand takes nothing back
        page.wait_for_timeout(300)
        assert call(studio, "GET", f"/api/images/{image}")["done"]


def test_a_conflict_in_an_image_that_was_left(studio: StillStudio) -> None:
    """Whoever labels quickly is at the next image when it comes."""
    with browser_page() as page:
        page.route("**/api/events", lambda route: route.abort())  # the page does not hear of others
        open_first_by_name(page, studio)
        person = Person(page, {})
        person.wait_until_ready()
        first, second = page.evaluate("__s.shown.value.slice(0, 2).map((r) => [r.id, r.name])")
        cls = call(studio, "POST", "/api/classes", {"name": "other"})["id"]
        theirs = {"version": 0, "boxes": [[1, 1, 30, 30, cls]], "done": False, "rejected": []}
        for image, _ in (first, second):
            call(studio, "PUT", f"/api/images/{image}/labels", theirs)
        held: list[Any] = []
        page.route("**/labels", lambda route: held.append(route))
        draw(person, 50, 50, 90, 90)
        person.answer_what_it_is("mine")
        page.keyboard.press("d")
        wait_until(page, f"__s.open.value.id === '{second[0]}'")
        page.evaluate("__s.change((o) => ({boxes: o.boxes.map((b) => ({...b, rect: [5, 5, 60, 60]}))}))")
        page.unroute("**/labels")
        for route in held:
            route.continue_()
        page.locator("dialog[open]").wait_for()
        assert first[1] in page.locator("dialog").inner_text()
        for _ in range(3):
            page.keyboard.press("Escape")  # it waits for an answer
            page.wait_for_timeout(100)
        assert page.locator("dialog[open]").count() == 1
        page.locator("dialog .primary").click()  # keep mine
        wait_until(page, "__s.waiting.value === 0 && __s.conflict.value === null")
        assert stored(studio, first[0]) == [(50, 50, 90, 90, "mine")]
        assert stored(studio, second[0]) == [(0, 0, 60, 60, "other")]
        page.keyboard.press("a")  # the keys are heard again
        wait_until(page, f"__s.open.value.id === '{first[0]}' && __s.open.value.boxes.length === 1")


def test_undo_replaces_nothing_of_others(studio: StillStudio) -> None:
    with browser_page() as page:
        person, image = first_box(page, studio, "thing")
        wait_until(page, "__s.waiting.value === 0")
        now = call(studio, "GET", f"/api/images/{image}")
        change = {"version": now["version"], "boxes": [*now["boxes"], [100, 100, 160, 150, now["boxes"][0][4]]],
                  "done": False, "rejected": []}  # fmt: skip
        call(studio, "PUT", f"/api/images/{image}/labels", change)
        wait_until(page, "__s.open.value.boxes.length === 2")
        page.keyboard.press("Control+z")
        assert "can't be undone" in page.locator(".toast").inner_text()
        assert len(stored(studio, image)) == 2
        draw(person, 200, 20, 260, 80)
        page.keyboard.press("Control+z")  # what came after can
        wait_until(page, "__s.waiting.value === 0 && __s.open.value.boxes.length === 2")
        assert len(stored(studio, image)) == 2


def test_undo_after_a_class_is_gone(studio: StillStudio) -> None:
    with browser_page() as page:
        person, image = first_box(page, studio, "kat")
        draw(person, 100, 100, 160, 150)
        page.keyboard.press("x")
        wait_until(page, "__s.waiting.value === 0")
        other = call(studio, "POST", "/api/classes", {"name": "cat"})["id"]
        wait_until(page, "__s.classes.value.length === 2")
        page.get_by_label("Rename: kat").click()
        page.locator("dialog select").select_option(str(other))
        page.get_by_role("button", name="Merge into…").click()
        page.locator("dialog[open]").wait_for(state="detached")
        wait_until(page, "__s.dialog.value === '' && __s.classes.value.length === 1")
        page.keyboard.press("Control+z")
        wait_until(page, "__s.waiting.value === 0 && __s.open.value.boxes.length === 2")
        assert stored(studio, image) == [(20, 20, 90, 80, "cat"), (100, 100, 160, 150, "cat")]


def test_undo_while_the_image_is_loaded_again_after_a_merge(studio: StillStudio) -> None:
    """The merge loads it, and so does each event of the server: the last stops the others, and may take long."""
    with browser_page() as page:
        person, image = first_box(page, studio, "kat")
        draw(person, 100, 100, 160, 150)
        wait_until(page, "__s.waiting.value === 0 && __s.open.value.boxes.length === 2")
        page.keyboard.press("x")
        wait_until(page, "__s.waiting.value === 0 && __s.open.value.boxes.length === 1")
        other = call(studio, "POST", "/api/classes", {"name": "cat"})["id"]
        wait_until(page, "__s.classes.value.length === 2")
        held = Held(page, image, 3, lists=False)
        page.evaluate(f"void __s.removeClass(__s.open.value.boxes[0].cls, {other})")
        held.wait(2)
        page.evaluate("void __s.reload()")
        held.wait(3)
        page.keyboard.press("Control+z")
        held.give(0)
        held.give(1)
        wait_until(page, "__s.waiting.value === 0 && __s.open.value.boxes.length === 2")
        held.give(2)
        page.wait_for_timeout(300)
        assert page.evaluate("[__s.open.value.boxes.length, __s.conflict.value]") == [2, None]
        assert stored(studio, image) == [(20, 20, 90, 80, "cat"), (100, 100, 160, 150, "cat")]


class Held:
    """Holds the answers that the server gives to the next requests for an image, and for the list of all."""

    def __init__(self, page: Any, image: str, count: int = 2, *, lists: bool = True) -> None:
        self.page, self.answers, self.count = page, list[tuple["Route", "APIResponse"]](), count
        page.route(re.compile(rf"/api/images(/{image}){'?' if lists else ''}$"), self._hold)

    def _hold(self, route: Route) -> None:
        if route.request.method == "GET" and len(self.answers) < self.count:
            self.answers.append((route, route.fetch()))
        else:
            route.continue_()

    def wait(self, number: int) -> None:
        """Until this many answers are held."""
        for _ in range(100):
            if len(self.answers) >= number:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("no request")

    def give(self, number: int = -1) -> None:
        """Let the page have one of them; the newest if it isn't said which."""
        self.answers[number][0].fulfill(response=self.answers[number][1])


def test_an_answer_that_comes_late_replaces_nothing(studio: StillStudio) -> None:
    """What the server said of an image before the last change was saved is old when it arrives after it."""
    with browser_page() as page:
        person, image = first_box(page, studio, "thing")
        wait_until(page, "__s.waiting.value === 0")
        held = Held(page, image)
        page.evaluate("void __s.reload()")
        for answers in (1, 2):  # the list of images, then the image that is open
            held.wait(answers)
            draw(person, 100, 20 + 60 * answers, 160, 60 + 60 * answers)
            wait_until(page, f"__s.waiting.value === 0 && __s.open.value.boxes.length === {1 + answers}")
            held.give()
        page.wait_for_timeout(300)
        assert page.evaluate("__s.open.value.boxes.length") == 3
        assert page.evaluate(f"__s.rows.value.find((r) => r.id === '{image}').classes.length") == 3
        page.keyboard.press("Control+z")  # with the version of the server: no conflict
        wait_until(page, "__s.waiting.value === 0 && __s.open.value.boxes.length === 2")
        assert page.evaluate("__s.conflict.value") is None
        assert len(stored(studio, image)) == 2


def test_an_answer_that_comes_late_replaces_nothing_of_others(studio: StillStudio) -> None:
    """Labels and classes that another page made, and where the person went, meanwhile."""
    with browser_page() as page:
        person, image = first_box(page, studio, "thing")
        wait_until(page, "__s.waiting.value === 0")
        row = f"__s.rows.value.find((r) => r.id === '{image}')"
        held = Held(page, image)
        page.evaluate("void __s.reload()")
        for answers in (1, 2):
            held.wait(answers)
            now = call(studio, "GET", f"/api/images/{image}")
            boxes = [*now["boxes"], [100, 60 * answers, 160, 60 * answers + 40, now["boxes"][0][4]]]
            change = {"version": now["version"], "boxes": boxes, "done": False, "rejected": []}
            call(studio, "PUT", f"/api/images/{image}/labels", change)
            call(studio, "POST", "/api/classes", {"name": f"class {answers}"})
            wait_until(page, f"__s.open.value.boxes.length === {1 + answers}")
            wait_until(page, f"__s.classes.value.length === {1 + answers}")
            held.give()
        page.wait_for_timeout(300)
        assert (
            page.evaluate(f"[__s.open.value.boxes.length, {row}.classes.length, __s.classes.value.length]") == [3] * 3
        )
        draw(person, 200, 20, 260, 80)  # with the newest version: no conflict
        wait_until(page, "__s.waiting.value === 0 && __s.open.value.boxes.length === 4")
        assert page.evaluate("__s.conflict.value") is None


def test_an_answer_that_comes_late_takes_no_box_without_a_name_and_nobody_back(studio: StillStudio) -> None:
    with browser_page() as page:
        open_first_by_name(page, studio)
        person = Person(page, {})
        person.wait_until_ready()
        image = str(page.evaluate("__s.open.value.id"))
        held = Held(page, image)
        page.evaluate("void __s.reload()")
        held.wait(1)
        held.give()
        held.wait(2)
        draw(person, 20, 20, 90, 80)
        held.give()
        page.wait_for_timeout(300)
        assert page.evaluate("__s.open.value.boxes.map((b) => b.cls)") == [-1]
        person.answer_what_it_is("kept")
        wait_until(page, "__s.waiting.value === 0")
        assert stored(studio, image) == [(20, 20, 90, 80, "kept")]
        page.unroute_all()
        held = Held(page, image)
        page.evaluate("void __s.reload()")
        held.wait(1)
        held.give()
        held.wait(2)
        page.keyboard.press("g")
        wait_until(page, "__s.view.value === 'grid'")
        held.give()
        page.wait_for_timeout(300)
        assert page.evaluate("__s.view.value") == "grid"


def test_a_key_means_one_thing(studio: StillStudio) -> None:
    for name, key in (("cat", "1"), ("dog", "2")):
        call(studio, "POST", "/api/classes", {"name": name, "key": key})
    with browser_page() as page:
        page.goto(studio.address)
        page.get_by_label("Rename: dog").click()
        field = page.locator("dialog input[size]")
        field.fill("x")
        assert "is the key of “Delete”" in page.locator("dialog .toast").inner_text()
        assert field.input_value() == "2"
        field.fill("1")
        wait_until(page, "__s.classes.value.map((c) => c.key).join() === ',1'")
        page.locator("dialog input").first.fill("Cat")
        page.keyboard.press("Enter")
        wait_until(page, "document.querySelector('dialog .toast').innerText.includes('exists already')")
        assert page.locator("dialog input").first.input_value() == "Cat"  # it is still there to be changed


def test_an_image_that_can_not_be_read_holds_nothing_up(whole_studio: Studio) -> None:
    names = sorted(file.name for file in whole_studio.folder.glob("*.jpg"))
    (whole_studio.folder / names[1]).write_bytes(b"\xff\xd8 nothing")
    (whole_studio.folder / names[-1]).write_bytes(b"\xff\xd8 nothing")
    with browser_page() as page:
        open_first_by_name(page, whole_studio)
        seen = []
        for key in ("Enter", "Enter", "Enter"):
            wait_until(page, "__s.open.value !== null && __s.view.value === 'image'")
            page.wait_for_timeout(400)
            seen.append(page.evaluate("__s.open.value.name"))
            page.keyboard.press(key)
        wait_until(page, "__s.view.value === 'grid'")
        assert seen == [names[0], names[2], names[3]]
        assert page.evaluate("__s.doneCount.value") == 3


def test_what_went_wrong_is_seen_in_the_dialog(whole_studio: Studio) -> None:
    with browser_page() as page:
        page.goto(whole_studio.address)
        page.locator(".tile").first.wait_for()
        open_dialog(page, "Export")
        downloads: list[Any] = []
        page.on("download", lambda download: downloads.append(download))
        page.get_by_role("link", name="Detector (one file)", exact=True).click()
        page.locator("dialog .toast.on").wait_for()
        assert "finish two images first" in page.locator("dialog .toast").inner_text()
        page.get_by_role("link", name="Model card (Markdown)", exact=True).click()
        wait_until(page, "document.querySelector('dialog [aria-busy=true]') === null")
        page.wait_for_timeout(300)
        assert [download.suggested_filename for download in downloads] == ["model-card.md"]
        open_dialog(page, "Train fully")
        page.get_by_role("button", name="Start training", exact=True).click()
        page.wait_for_timeout(300)
        assert "at least 4 images" in page.locator("dialog .toast").inner_text()


def test_the_keyboard_stays_where_it_was(studio: StillStudio) -> None:
    """After a dialog, and back from an image; what has the focus is seen."""
    with browser_page() as page:
        page.goto(studio.address)
        page.locator(".tile").first.wait_for()
        for name in ("Try it", "More", "Keys"):
            button = page.get_by_role("button", name=name, exact=True)
            button.focus()
            page.keyboard.press("Enter")
            page.locator("dialog[open]").wait_for()
            assert page.evaluate("document.activeElement.closest('dialog') !== null")
            page.keyboard.press("Enter")  # on its button that closes it
            page.locator("dialog[open]").wait_for(state="detached")
            wait_until(page, "document.activeElement !== document.body")
            assert button.evaluate("(button) => button === document.activeElement")
        page.locator(".tile").nth(3).focus()
        page.keyboard.press("Enter")
        wait_until(page, "document.activeElement.matches('.canvas')")
        assert page.evaluate("document.activeElement.ariaLabel === __s.open.value.name")
        page.keyboard.press("g")
        wait_until(page, "document.activeElement.dataset.n === '3'")
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid"


def test_the_keyboard_goes_on_in_the_lists(studio: StillStudio) -> None:
    """After a suggestion is accepted or rejected by keys, the next one has the focus; a mouse leaves it alone."""
    call(studio, "POST", "/api/classes", {"name": "thing"})
    with browser_page() as page:
        open_first_by_name(page, studio)
        Person(page, {}).wait_until_ready()
        page.evaluate("""(() => {
            const at = (x, i) => ({rect: [x, 20, x + 50, 90], cls: 0, confidence: 0.9 - i / 10});
            const suggestions = [10, 80, 150, 220].map(at);
            __s.open.value = {...__s.open.value, suggestions};
        })()""")
        focused = "document.activeElement.ariaLabel"
        page.keyboard.press("Tab")
        page.locator(".boxes .dashed").nth(1).focus()
        page.keyboard.press("Enter")
        wait_until(page, f"{focused} === 'Accept. Suggestion: thing, 70 %'")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        wait_until(page, f"{focused} === 'Reject. Suggestion: thing, 60 %'")
        page.locator(".boxes li .row:not(.dashed) + .icon").focus()
        page.keyboard.press("Enter")  # the only box: not on to the suggestions
        wait_until(page, "document.activeElement.matches('.canvas')")
        page.locator(".boxes .dashed + .icon").first.click()
        assert page.evaluate("document.activeElement === document.body")
        image = page.evaluate("__s.open.value.id")
        page.keyboard.press("Enter")  # accepts what is left
        wait_until(page, f"__s.open.value.id !== '{image}' && __s.waiting.value === 0")
        assert len(call(studio, "GET", f"/api/images/{image}")["boxes"]) == 1


@pytest.mark.parametrize("format", ["voc", "yolo", "coco"])
def test_a_folder_with_labels(studio: StillStudio, tmp_path: Path, format: str) -> None:
    data = make_example(tmp_path / "made", 3, 2, 1)
    write_dataset(data, tmp_path / "pets", format)
    with browser_page() as page:
        page.goto(studio.address)
        page.locator(".tile").first.wait_for()
        page.locator(".add-images input[type=file]").nth(1).set_input_files(tmp_path / "pets")
        wait_until(page, "__s.rows.value.length === 8 && __s.adding.value === null")
        assert "The labels of 3 were read" in page.locator(".toast").inner_text()
        assert page.locator("dialog[open]").count() == 0  # nothing was left out
        rows = [row for row in call(studio, "GET", "/api/images")["images"] if row["name"].startswith("pets/")]
        assert [row["done"] for row in rows] == [True] * 3
        assert sum(len(row["classes"]) for row in rows) == sum(len(record) for record in data)
        assert not [
            f for f in studio.folder.rglob("*") if f.suffix in (".xml", ".txt", ".yaml") and ".sppnet" not in str(f)
        ]
