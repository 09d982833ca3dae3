"""A sheet of small images with their boxes and a line of text under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sppnet.datasets.records import ImageRecord
from sppnet.drawing import draw_detections
from sppnet.images import load_image

__all__ = ["Tile", "contact_sheet", "record_tile", "shrink"]

_PAPER, _INK, _FAINT = (250, 250, 248), (30, 32, 36), (105, 110, 118)


@dataclass(frozen=True)
class Tile:
    """One image of a sheet, with the text under it and perhaps a fainter second line."""

    image: Image.Image
    title: str
    detail: str = ""


def shrink(image: Image.Image, box_px: int) -> tuple[Image.Image, float]:
    """``image`` so that it fits a square of ``box_px``, and the ratio of its new sides to the old. Never enlarged."""
    ratio = min(1.0, box_px / max(image.size))
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image if ratio == 1 else image.resize(size, Image.Resampling.LANCZOS), ratio


def contact_sheet(
    groups: Sequence[tuple[str, Sequence[Tile]]], *, columns: int = 4, tile_px: int = 320, title: str = ""
) -> Image.Image:
    """Groups of tiles one above the other, each under its heading, ``columns`` in a row.

    Args:
        groups: ``(heading, tiles)``; an empty heading takes no room.
        columns: tiles in a row.
        tile_px: the side of the square for an image.
        title: a line above everything.
    """
    columns = max(1, min(columns, max((len(tiles) for _, tiles in groups), default=1)))
    gap = max(6, tile_px // 24)
    small, large = ImageFont.load_default(max(11, tile_px // 22)), ImageFont.load_default(max(14, tile_px // 15))
    line, heading_height = round(max(11, tile_px // 22) * 1.35), round(max(14, tile_px // 15) * 2.0)
    rows: list[tuple[str, list[Tile], int]] = []
    for heading, tiles in groups:
        for start in range(0, len(tiles), columns):
            row = list(tiles[start : start + columns])
            texts = 2 if any(tile.detail for tile in row) else 1
            rows.append((heading if start == 0 else "", row, max(t.image.height for t in row) + texts * line + 4))
    width = columns * tile_px + (columns + 1) * gap
    height = gap + (heading_height if title else 0)
    height += sum(h + gap + (heading_height if heading else 0) for heading, _, h in rows)
    sheet = Image.new("RGB", (width, max(height, 2 * gap)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = gap
    if title:
        draw.text((gap, y + heading_height // 2), _cut(title, large, width - 2 * gap), _INK, large, anchor="lm")
        y += heading_height
    for heading, row, row_height in rows:
        if heading:
            draw.text((gap, y + heading_height // 2), _cut(heading, large, width - 2 * gap), _INK, large, anchor="lm")
            y += heading_height
        tallest = max(tile.image.height for tile in row)
        for k, tile in enumerate(row):
            x = gap + k * (tile_px + gap)
            sheet.paste(tile.image, (x + (tile_px - tile.image.width) // 2, y + tallest - tile.image.height))
            draw.text((x, y + tallest + 4), _cut(tile.title, small, tile_px), _INK, small)
            if tile.detail:
                draw.text((x, y + tallest + 4 + line), _cut(tile.detail, small, tile_px), _FAINT, small)
        y += row_height + gap
    return sheet


def record_tile(record: ImageRecord, class_names: Sequence[str], tile_px: int) -> Tile:
    """An annotated image with its boxes.

    Args:
        record: the image.
        class_names: of the data set.
        tile_px: the side of the square that the image must fit.

    Raises:
        ImageError: the image can't be read.
    """
    image, ratio = shrink(Image.fromarray(load_image(record.path)), tile_px)
    names = [
        class_names[label] + (" (difficult)" if hard else "")
        for label, hard in zip(record.labels, record.difficult, strict=True)
    ]
    known = [*class_names, *(f"{name} (difficult)" for name in class_names)]
    drawn = draw_detections(image, record.boxes * ratio, names, class_names=known)
    what = "no objects" if not len(record) else f"{len(record)} object{'s' * (len(record) > 1)}"
    return Tile(drawn, record.path.name, f"{record.width}x{record.height}, {what}")


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """``text``, its middle left out where it is too long; the ends of file names tell them apart."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    for keep in range(len(text) - 1, 1, -1):
        shorter = text[: (keep + 1) // 2] + "..." + text[len(text) - keep // 2 :]
        if font.getlength(shorter) <= width:
            return shorter
    return text[:1]
