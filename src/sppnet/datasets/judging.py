"""What is wrong with an image or a box: one rule for training, for ``sppnet data check`` and for converting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.datasets.parsing import advice_of
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.errors import DatasetError, ImageError
from sppnet.images import image_size

__all__ = ["MAX_BAD_SHARE", "counts_with_lost", "judge_box", "judge_outside", "judge_size", "refuse_many_bad"]

MAX_BAD_SHARE = 0.1
"""Where more than this share of the images is unusable, nothing is trained, measured or converted."""


def refuse_many_bad(
    what: object,
    images: int,
    bad: int,
    problems: list[str] | tuple[str, ...] = (),
    hint: str = " (`sppnet data check` lists all errors)",
) -> None:
    """Stop where more than a tenth of the images are unusable: then something is wrong with all of them.

    One bad file never stops anything, however few there are. Unusable is an image that can't be read, or of whose
    objects errors leave none.

    Args:
        what: the data set, for the message.
        images: how many there are.
        bad: how many are unusable.
        problems: what is wrong; the first few are in the message.
        hint: how to see all errors, after the message's first sentence.

    Raises:
        DatasetError: more than :data:`MAX_BAD_SHARE` are unusable.
    """
    if bad > max(1, images * MAX_BAD_SHARE):
        shown = [f"\n  {problem}" for problem in problems[:5]]
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DatasetError(
            f"{what}: {bad} of {images} images are unusable, more than a tenth; mend them first{hint}:"
            f"{''.join(shown)}{more}"
        )


def counts_with_lost(raw: RawDataset, images: int, bad: int) -> tuple[int, int]:
    """Add what was lost before it could be counted: images and objects of no known image; returns both numbers."""
    lost = Counter(problem.kind for problem in raw.problems if problem.level == "error")
    # what was lost may be more than the images that are left
    return max(images + lost["malformed image"], bad + lost.total()), bad + lost.total()


def judge_outside(image: RawImage) -> Problem | None:
    """Say that the annotations lead out of the data set, where they do."""
    if not image.outside:
        return None
    what = f"lies outside the data set, to which {image.file} leads"
    advice = "put it into the data set, or name its folder (--images DIR)"
    return Problem("warning", "outside the data set", str(image.path), what, advice)


def judge_size(image: RawImage) -> tuple[tuple[int, int] | None, list[Problem]]:
    """Return ``(width, height)`` of the upright image from its header, and what is wrong with it.

    The size is None where the image can't be used: it is missing or unreadable, or was annotated as it is stored
    while its EXIF orientation shows it turned (so that nobody knows which way the boxes lie).
    """
    if not image.found:
        why = f" ({image.missing})" if image.missing else ""
        what = f"no such image, but {image.file} is about it{why}"
        advice = "add the image, say where the images are (--images DIR), or remove the annotation"
        return None, [Problem("error", "missing image", str(image.path), what, advice)]
    try:
        height, width = image_size(image.path)
    except ImageError as error:
        return None, [Problem("error", "unreadable image", str(image.path), *advice_of(error, image.path))]
    if image.size is None or image.size == (width, height):
        return (width, height), []
    said = f"{image.size[0]}x{image.size[1]}"
    if image.size == (height, width) and _stored_size(image.path) == image.size:
        what = (
            f"says that {image.path.name} is {said}, and so it is stored, but its EXIF orientation shows it as "
            f"{width}x{height}: the boxes may be those of the image before it was turned"
        )
        return None, [
            Problem(
                "error", "EXIF orientation", str(image.file), what,
                f"if the boxes are right in `sppnet data show`, write {width}x{height}; otherwise annotate it anew",
            )
        ]  # fmt: skip
    what = f"says that {image.path.name} is {said}, but the image is {width}x{height}, which is used"
    advice = "see with `sppnet data show` whether the boxes fit; correct the size, or the boxes if it was resized"
    return (width, height), [Problem("warning", "size disagrees", str(image.file), what, advice)]


def _stored_size(path: Path) -> tuple[int, int] | None:
    """Width and height before the EXIF orientation; asked only of images whose header was read before."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # whatever a decoder raises
        return None


def judge_box(
    image: RawImage, item: RawObject, size: tuple[int, int], rule: str
) -> tuple[NDArray[np.float32] | None, Problem | None]:
    """Return the box ``(4,)`` in pixels, clipped to the image, and what is wrong with it; None where none is left."""
    width, height = size
    x0, y0, x1, y1 = item.box
    if image.fractions:
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
    # Compared and clipped as float64, then rounded once: float32 is what the record holds.
    clipped = (min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height))
    box = np.array(clipped, np.float32)

    def problem(level: Literal["error", "warning"], kind: str, what: str, advice: str) -> Problem:
        return Problem(level, kind, str(image.file), what, advice, item.title)

    got = f"has box {item.written}, expected {rule} inside the image of {width}x{height}"
    if x1 < x0 or y1 < y0:
        return None, problem("error", "reversed box", got, "correct or remove it")
    if item.flat or x1 == x0 or y1 == y0:
        return None, problem("error", "no area", got, "correct or remove it")
    if box[2] <= box[0] or box[3] <= box[1]:
        return None, problem("error", "outside", got, "correct or remove it")
    # One pixel of slack: tools differ in whether the last pixel is included, and round.
    if max(-x0, -y0, x1 - width, y1 - height) > 1:
        what = f"has box {item.written}, which reaches beyond the image of {width}x{height} and is clipped"
        return box, problem("warning", "over the edge", what, "see whether it belongs to this image")
    if min(box[2] - box[0], box[3] - box[1]) < 4:
        what = f"has box {item.written}, only {box[2] - box[0]:g} x {box[3] - box[1]:g} pixels"
        return box, problem("warning", "tiny", what, "no detector finds that; enlarge the image or remove the object")
    return box, None
