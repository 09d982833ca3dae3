"""Checks of values that a caller gives, with errors that say what was got and what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sppnet.errors import ArgumentError

__all__ = ["check_number", "check_one_of", "check_whole", "check_wholes"]


def check_one_of(name: str, value: object, known: Sequence[object]) -> None:
    """Refuse a value that isn't one of ``known``, in value and type."""
    if not any(type(value) is type(one) and value == one for one in known):
        raise ArgumentError(f"{name}: got {value!r}, expected one of {', '.join(map(str, known))}")


def check_whole(name: str, value: object, low: int, high: int) -> int:
    """Refuse what is no whole number from ``low`` to ``high``; returns it as an int."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
        raise ArgumentError(f"{name}: got {value!r}, expected a whole number from {low} to {high}")
    return int(value)


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is no finite number from ``low`` to ``high``."""
    good = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not good or not math.isfinite(float(value)) or not low <= float(value) <= high:  # type: ignore[arg-type]  # good
        raise ArgumentError(f"{name}: got {value!r}, expected a number from {low:g} to {high:g}")


def check_wholes(name: str, values: object, low: int, high: int, *, empty: bool = False) -> tuple[int, ...]:
    """Refuse what is no sequence of at most 64 whole numbers; returns them as a tuple."""
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise ArgumentError(f"{name}: got {values!r}, expected whole numbers from {low} to {high}")
    if not len(values) and not empty:
        raise ArgumentError(f"{name}: got none, expected at least one whole number from {low} to {high}")
    if len(values) > 64:
        raise ArgumentError(f"{name}: got {len(values)} of them, expected at most 64")
    return tuple(check_whole(name, value, low, high) for value in values)
