"""Files of which the program chooses the name, beside one that the user named: a mark in them says that they are ours.

The mark holds a digest of everything else in the file. So a file that somebody changed is not ours any more.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from pathlib import Path

from sppnet.errors import ArgumentError, InputFileError, OutputError
from sppnet.storage.atomic import write_bytes
from sppnet.storage.reading import read_regular

__all__ = ["is_ours", "write_beside"]

_LIMIT_BYTES = 256 << 20
_TEXT = b"written by sppnet, sha256 "
_COMMENTS = {
    ".jpg": re.compile(rb"\xff\xfe\x00\x5c" + _TEXT + rb"([0-9a-f]{64})"),
    ".png": re.compile(rb"\x00\x00\x00\x62tEXtComment\x00" + _TEXT + rb"([0-9a-f]{64}).{4}", re.DOTALL),
    ".xml": re.compile(rb"<!-- " + _TEXT + rb"([0-9a-f]{64}) -->\n"),
}


def write_beside(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file, but replace none that isn't ours: then it gets the next free name, ``NAME-2.png`` and so on.

    Args:
        path: the name that is wished for, ``.jpg``, ``.png`` or ``.xml``.
        data: a JPEG, PNG or XML file; a comment is put into it.

    Returns:
        Where the file is.

    Raises:
        ArgumentError: another extension.
        OutputError: it can't be written.
    """
    wish, number = Path(path), 2
    if wish.suffix not in _COMMENTS:
        raise ArgumentError(f"{wish}: expected a name ending in {', '.join(_COMMENTS)}")
    target = wish
    while os.path.lexists(target) and not is_ours(target):
        target, number = wish.with_name(f"{wish.stem}-{number}{wish.suffix}"), number + 1
        if number > 10_000:
            raise OutputError(f"{wish}: this name and {number} like it are taken; name another place")
    write_bytes(target, _marked(data, wish.suffix))
    return target


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether :func:`write_beside` wrote this file and nobody has changed it since."""
    file = Path(path)
    if file.is_symlink():
        return False
    try:
        data = read_regular(file, _LIMIT_BYTES)
    except (OSError, InputFileError):
        return False
    comment = _COMMENTS[file.suffix].search(data)
    if comment is None:
        return False
    rest = data[: comment.start()] + data[comment.end() :]
    return hashlib.sha256(rest).hexdigest().encode() == comment[1]


def _marked(data: bytes, suffix: str) -> bytes:
    text = _TEXT + hashlib.sha256(data).hexdigest().encode()
    if suffix == ".jpg":  # behind the first marker
        return data[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[2:]
    if suffix == ".png":  # before the last chunk
        body = b"tEXtComment\0" + text
        return data[:-12] + (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big") + data[-12:]
    return data + b"<!-- " + text + b" -->\n"
