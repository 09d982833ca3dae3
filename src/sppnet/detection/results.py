"""What was found in many images, and the one JSON document that holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sppnet.datasets.video import frame_name
from sppnet.detection.detections import Detections
from sppnet.errors import ArgumentError, did_you_mean, first_names
from sppnet.image_runs import FailedImage
from sppnet.storage.names import in_utf8
from sppnet.storage.reading import FileState, file_state

__all__ = ["RESULTS_FORMAT", "RESULTS_VERSION", "FailedImage", "ImageResult", "image_record", "journal_key",
           "journal_record", "relative_names", "result_names", "result_of_record", "results_document",
           "with_class_names"]  # fmt: skip

RESULTS_FORMAT = "sppnet-results"
"""Value of ``format`` in the JSON document."""
RESULTS_VERSION = 1
"""Value of ``version`` in the JSON document. It grows when a field changes its meaning or goes."""


@dataclass(frozen=True)
class ImageResult:
    """What was found in one image.

    Attributes:
        path: of the image file.
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        detections: what was found.
        resumed: an earlier run found it; it comes from the journal.
        time_s: of a frame of a video, in seconds from the beginning; ``path`` is that of the video. None for an image.
    """

    path: Path
    width: int
    height: int
    detections: Detections
    resumed: bool = field(default=False, compare=False)
    time_s: float | None = None

    @property
    def image_path(self) -> Path:
        """Where the image is; for a frame, where ``sppnet data frames`` would write it, beside the video."""
        return self.path if self.time_s is None else self.path.with_name(frame_name(self.path, self.time_s))


def relative_names(paths: Sequence[Path], root: str | os.PathLike[str] | None) -> list[str]:
    """Name of each image relative to a folder, with forward slashes.

    Args:
        paths: of the images.
        root: the folder. None: the folder that holds them all.
    """
    full = [_absolute(p) for p in paths]
    if root is None:
        base = Path(os.path.commonpath([p.parent for p in full])) if full else Path()
    else:
        base = _absolute(root)
    return [p.relative_to(base).as_posix() if p.is_relative_to(base) else p.as_posix() for p in full]


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Without ``..``, but with symbolic links as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links


def result_names(
    results: Sequence[ImageResult], root: str | os.PathLike[str] | None, failed: Sequence[FailedImage] = ()
) -> list[str]:
    """Name of each result, then of each failed image, relative to a folder, with forward slashes.

    Frames are called as ``sppnet data frames`` calls them. Of frames that would have one name (``clip.mp4`` and
    ``clip.avi`` in one folder) the later ones get ``-2`` and so on.

    Args:
        results: the results.
        root: see :func:`relative_names`.
        failed: images that could not be done.
    """
    names = relative_names([*(r.image_path for r in results), *(f.path for f in failed)], root)
    taken = {name for name, result in zip(names, results, strict=False) if result.time_s is None}
    for i, result in enumerate(results):
        if result.time_s is not None:
            wish, number = PurePosixPath(names[i]), 2
            while names[i] in taken:
                names[i], number = wish.with_name(f"{wish.stem}-{number}{wish.suffix}").as_posix(), number + 1
            taken.add(names[i])
    return names


def with_class_names(results: Sequence[ImageResult], class_names: Sequence[str]) -> list[ImageResult]:
    """Give the same results with ``class_id`` as an index into ``class_names``. Classes are known by their names.

    Args:
        results: of each image.
        class_names: at least the classes of what was found, in any order.

    Raises:
        ArgumentError: a class of what was found isn't among them, or one of them comes twice.
    """
    names = tuple(class_names)
    place = {name: i for i, name in enumerate(names)}
    if len(place) < len(names):
        twice = next(name for i, name in enumerate(names) if place[name] != i)
        raise ArgumentError(f"class_names: got {twice!r} twice, expected each class once")
    return [_renumbered(result, names, place) for result in results]


def _renumbered(result: ImageResult, names: tuple[str, ...], place: Mapping[str, int]) -> ImageResult:
    found = result.detections
    if found.class_names == names:
        return result
    for name in dict.fromkeys(found.class_names[i] for i in found.class_id):
        if name not in place:
            raise ArgumentError(
                f"class_names: got {len(names)} ({first_names(names)}), but {result.path} has a {name!r}; "
                f"{did_you_mean(name, names)}expected every class that was found, as detector.class_names_ has them"
            )
    new = np.array([place.get(name, -1) for name in found.class_names] or [-1], np.int64)
    return replace(result, detections=replace(found, class_id=new[found.class_id], class_names=names))


def image_record(result: ImageResult, name: str) -> dict[str, Any]:
    """The record of one image in the JSON document, and a line of the JSON Lines format."""
    frame = {} if result.time_s is None else {"video": result.path.name, "time_s": result.time_s}
    return {
        "image": name,
        **frame,
        "width": result.width,
        "height": result.height,
        "detections": result.detections.to_dicts(),
    }


def journal_key(path: Path, frame: int | None = None) -> str:
    """What a journal calls an image, or a frame of a video by its number in the file (times may be equal)."""
    name = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps ".."
    return name if frame is None else f"{name}#frame={frame}"


def journal_record(result: ImageResult, state: FileState, drawing: str = "") -> dict[str, Any]:
    """What a journal notes of an image that is done.

    Args:
        result: what was found.
        state: of the file that was read.
        drawing: SHA-256 of the drawing; empty where nothing was drawn.
    """
    d = result.detections
    return {
        "file": list(state),
        "size": [result.width, result.height],
        "xyxy": d.xyxy.tolist(),  # float32 survives JSON exactly
        "confidence": d.confidence.tolist(),
        "class_id": d.class_id.tolist(),
        "seconds": {name: round(value, 6) for name, value in d.seconds.items()},
        "window_count": d.window_count,
        "drawing": drawing,
    }


def result_of_record(
    record: Mapping[str, Any] | None, path: Path, class_names: tuple[str, ...], time_s: float | None = None
) -> ImageResult | None:
    """Give what a journal noted; None where there is nothing, it is no record of ours, or the file has changed since.

    Args:
        record: of the journal.
        path: of the image or video.
        class_names: of the detector.
        time_s: of the frame.
    """
    try:
        if record is None or record["file"] != list(file_state(path)):
            return None
        detections = Detections(
            np.array(record["xyxy"], np.float32).reshape(-1, 4),
            np.array(record["confidence"], np.float32),
            np.array(record["class_id"], np.int64),
            class_names,
            dict(record["seconds"]),
            int(record["window_count"]),
        )
        width, height = (int(side) for side in record["size"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return ImageResult(path, width, height, detections, resumed=True, time_s=time_s)


def results_document(
    results: Sequence[ImageResult],
    class_names: Sequence[str],
    *,
    root: str | os.PathLike[str] | None = None,
    failed: Sequence[FailedImage] = (),
    thresholds: Mapping[str, float] | None = None,
    model: str = "",
) -> dict[str, Any]:
    """The document that ``sppnet detect --json`` writes (docs/models.md describes it).

    Args:
        results: of each image.
        class_names: all that the detector knows; ``class_id`` in the document is an index into them.
        root: names of images in the document are relative to this folder. None: the folder that holds them all.
        failed: images that could not be done.
        thresholds: minimum confidence of each class.
        model: name of the detector.

    Raises:
        ArgumentError: a class of what was found isn't among ``class_names``, or one of them comes twice.
    """
    results = with_class_names(results, class_names)
    names = result_names(results, root, failed)
    return {
        "format": RESULTS_FORMAT,
        "version": RESULTS_VERSION,
        "model": model,
        "class_names": list(class_names),
        "thresholds": dict(thresholds or {}),
        "box_format": "x0, y0, x1, y1 in pixels of the upright image, half-open",
        "images": [image_record(result, name) for result, name in zip(results, names, strict=False)],
        "failed": [
            {"image": in_utf8(name), "error": in_utf8(item.message)}
            for item, name in zip(failed, names[len(results) :], strict=True)
        ],
    }
