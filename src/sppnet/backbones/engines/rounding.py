"""Rounding kernels to integers so that the errors of neighbouring inputs cancel (GPTQ; Frantar et al., 2023).

Each weight is rounded in turn, and the weights after it are changed so that the output on real inputs stays as near as
can be to what it was. Every step works element by element: no library of linear algebra, whose sums are ordered
differently on different processors, so that the result is the same to the last bit everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["round_together"]

F64 = NDArray[np.float64]

_DAMPING = 0.01  # share of the mean of the diagonal that is added to it


def round_together(kernel: F64, step: F64, products: F64, most: int) -> NDArray[np.int8]:
    """Round the rows of ``kernel`` to multiples of ``step``.

    Args:
        kernel: ``(outputs, K)``.
        step: ``(outputs,)``: what 1 stands for.
        products: ``(K, K)``: the sum over many inputs ``x (K,)`` of ``x x^T``, symmetric.
        most: the largest magnitude of a rounded weight.

    Returns:
        int8 ``(outputs, K)``.
    """
    order = np.argsort(-np.diag(products), kind="stable")  # what matters most first, while all others can still make up
    upper = _upper_factor(products[order][:, order])
    left = kernel[:, order].copy()
    rounded = np.zeros(kernel.shape, np.int8)
    for i, column in enumerate(order):
        whole = np.clip(np.rint(left[:, i] / step), -most, most)
        rounded[:, column] = whole
        error = (left[:, i] - whole * step) / upper[i, i]
        left[:, i + 1 :] -= error[:, None] * upper[i, i + 1 :]
    return rounded


def _upper_factor(products: F64) -> F64:
    """The upper triangular U with ``U^T U`` = the inverse of ``products`` (damped)."""
    size = len(products)
    damped = products.copy()
    damped[np.diag_indices(size)] += _DAMPING * (np.diag(products).sum() / size or 1.0)
    # products = R R^T with R upper triangular: Cholesky from the last row up. U is the inverse of R
    for k in range(size - 1, -1, -1):
        column = damped[: k + 1, k] / np.sqrt(damped[k, k])
        damped[: k + 1, k] = column
        damped[:k, :k] -= column[:k, None] * column[:k]
    inverse = np.eye(size)
    for k in range(size - 1, -1, -1):
        inverse[k] /= damped[k, k]
        inverse[:k, k:] -= damped[:k, k, None] * inverse[k, k:]
    return inverse
