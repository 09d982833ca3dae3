"""What a file holds, by its first bytes: whether an output may take its place."""

from __future__ import annotations

import json
import os

from sppnet.storage.reading import open_regular

__all__ = ["holds_kind"]

_HEAD_BYTES = 1 << 20
_ANY_BYTES = 1 << 62


def holds_kind(path: str | os.PathLike[str], kind: str, start: bytes = b"") -> bool:
    """Whether a file begins as one of ``kind`` does. Of a JSON file up to 1 MB all is looked at.

    Args:
        path: of the file.
        kind: ``json``, ``jsonl``, or another word, of which only ``start`` is compared.
        start: what such a file begins with, after blanks.
    """
    try:
        with open_regular(path, _ANY_BYTES) as file:
            head = file.read(_HEAD_BYTES + 1)
    except (OSError, ValueError):
        return False
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if kind not in ("json", "jsonl"):
        return text.startswith(start)
    if not text.startswith((b"{", b"[") if kind == "json" else b"{"):
        return False
    if kind == "jsonl":
        text, end, _ = text.partition(b"\n")
        if not end and len(head) > _HEAD_BYTES:
            return True
    elif len(head) > _HEAD_BYTES:
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
