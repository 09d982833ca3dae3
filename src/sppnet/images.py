"""Pictures in: every one becomes uint8 ``(H, W, 3)`` RGB, upright, or one :class:`~sppnet.errors.ImageError`.

What is decided here, once for the whole project:

- The EXIF (or XMP) orientation is applied, so arrays are as a viewer shows the picture.
- Transparency (RGBA, LA, palettes and colours with a transparent entry) is composited on white.
- 16-bit gray is scaled by 1/257 to 8 bits, rounded; it isn't clipped. Mode ``I`` is read as 16-bit gray. A file whose
  values all fit 12 bits (many cameras and X-ray machines) is scaled as 12-bit gray, by 255/4095.
- Float gray in [0, 1] is scaled by 255; otherwise it must lie in [0, 255] and is rounded.
- Of several frames or pages, the first counts.
- The number of pixels is checked from the header, before anything is decoded.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sppnet.errors import ImageError
from sppnet.storage.walking import walk_files

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "ImageSource",
    "image_size",
    "list_images",
    "load_image",
    "resize_short_side",
    "unique_names",
]

U8 = NDArray[np.uint8]
ImageSource = str | os.PathLike[str] | Image.Image | NDArray[Any]

MAX_PIXELS = 178_956_970
"""Default pixel budget: the size above which Pillow itself refuses a picture (a 537 MB array)."""

IMAGE_EXTENSIONS = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".mpo",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
"""Names that :func:`list_images` takes from a folder (lower case). A file named outright may have any name.

HEIC is among them, though reading it needs an extra: nobody should wonder where the images of a phone are.
"""

# Formats of photos. Not among them: EPS and the like, which start other programs in order to decode.
# Pillow opens MPO (phones, stereo cameras) as JPEG.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO")
# What HEIC files call themselves; those of AVIF and of video are others
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_ORIENTATION = 0x0112
_header_lock = threading.Lock()


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> U8:
    """A picture as an upright RGB array.

    Args:
        source: a path; or a Pillow image of any mode (its EXIF orientation is applied too); or an array ``(H, W)``,
            ``(H, W, 1)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA of uint8, uint16, bool, or float in [0, 1].
        max_pixels: pictures of more pixels are refused before they are decoded. Pillow's own limit
            (twice ``PIL.Image.MAX_IMAGE_PIXELS``) holds as well.

    Returns:
        uint8 ``(H, W, 3)``, C-contiguous, H and W at least 1. An array that is so already is returned as it is.

    Raises:
        ImageError: the file is missing, empty, damaged, too large, or no picture; the message names it.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or f"Pillow image (mode {source.mode})")
        with _decoding(name):
            _check_budget(name, source.size, max_pixels)
            return _decode(source, name)
    path = _as_path(source)
    with _decoding(str(path)), _open_file(path) as file:
        return _decode(_open_header(file, str(path), max_pixels), str(path))


