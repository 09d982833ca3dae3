"""Images that are stored inside annotation files, as text: they are put into the user's cache to be read from there."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
from pathlib import Path

from PIL import Image

from sppnet.storage.atomic import write_atomic

__all__ = ["embedded_image"]

_EXTENSIONS = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif", "WEBP": ".webp"}


def embedded_image(text: str) -> Path:
    """Put an image that is written in base64 into a file of the user's cache.

    The file is named by the digest of its content: the same image gives the same file, and it is written once.

    Args:
        text: base64; what ``data:image/png;base64,`` says before it is left out.

    Returns:
        The file.

    Raises:
        ValueError: it isn't base64, isn't an image, or can't be written.
    """
    _, _, text = text.rpartition("base64,")
    try:
        data = base64.b64decode(text, validate=False)
        with Image.open(io.BytesIO(data), formats=list(_EXTENSIONS)) as image:
            extension = _EXTENSIONS[image.format or ""]
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64 ({error})") from None
    except Exception:  # whatever a decoder raises
        raise ValueError("not an image in a format that is known here") from None
    path = _cache_folder() / f"{hashlib.sha256(data).hexdigest()[:40]}{extension}"
    try:
        if not path.is_file() or path.stat().st_size != len(data):
            with write_atomic(path, sync=False) as temporary:
                temporary.write_bytes(data)
    except OSError as error:
        raise ValueError(f"{path} can't be written ({error.strerror})") from None
    return path


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not home or not Path(home).is_absolute():
        home = str(Path.home() / ".cache")
    return Path(home) / "sppnet" / "images"
