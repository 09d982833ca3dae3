"""Makes the moving image of the studio's loop: click, name, finish, accept what it suggests; a caption says which.

    python docs/scripts/studio_loop.py docs/images/studio-loop.gif

A real session in a real browser, by mouse and keyboard, on pieces of scikit-image's images. Waiting is cut out; the
mouse pointer is drawn afterwards, for a browser without a screen has none. Needs the extras ``studio`` and ``dev``, and
Debian's chromium.
"""

from __future__ import annotations

import io
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import skimage.data
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "studio"))
from person import Box, Person, Studio, Truth, browser_page  # noqa: E402 - beside the tests

WIDTH, HEIGHT = 1200, 750
SHOWN, CAPTION = (760, 475), 40  # the screen, and the line below it
# What is cut out of which image (left, top, right, bottom in per cent), whether it is mirrored, and the object in it
PIECES = {
    "01-cup": ("coffee", (0, 0, 100, 100), False, "cup"), "02-cat": ("chelsea", (0, 0, 100, 100), False, "cat"),
    "03-cup": ("coffee", (12, 0, 100, 92), True, "cup"), "04-cat": ("chelsea", (8, 0, 92, 96), True, "cat"),
    "05-cup": ("coffee", (5, 0, 95, 100), True, "cup"), "06-cat": ("chelsea", (0, 0, 90, 100), True, "cat"),
    "07-cup": ("coffee", (10, 4, 100, 100), False, "cup"), "08-cat": ("chelsea", (10, 0, 100, 100), False, "cat"),
    "09-rocket": ("rocket", (20, 0, 80, 100), False, "rocket"), "10-cup": ("coffee", (0, 0, 96, 96), True, "cup"),
}  # fmt: skip
# Where each object is in the whole image, in per cent: found by eye
OBJECTS = {"coffee": (15, 3, 85, 97), "chelsea": (13, 0, 92, 100), "rocket": (47, 15, 54, 80)}


def write_images(folder: Path) -> dict[str, tuple[tuple[float, ...], str]]:
    """Cut the pieces; the object's box in each, and its name."""
    source = Path(skimage.data.__file__).parent
    folder.mkdir()
    truth = {}
    for name, (image, (left, top, right, bottom), mirrored, what) in PIECES.items():
        with Image.open(next(source.glob(f"{image}.*"))) as whole:
            w, h = whole.size
            cut = (left * w / 100, top * h / 100, right * w / 100, bottom * h / 100)
            piece = whole.convert("RGB").crop(cut)
        x0, y0, x1, y1 = (v * s / 100 for v, s in zip(OBJECTS[image], (w, h, w, h), strict=True))
        box = [max(0, x0 - cut[0]), max(0, y0 - cut[1]), min(piece.width, x1 - cut[0]), min(piece.height, y1 - cut[1])]
        if mirrored:
            piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            box[0], box[2] = piece.width - box[2], piece.width - box[0]
        piece.save(folder / f"{name}.jpg", quality=92)
        truth[f"{name}.jpg"] = (tuple(box), what)
    return truth


class Film:
    """Frames and how long each is shown."""

    def __init__(self) -> None:
        self.frames: list[Image.Image] = []
        self.durations_ms: list[int] = []

    def add(self, png: bytes, pointer: tuple[float, float] | None, duration_ms: int, caption: str) -> None:
        """Add a screen with the mouse pointer in it, and a line of text below it."""
        with Image.open(io.BytesIO(png)) as screen:
            image = screen.convert("RGB")
        if pointer is not None:
            x, y = pointer
            arrow = [(0, 0), (0, 19), (5, 15), (9, 22), (12, 20), (8, 13), (14, 13)]
            ImageDraw.Draw(image).polygon([(x + a, y + b) for a, b in arrow], fill="white", outline="black", width=1)
        frame = Image.new("RGB", (SHOWN[0], SHOWN[1] + CAPTION), "#12323a")
        frame.paste(image.resize(SHOWN, Image.Resampling.LANCZOS))
        place = (SHOWN[0] / 2, SHOWN[1] + CAPTION / 2)
        ImageDraw.Draw(frame).text(place, caption, fill="white", font=ImageFont.load_default(21), anchor="mm")
        self.frames.append(frame)
        self.durations_ms.append(duration_ms)

    def save(self, path: Path, colours: int = 128) -> None:
        """Write the GIF: one palette for all frames, so that still places stay still."""
        width, height = self.frames[0].size
        sheet = Image.new("RGB", (width, height * len(self.frames)))
        for i, frame in enumerate(self.frames):
            sheet.paste(frame, (0, i * height))
        palette = sheet.resize((width // 2, sheet.height // 2)).quantize(colours)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=self.durations_ms, loop=0, optimize=True, disposal=1
        )  # fmt: skip


class Showing(Person):
    """A person who drags boxes, and shows how the first three are made."""

    def __init__(self, page: Page, truth: Truth, show: Callable[[str, int, tuple[float, float]], None]) -> None:
        super().__init__(page, truth)
        self.show, self.drawn = show, 0

    def add(self, box: Box, name: str) -> None:
        """Drag the box, say what it is."""
        page, self.drawn = self.page, self.drawn + 1
        self.announce(name)
        start, end = self.screen(box[0], box[1]), self.screen(box[2], box[3])
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end, steps=8)
        if self.drawn == 1:
            self.show("1. Drag a box around an object, or click on it", 1800, end)
        page.mouse.up()
        page.wait_for_timeout(150)
        if page.locator(".naming input").count():
            page.locator(".naming input").press_sequentially(name)
            if self.drawn == 1:
                self.show("2. Type what it is", 1800, end)
            page.keyboard.press("Enter")
            page.locator(".naming").wait_for(state="detached")
        if self.state()["boxes"][-1]["name"] != name:
            self.choose_class(name)
        page.wait_for_timeout(150)
        if self.drawn == 1:
            self.show("3. Enter: it learns, and the next image opens", 1800, end)
        elif self.drawn <= 3:
            self.show("Once more" if self.drawn == 2 else "And once more", 1300, end)


def main() -> None:
    """Make it."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "studio-loop.gif"
    film = Film()
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        truth = write_images(Path(name) / "kitchen")
        studio = Studio(Path(name) / "kitchen", port, Path(name) / "state")
        try:
            with browser_page(WIDTH, HEIGHT) as page:

                def shot(caption: str, duration_ms: int, pointer: tuple[float, float] | None = None) -> None:
                    film.add(page.screenshot(), pointer, duration_ms, caption)

                page.goto(studio.address)
                page.locator(".tile img").nth(5).wait_for()
                page.select_option(".filters select >> nth=0", "name")
                page.wait_for_timeout(3000)
                shot("Ten images without labels", 1800)
                page.locator(".tile").first.click()
                person = Showing(page, {name: [found] for name, found in truth.items()}, shot)
                for i, (_, what) in enumerate(truth.values()):
                    person.wait_until_ready(120)
                    page.wait_for_timeout(400 if i < 2 else 6000)  # it learns; a person would look at the image
                    if i < 7 and [s["name"] for s in person.state()["suggestions"]] == [what]:
                        shot(f"It suggests the {what}: Enter accepts", 1400)
                    person.finish_image()
                page.locator(".finished").wait_for()
                page.wait_for_timeout(1500)
                drawn = person.drawn
                shot(f"Ten images done, {drawn} boxes drawn: train fully, or export the labels", 3000)
        finally:
            studio.stop()
    film.save(target)
    print(f"{target}: {len(film.frames)} frames, {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
