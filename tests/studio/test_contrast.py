"""Everything on the page can be read: contrast by WCAG 2.2 AA, in both themes, on every screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("uvicorn", reason="needs the extra studio")
from contrast import contrasts, too_faint
from person import CHROMIUM, Person, browser_page, call, one_browser
from still import StillStudio, still_studio

from sppnet.datasets.example import make_example

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]

_TRAINING = """{
  state: "%s", stage: "layers", fraction: 0.4, seconds_left: 50, message: "%s", before: 0.5, after: 0.8, images: 3,
}"""
_FOUND = [
    {"box": [5, 5, 60, 60], "class": "one", "confidence": 0.9},
    {"box": [70, 80, 120, 140], "class": "gone", "confidence": 0.4},
]
_COMPARED = {"width": 320, "height": 240, "before": _FOUND[:1], "after": _FOUND}
_QUALITY = """({
  images: 3, folds: 4, measured: 8, curve: [{images: 4, ap: 0.4}, {images: 8, ap: 0.6}],
  classes: [{
    id: 0, kept: 1, moved: 2, deleted: 3, added: 4, boxes: 9, ap: 0.6, ap_low: 0.5, ap_high: 0.7, half_ap: 0.4,
    trend: "rises", more: 8,
  }],
  disagreements: [
    {image: __s.rows.value[0].id, name: "a.jpg", kind: "missing", box: [1, 1, 9, 9], class: 0, sure: 0.9},
  ],
})"""


@pytest.fixture(scope="module", autouse=True)
def _browser() -> Iterator[None]:
    with one_browser():
        yield


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StillStudio]:
    home = tmp_path_factory.mktemp("contrast")
    make_example(home / "digits", 6, 3, 0)
    for file in (home / "digits").iterdir():
        if file.suffix != ".jpg":
            file.unlink()
    (home / "digits" / "clip.mov").write_bytes(b"")
    (home / "digits" / "sub").mkdir()
    (home / "digits" / "sub" / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    with still_studio(home / "digits") as server:  # news of one that learns would replace what the screens are given
        for name in ("one", "two"):
            call(server, "POST", "/api/classes", {"name": name, "key": name[0]})
        first, second = (row["id"] for row in call(server, "GET", "/api/images")["images"][:2])
        for image, done in ((first, True), (second, False)):
            boxes = [[5, 5, 60, 60, 0, "drawn"], [70, 80, 120, 140, 1, "drawn"]]
            labels = {"version": 0, "boxes": boxes, "done": done, "rejected": []}
            call(server, "PUT", f"/api/images/{image}/labels", labels)
        call(server, "POST", "/api/snapshots", {})
        yield server


def screens(page: Any) -> Iterator[str]:
    """Bring each screen of the page up, one after the other; their names."""

    def show(script: str) -> None:
        page.evaluate(f"(() => {{ {script} }})()")
        page.wait_for_timeout(120)

    page.locator(".tile").first.wait_for()
    show("""__s.sort.value = "name"; const r = __s.rows.value;
        const suggested = {classes: [0, 1], best: 0.9, uncertainty: 0.4};
        __s.rows.value = r.map((x, i) => (i === 2 ? {...x, suggested} : x))""")
    yield "grid"
    show("__s.connection.value = 'lost'; __s.toast.value = {text: 'The server is back.'}")
    yield "lost, toast"
    show("__s.connection.value = 'ok'; __s.search.value = 'nowhere'")
    yield "nothing matches"
    show("__s.search.value = ''; window.kept = __s.rows.value; __s.rows.value = []")
    yield "no images"
    show("__s.rows.value = window.kept.map((x) => ({...x, done: true}))")
    yield "finished"
    show("__s.rows.value = window.kept")
    for dialog in ("help", "train", "try", "export", "more"):
        show(f"__s.dialog.value = '{dialog}'")
        page.wait_for_timeout(200)  # figures come from the server
        yield dialog
    for state, message in (
        ("running", ""),
        ("done", "Trained."),
        ("failed", "the disk is full"),
        ("cancelled", "Stopped."),
    ):
        training = _TRAINING % (state, message)
        show(f"""delete __s.status.value;  // what the server tells meanwhile is not heard
            const told = {{...__s.status.value, training: {training}}};
            __s.dialog.value = "train"; __s.status.value = told;
            const deaf = {{get: () => told, set: () => undefined, configurable: true}};
            Object.defineProperty(__s.status, "value", deaf)""")
        assert page.evaluate("__s.status.value.training.state") == state
        yield f"train {state}"
    show("delete __s.status.value")
    page.route("**/compare", lambda route: route.fulfill(json=_COMPARED))
    show("__s.dialog.value = 'compare'")
    page.locator(".sides svg text").nth(2).wait_for()
    page.wait_for_timeout(200)
    size = page.evaluate("""(() => {
        const text = document.querySelector(".sides svg text"), svg = text.ownerSVGElement;
        return text.getAttribute("font-size") * svg.clientWidth / svg.viewBox.baseVal.width;
    })()""")
    assert size == pytest.approx(13, rel=0.02)  # as other text, however small the image is shown
    yield "compare"
    page.get_by_role("button", name="Next image").focus()
    yield "compare, focus"
    page.unroute("**/compare")
    page.route(
        "**/compare", lambda route: route.fulfill(status=400, json={"error": "there is no trained detector yet"})
    )
    page.get_by_role("button", name="Next image").click()
    page.locator("dialog .toast.on").wait_for()
    yield "compare, refused"
    page.unroute("**/compare")
    page.route("**/api/quality", lambda route: route.fulfill(json=page.evaluate(_QUALITY)))
    show(f"__s.quality.value = {_QUALITY}; __s.dialog.value = 'quality'")
    yield "quality"
    show("__s.dialog.value = ''")
    page.get_by_label("Rename: one").click()
    page.locator("dialog[open]").wait_for()
    yield "class"
    page.keyboard.press("Escape")
    page.locator(".tile").nth(1).click()
    Person(page, {}).wait_until_ready()
    show("""const o = __s.open.value; __s.selected.value = o.boxes[0].key;
        __s.open.value = {...o, suggestions: [{rect: [150, 20, 200, 90], cls: 0, confidence: 0.8}]}""")
    yield "image"
    show("__s.classes.value.length; __s.activeClass.value = null; __s.drawAt(160, 150)")
    page.locator(".naming").wait_for()
    yield "naming"
    page.keyboard.press("Escape")
    show("__s.conflict.value = {id: __s.open.value.id, version: 9, done: false, boxes: [], rejected: []}")
    yield "conflict"
    show("__s.conflict.value = null")


@pytest.mark.parametrize("width", [1280, 390])
def test_everything_can_be_read(studio: StillStudio, width: int) -> None:
    faint: dict[str, list[str]] = {}
    seen: dict[str, set[str]] = {"light": set(), "dark": set()}
    count = 0
    with browser_page(width, 844, reduced_motion="reduce") as page:
        page.goto(studio.address)
        for screen in screens(page):
            for theme in ("light", "dark"):
                page.emulate_media(color_scheme=theme)
                seen[theme].add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
                rows = contrasts(page)
                count += len(rows)
                if found := too_faint(rows):
                    faint[f"{screen}, {theme}"] = found
    assert not faint, "\n".join(f"{screen}: {line}" for screen, lines in faint.items() for line in lines)
    assert count > 800
    assert len(seen["light"]) == len(seen["dark"]) == 1
    assert seen["light"] != seen["dark"]


def test_the_check_sees_what_is_faint(studio: StillStudio) -> None:
    with browser_page() as page:
        page.goto(studio.address)
        page.locator(".tile").first.wait_for()
        page.evaluate("""(() => {
          const p = document.createElement("p");
          p.textContent = "faint"; p.style.color = "#999"; p.style.background = "#fff";
          document.querySelector("aside").append(p);
        })()""")
        (row,) = (row for row in contrasts(page) if "faint" in row["what"])
        assert row == {"what": 'p. "faint"', "ratio": 2.85, "least": 4.5}
        assert any("faint" in line for line in too_faint([row]))
