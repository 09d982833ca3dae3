"""Windows of many images: goes on after files that are bad, and writes them to a file or a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sppnet._types import F32, U8, OnError, Progress, no_progress
from sppnet.drawing import draw_boxes, encode_image
from sppnet.errors import ArgumentError
from sppnet.image_runs import ImageRun
from sppnet.images import find_images, load_image, unique_names
from sppnet.proposals.base import Proposer
from sppnet.proposals.search import SelectiveSearch
from sppnet.proposals.stored import encode_proposals, save_proposals
from sppnet.storage.names import real_path
from sppnet.storage.output_folder import OutputFolder

__all__ = ["WINDOW_FILES", "ProposedImage", "propose_many"]

WINDOW_FILES = (".npz", ".json")
"""Endings of a file for the windows of many images."""


@dataclass(frozen=True, eq=False)
class ProposedImage:
    """The windows of one image.

    Attributes:
        path: of the image file.
        windows: float32 ``(K, 4)``, ``(x0, y0, x1, y1)`` in pixels, half-open, best first.
        seconds: time that they took, without decoding.
    """

    path: Path
    windows: F32
    seconds: float


def propose_many(
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    proposer: Proposer | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    draw_windows: int = 0,
    on_error: OnError = "skip",
    progress: Progress = no_progress,
) -> ImageRun[ProposedImage]:
    """Propose windows for many images.

    >>> run = propose_many("holiday/", output="windows.npz")  # doctest: +SKIP
    >>> for image in run:  # doctest: +SKIP
    ...     print(image.path, len(image.windows))

    Args:
        images: files, and folders of them; folders are searched to any depth.
        proposer: makes the windows. None: selective search with its defaults.
        output: a file ``.npz`` or ``.json`` for the windows of all images, written after the last of them; or a folder
            for ``NAME.json`` of each image. Nothing of the user's in the folder is replaced. None writes nothing.
        draw_windows: also write each image with so many windows drawn, ``NAME.windows.jpg`` in the folder.
        on_error: ``skip`` puts an image that can't be read into ``failed`` and goes on; ``fail`` raises.
        progress: shows how far it is.

    Returns:
        An iterator over the results, in the order of the images, with ``paths`` and ``failed``. Nothing is done before
        it is asked for a result.

    Raises:
        ImageError: there are no images; or one can't be read, with ``on_error="fail"``.
        ArgumentError: windows are to be drawn and ``output`` is no folder, or holds the images, or it can't be made.
    """
    paths = find_images(images)
    names = unique_names(paths)
    target = None if output is None else Path(output)
    to_file = target is not None and target.suffix.lower() in WINDOW_FILES
    if draw_windows and (target is None or to_file):
        raise ArgumentError(f"draw_windows: needs a folder as output for the drawn images, got {output}")
    if draw_windows and target is not None and real_path(target) in {real_path(path.parent) for path in paths}:
        raise ArgumentError(
            f"{target}: holds images of which windows are drawn; name another folder, because the next run would take "
            "the drawn ones for new ones"
        )
    folder = OutputFolder.make(target) if target is not None and not to_file else None
    propose = SelectiveSearch() if proposer is None else proposer
    taken: set[str] = set()
    windows: dict[str, F32] = {}

    def write(out: OutputFolder, name: str, boxes: F32, image: U8) -> None:
        # images of two folders may have the same stem: the whole name stays in the file's
        file = out.free_name(f"{name.replace('/', '_')}.json", taken)
        taken.add(file.lower())
        out.write(file, encode_proposals({name: boxes}, ".json"))
        if draw_windows:
            drawn = out.free_name(f"{file.removesuffix('.json')}.windows.jpg", taken)
            taken.add(drawn.lower())
            out.write(drawn, encode_image(draw_boxes(image, boxes[:draw_windows])))

    def work(path: Path) -> ProposedImage:
        image = load_image(path)
        start = time.perf_counter()
        boxes = propose(image)
        seconds = time.perf_counter() - start
        if folder is not None:
            write(folder, names[path], boxes, image)
        elif to_file:
            windows[names[path]] = boxes
        return ProposedImage(path, boxes, seconds)

    def finish() -> None:
        if target is not None and windows:
            save_proposals(target, windows)

    return ImageRun(paths, work, "windows", finish=finish, on_error=on_error, progress=progress)
