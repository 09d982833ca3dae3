"""Which images something was learned from, by their content: so that nobody measures on them unawares.

Names say little: a data set is renamed, copied, converted, or an image is added to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sppnet.errors import SppnetError
from sppnet.storage.reading import read_regular

__all__ = ["DIGITS", "MOST_SEEN", "count_seen", "seen_digests"]

DIGITS = 16
"""Hexadecimal digits of an image. Two of a million different ones are equal with a probability of 3e-8."""

MOST_SEEN = 1024
"""Of more images the lowest digests are kept: of others, those that are as low can be compared, and no more."""

_MOST_BYTES = 2 << 30


def seen_digests(paths: Iterable[Path]) -> str:
    """Digests of image files, lowest first, as one text of :data:`DIGITS` each; files that can't be read are left out.

    Args:
        paths: of the images.
    """
    found = {digest for path in paths if (digest := _digest(path))}
    return "".join(sorted(found)[:MOST_SEEN])


def count_seen(paths: Iterable[Path], seen: str) -> tuple[int, int]:
    """Count images that have the content of one that was seen.

    Args:
        paths: of the images.
        seen: of :func:`seen_digests`.

    Returns:
        How many were seen, and how many could be compared.
    """
    known = {seen[i : i + DIGITS] for i in range(0, len(seen), DIGITS)}
    if not known:
        return 0, 0
    whole, highest = len(known) < MOST_SEEN, max(known)
    digests = [digest for path in paths if (digest := _digest(path))]
    compared = [digest for digest in digests if whole or digest <= highest]
    return sum(digest in known for digest in compared), len(compared)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_regular(path, _MOST_BYTES)).hexdigest()[:DIGITS]
    except (OSError, SppnetError):
        return ""
