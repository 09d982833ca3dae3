"""Where the images of a YOLO data set are and what its classes are called: ``data.yaml``, darknet's ``obj.data``."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sppnet.datasets.parsing import read_head, read_text, short, whole_text
from sppnet.datasets.spelling import name_key
from sppnet.datasets.splits import split_of_name
from sppnet.errors import DatasetError
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.names import real_path
from sppnet.storage.walking import files_in, files_near_top

__all__ = ["EXPECTED", "RESERVED", "Data", "Entry", "find_yaml", "read_data_file", "read_data_yaml", "read_names"]

EXPECTED = "a YAML file with the names of the classes (names) and the folders of images (train, val)"
_KEYS = ("train", "val", "valid", "validation", "test")
RESERVED = frozenset(("path", "names", "nc", "download", "kpt_shape", "flip_idx", "channels", "roboflow", *_KEYS))
"""Keys of ``data.yaml`` that have a meaning of their own."""
_MAX_YAML_BYTES = 1 << 20
_FOREIGN = re.compile(r"(/|[A-Za-z]:/|[a-z][a-z0-9+.-]+://)")


@dataclass(frozen=True)
class Entry:
    """A folder of images, or a text file that lists them."""

    path: Path


@dataclass(frozen=True)
class Data:
    """What describes a data set.

    Attributes:
        names: of the classes by number; None where the file doesn't say.
        splits: the entries of each split.
        broken: splits that are named but not there, and why.
        bases: folders that entries and lists are relative to.
        keypoints: how many, and numbers of each; None where the file doesn't say.
    """

    names: dict[int, str] | None = None
    splits: dict[str, list[Entry]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    bases: tuple[Path, ...] = ()
    keypoints: tuple[int, int] | None = None


def find_yaml(root: Path) -> Path | None:
    """Find the YAML file of a data set: ``root`` itself, or the one in it that has names."""
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    found = sorted(files_in(root, ".yaml", ".yml"), key=lambda p: (p.stem.lower() != "data", p.name))
    for file in found:
        if file.stem.lower() == "data":
            return file  # whatever is in it: reading it gives the error
        try:
            document = _read_yaml(file)
        except DatasetError:
            continue
        if isinstance(document, dict) and "names" in document:
            return file
    return None


def read_data_yaml(file: Path, *, images_elsewhere: bool = False) -> Data:
    """Read ``data.yaml``.

    Args:
        file: to read.
        images_elsewhere: its folders needn't be there.

    Raises:
        DatasetError: it isn't one, or none of the folders that it names is there.
    """
    document = _read_yaml(file)
    if not isinstance(document, dict):
        raise DatasetError(f"{file}: holds {short(document)}, expected {EXPECTED}")
    base = document.get("path", "")
    bases = [file.parent]
    if isinstance(base, str) and base and "\0" not in base:
        found = _find(base, [file.parent])
        bases = [*([found] if found is not None and found.is_dir() else []), file.parent]
    names = _names_of(file, document, bases)
    splits: dict[str, list[Entry]] = {}
    broken: dict[str, str] = {}
    for key in [*_KEYS, *(key for key in document if isinstance(key, str) and key not in _KEYS)]:
        value = document.get(key)
        if not value or value in ("null", "~") or (key not in _KEYS and not _is_split(key, value, bases)):
            continue
        entries = value if isinstance(value, list) else [value]
        for entry in entries:
            if not isinstance(entry, str) or "\0" in entry:
                raise DatasetError(f"{file}: {key} is {short(entry)}, expected a folder or a list file")
            path = _find(entry, bases)
            if path is None:
                broken[key] = (
                    f"{file}: {key} is {short(entry)}, but there is no such folder or list (looked in "
                    f"{', '.join(map(str, bases))}); correct it, or path"
                )
            # "/" would mean every image of the machine
            elif path.is_dir() and real_path(path) in real_path(file.parent).parents:
                raise DatasetError(f"{file}: {key} is {short(entry)}, a folder above the data set; correct it")
            else:
                splits.setdefault(key, []).append(Entry(path))
    if not splits and broken and not images_elsewhere:
        raise DatasetError(next(iter(broken.values())))
    if not splits and not broken:
        raise DatasetError(f"{file}: has none of train, val and test; expected {EXPECTED}")
    return Data(names, splits, broken, tuple(bases), _keypoints(document.get("kpt_shape")))


def _is_split(key: str, value: object, bases: Sequence[Path]) -> bool:
    """Whether an entry of ``data.yaml`` under another name names a folder of images, as ``other: images/other``."""
    if key in RESERVED or not isinstance(value, str) or "/" not in value or "://" in value or "\0" in value:
        return False
    path = _find(value, bases[-1:]) if not _FOREIGN.match(value) else None
    return path is not None and path.is_dir()


def read_data_file(home: Path) -> Data:
    """Read darknet's ``obj.data`` (CVAT's "YOLO 1.1" has it), or lists called ``train.txt``; or nothing."""
    fields: dict[str, str] = {}
    for file in files_near_top(home, ".data")[:1]:
        lines = read_text(file, "darknet's lines of name = value", _MAX_YAML_BYTES).splitlines()
        pairs = [line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#")]
        fields = {key.strip().lower(): value.strip() for key, _, value in pairs}
    splits: dict[str, list[Entry]] = {}
    broken: dict[str, str] = {}
    for key in _KEYS:
        if fields.get(key):
            path = _find(fields[key], [home])
            if path is None:
                broken[key] = f"{home}: {key} is {short(fields[key])}, but there is no such list; correct it"
            else:
                splits[key] = [Entry(path)]
    names = None
    if fields.get("names") and (path := _find(fields["names"], [home])) is not None and path.is_file():
        names = read_names(path)
    if not splits:
        for file in files_in(home, ".txt"):
            split = split_of_name(file.stem)
            if split and _is_list(file):
                splits[split] = [Entry(file)]
    return Data(names, splits, broken if splits else {}, (home,))


def read_names(file: Path) -> dict[int, str]:
    """Read a list of classes, one a line.

    Raises:
        DatasetError: it is empty, a name comes twice, or a line between names is blank.
    """
    text = read_text(file, "the name of one class a line", _MAX_YAML_BYTES)
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:  # some programs count it, and some don't: classes would be mixed up
        raise DatasetError(
            f"{file}: line {lines.index('') + 1} is blank, so the numbers of the classes behind it aren't certain; "
            "name a class there, or remove the line"
        )
    return _names(file, lines)


def _is_list(file: Path) -> bool:
    """Whether the first line of a text file is the name of an image."""
    first = read_head(file, 4096).lstrip().partition("\n")[0].strip()
    return Path(first.replace("\\", "/")).suffix.lower() in IMAGE_EXTENSIONS


def _read_yaml(file: Path) -> Any:
    try:
        # BaseLoader makes texts, lists and dictionaries only: nothing is executed, and a class "no" stays "no".
        text = read_text(file, EXPECTED, _MAX_YAML_BYTES)
        return whole_text(yaml.load(text, Loader=yaml.BaseLoader))  # noqa: S506 (makes no objects)
    except (yaml.YAMLError, RecursionError, ValueError, OSError) as error:
        if isinstance(error, DatasetError):
            raise
        detail = " ".join(str(error).split())[:200]
        raise DatasetError(f"{file}: not YAML ({detail}); expected {EXPECTED}") from None


def _names_of(file: Path, document: dict[str, Any], bases: Sequence[Path]) -> dict[int, str] | None:
    listed = document.get("names")
    if isinstance(listed, str) and listed.strip() and "\0" not in listed:
        path = _find(listed, bases)
        if path is not None and path.is_file():
            return read_names(path)
    if listed is None and "nc" in document:
        return None
    return _names(file, listed)


def _names(file: Path, listed: object) -> dict[int, str]:
    """``[cat, dog]`` or ``{0: cat, 1: dog}``."""
    numbered: dict[int, object] | None = None
    if isinstance(listed, list):
        numbered = dict(enumerate(listed))
    elif isinstance(listed, dict):
        try:
            numbered = {int(key): listed[key] for key in sorted(listed, key=int)}
        except (TypeError, ValueError):
            numbered = None
    good = numbered and all(isinstance(n, str) and n.strip() for n in numbered.values()) and min(numbered) >= 0
    if not good or numbered is None:
        raise DatasetError(
            f"{file}: names is {short(listed)}, expected the names of the classes, as a list or numbered 0, 1, 2 ..."
        )
    names = {number: str(name).strip() for number, name in numbered.items()}
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise DatasetError(f"{file}: names has {short(name)} {count} times; give each class a name of its own")
    return names


def _keypoints(shape: object) -> tuple[int, int] | None:
    """``kpt_shape: [17, 3]``."""
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2:
        return None
    try:
        count, numbers = (int(value) for value in (*shape, 2)[:2])
    except (TypeError, ValueError):
        return None
    return (count, numbers) if 0 < count < 10_000 and numbers in (2, 3) else None


# --- folders and lists by their names --------------------------------------------------------------------------------


def _find(entry: str, bases: Sequence[Path]) -> Path | None:
    """The folder or list that an entry means: as it stands, in other case, or by its last parts.

    Exports often say ``../train/images`` though the folder is beside the file; and they name folders of the machine
    that they were made on.
    """
    text = entry.strip().replace("\\", "/")
    foreign = bool(_FOREIGN.match(text))
    if "*" in text.rpartition("/")[2]:  # images/train/*.jpg
        text = text.rpartition("/")[0] or "."
    if not foreign or text.startswith("/"):
        for base in bases:
            path = Path(os.path.normpath(base / text))
            if _is_entry(path):
                return path
    parts = [
        part for part in re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:/*", "", text).split("/") if part not in ("", ".", "..")
    ]
    tails = [parts]
    if foreign:
        here = name_key(bases[0].absolute().name)
        named = [parts[k:] for k in range(1, len(parts)) if name_key(parts[k - 1]) == here]  # below a folder like this
        tails = [parts[k:] for k in range(len(parts))]
        # "images" alone may be that of another split
        tails = [tail for tail in tails if len(tail) > 1 or tail[0].lower() not in ("images", "labels")] or tails
        tails = [*tails, *named]
    for tail in tails:
        for base in bases:
            found = _in_any_case(base, tail)
            if found is not None and _is_entry(found):
                return found
    # The name of the data set's folder may be all that is left
    return bases[0] if foreign and parts and name_key(bases[0].absolute().name) == name_key(parts[-1]) else None


def _is_entry(path: Path) -> bool:
    try:
        return path.is_dir() or path.is_file()
    except (OSError, ValueError):
        return False


def _in_any_case(base: Path, parts: Sequence[str]) -> Path | None:
    """``base`` with ``parts`` below it, each written as on the disk."""
    path = base
    for part in parts:
        try:
            exact = path / part
            if exact.exists():
                path = exact
                continue
            same = [entry for entry in sorted(path.iterdir()) if name_key(entry.name) == name_key(part)]
        except (OSError, ValueError):
            return None
        if len(same) != 1:
            return None
        path = same[0]
    return path if parts else None
