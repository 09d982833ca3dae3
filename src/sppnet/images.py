"""Read images: every one becomes uint8 ``(H, W, 3)`` RGB, upright, or one :class:`~sppnet.errors.ImageError`.

What is decided here, once for the whole project:

- The EXIF (or XMP) orientation is applied, so arrays are as a viewer shows the image.
- Transparency (RGBA, LA, palettes and colours with a transparent entry) is composited on white.
- 16-bit gray is scaled by 1/257 to 8 bits, rounded; it isn't clipped. Mode ``I`` is read as 16-bit gray. A file whose
  values all fit 12 bits (many cameras and X-ray machines) is scaled as 12-bit gray, by 255/4095.
- Float gray in [0, 1] is scaled by 255; otherwise it must lie in [0, 255] and is rounded.
- Of several frames or pages, the first counts.
- The number of pixels is checked from the header, before anything is decoded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet._types import U8
from sppnet.errors import ImageError
from sppnet.image_budget import give_back_memory
from sppnet.image_files import (
    IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    as_path,
    check_budget,
    decoding,
    open_header,
    open_image_file,
    orientation_of,
)
from sppnet.image_modes import rgb_of_array, upright_rgb
from sppnet.storage.atomic import Buffer
from sppnet.storage.names import path_key
from sppnet.storage.reading import FileState, file_state
from sppnet.storage.walking import walk_files

__all__ = [
    "DECODING_BYTES",
    "FULL_PIXELS",
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "VIDEO_EXTENSIONS",
    "ImageSource",
    "LoadedImage",
    "decoding_bytes",
    "image_size",
    "list_images",
    "load_bounded",
    "load_bounded_bytes",
    "load_image",
    "resize_short_side",
    "unique_names",
]

FULL_PIXELS = 64_000_000
"""Images up to this size are read as they are by :func:`load_bounded`; larger ones are made smaller."""

DECODING_BYTES = 650_000_000
"""The most memory that decoding one image may take in :func:`load_bounded`."""

_TRIM_BYTES = 100_000_000
_USED_BYTES = 11  # a pixel of the result: itself, and two copies that Pillow makes of it to resize and to draw
ImageSource = str | os.PathLike[str] | Image.Image | NDArray[Any]

MAX_PIXELS = 178_956_970
"""Default pixel budget: the size above which Pillow itself refuses an image (a 537 MB array)."""


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, least_side_px: int | None = None) -> U8:
    """Read an image as an upright RGB array.

    Args:
        source: a path; or a Pillow image of any mode (its EXIF orientation is applied too); or an array ``(H, W)``,
            ``(H, W, 1)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA of uint8, uint16, bool, or float in [0, 1].
        max_pixels: images of more pixels are refused before they are decoded. Pillow's own limit
            (twice ``PIL.Image.MAX_IMAGE_PIXELS``) holds as well.
        least_side_px: so much of the short side is enough: a file of more is made smaller while it is read, by 2, 4 or
            8, as long as so much is left. That is several times as fast for a large JPEG. None: as it is.

    Returns:
        uint8 ``(H, W, 3)``, C-contiguous, H and W at least 1. An array that is so already is returned as it is.

    Raises:
        ImageError: the file is missing, empty, damaged, too large, or no image; the message names it.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or f"Pillow image (mode {source.mode})")
        with decoding(name):
            check_budget(name, source.size, max_pixels)
            return _decode(source, name)
    path = as_path(source)
    with decoding(str(path)), open_image_file(path) as file:
        image = open_header(file, str(path), max_pixels)
        short = min(image.size)
        fitting = [f for f in (1, 2, 4, 8) if f == 1 or (least_side_px and short >= f * least_side_px)]
        return _decode(image, str(path), fitting[-1])


@dataclass(frozen=True)
class LoadedImage:
    """An image that was made smaller while it was read, where it is very large.

    Attributes:
        pixels: uint8 ``(h, w, 3)`` RGB, upright.
        height: of the image in the file, upright, in pixels.
        width: likewise.
        factor: pixels of the file along a side of each pixel here: 1, 2, 4 or 8. A box in ``pixels`` times this is the
            box in the file.
        state: what changes when the file does, of the very file that was read.
    """

    pixels: U8
    height: int
    width: int
    factor: int
    state: FileState


def load_bounded(path: str | os.PathLike[str], reserve: Callable[[int], None] | None = None) -> LoadedImage:
    """Read an image file in bounded memory.

    An image of up to :data:`FULL_PIXELS` pixels is as :func:`load_image` gives it (for JPEG 2000 the bound is 20
    million pixels). A larger one is made smaller by 2, 4 or 8. What takes more than :data:`DECODING_BYTES` to decode is
    refused.

    Args:
        path: the file.
        reserve: called with the bytes that decoding, or looking at the result and drawing it, takes, before they are
            taken; it may wait.

    Raises:
        ImageError: as :func:`load_image`; or decoding would take too much memory.
    """
    path = as_path(path)
    with decoding(str(path)), open_image_file(path) as file:
        return _load_opened(file, str(path), file_state(file), reserve)


