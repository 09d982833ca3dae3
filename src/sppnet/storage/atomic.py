"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["stable_safetensors", "write_atomic"]

# Of whichever machine a temporary file is, or whether its process lives: after a day it is rubbish
_RUBBISH_S = 24 * 3600.0
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:4]
# .NAME-PROCESS-MACHINE+RANDOM.part.EXTENSION
_TEMPORARY = re.compile(r"\..*-(\d+)-([0-9a-f]{4})[0-9a-f]{8}\.part(\..*)?", re.DOTALL)

_swept: set[Path] = set()  # folders in which this process has looked for rubbish
_busy: set[str] = set()  # names of temporary files that this process is writing


@contextmanager
def write_atomic(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends well, else it is removed.

    Folders above ``path`` are made as needed. The temporary name keeps the extension, so that libraries that choose a
    format by it choose the right one. What is at ``path`` already stays untouched until it is replaced, in one step.
    The block may also make a folder of that name; then ``path`` may be at most an empty folder.

    The first time that a process writes into a folder, it removes what killed ones left there under temporary names.

    >>> with write_atomic("out/table.json") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("{}")

    Args:
        sync: the content is on the disk before the name is, so that not even a power cut leaves half a file. Without,
            thousands of small files are written faster; after a power cut one may be empty.

    Raises:
        OSError: the folder can't be made or written to, or the block wrote nothing.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    mark = f"{os.getpid()}-{_MACHINE}{secrets.token_hex(4)}"
    temporary = target.with_name(f".{target.stem[:40]}-{mark}.part{target.suffix}")
    _busy.add(temporary.name)
    try:
        yield temporary
        if temporary.is_dir():
            if target.is_dir():
                target.rmdir()
        elif sync:
            _to_disk(temporary)
        os.replace(temporary, target)
    except BaseException:
        _remove(temporary)
        raise
    finally:
        _busy.discard(temporary.name)


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
                raise


def _sweep(folder: Path) -> None:
    """Remove temporary files of processes that are gone; once a process and folder."""
    folder = folder.absolute()
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and entry.name not in _busy:
                with contextlib.suppress(OSError):
                    old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _RUBBISH_S
                    if old or (match[2] == _MACHINE and not _lives(int(match[1]))):
                        _remove(Path(entry.path))


def _lives(process: int) -> bool:
    """Whether the process may still be writing. One of our own number isn't: what we are writing is known."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # there os.kill kills
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def stable_safetensors(data: bytes) -> bytes:
    """A safetensors file as ``safetensors.torch.save`` gives it, the same each time.

    The library writes the entries of the metadata in an order that differs from call to call. Here they are sorted.
    """
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
