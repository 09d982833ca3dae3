"""Kernels of quantising: the same numbers, to the last bit, as the functions of ``reference.py``, ten times as fast.

Why: after a tuning, and in its tests, most of the time went into quantising the tuned convolutions. Sums are taken in
the order of the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.kernels.jit import jit


@jit
def next_column(damped: Any, j: int) -> None:
    """Column ``j`` of the factor R of :func:`~sppnet.backbones.engines.reference.upper_factor`, not yet divided.

    ``damped``: float64 (K, K), symmetric; its rows behind ``j`` are columns of R already, as far as they aren't zero.
    The root by which the column is divided is left to NumPy: compiled, it would call a library.
    """
    for k in range(len(damped) - 1, j, -1):
        factor = damped[k, j]
        for i in range(j + 1):
            damped[j, i] -= damped[k, i] * factor


@jit
def invert_factor(factor: Any, inverse: Any) -> None:
    """The inverse of R, whose columns are the rows of ``factor`` (K, K). ``inverse``: float64 (K, K), zeros."""
    size = len(factor)
    for i in range(size - 1, -1, -1):
        inverse[i, i] = 1
        for k in range(size - 1, i, -1):
            share = factor[k, i]
            for j in range(k, size):
                inverse[i, j] -= share * inverse[k, j]
        for j in range(i, size):
            inverse[i, j] /= factor[i, i]


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
