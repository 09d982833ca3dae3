"""What the kernels of quantising compute, written slowly; this defines their results.

Every step works element by element: no library of linear algebra, whose sums are ordered differently on different
processors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["round_rows", "times", "upper_factor"]

F64 = NDArray[np.float64]


def times(a: F64, b: F64) -> F64:
    """The matrix product ``(n, K) @ (K, m)``, summed in one order everywhere."""
    total = np.zeros((len(a), b.shape[1]))
    for k in range(len(b)):
        total += a[:, k, None] * b[k]
    return total


def upper_factor(damped: F64) -> F64:
    """The upper triangular U with ``U^T U`` = the inverse of ``damped (K, K)``, which is positive definite."""
    size, damped = len(damped), damped.copy()
    # damped = R R^T with R upper triangular: Cholesky from the last row up. U is the inverse of R
    for k in range(size - 1, -1, -1):
        column = damped[: k + 1, k] / np.sqrt(damped[k, k])
        damped[: k + 1, k] = column
        damped[:k, :k] -= column[:k, None] * column[:k]
    inverse = np.eye(size)
    for k in range(size - 1, -1, -1):
        inverse[k] /= damped[k, k]
        inverse[:k, k:] -= damped[:k, k, None] * inverse[k, k:]
    return inverse


def round_rows(rows: F64, step: F64, upper: F64, most: int) -> F64:
    """Round the columns of ``rows (outputs, K)`` one after the other; those behind make up for the error of each.

    Args:
        rows: what to round.
        step: ``(outputs,)``: what 1 stands for in each row.
        upper: ``(K, K)``, see :func:`upper_factor`.
        most: the largest number of steps.

    Returns:
        Whole numbers ``(outputs, K)``.
    """
    left, rounded = rows.copy(), np.zeros(rows.shape)
    for i in range(rows.shape[1]):
        whole = np.clip(np.rint(left[:, i] / step), -most, most)
        rounded[:, i] = whole
        error = (left[:, i] - whole * step) / upper[i, i]
        left[:, i + 1 :] -= error[:, None] * upper[i, i + 1 :]
    return rounded
