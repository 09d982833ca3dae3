"""Small things that several readers need: JSON and text files, numbers, picture names, ids."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

from sppnet.errors import DatasetError

__all__ = [
    "as_number",
    "find_picture",
    "is_utf8",
    "read_json",
    "read_text",
    "short",
    "sorted_names",
    "unique_ids",
    "whole_text",
    "without_suffix",
]


def read_text(file: Path, expected: str) -> str:
    """The text of a UTF-8 file (a byte order mark is dropped).

    Raises:
        DatasetError: it can't be read; the message says what was ``expected``.
    """
    try:
        return file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{file}: no such file; expected {expected}") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: can't be read as text ({error}); expected {expected}, in UTF-8") from None


def read_json(file: Path, expected: str) -> Any:
    """What a JSON file holds.

    Raises:
        DatasetError: it can't be read, isn't JSON, or is nested too deeply.
    """
    text = read_text(file, expected)
    try:
        return whole_text(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: not JSON ({error}); expected {expected}") from None


def whole_text(document: Any) -> Any:
    """``document``, if all texts in it can be written to a file: an escape may stand for half a character.

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
    """A finite number.

    Raises:
        ValueError: it isn't one; the message begins with "has".
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        number = float("nan")
    # Beyond 1e12 no picture reaches, and squares stay finite.
    if not isfinite(number) or abs(number) > 1e12:
        raise ValueError(f"has {name} {short(value)}, expected a number")
    return number


def short(value: object, length: int = 60) -> str:
    """A value as a message shows it. Long ones are cut (and nested ones aren't spelt out: they may be huge)."""
    if isinstance(value, dict | list | tuple | set):
        return f"a {type(value).__name__} of {len(value)}"
    try:
        text = repr(value[: 2 * length] if isinstance(value, str | bytes) else value)
    except ValueError:  # an integer of more digits than Python prints
        return "a huge number"
    return text if len(text) <= length else text[:length] + "..."


def find_picture(name: str, folders: Sequence[Path]) -> Path | None:
    """The picture that an annotation calls ``name``: below one of ``folders``, else by its last part alone.

    Names from Windows (backslashes) and absolute ones of another machine are understood.
    """
    name = name.replace("\\", "/")
    if not name or "\0" in name or len(name) > 4096:
        return None
    last = PurePosixPath(name).name
    for candidate in (name, last) if last and last != name else (name,):
        for folder in folders:
            path = folder / candidate
            try:
                if path.is_file():
                    return path
            except OSError:  # a name too long, or a folder that may not be entered
                continue
    return None


def unique_ids(paths: Sequence[Path], root: Path) -> list[str]:
    """An id for each picture: its stem if all stems differ, else its path below ``root``, with / between the parts.

    Raises:
        DatasetError: a path comes twice.
    """
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    names = [Path(os.path.relpath(path, root)) for path in paths]
    ids = [without_suffix(name.as_posix()) for name in names]
    twice = Counter(ids)
    ids = [name.as_posix() if twice[i] > 1 else i for i, name in zip(ids, names, strict=True)]
    for i, count in Counter(ids).items():
        if count > 1:
            raise DatasetError(f"{root}: the picture {i} comes {count} times; expected it once, merge its objects")
    return ids


def without_suffix(name: str) -> str:
    """``name`` of a file without its extension; folders in it stay."""
    return name.removesuffix(PurePosixPath(name).suffix)


def sorted_names(found: Iterable[str]) -> tuple[str, ...]:
    """Names of classes, each once, sorted."""
    return tuple(sorted(set(found)))
