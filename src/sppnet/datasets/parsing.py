"""Small things that several readers need: text, JSON and XML files, numbers, outlines."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from sppnet.errors import DatasetError

__all__ = [
    "MAX_BYTES",
    "advice_of",
    "as_number",
    "bounding_box",
    "is_utf8",
    "read_bytes",
    "read_head",
    "read_json",
    "read_text",
    "read_xml",
    "short",
    "shown_path",
    "sorted_names",
    "whole_text",
    "without_suffix",
]

MAX_BYTES = 1 << 30
"""Larger annotation files are refused before they are read. COCO's largest has 450 MB."""

Box = tuple[float, float, float, float]

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


def read_bytes(file: Path, expected: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file of at most ``max_bytes``.

    Raises:
        DatasetError: it can't be read; the message says what was ``expected``.
    """
    try:
        with file.open("rb") if file.is_file() else _refuse(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(max_bytes + 1) if size <= max_bytes else b""  # it may grow meanwhile
    except FileNotFoundError:
        raise DatasetError(f"{file}: no such file; expected {expected}") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: can't be read ({error}); expected {expected}") from None
    if max(size, len(data)) > max_bytes:
        raise DatasetError(f"{file}: has more than {max_bytes:,} bytes; expected {expected}")
    return data


def _refuse(file: Path) -> Any:
    """Say why ``file`` isn't a regular file; a pipe or device is never opened."""
    kind = "a folder" if stat.S_ISDIR(file.stat().st_mode) else "not a regular file"
    raise ValueError(f"it is {kind}")


def read_text(file: Path, expected: str, max_bytes: int = MAX_BYTES) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark. The mark is dropped.

    Raises:
        DatasetError: it can't be read; the message says what was ``expected``.
    """
    data = read_bytes(file, expected, max_bytes)
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except ValueError as error:
        advice = ' (in a spreadsheet: save it as "CSV UTF-8")' if file.suffix.lower() in (".csv", ".tsv") else ""
        raise DatasetError(f"{file}: can't be read as text ({error}); expected {expected}, in UTF-8{advice}") from None


def read_head(file: Path, count: int = 8192) -> str:
    """Give the beginning of a text file, to see what it is; empty where it can't be read.

    Args:
        file: in UTF-8, or in UTF-16 with a byte order mark.
        count: of bytes.
    """
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as stream:
            data = stream.read(count)
    except (OSError, ValueError):
        return ""
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "ignore")


def read_json(file: Path, expected: str) -> Any:
    """Read a JSON file.

    Raises:
        DatasetError: it can't be read, isn't JSON, or is nested too deeply.
    """
    text = read_text(file, expected)
    try:
        return whole_text(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: not JSON ({error}); expected {expected}") from None


def read_xml(file: Path, expected: str) -> Element:
    """Read an XML file; entities and outside references are refused.

    Raises:
        DatasetError: it can't be read or isn't well formed.
    """
    data = read_bytes(file, expected)
    try:
        tree: Element = fromstring(data)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DatasetError(f"{file}: not readable as XML ({error}); expected {expected}") from None
    return tree


def whole_text(document: Any) -> Any:
    """Return ``document``, if all texts in it can be written to a file: an escape may stand for half a character.

    Raises:
        ValueError: one can't.
    """
    waiting, seen = [document], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list):
            if id(item) in seen:  # YAML may name a part a thousand times, or in itself
                continue
            seen.add(id(item))
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and not is_utf8(item):
            raise ValueError(f"{short(item)} holds half a character")
    return document


def is_utf8(text: str) -> bool:
    """Whether a file in UTF-8 can hold ``text``. A file's name may come from another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_number(value: object, name: str) -> float:
    """Return a finite number.

    Raises:
        ValueError: it isn't one; the message begins with "has".
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        raise ValueError(f"has {name} {short(value)}, expected a number: write decimal points, not commas")
    # Beyond 1e12 no image reaches, and squares stay finite.
    if not isfinite(number) or abs(number) > 1e12:
        raise ValueError(f"has {name} {short(value)}, expected a number")
    return number


def bounding_box(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """Bounding box ``(x0, y0, x1, y1)`` of an outline; neither sequence is empty."""
    return min(xs), min(ys), max(xs), max(ys)


def short(value: object, length: int = 60) -> str:
    """Return a value as a message shows it. Long ones are cut, nested ones aren't spelt out: they may be huge."""
    if isinstance(value, dict | list | tuple | set):
        return f"a {type(value).__name__} of {len(value)}"
    try:
        text = repr(value[: 2 * length] if isinstance(value, str | bytes) else value)
    except ValueError:  # an integer of more digits than Python prints
        return "a huge number"
    return text if len(text) <= length else text[:length] + "..."


def shown_path(path: Path, home: Path) -> str:
    """Return the path of a file as a message shows it: that below ``home``, where it lies there."""
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def advice_of(error: Exception, file: Path) -> tuple[str, str]:
    """Split the message of ``error`` about ``file`` into what is wrong and what to do."""
    what, _, advice = str(error).removeprefix(f"{file}: ").rpartition("; ")
    return (what, advice) if what else (advice, "correct or remove it")


def without_suffix(name: str) -> str:
    """Return the name of a file without its extension; folders in it stay."""
    return name.removesuffix(PurePosixPath(name).suffix)


def sorted_names(found: Iterable[str]) -> tuple[str, ...]:
    """Names of classes, each once, sorted."""
    return tuple(sorted(set(found)))
