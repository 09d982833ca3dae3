"""A data set to try things on, made on the spot: handwritten digits placed in images, seeded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.checking import check_whole
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.datasets.writing import write_dataset
from sppnet.drawing import encode_image
from sppnet.errors import ArgumentError, MissingDependencyError
from sppnet.storage.atomic import write_bytes

__all__ = ["make_example", "write_example"]

_PHOTOS = ("astronaut", "chelsea", "coffee", "brick", "grass", "gravel", "rocket")
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_WIDTH, _HEIGHT = 320, 240


def make_example(folder: str | os.PathLike[str], images: int = 48, classes: int = 3, seed: int = 0) -> DetectionDataset:
    """Write ``images`` JPEG files of 320 x 240 into ``folder``; each shows one to three digits on a part of an image.

    The digits are scikit-learn's (8 x 8, written by hand, UCI), drawn as dark ink on a slip of paper of 62 to 110
    pixels; the images are scikit-image's. The same arguments give the same files.

    Args:
        folder: where to write.
        images: how many.
        seed: of the drawing, at least 0.
        classes: 1 to 10: the digits ``zero``, ``one`` ... up to that many.

    Raises:
        MissingDependencyError: scikit-learn or scikit-image isn't installed. ArgumentError: numbers out of range.
    """
    if not 1 <= classes <= 10 or images < 1:
        raise ArgumentError(f"got {images=}, {classes=}; expected at least 1 image and 1 to 10 classes")
    seed = check_whole("seed", seed, 0, 2**63 - 1)
    photos, digits, values = _sources()
    rng = np.random.default_rng(seed)
    home = Path(folder)
    records = []
    for k in range(images):
        photo = photos[int(rng.integers(len(photos)))]
        y, x = (
            int(rng.integers(side - wanted + 1)) for side, wanted in zip(photo.shape, (_HEIGHT, _WIDTH), strict=False)
        )
        picture = Image.fromarray(np.ascontiguousarray(photo[y : y + _HEIGHT, x : x + _WIDTH]))
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        wanted = 1 + int(rng.integers(3))
        for slot in rng.permutation(3)[:wanted]:
            label = (k + len(labels)) % classes if not labels else int(rng.integers(classes))
            side = int(rng.integers(56, 101))
            box = _paste(picture, digits[rng.choice(np.flatnonzero(values == label))], side, int(slot), rng)
            boxes.append(box)
            labels.append(label)
        path = home / f"{k:04d}.jpg"
        write_bytes(path, encode_image(picture))
        array, none = np.array(boxes, np.float32), np.zeros(len(boxes), bool)
        records.append(ImageRecord(path, array, np.array(labels), none, _WIDTH, _HEIGHT, path.stem))
    return DetectionDataset(records, _NAMES[:classes], name="digits")


def write_example(
    destination: str | os.PathLike[str], format: str = "voc", images: int = 48, classes: int = 3, seed: int = 0
) -> DetectionDataset:
    """Write the example data set in a format, into a new folder.

    Args:
        destination: a folder that doesn't exist, or is empty.
        format: one of :data:`~sppnet.datasets.writing.WRITTEN_FORMATS`.
        images: as for :func:`make_example`.
        classes: as for :func:`make_example`.
        seed: as for :func:`make_example`.

    Returns:
        What was written. Its images are no longer where the records say.

    Raises:
        MissingDependencyError: scikit-learn or scikit-image isn't installed.
        ArgumentError: numbers out of range, or ``destination`` isn't empty.
    """
    with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
        dataset = make_example(folder, images, classes, seed)
        write_dataset(dataset, destination, format)
    return dataset


def _sources() -> tuple[list[NDArray[np.uint8]], NDArray[np.float64], NDArray[np.int64]]:
    try:
        import skimage.data
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            f"the example data set needs scikit-learn and scikit-image ({error}): pip install 'sppnet[demo]'"
        ) from None
    photos = []
    for name in _PHOTOS:
        photo = np.asarray(getattr(skimage.data, name)())
        photos.append(np.repeat(photo[:, :, None], 3, 2) if photo.ndim == 2 else photo[:, :, :3])
    found = load_digits()
    return photos, found.images, found.target


def _paste(
    picture: Image.Image, digit: NDArray[np.float64], side: int, slot: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A slip of paper with a digit in the left, middle or right third. Returns its box, half-open."""
    ink = Image.fromarray(np.uint8(digit * (255 / 16))).resize((side, side), Image.Resampling.BICUBIC)
    slip = round(side * 1.1)
    third = _WIDTH // 3
    left = slot * third + int(rng.integers(max(1, third - slip + 1)))
    left = min(left, _WIDTH - slip)
    top = int(rng.integers(_HEIGHT - slip + 1))
    paper = np.array([248, 244, 232]) - rng.integers(0, 30)
    pen = rng.integers(0, 90, 3)
    margin = (slip - side) // 2
    cover = np.zeros((slip, slip), np.float64)
    cover[margin : margin + side, margin : margin + side] = np.asarray(ink) / 255.0
    pixels = paper + (pen - paper) * cover[:, :, None]
    picture.paste(Image.fromarray(np.uint8(np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255))), (left, top))
    return left, top, left + slip, top + slip
