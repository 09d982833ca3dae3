"""Thumbnails and views of images for the page, made on demand and kept."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image

from sppnet.images import load_image
from sppnet.storage.atomic import write_atomic

__all__ = ["ImageViews"]

_QUALITY = {"thumbnail": 80, "view": 88}


class ImageViews:
    """JPEG copies of images, kept in a folder.

    Args:
        folder: where they are kept. It is created at the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def thumbnail(self, path: Path, side_px: int = 256) -> bytes:
        """Give a JPEG of at most ``side_px`` pixels a side.

        Args:
            path: of the image.
            side_px: longest side in pixels.

        Returns:
            The bytes of the JPEG file.

        Raises:
            ImageError: the image can't be read.
        """
        return self._scaled(path, side_px, "thumbnail")

    def view(self, path: Path, side_px: int = 2400) -> tuple[bytes, str]:
        """Give a JPEG of the image for the screen, upright.

        Args:
            path: of the image.
            side_px: longest side in pixels of the JPEG.

        Returns:
            Bytes and media type.

        Raises:
            ImageError: the image can't be read.
        """
        return self._scaled(path, side_px, "view"), "image/jpeg"

    def _scaled(self, path: Path, side_px: int, kind: str) -> bytes:
        status = path.stat()
        text = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{kind}\0{side_px}"
        name = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        kept = self.folder / name[:2] / f"{name}.jpg"
        if kept.is_file():
            return kept.read_bytes()
        image = Image.fromarray(load_image(path))
        image.thumbnail((side_px, side_px), Image.Resampling.BILINEAR if kind == "view" else Image.Resampling.BOX)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_QUALITY[kind])
        kept.parent.mkdir(parents=True, exist_ok=True)
        with write_atomic(kept, sync=False) as temporary:
            temporary.write_bytes(buffer.getvalue())
        return buffer.getvalue()
