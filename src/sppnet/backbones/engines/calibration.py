"""Images on which the ranges of int8 layers are measured: those that scikit-image ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.errors import MissingDependencyError

__all__ = ["calibration_images"]

# PNG only: what a JPEG decodes to depends on the version of the library
_FILES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")
_SHORT_SIDES_PX, _LONGEST = (224, 352, 512), 1.7


def calibration_images() -> list[NDArray[np.uint8]]:
    """Load the images that the shipped int8 layers were calibrated on, each at three sizes.

    Returns:
        uint8 ``(H, W, 3)``, sides multiples of 16.

    Raises:
        MissingDependencyError: scikit-image isn't installed.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise MissingDependencyError(
            "the calibration images come with scikit-image. Install it with: pip install 'sppnet[demo]'"
        ) from error
    folder, images = Path(skimage.data.__file__).parent, []
    for name in _FILES:
        with Image.open(folder / name) as file:
            whole = file.convert("RGB")
        for short in _SHORT_SIDES_PX:
            factor = min(short / min(whole.size), short * _LONGEST / max(whole.size))
            width, height = (max(16, round(side * factor / 16) * 16) for side in whole.size)
            images.append(np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR)))
    return images
