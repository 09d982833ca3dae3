"""Images of a run over many of them: which there are, reading one, drawing one."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from sppnet._types import U8
from sppnet.boxes import clip_boxes
from sppnet.datasets.video import is_video
from sppnet.detection.detections import Detections
from sppnet.drawing import draw_detections, encode_image
from sppnet.errors import ArgumentError, ImageError
from sppnet.image_budget import MemoryBudget, give_back_memory
from sppnet.image_files import check_name
from sppnet.images import LoadedImage, list_images, load_bounded
from sppnet.storage.names import real_path
from sppnet.storage.output_folder import LIST_NAME, OutputFolder

__all__ = ["LARGE_BYTES", "Drawings", "draw_image", "drawings_for", "enlarged", "in_file", "input_images", "read_image"]

_log = logging.getLogger(__name__)

LARGE_BYTES = 32_000_000
"""An image of more bytes gives its memory back to the system when it is done."""


def input_images(given: Sequence[str | os.PathLike[str]], draw_to: Path | None) -> list[Path]:
    """List all images, and videos that are named, without images that an earlier run drew.

    A warning tells of videos in folders.

    Args:
        given: files, and folders of them.
        draw_to: the folder for drawn images.

    Raises:
        ImageError: there are none.
        ArgumentError: ``draw_to`` is one of the folders given, or holds all images.
    """
    names = ", ".join(map(str, given))
    videos: list[Path] = []
    paths = list_images(given, videos=videos)
    drawn = None if draw_to is None else real_path(draw_to)
    named = {real_path(path) for path in given}
    if drawn in named:
        raise ArgumentError(
            f"{draw_to}: holds the images; name another folder for drawn images, because the next run would take them "
            "for new ones"
        )
    what = _left_out(sorted(set(videos) - set(paths)))
    if not paths:
        ours = next((path for path in map(Path, given) if (path / LIST_NAME).is_file()), None)
        if ours is not None and not what:
            what = f"those that sppnet drew in {ours} don't count, so name the one that you mean itself"
        raise ImageError(f"no images in {names}" + (f"; {what.replace(';', ',')}" if what else ""))
    if what:
        _log.warning(what)
    if drawn is None:
        return paths
    kept = [path for path in paths if drawn not in real_path(path).parents or real_path(path) in named]
    if not kept:
        raise ArgumentError(f"{names}: all images are in {draw_to}, the folder for drawn images")
    return kept


def _left_out(videos: Sequence[Path]) -> str:
    if len(videos) < 2:
        return f"1 video in folders is left out ({videos[0].name}); name it to look at its frames" if videos else ""
    return f"{len(videos)} videos in folders are left out ({videos[0].name}, ...); name them to look at their frames"


@dataclass(frozen=True)
class Drawings:
    """Where drawn images go.

    Attributes:
        folder: for all of them.
        names: of the file in it, for each image.
        taken: all names in it that are not free, in lower case.
    """

    folder: OutputFolder
    names: dict[Path, str]
    taken: set[str] = field(default_factory=set)

    def write(self, name: str, drawn: Image.Image) -> str:
        """Write a drawing; returns its SHA-256."""
        data = encode_image(drawn)
        self.folder.write(name, data, sync=True)
        return hashlib.sha256(data).hexdigest()

    def has(self, name: str, record: object) -> bool:
        """Whether the drawing that a record of the journal tells of is there."""
        digest = record.get("drawing") if isinstance(record, dict) else None
        return isinstance(digest, str) and self.folder.holds(name, digest)


def drawings_for(paths: Sequence[Path], folder: str | os.PathLike[str] | None) -> Drawings | None:
    """Choose a name for each drawing: ``stem.jpg``, or ``stem-2.jpg`` where that name is taken.

    Args:
        paths: of the images.
        folder: for the drawings; it is made. None: nothing is drawn.

    Raises:
        ArgumentError: the folder can't be made.
    """
    if folder is None:
        return None
    out = OutputFolder.make(folder)
    names: dict[Path, str] = {}
    home = real_path(out.folder)
    # no image of the run is overwritten, even if an earlier run drew it
    taken = {resolved.name.lower() for path in paths if (resolved := real_path(path)).parent == home}
    for path in paths:
        if is_video(path):
            continue  # its frames have names of their own
        names[path] = out.free_name(f"{path.stem}.jpg", taken)
        taken.add(names[path].lower())
    return Drawings(out, names, taken)


def read_image(path: Path, index: int, memory: MemoryBudget) -> tuple[LoadedImage, float]:
    """Read an image when there is memory for it.

    Args:
        path: of the image.
        index: of the image in the run, for ``memory``.
        memory: shared by the run.

    Returns:
        The image, and the seconds that decoding took, without those of waiting.

    Raises:
        ImageError: it can't be read.
    """
    check_name(path)
    waited = 0.0

    def reserve(size: int) -> None:
        nonlocal waited
        begin = time.perf_counter()
        memory.take(index, size)
        waited = time.perf_counter() - begin

    start = time.perf_counter()
    image = load_bounded(path, reserve)
    return image, time.perf_counter() - start - waited


def in_file(found: Detections, image: LoadedImage) -> Detections:
    """Give ``found`` with boxes in pixels of the file, where the image was made smaller."""
    return enlarged(found, image.height, image.width, image.factor)


def enlarged(found: Detections, height: int, width: int, factor: int) -> Detections:
    """Give ``found`` with boxes in pixels of a file of ``height`` and ``width``, ``factor`` times as large."""
    if factor == 1:
        return found
    return replace(found, xyxy=clip_boxes(found.xyxy * np.float32(factor), height, width))


def draw_image(
    waiting: list[U8], found: Detections, path: Path, drawings: Drawings | None, index: int, memory: MemoryBudget
) -> str:
    """Draw the only image in ``waiting``, and forget it before its memory goes to the next one.

    Returns:
        SHA-256 of the drawing; empty where nothing is drawn.
    """
    pixels, drawn = waiting.pop(), None
    large = pixels.nbytes > LARGE_BYTES
    try:
        if drawings is not None:
            drawn = draw_detections(
                pixels, found.xyxy, list(found.class_name), found.confidence, class_names=found.class_names
            )
            return drawings.write(drawings.names[path], drawn)
        return ""
    finally:
        del pixels, drawn
        if large:
            give_back_memory()
        memory.release(index)
