"""Draw boxes, names and scores on an image. Everything scales with the image; only Pillow is needed."""

from __future__ import annotations

import colorsys
import io
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from sppnet.boxes import as_boxes
from sppnet.errors import ArgumentError
from sppnet.images import load_image

__all__ = ["check_image_name", "class_colours", "draw_boxes", "draw_detections", "encode_image"]

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1; half-open, whole pixels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Neighbours differ in hue and lightness; all stand out from images.
_PALETTE: tuple[Colour, ...] = (
    *((255, 77, 77), (0, 176, 255), (255, 183, 3), (60, 200, 90), (186, 104, 255), (255, 112, 190), (0, 200, 180)),
    *((255, 127, 42), (112, 128, 255), (174, 213, 40), (220, 30, 130), (20, 120, 210), (250, 225, 70), (165, 95, 50)),
    *((130, 222, 255), (170, 20, 60), (0, 125, 85), (255, 175, 155), (105, 65, 190), (205, 210, 215)),
)
_DARK: Colour = (16, 18, 22)
_WHITE: Colour = (255, 255, 255)


def check_image_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name that :func:`encode_image` has no format for, before any work is done.

    Raises:
        ArgumentError: its extension is of no image that can be written.
    """
    suffix = Path(path).suffix
    if Image.registered_extensions().get(suffix.lower()) not in Image.SAVE:
        what = f"{suffix} is" if suffix else "its name says"
        raise ArgumentError(f"{path}: {what} no format of images that can be written; use .png or .jpg")


_MOST_PIXELS = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 65_535}  # a side, of these formats


def encode_image(image: Image.Image, suffix: str = ".jpg", quality: int = 92) -> bytes:
    """Encode an image in memory.

    Pillow does not notice a disk that becomes full while it writes a file. Encode the image here, and write the bytes.

    Args:
        image: RGB or gray.
        suffix: extension of the file it is for, which names the format.
        quality: of a JPEG, 1 to 95.

    Raises:
        ArgumentError: no image has this extension, or its format has no images of this size.
    """
    format = Image.registered_extensions().get(suffix.lower())
    if format is None:
        raise ArgumentError(f"{suffix!r}: is no extension of an image; use .jpg or .png")
    most = _MOST_PIXELS.get(format, max(image.size))
    if max(image.size) > most:
        raise ArgumentError(
            f"{image.width}x{image.height} pixels: {suffix} holds at most {most} a side; use .png, or draw less at once"
        )
    data = io.BytesIO()
    image.save(data, format, quality=quality)
    return data.getvalue()


def class_colours(names: Sequence[str], class_names: Sequence[str] | None = None) -> dict[str, Colour]:
    """Choose a colour for every name, the same in each run; different ones while there are colours.

    Args:
        names: the names to be coloured, repetitions allowed.
        class_names: all names a detector knows, in its order. With it a class has the same colour in every image;
            without it a name keeps its colour too, except where two names of one image would share one.
    """
    wanted = set(names)
    colours: dict[str, Colour] = {}
    for index, name in enumerate(class_names or ()):
        if name in wanted:
            colours[name] = _colour(index)
    taken = set(colours.values())
    for name in sorted(wanted - set(colours)):
        index = zlib.crc32(name.encode()) % len(_PALETTE)
        for step in range(len(_PALETTE)):
            colour = _PALETTE[(index + step) % len(_PALETTE)]
            if colour not in taken:
                break
        else:
            colour = _colour(len(taken))
        colours[name] = colour
        taken.add(colour)
    return colours


def draw_detections(
    image: NDArray[np.uint8] | Image.Image,
    boxes: ArrayLike,
    names: Sequence[str],
    scores: Sequence[float] | NDArray[np.floating] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    colours: Mapping[str, Colour] | None = None,
) -> Image.Image:
    """Copy the image and draw a labelled box for each detection.

    Line width and type size follow the image's size, labels stay inside the image and off each other where there is
    room, and their text is black or white, whichever reads better.

    Args:
        image: as :func:`sppnet.images.load_image` takes it (not a path).
        boxes: ``(k, 4)``, half-open pixels; parts outside the image are cut off.
        names: k class names.
        scores: k numbers. None writes none; NaN isn't written, and lies below all others.
        class_names: see :func:`class_colours`.
        colours: of some names (red, green, blue), instead of those.

    Raises:
        ArgumentError: not as many names or scores as boxes, or malformed boxes.
    """
    boxes = as_boxes(boxes)
    if len(names) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
        counts = f"{len(boxes)} boxes, {len(names)} names" + ("" if scores is None else f", {len(scores)} scores")
        raise ArgumentError(f"draw_detections: got {counts}; expected as many of each")
    source = Image.fromarray(load_image(image).copy())
    draw = ImageDraw.Draw(source)
    style = _Style.of(source.size)
    chosen = class_colours(names, class_names) | dict(colours or {})
    order = np.arange(len(boxes)) if scores is None else np.argsort(-np.asarray(scores, np.float64), kind="stable")
    frames = [_frame(box, source.size) for box in boxes]
    for i in order[::-1]:  # the best on top
        _draw_frame(draw, frames[i], chosen[names[i]], style.line)
    labels: list[_Label] = []
    for i in order:  # the best has first choice of a place
        text = names[i] if scores is None or np.isnan(scores[i]) else f"{names[i]} {scores[i]:.2f}"
        labels.append(_place(text, frames[i], chosen[names[i]], style, source.size, labels))
    for label in reversed(labels):
        label.draw(draw, style)
    return source


def draw_boxes(
    image: NDArray[np.uint8] | Image.Image,
    boxes: ArrayLike,
    *,
    colour: Colour | None = None,
    line_px: int | None = None,
) -> Image.Image:
    """Copy the image and draw plain boxes, for windows without names. The first is on top.

    Args:
        image: as for :func:`draw_detections`.
        boxes: likewise.
        colour: of all boxes; by default yellow for the first, through red, to violet for the last.
        line_px: width of the lines, at least 1; by default half of that of detections.
    """
    boxes = as_boxes(boxes)
    source = Image.fromarray(load_image(image).copy())
    draw = ImageDraw.Draw(source)
    width = max(1, _Style.of(source.size).line // 2) if line_px is None else max(1, line_px)
    for i in range(len(boxes) - 1, -1, -1):
        x0, y0, x1, y1 = _frame(boxes[i], source.size)
        rank = i / max(1, len(boxes) - 1)
        shade = colour if colour is not None else _from_hsv(0.14 - 0.36 * rank, 0.75, 1.0 - 0.35 * rank)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=shade, width=width)
    return source


# --- labels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels that follow from the image's."""

    line: int
    font_size: int

    @classmethod
    def of(cls, size: tuple[int, int]) -> _Style:
        mean = (size[0] * size[1]) ** 0.5
        return cls(line=max(2, round(mean * 0.0042)), font_size=max(11, round(mean * 0.027)))


