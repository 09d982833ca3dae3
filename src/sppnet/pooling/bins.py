"""Bins of a pyramid: which cells a bin has, and which levels follow from a finer one.

Bin ``i`` of ``n`` over ``length`` cells is ``[floor(i * length / n), ceil((i + 1) * length / n))``, in integers. Bins
of one level may share a cell; none is empty, even where ``length < n``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from sppnet.errors import ArgumentError

__all__ = [
    "DEFAULT_LEVELS",
    "MODES",
    "Level",
    "Levels",
    "bin_edges",
    "check_mode",
    "normalise_levels",
    "num_bins",
    "parents",
]

Level: TypeAlias = tuple[int, int]
Levels: TypeAlias = Sequence[int | tuple[int, int]]

DEFAULT_LEVELS: tuple[int, ...] = (6, 3, 2, 1)
MODES = ("max", "avg")
_LARGEST = 1024


def bin_edges(length: int, n: int) -> list[tuple[int, int]]:
    """First cell and end (exclusive) of each of ``n`` bins over ``length`` cells."""
    return [((i * length) // n, -((-(i + 1) * length) // n)) for i in range(n)]


def normalise_levels(levels: Levels) -> tuple[Level, ...]:
    """Levels as (rows, columns) each; an int ``n`` means ``(n, n)``.

    Raises:
        ArgumentError: no level, or one that is not an int or a pair of ints in [1, 1024].
    """
    plain: object = levels.tolist() if isinstance(levels, np.ndarray) else levels
    if isinstance(plain, str) or not isinstance(plain, Sequence):
        raise ArgumentError(f"levels: expected a sequence such as (6, 3, 2, 1), got {levels!r}")
    result: list[Level] = []
    for level in plain:
        pair = tuple(level) if isinstance(level, Sequence) and not isinstance(level, str) else (level, level)
        if len(pair) != 2 or not all(_is_whole(n) and 1 <= n <= _LARGEST for n in pair):
            raise ArgumentError(
                f"levels: expected ints or (rows, columns) from 1 to {_LARGEST}, got {level!r} in {levels!r}"
            )
        result.append((int(pair[0]), int(pair[1])))
    if not result:
        raise ArgumentError("levels: expected at least one level, got none")
    return tuple(result)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def num_bins(levels: Levels) -> int:
    """Bins of all levels together: 50 for (6, 3, 2, 1)."""
    return sum(rows * columns for rows, columns in normalise_levels(levels))


def check_mode(mode: str) -> str:
    """``mode`` if it is one.

    Raises:
        ArgumentError: anything but ``max`` or ``avg``.
    """
    if mode not in MODES:
        raise ArgumentError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    return mode


def parents(levels: Sequence[Level]) -> list[int]:
    """For each level the index of the coarsest other one whose bins tile its bins exactly, or -1.

    When ``n`` divides ``m``, ``floor(i * L / n) == floor((i * m / n) * L / m)`` for every length, so a bin of the
    ``n`` level is the union of ``m / n`` bins of the ``m`` level, and its maximum is theirs.
    """
    result = []
    for i, (rows, columns) in enumerate(levels):
        best, best_size = -1, 0
        for j, (r, c) in enumerate(levels):
            # Of two equal levels the first is the parent, so that no level follows from itself.
            tiles = r % rows == 0 and c % columns == 0 and ((r, c) != (rows, columns) or j < i)
            if tiles and (best < 0 or r * c < best_size):
                best, best_size = j, r * c
        result.append(best)
    return result
