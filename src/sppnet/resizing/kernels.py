"""The kernel that makes large images small, several times quicker than to let Pillow copy them first."""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.scratch import release, scratch


@jit
def block_means(start: int, stop: int, image: Any, across: int, down: int, out: Any) -> None:
    """Rows ``start .. stop - 1`` of ``out``: the means of blocks of ``down`` x ``across`` pixels of an image.

    ``image``: (H, 3 W). ``down`` is at most 256. Blocks at the right and lower edge may be smaller. Rounds as Pillow's
    ``Image.reduce`` does, which defines it.
    """
    height, width = image.shape[0], image.shape[1] // 3
    columns = out.shape[1]
    whole = width // across  # blocks that are complete
    sums = scratch(width * 3, np.uint16)  # so narrow that sixteen or more are added at once
    for i in range(start, stop):
        top = i * down
        bottom = min(top + down, height)
        for x in range(width * 3):
            sums[x] = 0
        for y in range(top, bottom):
            for x in range(width * 3):
                sums[x] += image[y, x]
        count = np.int64(across * (bottom - top))
        share = np.int64(1 << 24) // count
        if across == 2:
            for k in range(whole):
                for c in range(3):
                    total = np.int64(sums[6 * k + c]) + np.int64(sums[6 * k + 3 + c])
                    out[i, k, c] = ((total + count // 2) * share) >> 24
        else:
            for k in range(whole):
                r, g, b = np.int64(0), np.int64(0), np.int64(0)
                for j in range(k * across, (k + 1) * across):
                    r += sums[3 * j]
                    g += sums[3 * j + 1]
                    b += sums[3 * j + 2]
                out[i, k, 0] = ((r + count // 2) * share) >> 24
                out[i, k, 1] = ((g + count // 2) * share) >> 24
                out[i, k, 2] = ((b + count // 2) * share) >> 24
        if whole < columns:
            count = np.int64((width - whole * across) * (bottom - top))
            share = np.int64(1 << 24) // count
            for c in range(3):
                total = np.int64(0)
                for j in range(whole * across, width):
                    total += sums[3 * j + c]
                out[i, whole, c] = ((total + count // 2) * share) >> 24
    release(sums)
