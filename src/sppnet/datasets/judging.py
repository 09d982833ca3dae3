"""What is wrong with an image or a box: one rule for training, for ``sppnet data check`` and for converting."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.datasets.raw import Problem, RawImage, RawObject
from sppnet.errors import ImageError
from sppnet.images import image_size

__all__ = ["judge_box", "judge_size"]


def judge_size(image: RawImage) -> tuple[tuple[int, int] | None, list[Problem]]:
    """``(width, height)`` of the upright picture from its header, and what is wrong with it.

    The size is None where the picture can't be used: it is missing or unreadable, or was annotated as it is stored
    while its EXIF orientation shows it turned (so that nobody knows which way the boxes lie).
    """
    if not image.found:
        what = f"no such picture, but {image.file} is about it"
        return None, [
            Problem("error", "missing picture", str(image.path), what, "add the picture or remove the annotation")
        ]
    try:
        height, width = image_size(image.path)
    except ImageError as error:
        return None, [_from_image_error(image.path, error)]
    if image.size is None or image.size == (width, height):
        return (width, height), []
    said = f"{image.size[0]}x{image.size[1]}"
    if image.size == (height, width) and _stored_size(image.path) == image.size:
        what = (
            f"says that {image.path.name} is {said}, and so it is stored, but its EXIF orientation shows it as "
            f"{width}x{height}: the boxes may be those of the picture before it was turned"
        )
        return None, [
            Problem(
                "error", "EXIF orientation", str(image.file), what,
                f"if the boxes are right in `sppnet data show`, write {width}x{height}; otherwise annotate it anew",
            )
        ]  # fmt: skip
    what = f"says that {image.path.name} is {said}, but the picture is {width}x{height}, which is used"
    advice = "see with `sppnet data show` whether the boxes fit; correct the size, or the boxes if it was resized"
    return (width, height), [Problem("warning", "size disagrees", str(image.file), what, advice)]


def _from_image_error(path: Path, error: ImageError) -> Problem:
    what, _, advice = str(error).removeprefix(f"{path}: ").rpartition("; ")
    return Problem(
        "error", "unreadable picture", str(path), *((what, advice) if what else (advice, "get or export it again"))
    )


def _stored_size(path: Path) -> tuple[int, int] | None:
    """Width and height before the EXIF orientation; asked only of pictures whose header was read before."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except Exception:  # whatever a decoder raises
        return None


def judge_box(
    image: RawImage, item: RawObject, size: tuple[int, int], rule: str
) -> tuple[NDArray[np.float32] | None, Problem | None]:
    """The box ``(4,)`` in pixels, clipped to the picture, and what is wrong with it; None where no box is left."""
    width, height = size
    x0, y0, x1, y1 = item.box
    if image.fractions:
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
    # Compared and clipped as float64, then rounded once: float32 is what the record holds.
    clipped = (min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height))
    box = np.array(clipped, np.float32)

    def problem(level: Literal["error", "warning"], kind: str, what: str, advice: str) -> Problem:
        return Problem(level, kind, str(image.file), what, advice, item.title)

    got = f"has box {item.written}, expected {rule} inside the picture of {width}x{height}"
    if x1 < x0 or y1 < y0:
        return None, problem("error", "reversed box", got, "correct or remove it")
    if item.flat or x1 == x0 or y1 == y0:
        return None, problem("error", "no area", got, "correct or remove it")
    if box[2] <= box[0] or box[3] <= box[1]:
        return None, problem("error", "outside", got, "correct or remove it")
    # One pixel of slack: tools differ in whether the last pixel is included, and round.
    if max(-x0, -y0, x1 - width, y1 - height) > 1:
        what = f"has box {item.written}, which reaches beyond the picture of {width}x{height} and is clipped"
        return box, problem("warning", "over the edge", what, "see whether it belongs to this picture")
    if min(box[2] - box[0], box[3] - box[1]) < 4:
        what = f"has box {item.written}, only {box[2] - box[0]:g} x {box[3] - box[1]:g} pixels"
        return box, problem("warning", "tiny", what, "no detector finds that; enlarge the picture or remove the object")
    return box, None
