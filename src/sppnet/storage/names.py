"""Names that come from files: what a class may be called, how a name is shown on a terminal, where a link leads."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

__all__ = [
    "MAX_CLASSES",
    "class_names_problem",
    "in_utf8",
    "name_problem",
    "path_key",
    "printable",
    "printable_lines",
    "real_path",
    "spreadsheet_safe",
    "spreadsheet_safe_path",
    "spreadsheet_text",
    "xml_problem",
]  # fmt: skip

MAX_CLASSES = 20_000
_MAX_LENGTH = 200
# Control characters, halves of surrogate pairs, separators of lines, and what turns the direction of writing
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_MOVES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path without links. One in a circle stays as it is; ``Path.resolve`` raises RuntimeError."""
    return Path(os.path.realpath(path))


def path_key(path: str) -> str:
    """The same for all ways to write a path: ``a``, ``./a``, ``b/../a``. A link is kept, unless ``..`` follows it."""
    if path.startswith("/") and path[1:2] != "/" and os.path.normpath(path) == path:
        return path
    whole = Path(path).absolute()
    parts = whole.parts
    if ".." in parts:  # what is above a link isn't what is before it in the path
        end = len(parts) - parts[::-1].index("..")
        whole = Path(_real(str(Path(*parts[:end]))), *parts[end:])
    text = str(whole)
    return text[1:] if text.startswith("//") else text


@lru_cache(maxsize=1024)
def _real(folder: str) -> str:
    try:
        return os.path.realpath(folder)
    except (OSError, ValueError):  # reading it gives the error
        return os.path.normpath(folder)


def in_utf8(name: str) -> str:
    r"""Return ``name`` as a file in UTF-8 can hold it: a byte of another encoding becomes ``\\udce9`` and the like."""
    return name.encode("utf-8", "backslashreplace").decode()


def printable(text: object) -> str:
    r"""Show ``text`` on one line of a terminal that it can't control: hidden characters become ``\x1b`` and the like.

    >>> printable("caf\u00e9\n\x1b[31m")
    'caf\xe9\\n\\x1b[31m'
    """
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), str(text))


def printable_lines(text: str) -> str:
    r"""As :func:`printable`, but line ends and tabs stay: for messages of several lines.

    >>> printable_lines("a\x1b[2Jb.jpg\n")
    'a\\x1b[2Jb.jpg\n'
    """
    return _MOVES.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def name_problem(name: object) -> str:
    """Say why ``name`` can't be the name of a class; empty where it can."""
    if not isinstance(name, str):
        return f"{name!r:.60} is no text"
    if not name.strip():
        return f"{name[:60]!r} is empty"
    if len(name) > _MAX_LENGTH:
        return f"'{printable(name[:30])}...' has {len(name)} characters, at most {_MAX_LENGTH} are allowed"
    found = _HIDDEN.search(name)
    if found:
        return f"'{printable(name[:60])}' holds a control character (U+{ord(found[0]):04X})"
    return ""


def class_names_problem(names: Sequence[object]) -> str:
    """Say why ``names`` can't be the names of the classes of a data set or model; empty where they can."""
    if len(names) > MAX_CLASSES:
        return f"{len(names)} classes, at most {MAX_CLASSES} are allowed"
    problem = next(filter(None, map(name_problem, names)), "")
    if problem:
        return problem
    if len(set(names)) < len(names):
        seen: set[object] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        return f"{twice!r} occurs twice"
    return ""


def xml_problem(text: str) -> str:
    """Say why XML can't hold ``text``; empty where it can."""
    found = _NOT_XML.search(text)
    return f"'{printable(text)}' holds a character that XML can't (U+{ord(found[0]):04X}); rename it" if found else ""


def spreadsheet_safe(text: str) -> str:
    """Give ``text`` as a cell that no spreadsheet takes for a formula: ``=``, ``+``, ``-``, ``@`` get an apostrophe.

    >>> spreadsheet_safe("=1+1"), spreadsheet_text("'=1+1"), spreadsheet_text("'tis")
    ("'=1+1", '=1+1', "'tis")
    """
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def spreadsheet_text(cell: str) -> str:
    """Give the text that :func:`spreadsheet_safe` made ``cell`` of."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def spreadsheet_safe_path(path: str) -> str:
    """Give a relative path as a cell that no spreadsheet takes for a formula: ``./=x.jpg`` is the same file."""
    return f"./{path}" if path.startswith(_FORMULA) else path
