"""Colour spaces and down-scaling in integers, compiled. The definitions in plain lines are in ``reference.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit
from sppnet.kernels.scratch import release, scratch

HSV, LAB, RGI, HUE, INTENSITY = range(5)


@jit
def shrink(start: int, stop: int, image: Any, out: Any) -> None:
    """Rows ``start .. stop - 1`` of ``out``: the area average of ``image`` (H, W, 3), rounded, in exact integers.

    Source pixel ``j`` covers ``[j*n, (j+1)*n)`` and destination pixel ``i`` covers ``[i*L, (i+1)*L)``: the weights are
    the overlaps, whole numbers that sum to ``L``.
    """
    height, width = image.shape[0], image.shape[1]
    rows, columns = out.shape[0], out.shape[1]
    column_sum = scratch(width * 3, np.int32)
    total = np.int64(height) * width
    for i in range(start, stop):
        for x in range(width * 3):
            column_sum[x] = 0
        for j in range(i * height // rows, ((i + 1) * height - 1) // rows + 1):
            weight = np.int32(min((i + 1) * height, (j + 1) * rows) - max(i * height, j * rows))
            for x in range(width):
                for c in range(3):
                    column_sum[3 * x + c] += np.int32(weight * np.int32(image[j, x, c]))
        for k in range(columns):
            r = np.int64(0)
            g = np.int64(0)
            b = np.int64(0)
            for j in range(k * width // columns, ((k + 1) * width - 1) // columns + 1):
                share = np.int64(min((k + 1) * width, (j + 1) * columns) - max(k * width, j * columns))
                r += share * column_sum[3 * j]
                g += share * column_sum[3 * j + 1]
                b += share * column_sum[3 * j + 2]
            out[i, k, 0] = (r + total // 2) // total
            out[i, k, 1] = (g + total // 2) // total
            out[i, k, 2] = (b + total // 2) // total
    release(column_sum)


@jit
def hue(r: Any, g: Any, b: Any, chroma: Any, value: Any) -> Any:
    """Hue of 8-bit colours in 1/180 of a circle, 0 .. 179, rounded; 0 where there's no chroma."""
    if chroma == 0:
        return 0
    if value == r:
        h60 = g - b
        base = 0
    elif value == g:
        h60 = b - r
        base = 60
    else:
        h60 = r - g
        base = 120
    h = base + (60 * h60 + chroma) // (2 * chroma)
    if h < 0:
        h += 180
    if h >= 180:
        h -= 180
    return h


@jit
def colour_planes(image: Any, space: int, linear: Any, root: Any, planes: Any) -> None:
    """Fill ``planes`` (C, H, W) uint8 with ``image`` (H, W, 3) uint8 RGB in colour space ``space``.

    ``linear`` (256,) and ``root`` (n,) are the tables of ``tables.lab_tables()``.
    """
    height, width = image.shape[0], image.shape[1]
    for y in range(height):
        for x in range(width):
            r = np.int32(image[y, x, 0])
            g = np.int32(image[y, x, 1])
            b = np.int32(image[y, x, 2])
            if space in (HSV, HUE):
                value = max(r, max(g, b))
                chroma = value - min(r, min(g, b))
                planes[0, y, x] = hue(r, g, b, chroma, value)
                if space == HSV:
                    planes[1, y, x] = (255 * chroma + value // 2) // value if value > 0 else 0
                    planes[2, y, x] = value
            elif space == LAB:
                lr = linear[r]
                lg = linear[g]
                lb = linear[b]
                # XYZ over the white point D65: weights in 1/4096 that sum to 4096 a row
                fx = root[(lr * 1777 + lg * 1541 + lb * 778) >> 12]
                fy = root[(lr * 871 + lg * 2929 + lb * 296) >> 12]
                fz = root[(lr * 73 + lg * 448 + lb * 3575) >> 12]
                # f in 1/32768; L = 116 f(y) - 16 scaled to 255, a = 500 (fx - fy) + 128, b = 200 (fy - fz) + 128
                light = ((116 * fy - 16 * 32768) * 255 // 100 + 16384) >> 15
                planes[0, y, x] = min(255, max(0, light))
                planes[1, y, x] = min(255, max(0, ((500 * (fx - fy) + 16384) >> 15) + 128))
                planes[2, y, x] = min(255, max(0, ((200 * (fy - fz) + 16384) >> 15) + 128))
            elif space == RGI:
                total = r + g + b
                planes[0, y, x] = (255 * r + total // 2) // total if total > 0 else 85
                planes[1, y, x] = (255 * g + total // 2) // total if total > 0 else 85
                planes[2, y, x] = (total + 1) // 3
            else:
                planes[0, y, x] = (299 * r + 587 * g + 114 * b + 500) // 1000
