"""What is done already, a line at a time, so that work on thousands of images may be killed at any moment."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from sppnet.errors import ArgumentError, OutputError
from sppnet.storage.reading import read_regular

__all__ = ["Journal", "JournalError", "identity_of"]

_KIND = "sppnet-journal-1"
_LIMIT_BYTES = 4 << 30
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def identity_of(*parts: object) -> str:
    """A hash of everything that results depend on; bytes are hashed as they are, the rest by its ``repr``."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


class JournalError(OutputError):
    """Progress can't be saved. The message names the journal."""


class Journal:
    """A file of JSON Lines: a header, then a line for each finished item.

    A line that a kill cut off is dropped, and what is written next begins on a line of its own. While it is open a
    lock beside it, ``.NAME.lock``, keeps other runs from it, and from removing it.

    Args:
        path: created if it isn't there. A journal of another identity is begun anew.
        identity: see :func:`identity_of`.
        fresh: forget what is in it.
        keep_other: refuse one of another identity with something in it, instead of beginning it anew.
        elsewhere: how to have the journal somewhere else, for messages.

    Attributes:
        done: records by key, as they were found in the file.
        note: why it was begun anew, or empty.

    Raises:
        ArgumentError: the file is something else, or another process is writing it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: str,
        *,
        fresh: bool = False,
        keep_other: bool = False,
        elsewhere: str = "name another journal",
    ) -> None:
        self.path = Path(path)
        self._elsewhere = elsewhere
        self.done: dict[str, dict[str, Any]] = {}
        self.note = ""
        if self.path.is_dir():
            raise ArgumentError(f"{self.path}: is a folder, expected a journal; {elsewhere}")
        if self.path.is_symlink():
            raise ArgumentError(f"{self.path}: is a link, expected a journal; {elsewhere}")
        lock = self.path.with_name(f".{self.path.name}.lock")
        if lock.is_symlink() or (lock.exists() and not (lock.is_file() and lock.stat().st_size == 0)):
            raise ArgumentError(f"{lock}: is in the way, and isn't a lock of sppnet; move it away")
        self._lock = FileLock(lock, timeout=0)
        try:
            self._lock.acquire()
        except Timeout:  # which is an OSError, too
            raise ArgumentError(f"{self.path}: another run is writing it; wait for that one, or {elsewhere}") from None
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._file: FileIO = self._open(identity, fresh, keep_other)
        except BaseException:
            self._unlock()
            raise

    def _open(self, identity: str, fresh: bool, keep_other: bool) -> FileIO:
        header = {"journal": _KIND, "identity": identity}
        lines, size = self._read()
        known = bool(lines) and lines[0].get("journal") == _KIND
        if not known and self.path.is_file() and self.path.stat().st_size:
            raise ArgumentError(f"{self.path}: exists and isn't a journal of sppnet; {self._elsewhere}")
        same = known and lines[0].get("identity") == identity
        if known and not same and not fresh and keep_other and len(lines) > 1:
            raise ArgumentError(
                f"{self.path}: holds the progress of a run with another model, version or settings; take the same "
                f"ones, begin anew (--fresh, in Python fresh=True), or {self._elsewhere}"
            )
        try:
            file = self.path.open("r+b" if self.path.exists() else "x+b", buffering=0)
        except OSError as error:
            raise self._failed(error) from error
        if same and not fresh:
            self.done = {line["key"]: line for line in lines[1:] if isinstance(line.get("key"), str)}
        else:
            if known and not fresh:
                self.note = f"{self.path} is of another model, version or settings: everything is done anew"
            try:
                file.truncate(0)
                size = self._put(file, 0, (json.dumps(header) + "\n").encode())
            except OutputError:
                file.close()
                raise
        file.truncate(size)
        file.seek(size)
        return file

    def append(self, key: str, record: dict[str, Any]) -> None:
        """Write that ``key`` is done; it is in the file when this returns."""
        line = (json.dumps({"key": key} | record, allow_nan=False) + "\n").encode()
        self._put(self._file, self._file.tell(), line)

    def _put(self, file: FileIO, start: int, data: bytes) -> int:
        """Write ``data`` at ``start``, whole or not at all, and give where it ends."""
        written = 0
        try:
            while written < len(data):
                written += file.write(data[written:]) or 0
        except OSError as error:
            with contextlib.suppress(OSError):
                file.truncate(start)
                file.seek(start)
            raise self._failed(error) from error
        return start + written

    def _failed(self, error: OSError) -> JournalError:
        what = error.strerror or str(error)
        advice = self._elsewhere
        if error.errno in _NO_ROOM:
            advice = f"free some space, which keeps what is done, or {advice}"
        return JournalError(f"{self.path}: progress can't be saved ({what}); {advice}")

    def close(self, *, remove: bool = False) -> None:
        """Close the file, and remove it where all is done."""
        self._file.close()
        if remove and self._lock.is_locked:
            self.path.unlink(missing_ok=True)
        self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """Whole lines that are JSON objects, and where the last whole line ends."""
        try:
            data = read_regular(self.path, _LIMIT_BYTES, error=ArgumentError)
        except FileNotFoundError:
            return [], 0
        end = data.rfind(b"\n") + 1
        lines = []
        for text in data[:end].splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict):
                    lines.append(line)
        return lines, end

    def _unlock(self) -> None:
        if self._lock.is_locked:
            if os.name != "nt":  # there a file that is open can't be removed
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
