"""What was found in many images, and the one JSON document that holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sppnet.detection.detections import Detections

__all__ = ["RESULTS_FORMAT", "RESULTS_VERSION", "FailedImage", "ImageResult", "relative_names", "results_document"]

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
    """

    path: Path
    width: int
    height: int
    detections: Detections
    resumed: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be done, and why."""

    path: Path
    message: str


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


def image_record(result: ImageResult, name: str) -> dict[str, Any]:
    """The record of one image in the JSON document, and a line of the JSON Lines format."""
    return {
        "image": name,
        "width": result.width,
        "height": result.height,
        "detections": result.detections.to_dicts(),
    }


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
        class_names: all that the detector knows, in the order of ``class_id``.
        root: names of images in the document are relative to this folder. None: the folder that holds them all.
        failed: images that could not be done.
        thresholds: minimum confidence of each class.
        model: name of the detector.
    """
    names = relative_names([*(r.path for r in results), *(f.path for f in failed)], root)
    return {
        "format": RESULTS_FORMAT,
        "version": RESULTS_VERSION,
        "model": model,
        "class_names": list(class_names),
        "thresholds": dict(thresholds or {}),
        "box_format": "x0, y0, x1, y1 in pixels of the upright image, half-open",
        "images": [image_record(result, name) for result, name in zip(results, names, strict=False)],
        "failed": [
            {"image": name, "error": item.message} for item, name in zip(failed, names[len(results) :], strict=True)
        ],
    }