def load_bounded_bytes(data: Buffer, name: str) -> LoadedImage:
    """Read an image file that is in memory already, as :func:`load_bounded` reads one from the disk.

    Args:
        data: the whole file.
        name: of the image, for messages.

    Raises:
        ImageError: as :func:`load_bounded`.
    """
    if not len(data):
        raise ImageError(f"{name}: the file is empty (0 bytes); get or export it again")
    with decoding(name), io.BytesIO(data) as file:
        return _load_opened(file, name, (len(data), 0), None)


def _load_opened(file: BinaryIO, name: str, state: FileState, reserve: Callable[[int], None] | None) -> LoadedImage:
    image = open_header(file, name, MAX_PIXELS)
    factor = _factor(image, name)
    width, height = image.size
    if reserve is not None:
        small = -(-width // factor) * -(-height // factor)
        reserve(max(decoding_bytes(image, factor) + 3 * small, _USED_BYTES * small))
    turned = image.format != "TIFF" and orientation_of(image) >= 5
    taken = decoding_bytes(image, factor)
    pixels = _decode(image, name, factor)
    del image
    if taken > _TRIM_BYTES:
        give_back_memory()
    if turned:
        width, height = height, width
    return LoadedImage(pixels, height, width, factor, state)


def image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Give ``(height, width)`` in pixels of the upright image, from the file's header: nothing is decoded.

    Raises:
        ImageError: as :func:`load_image`, except for damage that only shows when the pixels are decoded.
    """
    path = as_path(path)
    with decoding(str(path)), open_image_file(path) as file:
        image = open_header(file, str(path), max_pixels)
        width, height = image.size
        # The size that Pillow gives for a TIFF is that of the upright image already.
        turned = image.format != "TIFF" and orientation_of(image) >= 5
        return (width, height) if turned else (height, width)


def resize_short_side(image: U8, short_side_px: int, max_long_side_px: int | None = None) -> tuple[U8, float, float]:
    """Resize so that the shorter side has ``short_side_px`` pixels (bilinear, antialiased: Pillow's; deterministic).

    Args:
        image: uint8 ``(H, W, 3)``.
        short_side_px: at least 1.
        max_long_side_px: where the longer side would get more, it gets this many (and the shorter one fewer).

    Returns:
        ``(resized, scale_y, scale_x)``. The scales are the exact ratios of the sides, new to old, after rounding to
        whole pixels: a box of the original times ``(scale_x, scale_y, scale_x, scale_y)`` lies in ``resized``.

    Raises:
        ImageError: a side below 1, or ``image`` isn't uint8 ``(H, W, 3)``.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ImageError(f"image: expected uint8 (H, W, 3), got {image.dtype} {image.shape}: use load_image first")
    for side in (short_side_px, 1 if max_long_side_px is None else max_long_side_px):
        if not isinstance(side, int | np.integer) or side < 1:
            raise ImageError(
                f"sides must be whole numbers of at least 1 pixel, got {short_side_px=}, {max_long_side_px=}"
            )
    short_side_px = int(short_side_px)
    height, width = image.shape[:2]
    target, base = short_side_px, min(height, width)
    if max_long_side_px is not None and max(height, width) * target > max_long_side_px * base:
        target, base = max_long_side_px, max(height, width)
    # Integers all the way, halves up: no platform rounds differently.
    new_height, new_width = (max(1, (2 * side * target + base) // (2 * base)) for side in (height, width))
    if (new_height, new_width) == (height, width):
        return image, 1.0, 1.0
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    return np.array(resized), new_height / height, new_width / width


def list_images(paths: Iterable[str | os.PathLike[str]], *, videos: list[Path] | None = None) -> list[Path]:
    """List files as they are named, and the images in and below every folder, in the order given.

    Folders are walked in sorted order (:func:`sppnet.storage.walking.walk_files`), links to folders included. Of their
    files those count whose extension is in :data:`IMAGE_EXTENSIONS` (any case) and whose names don't begin with a dot.
    A file named outright is taken whatever it is called, also when it is missing: loading it gives the error. So is a
    folder that can't be read. A second mention is dropped, also one by another name (``a`` and ``b/../a``).

    Args:
        paths: files and folders.
        videos: gets the video files in folders. They are no images.
    """
    found: dict[str, Path] = {}  # by the absolute path: one file may be named in several ways

    def add(path: Path) -> None:
        found.setdefault(path_key(str(path)), path)

    for path in map(as_path, paths):
        if not path.is_dir():
            add(path)
            continue
        unreadable: list[Path] = []
        for file in walk_files(path, unreadable=unreadable):
            if file.suffix.lower() in IMAGE_EXTENSIONS:
                add(file)
            elif videos is not None and file.suffix.lower() in VIDEO_EXTENSIONS:
                videos.append(file)
        for file in unreadable:
            add(file)
    return list(found.values())


def find_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List images as :func:`list_images` does. There must be at least one.

    Args:
        paths: a file or folder, or several of them.

    Raises:
        ImageError: there are none, as in an empty folder.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found = list_images(given)
    if not found:
        extensions = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise ImageError(f"no images in {', '.join(map(str, given))}: looked for {extensions}")
    return found


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Give each image a name: its file name where that is unique, otherwise its path with forward slashes.

    No two images have the same name: of ``/p/x`` and ``p/x`` the second becomes ``p/x-2``.
    """
    count: dict[str, int] = {}
    for path in paths:
        count[path.name] = count.get(path.name, 0) + 1
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        wish = path.name if count[path.name] == 1 else path.as_posix().lstrip("/")
        name, number = wish, 2
        while name in taken:
            name, number = f"{wish}-{number}", number + 1
        taken.add(name)
        names[path] = name
    return names


# --- memory ----------------------------------------------------------------------------------------------------------


def _factor(image: Image.Image, name: str) -> int:
    """By how much a large image is made smaller while it is read.

    Raises:
        ImageError: decoding would take too much memory all the same.
    """
    width, height = image.size
    for factor in (1, 2, 4, 8):
        needed = decoding_bytes(image, factor)
        if width * height <= FULL_PIXELS * factor * factor and needed <= DECODING_BYTES:
            return factor
    raise ImageError(
        f"{name}: {width}x{height} in the format {image.format} takes {needed / 1e9:.1f} GB to decode, more than the "
        f"{DECODING_BYTES / 1e9:.1f} GB allowed; make it smaller, or save it as JPEG or PNG"
    )


def decoding_bytes(image: Image.Image, factor: int = 1) -> int:
    """Estimate the memory that decoding takes, from the header.

    Args:
        image: as Pillow opened it; nothing of it is decoded.
        factor: it is made smaller by this while it is read.
    """
    pixels = image.width * image.height
    small = pixels // (factor * factor)
    if image.format in ("JPEG", "MPO"):
        total = 4 * small  # smaller at once
        if "progressive" in image.info or "progression" in image.info:
            layers = [(h, v) for _, h, v, _ in getattr(image, "layer", [])] or [(1, 1)]
            most = max(h for h, _ in layers) * max(v for _, v in layers)
            total += 2 * pixels * sum(h * v for h, v in layers) // most  # all coefficients are kept
        return total
    if image.format == "JPEG2000":
        return 32 * (pixels if factor == 1 else pixels // 4)
    if image.format in ("WEBP", "AVIF", "HEIF"):
        return 16 * pixels
    if image.format == "TIFF":
        return 4 * pixels + _tile_bytes(image)
    return 4 * pixels


def _tile_bytes(image: Image.Image) -> int:
    """Size of a strip or tile of a compressed TIFF, each of which is decoded as a whole."""
    if any(tile[0] == "raw" for tile in getattr(image, "tile", ())):
        return 0
    tags = getattr(image, "tag_v2", {})
    rows, columns, bits = tags.get(323, tags.get(278, image.height)), tags.get(322, image.width), tags.get(258, (8,))
    if not all(isinstance(value, int) and value > 0 for value in (rows, columns, *bits)):
        rows, columns, bits = image.height, image.width, (16,) * 4
    return int(min(rows, image.height) * min(columns, image.width) * -(-sum(bits) // 8))


def _draft(image: Image.Image, factor: int) -> int:
    """Let the decoder itself make an image smaller, where it can; the factor that is left to do."""
    if factor > 1 and image.format in ("JPEG", "MPO"):
        before = image.width
        image.draft(None, (image.width // factor, image.height // factor))
        return factor if image.width == before else 1
    if factor > 1 and image.format == "JPEG2000":
        image.reduce = 1  # type: ignore[method-assign,assignment] # there it is a number of halvings
        return factor // 2  # of more halvings Pillow rounds the sides otherwise than the decoder
    return factor


def _decode(image: Image.Image, name: str, factor: int = 1) -> U8:
    factor = _draft(image, factor)
    image.load()
    return upright_rgb(image, orientation_of(image), name, factor)  # Pillow turns a TIFF upright while loading


def _from_array(array: NDArray[Any], max_pixels: int) -> U8:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        hint = "; channels come last: array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3) else ""
        raise ImageError(f"array: expected shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}{hint}")
    check_budget("array", (array.shape[1], array.shape[0]), max_pixels)
    return rgb_of_array(array)