def image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """``(height, width)`` in pixels of the upright picture, from the file's header: nothing is decoded.

    Raises:
        ImageError: as :func:`load_image`, except for damage that only shows when the pixels are decoded.
    """
    path = _as_path(path)
    with _decoding(str(path)), _open_file(path) as file:
        image = _open_header(file, str(path), max_pixels)
        width, height = image.size
        # The size that Pillow gives for a TIFF is that of the upright picture already.
        turned = image.format != "TIFF" and _orientation(image) >= 5
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
    if short_side_px < 1 or (max_long_side_px is not None and max_long_side_px < 1):
        raise ImageError(f"sides must be at least 1 pixel, got {short_side_px=}, {max_long_side_px=}")
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


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List files as they are named, and the images in and below every folder, in the order given.

    Folders are walked in sorted order (:func:`sppnet.storage.walking.walk_files`), links to folders included. Of their
    files those count whose extension is in :data:`IMAGE_EXTENSIONS` (any case) and whose names don't begin with a dot.
    A file named outright is taken whatever it is called, also when it is missing: loading it gives the error. So is a
    folder that can't be read. A second mention is dropped.

    Args:
        paths: files and folders.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        unreadable: list[Path] = []
        for file in walk_files(path, unreadable=unreadable):
            if file.suffix.lower() in IMAGE_EXTENSIONS:
                found[file] = None
        found |= dict.fromkeys(unreadable)
    return list(found)


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Give each image a name: its file name where that is unique, otherwise its path with forward slashes."""
    count: dict[str, int] = {}
    for path in paths:
        count[path.name] = count.get(path.name, 0) + 1
    return {path: path.name if count[path.name] == 1 else path.as_posix().lstrip("/") for path in paths}


# --- files -----------------------------------------------------------------------------------------------------------


def _as_path(source: Any) -> Path:
    try:
        return Path(source)
    except TypeError:
        raise ImageError(
            f"expected a path, a Pillow image or an array, got {type(source).__name__}: convert it first"
        ) from None


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes an ImageError that names it."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        if Path(name).suffix.lower() in (".heic", ".heif") or _is_heic(name):
            raise ImageError(
                f"{name}: is an HEIC image, which needs an extra (pip install 'sppnet[heic]'); or save it as JPEG "
                "(iPhones make JPEG themselves: Settings, Camera, Formats, Most Compatible)"
            ) from error
        raise ImageError(f"{name}: not a picture in a format that is known here ({', '.join(_FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: too many pixels, refused before decoding ({error}); make it smaller first"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode it; make it smaller first") from error
    except Exception as error:
        # Decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, IndexError, ... on damaged data.
        detail = str(error) or type(error).__name__
        raise ImageError(f"{name}: damaged or incomplete ({detail}); get or export the file again") from error


def _is_heic(source: str | BinaryIO) -> bool:
    """Whether a file begins as HEIC does, whatever its name says."""
    try:
        if isinstance(source, str):
            with Path(source).open("rb") as file:
                head = file.read(64)
        else:
            head = source.read(64)
            source.seek(0)
    except (OSError, ValueError):
        return False
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and b"avif" not in head


def _know_heic() -> bool:
    """Teach Pillow to read HEIC, where the extra is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _open_file(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                raise ImageError(f"{path}: the folder can't be read (permission denied); make it readable")
            raise ImageError(f"{path}: is a folder; name an image in it")
        if path.exists() and not path.is_file():
            raise ImageError(f"{path}: not a regular file; save the picture to a file first")
        file = path.open("rb")
    except FileNotFoundError as error:
        hint = " (addresses aren't downloaded)" if "://" in str(path) or ":/" in str(path)[:8] else ""
        raise ImageError(f"{path}: no such file{hint}; check the name") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{path}: can't be opened ({reason})") from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise ImageError(f"{path}: the file is empty (0 bytes); get or export it again")
    return file


def _open_header(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    """The lazily opened picture, within the budget. Pillow's warnings about large sizes or bad EXIF stay inside."""
    # Warning filters belong to the process: the lock keeps two threads from restoring each other's.
    with _header_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.init()
        formats = ("HEIF",) if _is_heic(file) and _know_heic() else _FORMATS
        image = Image.open(file, formats=[item for item in formats if item in Image.OPEN])
        _check_budget(name, image.size, max_pixels)
    return image


def _check_budget(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} has {width * height} pixels, more than the {max_pixels} allowed; "
            "make it smaller or raise max_pixels"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF (or XMP) orientation 1..8 that is still to be applied; 1 where it is missing or senseless."""
    with _header_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The PNG plug-in's own getexif decodes the picture in search of late metadata, unless that is done already.
        late = image.format != "PNG" or _png_has_late_metadata(image)
        exif = image.getexif() if late else Image.Image.getexif(image)
    value = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_has_late_metadata(image: Image.Image) -> bool:
    """Whether text or EXIF chunks follow the pixels of a PNG (rare); found by hopping from chunk to chunk."""
    file = getattr(image, "fp", None)
    if file is None:
        return True  # decoded already, or closed: asking Pillow costs nothing
    position = file.tell()
    try:
        file.seek(8)
        late = False
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            late |= kind == b"IDAT"
            if late and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(position)


# --- modes -----------------------------------------------------------------------------------------------------------


def _decode(image: Image.Image, name: str) -> U8:
    image.load()
    orientation = _orientation(image)  # Pillow turns a TIFF upright while loading, and takes the tag away
    if image.mode.startswith("I"):
        pixels = _gray_from_16_bit(np.asarray(image), name, bits_12=True)
    elif image.mode == "F":
        pixels = _gray_from_float(np.asarray(image), name)
    else:
        pixels = np.array(_to_rgb(image))
    return np.ascontiguousarray(_as_rgb(_upright(pixels, orientation)))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any 8-bit mode as RGB; what is transparent shows white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.has_transparency_data or image.mode in ("RGBa", "La"):
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _gray_from_16_bit(values: NDArray[Any], name: str, *, bits_12: bool = False) -> U8:
    """16-bit gray as 8-bit. ``bits_12``: values that all fit 12 bits are such (255 and less may be anything)."""
    low, high = int(values.min()), int(values.max())
    if bits_12 and low >= 0 and 255 < high <= 4095:
        return ((values.astype(np.uint32) * 255 + 2047) // 4095).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ImageError(f"{name}: gray values {low}..{high}, expected 16 bits (0..65535); scale the picture to 8 bits")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)  # = round(value / 257)


def _gray_from_float(values: NDArray[Any], name: str) -> U8:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):
        raise ImageError(f"{name}: float values {low:g}..{high:g}, expected 0..1 or 0..255; scale the picture first")
    return _round(values * 255.0 if high <= 1 else values)


def _round(values: NDArray[Any]) -> U8:
    return np.floor(values + 0.5).astype(np.uint8)


def _as_rgb(pixels: U8) -> U8:
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def _upright(pixels: U8, orientation: int) -> U8:
    """``pixels`` as EXIF orientation 1..8 says they're meant to be seen."""
    if orientation >= 5:  # rows and columns exchanged
        pixels = pixels.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _from_array(array: NDArray[Any], max_pixels: int) -> U8:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        hint = "; channels come last: array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3) else ""
        raise ImageError(f"array: expected shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}{hint}")
    _check_budget("array", (array.shape[1], array.shape[0]), max_pixels)
    if array.dtype == np.uint16:
        array = _gray_from_16_bit(array, "array")
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise ImageError(
                f"array: float values {low:g}..{high:g}, expected 0..1; divide them, or convert with astype(np.uint8)"
            )
        array = _round(array.astype(np.float64) * 255)
    elif array.dtype != np.uint8:
        raise ImageError(f"array: dtype {array.dtype}, expected uint8, uint16, bool or float; use astype(np.uint8)")
    if array.ndim == 3 and array.shape[2] == 4:
        array = np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(array))))
    return np.ascontiguousarray(_as_rgb(array))
