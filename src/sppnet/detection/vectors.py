"""Vectors of windows, for search, clustering or classifiers of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from numpy.typing import ArrayLike

from sppnet._types import F32
from sppnet.boxes import as_boxes
from sppnet.errors import ArgumentError
from sppnet.images import ImageSource, load_image

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["VectorKind", "vector_length", "window_vectors"]

VectorKind = Literal["pooled", "fc"]


def vector_length(detector: SPPDetector, kind: VectorKind) -> int:
    """How many numbers a window becomes: channels times bins (``pooled``), or the width of the fc layer (``fc``)."""
    if kind not in ("pooled", "fc"):
        raise ArgumentError(f"kind: got {kind!r}, expected pooled or fc")
    return detector.window_features().dims if kind == "pooled" else detector.weights_.features


def window_vectors(
    detector: SPPDetector, image: ImageSource, windows: ArrayLike | None = None, *, kind: VectorKind = "fc"
) -> tuple[F32, F32]:
    """Windows of an image, float32 ``(K, 4)``, and their vectors, float32 ``(K, D)``.

    Args:
        detector: gives maps and vectors.
        image: path, PIL image or array.
        windows: ``(K, 4)`` in pixels, half-open; the vectors come in their order, none left out. None: those that the
            detector looks at, best first.
        kind: ``pooled``: by the pyramid from the map (paper, section 4.1); ``fc``: after the fully connected layers.

    Raises:
        ImageError: the image can't be read. ArgumentError: windows of another shape, or an unknown kind.
    """
    vector_length(detector, kind)
    pixels = load_image(image)
    boxes = detector.propose(pixels) if windows is None else as_boxes(windows, "windows")
    maps = detector.window_features().maps(pixels)  # of the image alone, also where detection looks at its mirror image
    return boxes, detector.pool(maps, boxes) if kind == "pooled" else detector.fc_of_windows(maps, boxes)
