"""An append-only log: a change is on the disk before it is acknowledged.

Each line is one JSON object with a sequence number. A line that a kill cut off is dropped when the log is opened.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sppnet.errors import DatasetError

__all__ = ["AppendLog"]

_KIND = "sppnet-studio-log-1"
# A line holds the boxes of one image; a damaged file must not fill the memory.
_MAX_LINE_BYTES = 16 << 20


class AppendLog:
    """A file of JSON lines that only grows.

    Args:
        path: of the log. It is created if it is missing.

    Attributes:
        sequence: number of the last entry, 0 where there is none.

    Raises:
        DatasetError: the file is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sequence = 0
        end = 0
        for stop, entry in self._scan():
            end = stop
            self.sequence = max(self.sequence, int(entry.get("seq", 0)))
        self._file = path.open("ab", buffering=0)
        self._end = end  # of what is known to be whole
        if end == 0:
            self._write([{"log": _KIND}])

    def entries(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Give the entries with a number above ``after``, in order."""
        for _, entry in self._scan():
            if int(entry.get("seq", 0)) > after:
                yield entry

    def append(self, entry: dict[str, Any]) -> int:
        """Write ``entry`` and wait until it is on the disk. Returns its number.

        Raises:
            OSError: it could not be written; the log is as it was.
        """
        return self.append_all([entry])

    def append_all(self, entries: Sequence[dict[str, Any]]) -> int:
        """Write ``entries``, all or none, and wait until they are on the disk. Returns the number of the last.

        Raises:
            OSError: they could not be written; the log is as it was.
        """
        numbered = [entry | {"seq": self.sequence + k} for k, entry in enumerate(entries, 1)]
        self._write(numbered)
        self.sequence += len(numbered)
        return self.sequence

    def restart(self) -> None:
        """Empty the log, keeping the numbers going. Call it only when the entries are kept elsewhere."""
        self._file.truncate(0)
        self._end = 0
        self._write([{"log": _KIND, "seq": self.sequence}])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, entries: Sequence[dict[str, Any]]) -> None:
        lines = (json.dumps(entry, separators=(",", ":"), ensure_ascii=True).encode() + b"\n" for entry in entries)
        rest = memoryview(b"".join(lines))
        end = self._end + len(rest)
        self._cut()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]  # a full disk takes a part of it
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # then the next one begins with it
                self._cut()
            raise
        self._end = end

    def _cut(self) -> None:
        """Remove what a failed write, or a kill, left behind the last whole entry."""
        if os.fstat(self._file.fileno()).st_size > self._end:
            self._file.truncate(self._end)

    def _scan(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Where each whole line ends, and its content."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            end = 0
            while line := file.readline(_MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    return
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = None
                if end == 0 and not (isinstance(entry, dict) and entry.get("log") == _KIND):
                    raise DatasetError(f"{self.path}: is not a log of sppnet studio; move it away")
                end += len(line)
                yield end, entry if isinstance(entry, dict) else {}