@dataclass(frozen=True)
class _Label:
    text: str
    place: Rectangle
    colour: Colour
    font: Font
    baseline: tuple[float, float]

    def draw(self, draw: ImageDraw.ImageDraw, style: _Style) -> None:
        x0, y0, x1, y1 = self.place
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=self.colour)
        draw.text(self.baseline, self.text, fill=_readable_on(self.colour), font=self.font, anchor="ls")


def _place(
    text: str, frame: Rectangle, colour: Colour, style: _Style, size: tuple[int, int], placed: Sequence[_Label]
) -> _Label:
    """A label for ``frame`` where it covers the other labels least; the first choice is on top of its left corner."""
    width, height = size
    font_size = style.font_size
    while True:
        font = ImageFont.load_default(font_size)
        pad_x, pad_y = max(3, round(font_size * 0.36)), max(2, round(font_size * 0.22))
        # Height of "H" and depth of "g", not of this text: all labels of an image are alike.
        ascent = -font.getbbox("H", anchor="ls")[1]
        descent = font.getbbox("g", anchor="ls")[3]
        text_width = font.getlength(text)
        w, h = round(text_width) + 2 * pad_x, round(ascent + 0.3 * descent) + 2 * pad_y
        if (w <= width and h <= height) or font_size <= 6:
            break
        font_size -= max(1, font_size // 12)
    x0, y0, x1, y1 = frame
    places = [
        (x0, y0 - h),
        (x0, y0),
        (x1 - w, y0 - h),
        (x1 - w, y0),
        (x0, y1),
        (x0, y1 - h),
        (x1 - w, y1),
        (x1 - w, y1 - h),
    ]
    best, best_cost = (0, 0), float("inf")
    for rank, (x, y) in enumerate(places):
        inside = (min(max(x, 0), max(0, width - w)), min(max(y, 0), max(0, height - h)))
        covered = sum(_overlap((*inside, inside[0] + w, inside[1] + h), other.place) for other in placed)
        moved = abs(inside[0] - x) + abs(inside[1] - y)
        cost = covered + moved * h * 0.2 + rank * h * 0.1
        if cost < best_cost:
            best, best_cost = inside, cost
    x, y = best
    return _Label(text, (x, y, x + w, y + h), colour, font, (x + pad_x, y + pad_y + ascent))


def _overlap(a: Rectangle, b: Rectangle) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


# --- boxes and colours -----------------------------------------------------------------------------------------------


def _frame(box: NDArray[np.float32], size: tuple[int, int]) -> Rectangle:
    """Whole pixels, inside the image, at least one wide and high."""
    width, height = size
    x0, x1 = sorted((float(box[0]), float(box[2])))
    y0, y1 = sorted((float(box[1]), float(box[3])))
    left = min(max(round(x0), 0), width - 1)
    top = min(max(round(y0), 0), height - 1)
    return left, top, max(left + 1, min(round(x1), width)), max(top + 1, min(round(y1), height))


def _draw_frame(draw: ImageDraw.ImageDraw, frame: Rectangle, colour: Colour, line: int) -> None:
    """A coloured frame with a fine dark edge on either side, so that it shows on any background."""
    x0, y0, x1, y1 = frame
    edge = max(1, line // 6)
    if min(x1 - x0, y1 - y0) > 2 * (line + 2 * edge):
        draw.rectangle((x0 - edge, y0 - edge, x1 - 1 + edge, y1 - 1 + edge), outline=_DARK, width=line + 2 * edge)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=line)


def _colour(index: int) -> Colour:
    if index < len(_PALETTE):
        return _PALETTE[index]
    # The golden angle: new hues fall between those there are.
    return _from_hsv(index * 0.6180339887, 0.55 + 0.3 * (index % 2), 0.95 - 0.25 * (index % 3 == 2))


def _from_hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _readable_on(colour: Colour) -> Colour:
    """Dark or white text, whichever has more contrast (relative luminance as in WCAG 2)."""

    def luminance(rgb: Colour) -> float:
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    own = luminance(colour) + 0.05
    return _DARK if own / (luminance(_DARK) + 0.05) >= 1.05 / own else _WHITE
