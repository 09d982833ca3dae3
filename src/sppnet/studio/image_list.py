"""The images of a project: what is in the folder, by a number that says nothing about the path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sppnet.errors import ArgumentError, ImageError
from sppnet.images import image_size, list_images

__all__ = ["ImageList", "StudioImage", "image_id_of"]


@dataclass(frozen=True)
class StudioImage:
    """An image of the project. ``image_id`` stands for it in addresses, so that no path ever comes from a request."""

    image_id: str
    path: Path
    name: str  # relative to the project, with forward slashes
    modified_s: float = 0.0  # when the file was written, in seconds since 1970


def image_id_of(name: str) -> str:
    """Make the id of an image from its name in the project."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class ImageList:
    """The images of ``folder`` and its sub-folders. It is empty before :meth:`rescan`.

    Args:
        folder: to look in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images: dict[str, StudioImage] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def rescan(self) -> list[StudioImage]:
        """Look for images again. Returns those that are new."""
        found = {}
        for path in list_images([self.folder]):
            name = path.relative_to(self.folder).as_posix()
            found[image_id_of(name)] = StudioImage(image_id_of(name), path, name, _modified(path))
        new = [image for key, image in found.items() if key not in self._images]
        for key, image in self._images.items():
            if key not in found or found[key].modified_s != image.modified_s:  # it may be another image now
                self._sizes.pop(key, None)
        self._images = found
        return new

    def all(self) -> list[StudioImage]:
        """All images, by name."""
        return list(self._images.values())

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._images

    def get(self, image_id: str) -> StudioImage:
        """Find an image.

        Raises:
            ArgumentError: there is none with this id.
        """
        if image_id not in self._images:
            raise ArgumentError(f"there is no image {image_id!r:.40}; it was removed from the folder")
        return self._images[image_id]

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height in pixels of the upright image, from its header.

        Raises:
            ArgumentError: there is none with this id.
            ImageError: it can't be read.
        """
        known = self._sizes.get(image_id)
        if known is None:
            height, width = image_size(self.get(image_id).path)
            known = self._sizes[image_id] = (width, height)
        return known

    def size_or_none(self, image_id: str) -> tuple[int, int] | None:
        """As :meth:`size`, but None where the image is gone or can't be read."""
        try:
            return self.size(image_id)
        except (ImageError, ArgumentError, OSError):
            return None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone since, or not allowed: it is shown as an image that can't be read
        return 0.0
