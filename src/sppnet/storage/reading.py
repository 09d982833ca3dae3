"""Open files that others made: regular files only, of a bounded size, looked at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

from sppnet.errors import InputFileError, SppnetError

__all__ = ["FileState", "file_state", "open_regular", "read_regular"]

FileState = tuple[int, int]
"""What changes when a file does: its size in bytes, and the time of its last change in nanoseconds."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(
    path: str | os.PathLike[str], limit_bytes: int, *, error: type[SppnetError] = InputFileError
) -> BinaryIO:
    """Open a regular file for reading; pipes, devices, sockets and folders are refused without waiting for them.

    Symbolic links to regular files are followed. A file may grow after it was opened: read no more than
    ``limit_bytes``, as :func:`read_regular` does.

    Args:
        path: the file.
        limit_bytes: the largest size that is accepted.
        error: the class of error that is raised for what is refused.

    Returns:
        The file, at its beginning.

    Raises:
        SppnetError: of the class ``error``: not a regular file, larger than ``limit_bytes``, or an impossible name.
        OSError: it is missing or can't be opened.
    """
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        _check(path, Path(path).stat(), limit_bytes, error)  # opening a device may do something by itself
        descriptor = os.open(path, flags)
    except ValueError as wrong:
        if isinstance(wrong, SppnetError):
            raise
        raise error(f"{os.fspath(path)!r}: is no file name ({wrong}); check the name") from None
    try:
        _check(path, os.fstat(descriptor), limit_bytes, error)
        return cast(BinaryIO, os.fdopen(descriptor, "rb"))
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], limit_bytes: int, *, error: type[SppnetError] = InputFileError) -> bytes:
    """Read a whole regular file; see :func:`open_regular`.

    Args:
        path: the file.
        limit_bytes: the largest size that is accepted, also of a file that grows while it is read.
        error: the class of error that is raised for what is refused.

    Returns:
        The content.

    Raises:
        SppnetError: of the class ``error``, as :func:`open_regular`.
        OSError: it is missing or can't be read.
    """
    with open_regular(path, limit_bytes, error=error) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise error(f"{os.fspath(path)}: has more than {_size(limit_bytes)}, the most that is read")
    return data


def file_state(file: str | os.PathLike[str] | BinaryIO) -> FileState:
    """Say what changes when a file does.

    Args:
        file: a path; or an open file, whose state is that of what is read, whatever is put under its name meanwhile.

    Raises:
        OSError: it is missing.
    """
    status = Path(file).stat() if isinstance(file, str | os.PathLike) else os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _check(path: str | os.PathLike[str], status: os.stat_result, limit_bytes: int, error: type[SppnetError]) -> None:
    name = os.fspath(path)
    if not stat.S_ISREG(status.st_mode):
        what = next((what for is_such, what in _KINDS if is_such(status.st_mode)), "something else")
        raise error(f"{name}: is {what}, expected a regular file; save it to a file first")
    if status.st_size > limit_bytes:
        raise error(f"{name}: has {_size(status.st_size)}, expected at most {_size(limit_bytes)}; split it")


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
