"""One image in several sizes, each on a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sppnet._types import U8
from sppnet.errors import ArgumentError
from sppnet.kernels.native import NativeKernel
from sppnet.kernels.run import first_run_notice, run_ranges

__all__ = ["in_sizes"]

_GAP = 2.0
_MOST_ROWS = 256  # of a block, for the kernel
_MOST_COLUMNS = 1 << 20  # of an image, for the kernel: it keeps sums of a row, on each thread
_block_means = NativeKernel(
    "sppnet.resizing.kernels", "block_means", ("kernels",), kinds=("uint8 2", "int64", "int64", "uint8 3")
)


def in_sizes(image: U8, sizes: Sequence[tuple[int, int]]) -> list[U8]:
    """Resize ``image (H, W, 3)`` by linear interpolation with antialiasing.

    What comes out is what ``Image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)`` of Pillow gives, to the
    bit. An image more than four times as large is first averaged over whole blocks of pixels, which is much quicker.
    Pillow would copy the large image into a form of its own before: of 12 megapixels that takes longer than the rest.

    Args:
        image: uint8 ``(H, W, 3)``.
        sizes: height and width of each result, at least 1.

    Returns:
        uint8 ``(height, width, 3)`` of each size.

    Raises:
        ArgumentError: the image has another shape or dtype, or no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ArgumentError(f"image: expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    found: list[U8] = [image] * len(sizes)
    factors = [(max(1, int(height / h / _GAP)), max(1, int(width / w / _GAP))) for h, w in sizes]
    contiguous = np.ascontiguousarray(image)
    rows = contiguous.reshape(height, -1)
    source = Image.fromarray(contiguous) if (1, 1) in factors else None

    def resize(start: int, stop: int) -> None:
        for i in range(start, stop):
            down, across = factors[i]
            small = source
            if down > _MOST_ROWS or (width > _MOST_COLUMNS and (down, across) != (1, 1)):
                small = Image.fromarray(contiguous).reduce((across, down))
            elif small is None or (down, across) != (1, 1):
                means = np.empty((-(-height // down), -(-width // across), 3), np.uint8)
                run_ranges(_block_means, len(means), rows, across, down, means, chunks_per_thread=4, grain=64)
                small = Image.fromarray(means)
            h, w = sizes[i]
            box = (0, 0, width / across, height / down)
            found[i] = np.asarray(small.resize((w, h), Image.Resampling.BILINEAR, box=box))

    with first_run_notice("resizing kernels"):
        run_ranges(resize, len(sizes), chunks_per_thread=len(sizes))
    return found
