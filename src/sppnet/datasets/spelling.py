"""How annotations write the names of images: their spellings, their parts, and how much two of them have in common."""

from __future__ import annotations

import filecmp
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from sppnet.images import IMAGE_EXTENSIONS

__all__ = [
    "DRIVE",
    "Spelling",
    "absolute_path",
    "closest",
    "common_tail",
    "folder_keys",
    "is_sane",
    "last_part",
    "likeness",
    "name_key",
    "nearest_case",
    "plain_parts",
    "same_file",
    "shared_folders",
    "spellings",
    "stem_key",
]

_MAX_NAME = 4096
_HASHED = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts eight digits before the name of an upload
DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True)
class Spelling:
    """One way to read a name: its parts, and whether it is of another machine."""

    parts: tuple[str, ...]
    foreign: bool


def name_key(name: str) -> str:
    """Return ``name`` so that names which differ in case or Unicode form only are equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def same_file(one: Path, two: Path) -> bool:
    """Whether two files have the same content; no where one can't be read."""
    try:
        return filecmp.cmp(one, two, shallow=False)
    except OSError:
        return False


def absolute_path(path: Path) -> Path:
    """``path`` from the root on, without ``..``; links are kept, for folders of links are data sets too."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() follows links)


def is_sane(name: str) -> bool:
    """Whether a file may be called so at all."""
    return bool(name) and "\0" not in name and len(name) <= _MAX_NAME


def last_part(key: str) -> str:
    """Give what comes after the last separator of folders."""
    return key.rpartition("/")[2].rpartition(os.sep)[2]


def folder_keys(path: Path) -> list[str]:
    """Give the keys of the folders of a path."""
    return [name_key(part) for part in path.parts[:-1]]


def common_tail(one: Sequence[str], two: Sequence[str]) -> int:
    """Count the equal parts at the ends of two paths."""
    count = 0
    for a, b in zip(reversed(one), reversed(two), strict=False):
        if a != b:
            break
        count += 1
    return count


def common_head(one: Sequence[str], two: Sequence[str]) -> int:
    return common_tail(one[::-1], two[::-1])


def nearest_case(found: list[Path], name: str) -> list[Path]:
    """Of images whose names differ in case, form or extension: the one written like ``name``, else JPEG."""
    if len(found) < 2 or len({path.parent for path in found}) > 1:
        return found
    stem = unicodedata.normalize("NFC", PurePosixPath(name).stem if Path(name).suffix.lower() in IMAGE_EXTENSIONS
                                 else name)  # fmt: skip
    same = [path for path in found if unicodedata.normalize("NFC", path.stem) == stem] or found
    jpeg = [path for path in same if path.suffix.lower() == ".jpg"]
    if len({name_key(path.stem) for path in same}) == 1 and len({path.stem for path in same}) == 1:
        return (jpeg or sorted(same))[:1]
    return same


def likeness(one: Sequence[str], two: Sequence[str]) -> int:
    """How many folders of two have the same place in both, from the beginning or from the end."""
    head = common_head(one, two)
    return head + common_tail(one[head:], two[head:])


def closest(found: list[Path], folder: Path, *, words: bool = False) -> list[Path]:
    """Those whose folders have most in common with ``folder``, at its beginning and at its end.

    Of equal ones with ``words`` those that share most names of folders at any place, and have fewest others.
    """
    target = folder.parts
    known = set(map(name_key, target))
    alike = [
        (likeness(parts, target), *((len(known & set(map(name_key, parts))), -len(parts)) if words else ()))
        for parts in (path.parts[:-1] for path in found)
    ]
    best = max(alike, default=())
    return [path for path, value in zip(found, alike, strict=True) if value == best]


def stem_key(name: str) -> str:
    """The key of the last part of a name without the extension of an image."""
    last = next(spellings(name)).parts[-1] if is_sane(name) else ""
    return name_key(PurePosixPath(last).stem if PurePosixPath(last).suffix.lower() in IMAGE_EXTENSIONS else last)


def shared_folders(names: Sequence[str]) -> int:
    """How many leading folders all names share; of a single name, all but the last."""
    different = {name for name in names if is_sane(name)}
    if not different:
        return 0
    if len(different) == 1:
        return max(0, len(next(iter(spellings(different.pop()))).parts) - 2)
    split = sorted(next(iter(spellings(name))).parts[:-1] for name in different)
    return common_head(split[0], split[-1])  # of sorted ones, the first and last differ most


def spellings(name: str) -> Iterator[Spelling]:
    """Yield the ways to read a name, the likeliest first; at least one."""
    texts = [name]
    if "?" in name and (values := parse_qs(urlsplit(name.replace("\\", "/")).query).get("d")):
        texts.append(f"//{values[0]}")  # local files of Label Studio; parse_qs has undone the escapes
    if _SCHEME.match(name):
        texts.append(f"//{unquote(urlsplit(name).path)}")
    if "%" in name:
        texts.append(unquote(name))
    seen = set()
    hashed = []
    for text in texts:
        foreign = text.startswith(("/", "\\\\")) or bool(DRIVE.match(text)) or bool(_SCHEME.match(text))
        parts = plain_parts(DRIVE.sub("/", text, count=1).replace("\\", "/"))
        # What Label Studio stores is named by its own folders
        foreign = foreign or "upload" in parts[:-1]
        spelling = Spelling(parts, foreign)
        if parts and spelling not in seen:
            seen.add(spelling)
            yield spelling
            if _HASHED.match(parts[-1]):
                hashed.append(Spelling((*parts[:-1], _HASHED.sub("", parts[-1], count=1)), foreign))
    yield from hashed
    if not seen:
        yield Spelling((name,), False)


def plain_parts(text: str) -> tuple[str, ...]:
    """The parts of a path without ``.``, and without ``..`` where it can be undone or comes first."""
    parts: list[str] = []
    for part in text.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return tuple(parts)
