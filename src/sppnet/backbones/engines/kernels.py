"""Kernels of quantising: the same numbers, to the last bit, as the functions of ``reference.py``, ten times as fast.

Why: after a tuning, and in its tests, most of the time went into quantising the tuned convolutions. Sums are taken in
the order of the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit


@jit
def upper_factor(damped: Any, upper: Any) -> None:
    """See :func:`~sppnet.backbones.engines.reference.upper_factor`.

    ``damped``: float64 (K, K), symmetric; used as memory. ``upper``: float64 (K, K), zeros; gets the result.
    """
    size = len(damped)
    # Row k becomes column k of R, as far as it isn't zero: products = R R^T, from the last row up
    for j in range(size - 1, -1, -1):
        for k in range(size - 1, j, -1):
            factor = damped[k, j]
            for i in range(j + 1):
                damped[j, i] -= damped[k, i] * factor
        root = np.sqrt(damped[j, j])
        for i in range(j + 1):
            damped[j, i] /= root
    for i in range(size - 1, -1, -1):
        upper[i, i] = 1
        for k in range(size - 1, i, -1):
            factor = damped[k, i]
            for j in range(k, size):
                upper[i, j] -= factor * upper[k, j]
        for j in range(i, size):
            upper[i, j] /= damped[i, i]


@jit
def round_rows(start: int, stop: int, left: Any, step: Any, upper: Any, most: int, rounded: Any) -> None:
    """Rows ``start .. stop - 1`` of :func:`~sppnet.backbones.engines.reference.round_rows`.

    ``left``: float64 (outputs, K), changed. ``step``: float64 (outputs,). ``upper``: float64 (K, K). ``rounded``:
    float64 (outputs, K), whole numbers up to ``most``.
    """
    size = left.shape[1]
    highest = np.float64(most)
    for r in range(start, stop):
        for i in range(size):
            whole = min(max(np.rint(left[r, i] / step[r]), -highest), highest)
            rounded[r, i] = whole
            error = (left[r, i] - whole * step[r]) / upper[i, i]
            for j in range(i + 1, size):
                left[r, j] -= error * upper[i, j]


@jit
def times(start: int, stop: int, a: Any, b: Any, total: Any) -> None:
    """Rows ``start .. stop - 1`` of ``total += a @ b``, float64, summed in the order of the rows of ``b``."""
    for i in range(start, stop):
        for k in range(len(b)):
            factor = a[i, k]
            for j in range(b.shape[1]):
                total[i, j] += factor * b[k, j]


@jit
def convolve_channels(
    start: int, stop: int, padded: Any, rows: Any, kernel: int, stride: int, dilation: int, total: Any
) -> None:
    """Rows ``start .. stop - 1`` of a depthwise convolution of whole numbers, float64.

    ``padded``: (H, W, channels). ``rows``: (kernel * kernel, channels). ``total``: (h, w, channels), zeros.
    """
    channels = padded.shape[2]
    for y in range(start, stop):
        for x in range(total.shape[1]):
            for tap in range(kernel * kernel):
                i = y * stride + (tap // kernel) * dilation
                j = x * stride + (tap % kernel) * dilation
                for c in range(channels):
                    total[y, x, c] += padded[i, j, c] * rows[tap, c]
