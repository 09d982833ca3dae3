"""What is wrong with an image or a box: one rule for training, for ``sppnet data check`` and for converting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.datasets.parsing import advice_of
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.errors import DatasetError, ImageError
from sppnet.images import image_size

__all__ = [
    "LOST_KINDS",
    "MAX_BAD_SHARE",
    "counts_with_lost",
    "judge_box",
    "judge_outside",
    "judge_resized",
    "judge_size",
    "refuse_many_bad",
    "refuse_many_lost",
]

MAX_BAD_SHARE = 0.1
"""Where more than this share of the images or objects is unusable, nothing is trained, measured or converted."""

LOST_KINDS = ("reversed box", "no area", "outside")
"""Errors of boxes because of which an object is left out."""

# Images resized after they were annotated: at least so many, and this share of all
_FEW_RESIZED, _RESIZED_SHARE = 3, 0.9
# Sides that differ by less hardly move a box
_MIN_RESIZING = 0.05
# This share of the boxes may lie anywhere: there are always wrong ones
_STRAY_SHARE = 0.05


def refuse_many_bad(
    what: object,
    images: int,
    bad: int,
    problems: Sequence[str] = (),
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
        text = f"{what}: {bad} of {images} images are unusable, more than a tenth; mend them first{hint}"
        raise DatasetError(text + _listed(problems))


def refuse_many_lost(
    what: object,
    objects: int,
    lost: Sequence[int],
    problems: Sequence[str] = (),
    hint: str = " (`sppnet data check` lists all errors)",
) -> None:
    """Stop where more than a tenth of the objects are left out because of their boxes.

    One bad image never stops anything, however many objects it has.

    Args:
        what: the data set, for the message.
        objects: how many there are, with those that are left out.
        lost: how many objects of each image are left out.
        problems: what is wrong; the first few are in the message.
        hint: how to see all errors.

    Raises:
        DatasetError: more than :data:`MAX_BAD_SHARE` are left out, of more than one image.
    """
    if sum(map(bool, lost)) > 1 and sum(lost) > objects * MAX_BAD_SHARE:
        raise DatasetError(
            f"{what}: {sum(lost)} of {objects} objects are left out, as their boxes lie outside the image or have no "
            f"area, more than a tenth; mend them first{hint}{_listed(problems)}"
        )


def _listed(problems: Sequence[str], shown: int = 5) -> str:
    """The first few of ``problems``, a line each, after a colon; nothing where there are none."""
    if not problems:
        return ""
    more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
    return ":" + "".join(f"\n  {line}" for line in (*problems[:shown], *more))


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


def judge_resized(what: object, images: Sequence[tuple[RawImage, tuple[int, int]]]) -> Problem | None:
    """Say that images were resized after they were annotated, so that the boxes are those of other images.

    Nearly all must have another size than their annotations say, with the same shape. And the boxes must be those of
    the size in the annotations: where they are not, only that size is wrong, and nothing is said.

    Args:
        what: the data set, for the message.
        images: each with the ``(width, height)`` that it has.
    """
    resized = [
        (image.size, size, image.objects)
        for image, size in images
        if image.size is not None and not image.fractions and _is_resized(image.size, size)
    ]
    if len(resized) < max(_FEW_RESIZED, len(images) * _RESIZED_SHARE):
        return None
    # over the edge of the size in the annotation; of images that were made smaller, over that of the image
    beyond_said = [_reaches_beyond(item, said) for said, _, objects in resized for item in objects]
    beyond_image = [
        _reaches_beyond(item, size) for said, size, objects in resized if size[0] < said[0] for item in objects
    ]
    if not beyond_said or sum(beyond_said) > len(beyond_said) * _STRAY_SHARE:
        return None
    if beyond_image and sum(beyond_image) <= len(beyond_image) * _STRAY_SHARE:
        return None
    factors = sorted(f"{max(size) / max(said):.2f}" for said, size, _ in resized)
    times = factors[0] if factors[0] == factors[-1] else f"{factors[0]} to {factors[-1]}"
    return Problem(
        "error", "resized images", str(what),
        f"{len(resized)} of {len(images)} images have sides that are {times} times those in their annotations, and the "
        "boxes fit those in the annotations: the images were resized after they were annotated",
        "put the images of that size back, or write the boxes and sizes anew for these (if `sppnet data show` draws "
        "the boxes right, correct only the sizes in the annotations, or remove them)",
    )  # fmt: skip


def _is_resized(said: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether ``size`` is ``said`` times a factor that isn't about 1; sides are rounded to whole pixels."""
    if min(said) < 1 or abs(max(size) / max(said) - 1) < _MIN_RESIZING:
        return False
    return abs(size[1] - said[1] * size[0] / said[0]) <= 1 or abs(size[0] - said[0] * size[1] / said[1]) <= 1


def _reaches_beyond(item: RawObject, size: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = item.box
    return max(x0, x1) > size[0] + 1 or max(y0, y1) > size[1] + 1


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
