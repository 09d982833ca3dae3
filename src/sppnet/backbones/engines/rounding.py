"""Rounding kernels to integers so that the errors of their inputs cancel (GPTQ; Frantar et al., 2023).

Each weight is rounded in turn, and the weights after it are changed so that the output on real inputs stays as near as
can be to what it was. Kernels do the arithmetic, element by element in a given order (``reference.py`` defines it), so
that the result is the same to the last bit everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sppnet.kernels.native import NativeKernel
from sppnet.kernels.run import run_ranges

__all__ = ["PAIR_MOST", "InputProducts", "dense_steps"]

F64 = NDArray[np.float64]

MOST = 127
PAIR_MOST = 128
"""The most that two neighbouring weights of one sign may add up to: 255 * 128 fits into 16 bits."""

_KERNELS = "sppnet.backbones.engines.kernels"
_next_column = NativeKernel(_KERNELS, "next_column", ("kernels",), ranged=False, kinds=("float64 2", "int64"))
_invert_factor = NativeKernel(_KERNELS, "invert_factor", ("kernels",), ranged=False, kinds=("float64 2",) * 2)
_round_rows = NativeKernel(
    _KERNELS, "round_rows", ("kernels",), kinds=("float64 2", "float64 1", "float64 2", "int64", "float64 2")
)
_times_rows = NativeKernel(_KERNELS, "times", ("kernels",), kinds=("float64 2",) * 3)

_DAMPING = 0.01  # share of the mean of the diagonal that is added to it
_ROOM = 4  # rounding together moves weights; so much is left for it below the limits


def dense_steps(rows: F64) -> F64:
    """Find the scale of each row with which no sum of two neighbouring products overflows 16 bits.

    Processors without VNNI instructions multiply bytes with weights and add two neighbouring products in 16 bits.

    Args:
        rows: ``(outputs, K)``, in the order in which products are summed.

    Returns:
        ``(outputs,)``: what 1 stands for.
    """
    single: F64 = np.abs(rows).max(1) / (MOST - _ROOM)
    if rows.shape[1] < 2:
        return single
    # two of unlike signs add up to less than the larger one, so they need no care
    pairs: F64 = np.abs(rows[:, 1:] + rows[:, :-1]).max(1) / (PAIR_MOST - _ROOM)
    return np.where(pairs > single, pairs, single)


class InputProducts:
    """What the inputs of a layer have in common.

    Args:
        products: ``(K, K)``: the sum over many inputs ``x (K,)`` of ``x x^T``, symmetric.
    """

    def __init__(self, products: F64) -> None:
        self._products = products
        # what matters most first, while all others can still make up for it
        self._order = np.argsort(-np.diag(products), kind="stable")
        self._upper = _upper_factor(products[self._order][:, self._order])

    def refit(self, rows: F64, cross: F64) -> F64:
        """Change a layer so that it makes of the inputs that it gets what it should make of exact ones.

        Args:
            rows: ``(outputs, K)``.
            cross: ``(K, K)``: the sum of ``exact x^T`` over the same inputs ``x`` and their exact values.

        Returns:
            The new rows: least squares, damped.
        """
        order = self._order
        difference = (cross - self._products)[order][:, order]
        change = _times(_times(_times(rows[:, order], difference), self._upper.T), self._upper)
        refitted = rows.copy()
        refitted[:, order] += change
        return refitted

    def round(self, rows: F64, step: F64) -> NDArray[np.int8]:
        """Round a layer.

        Args:
            rows: ``(outputs, K)``.
            step: ``(outputs,)``: what 1 stands for.

        Returns:
            int8 ``(outputs, K)``, from -127 to 127; no two neighbours add up to more than :data:`PAIR_MOST`.
        """
        left = np.ascontiguousarray(rows[:, self._order])
        whole = np.zeros(rows.shape)
        run_ranges(_round_rows, len(rows), left, np.ascontiguousarray(step), self._upper, MOST, whole)
        rounded = np.zeros(rows.shape, np.int64)
        rounded[:, self._order] = whole
        for k in range(rows.shape[1] - 1):  # seldom needed
            one, two = rounded[:, k], rounded[:, k + 1]
            over = np.where(np.sign(one) == np.sign(two), np.abs(one + two) - PAIR_MOST, 0).clip(0)
            second = np.abs(two) >= np.abs(one)
            rounded[:, k] -= np.where(second, 0, over * np.sign(one))
            rounded[:, k + 1] -= np.where(second, over * np.sign(two), 0)
        return rounded.astype(np.int8)


def _times(a: F64, b: F64) -> F64:
    """The matrix product, summed in one order everywhere."""
    total = np.zeros((len(a), b.shape[1]))
    run_ranges(_times_rows, len(a), np.ascontiguousarray(a), np.ascontiguousarray(b), total)
    return total


def _upper_factor(products: F64) -> F64:
    """The upper triangular U with ``U^T U`` = the inverse of ``products`` (damped)."""
    damped = np.array(products, order="C")
    damped[np.diag_indices(len(products))] += _DAMPING * (np.diag(products).sum() / len(products) or 1.0)
    return _upper_factor_of(damped)


def _upper_factor_of(damped: F64) -> F64:
    """What ``reference.upper_factor`` gives; ``damped`` is used as memory."""
    for j in range(len(damped) - 1, -1, -1):
        _next_column(damped, j)
        damped[j, : j + 1] /= np.sqrt(damped[j, j])
    upper = np.zeros_like(damped)
    _invert_factor(damped, upper)
    return upper
