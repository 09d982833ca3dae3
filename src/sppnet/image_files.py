"""Opening image files: errors that name the file, headers within a budget, the orientation."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from sppnet.errors import ImageError
from sppnet.storage.reading import open_regular

__all__ = [
    "IMAGE_EXTENSIONS",
    "VIDEO_EXTENSIONS",
    "as_path",
    "check_budget",
    "check_name",
    "decoding",
    "open_header",
    "open_image_file",
    "orientation_of",
]

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
"""Names that :func:`sppnet.images.list_images` takes from a folder (lower case). Files named outright may have any.

HEIC is among them, though reading it needs an extra: nobody should wonder where the images of a phone are.
"""

VIDEO_EXTENSIONS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""Names that are taken for video files (lower case)."""

_MAX_FILE_BYTES = 2 << 30
# Formats of images. Not among them: EPS and the like, which start other programs in order to decode.
# Pillow opens MPO (phones, stereo cameras) as JPEG.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO")
# What HEIC files call themselves; those of AVIF and of video are others
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_ORIENTATION = 0x0112
_header_lock = threading.Lock()


def as_path(source: Any) -> Path:
    """Give ``source`` as a path.

    Raises:
        ImageError: it isn't one.
    """
    try:
        return Path(source)
    except TypeError:
        raise ImageError(
            f"expected a path, a Pillow image or an array, got {type(source).__name__}: convert it first"
        ) from None


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into an ImageError that names it."""
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
        if Path(name).suffix.lower() in VIDEO_EXTENSIONS:
            raise ImageError(
                f"{name}: is called like a video; make images of its frames (sppnet data frames {name} -o frames)"
            ) from error
        raise ImageError(f"{name}: not an image in a format that is known here ({', '.join(_FORMATS)})") from error
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


def open_image_file(path: Path) -> BinaryIO:
    """Open a regular file that isn't empty.

    Raises:
        ImageError: it is missing, empty, not a regular file, or can't be opened.
    """
    try:
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                raise ImageError(f"{path}: the folder can't be read (permission denied); make it readable")
            raise ImageError(f"{path}: is a folder; name an image in it")
        file = open_regular(path, _MAX_FILE_BYTES, error=ImageError)
    except FileNotFoundError as error:
        hint = " (addresses aren't downloaded)" if "://" in str(path) or ":/" in str(path)[:8] else ""
        raise ImageError(f"{path}: no such file{hint}; check the name") from error
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{path}: can't be opened ({reason})") from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise ImageError(f"{path}: the file is empty (0 bytes); get or export it again")
    return file


def open_header(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    """Open an image lazily, within the budget. Pillow's warnings about large sizes or bad EXIF stay inside."""
    # Warning filters belong to the process: the lock keeps two threads from restoring each other's.
    with _header_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.init()
        formats = ("HEIF",) if _is_heic(file) and _know_heic() else _FORMATS
        image = Image.open(file, formats=[item for item in formats if item in Image.OPEN])
        check_budget(name, image.size, max_pixels)
    return image


def check_name(path: str | os.PathLike[str]) -> None:
    """Refuse an image whose name no file in UTF-8 can hold.

    Raises:
        ImageError: so it is.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise ImageError(f"{os.fspath(path)!a}: its name isn't UTF-8, so no results could name it; rename it") from None


def check_budget(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse an image without pixels, or with more than ``max_pixels``.

    Raises:
        ImageError: it is refused.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} has {width * height} pixels, more than the {max_pixels} allowed; "
            "make it smaller or raise max_pixels"
        )


def orientation_of(image: Image.Image) -> int:
    """Give the EXIF (or XMP) orientation, 1 to 8, that is still to be applied; 1 where it is missing or senseless."""
    with _header_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The PNG plug-in's own getexif decodes the image in search of late metadata, unless that is done already.
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
