"""Class names that are spelt almost alike, and are perhaps one."""

from __future__ import annotations

from difflib import SequenceMatcher

__all__ = ["nearly_alike", "spelt_alike"]


def spelt_alike(one: str, two: str) -> bool:
    """Whether two names differ only in case, blanks, marks or a plural s."""
    return _plain(one) == _plain(two) != ""


def nearly_alike(one: str, two: str) -> bool:
    """Whether two names may be one with a slip: helmit and helmet, not cat1 and cat2."""
    if spelt_alike(one, two):
        return True
    if len(one) < 4 or _letters(one) == _letters(two):
        return False
    return SequenceMatcher(None, _plain(one), _plain(two)).ratio() >= 0.8


def _plain(name: str) -> str:
    plain = "".join(c for c in name.casefold() if c.isalnum())
    return plain[:-1] if len(plain) > 2 and plain.endswith("s") and plain[-2].isalpha() else plain


def _letters(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalpha())
