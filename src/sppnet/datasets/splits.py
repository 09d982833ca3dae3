"""The names of splits, and what people call them."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["SPLIT_NAMES", "TEST", "TRAIN", "VALIDATION", "first_split", "split_of_name", "split_order"]

TRAIN = ("train", "training")
VALIDATION = ("val", "valid", "validation")
TEST = ("test", "testing")
SPLIT_NAMES = (*TRAIN, *VALIDATION, *TEST)
"""Every name that is taken for a split where it names a folder or a file."""


def split_of_name(name: str) -> str:
    """``train`` for ``instances_train2017`` and ``train``; empty where a name names no split."""
    stem = name.lower().removeprefix("instances_").removesuffix("_annotations").rstrip("0123456789").rstrip("_-. ")
    return stem if stem in SPLIT_NAMES else ""


def first_split(splits: Iterable[str], names: tuple[str, ...]) -> str | None:
    """The first of ``splits`` that is one of ``names`` (in the order of these), whatever its case; None where none is.

    >>> first_split(["Valid", "test"], VALIDATION)
    'Valid'
    """
    known = list(splits)
    return next((split for name in names for split in known if split.lower() == name), None)


def split_order(name: str) -> tuple[int, str]:
    """A key that sorts splits: train, val, test, then the others by name."""
    return (SPLIT_NAMES.index(name) if name in SPLIT_NAMES else len(SPLIT_NAMES), name)
