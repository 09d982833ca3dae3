"""The studio by finger: a box is dragged, the image is moved and enlarged by two fingers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("uvicorn", reason="needs the extra studio")
from person import CHROMIUM, Person, browser_page
from still import still_studio

from sppnet.datasets.example import make_example

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]


def test_fingers_draw_and_zoom(tmp_path: Path) -> None:
    data = make_example(tmp_path / "digits", 1, 1, 0)
    for file in (tmp_path / "digits").iterdir():
        if file.suffix != ".jpg":
            file.unlink()
    with (
        still_studio(data[0].path.parent) as studio,
        browser_page(390, 844, has_touch=True, is_mobile=True) as page,
    ):
        page.goto(studio.address)
        page.locator(".tile").first.tap()
        person = Person(page, {})
        person.wait_until_ready()
        fingers = page.context.new_cdp_session(page)

        def touch(kind: str, *places: tuple[float, float]) -> None:
            points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", person.screen(40, 50))
        touch("touchMove", person.screen(90, 100))
        touch("touchMove", person.screen(140, 170))
        touch("touchEnd")
        page.locator(".naming input").fill("cell")
        page.keyboard.press("Enter")
        page.locator(".naming").wait_for(state="detached")
        (box,) = person.state()["boxes"]
        assert box == {"rect": pytest.approx([40, 50, 140, 170], abs=1.5), "name": "cell"}

        touch("touchStart", person.screen(60, 60))
        touch("touchMove", person.screen(120, 120))
        touch("touchCancel")
        assert len(person.state()["boxes"]) == 1  # the system took the finger away: nothing was meant

        before = person.screen(0, 0), person.screen(100, 0)
        (left, y), (right, _) = person.screen(60, 80), person.screen(120, 80)
        touch("touchStart", (left, y), (right, y))
        touch("touchMove", (left - 30, y), (right, y))
        touch("touchMove", (left - 30, y), (right + 30, y))
        touch("touchEnd")
        page.wait_for_timeout(200)
        after = person.screen(0, 0), person.screen(100, 0)
        grown = (after[1][0] - after[0][0]) / (before[1][0] - before[0][0])
        assert grown == pytest.approx((right - left + 60) / (right - left), rel=0.05)
        assert len(person.state()["boxes"]) == 1  # no second box was drawn by them
