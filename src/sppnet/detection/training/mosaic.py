"""Four images in one: objects are seen smaller and among other things, so that tuning fits less to each image.

The idea is YOLOv4's (Bochkovskiy et al., 2020). There the four are cut; here each stays whole, with its windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sppnet._types import U8
from sppnet.detection.training.images import WindowedImage

__all__ = ["GREY", "join_four"]

GREY = 124
"""Value of the pixels that no image fills: the mean of ImageNet."""


def join_four(parts: Sequence[tuple[U8, WindowedImage]], height: int, width: int) -> tuple[U8, WindowedImage]:
    """Put four images into the quarters of one: above left, above right, below left, below right.

    Each is resized until it fills its quarter in one direction, keeps its ratio of sides, and lies in the middle.

    Args:
        parts: of each image its pixels ``(h, w, 3)`` and what is in it, in pixels of its own.
        height: of a quarter, in pixels.
        width: likewise.

    Returns:
        Pixels ``(2 height, 2 width, 3)``, and the windows and objects of all four where they lie there.
    """
    pixels = np.full((2 * height, 2 * width, 3), GREY, np.uint8)
    moved = []
    for i, (image, what) in enumerate(parts):
        factor = min(height / what.height, width / what.width)
        h, w = (max(1, round(side * factor)) for side in (what.height, what.width))
        top, left = i // 2 * height + (height - h) // 2, i % 2 * width + (width - w) // 2
        small = Image.fromarray(np.ascontiguousarray(image)).resize((w, h), Image.Resampling.BILINEAR)
        pixels[top : top + h, left : left + w] = np.asarray(small)
        scale = np.array([w / what.width, h / what.height] * 2, np.float32)
        shift = np.array([left, top] * 2, np.float32)
        moved.append((what.windows * scale + shift, what.boxes * scale + shift, what.labels, what.difficult))
    windows, boxes, labels, difficult = (np.concatenate(values) for values in zip(*moved, strict=True))
    return pixels, WindowedImage(windows, boxes, labels, difficult, 2 * height, 2 * width)
