"""Folders that many files are written to: only what we wrote, and nobody changed since, is replaced or removed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Collection
from io import BufferedReader
from pathlib import Path
from typing import cast

from sppnet.errors import ArgumentError, OutputError
from sppnet.storage.atomic import Buffer, write_bytes
from sppnet.storage.names import real_path
from sppnet.storage.reading import open_regular

__all__ = ["LIST_NAME", "OutputFolder"]

LIST_NAME = ".sppnet-files"
"""The file, in each such folder, that lists what was written: JSON Lines of name, size and SHA-256."""

_LIST_BYTES = 1 << 30
_HEADER = b'{"sppnet-files": 1}\n'


class OutputFolder:
    """A folder for files of which the user names only the folder.

    A file is ours if it has a size and SHA-256 that the list of the folder has for its name. Everything else is
    the user's: it is never replaced or removed. Threads may share an object, and processes a folder.

    Args:
        folder: made, and its list with it, when the first file is written.

    Raises:
        OutputError: there is a file of that name.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"{self.folder}: is a file, expected a folder; name another")
        self._written: dict[str, set[tuple[int, str]]] = {}
        self._read_to = 0
        self._lock = threading.Lock()

    @classmethod
    def make(cls, folder: str | os.PathLike[str]) -> OutputFolder:
        """Make the folder, if it is missing, before any work is done for it.

        Raises:
            ArgumentError: there is a file of that name, or it can't be made.
        """
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArgumentError(
                f"{folder}: can't be used as a folder for output ({error.strerror}); name another"
            ) from error
        return cls(folder)

    def owns(self, name: str, *, certain: bool = False) -> bool:
        """Whether the file ``name`` is there and ours.

        Args:
            name: of the file, below the folder, with forward slashes.
            certain: compare the content too, not only the size.
        """
        path, known = self._path(name), self._known(name)
        if not known or path.is_symlink() or not path.is_file():
            return False
        size = path.stat().st_size
        if size not in {length for length, _ in known}:
            return False
        if not certain:
            return True
        with open_regular(path, size) as file:
            return (size, hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()) in known

    def holds(self, name: str, digest: str) -> bool:
        """Whether the file ``name`` is there, ours, and has the SHA-256 ``digest``."""
        path = self._path(name)
        sizes = {size for size, other in self._known(name) if other == digest}
        if path.is_symlink() or not path.is_file() or path.stat().st_size not in sizes:
            return False
        size = path.stat().st_size
        if not any(length == size and other != digest for length, other in self._known(name)):
            return True
        with open_regular(path, size) as file:  # another version of it had the same size
            return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest() == digest

    def free_name(self, name: str, taken: Collection[str] = ()) -> str:
        """Give ``name``, or ``STEM-2.EXTENSION`` and so on where a file of the user's has it.

        Args:
            name: the wish, below the folder, with forward slashes.
            taken: names that are not free either, in lower case.
        """
        path, number = Path(name), 2
        wish = name
        while wish.lower() in taken or (self._exists(wish) and not self.owns(wish)):
            wish = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
            number += 1
        return wish

    def write(self, name: str, data: Buffer, *, sync: bool = False) -> Path:
        """Write a file in one step; one of ours is replaced.

        Args:
            name: below the folder, with forward slashes.
            data: the content.
            sync: see :func:`sppnet.storage.atomic.write_atomic`.

        Returns:
            Where the file is.

        Raises:
            OutputError: a file of the user's has this name, or it can't be written.
        """
        path = self._path(name)
        if self._exists(name) and not self.owns(name, certain=True):
            raise OutputError(
                f"{path}: is there already, and sppnet didn't write it (or it was changed since); move it away, or "
                "name another folder"
            )
        # listed first: a kill between the two leaves an entry too many, never a file that we wouldn't know
        self._note(name, len(data), hashlib.sha256(data).hexdigest())
        write_bytes(path, data, sync=sync)
        return path

    def remove(self, name: str) -> bool:
        """Remove the file ``name`` if it is ours; whether it was."""
        if not self.owns(name, certain=True):
            return False
        self._path(name).unlink(missing_ok=True)
        return True

    def _exists(self, name: str) -> bool:
        return os.path.lexists(self._path(name))

    def _path(self, name: str) -> Path:
        """Where the file is; refuses names that lead out of the folder, also by way of links."""
        path = self.folder / name
        if ".." in Path(name).parts or not real_path(path.parent).is_relative_to(real_path(self.folder)):
            raise OutputError(f"{name}: leads out of the folder {self.folder}; rename it")
        return path

    def _known(self, name: str) -> set[tuple[int, str]]:
        with self._lock:
            self._read()
            return self._written.get(name, set())

    def _note(self, name: str, size: int, digest: str) -> None:
        with self._lock:
            self._read()
            if (size, digest) in self._written.get(name, set()):
                return
            path = self.folder / LIST_NAME
            line = json.dumps({"name": name, "size": size, "sha256": digest}).encode() + b"\n"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
                descriptor = os.open(path, flags, 0o666)
                try:
                    length = os.fstat(descriptor).st_size
                    if length and os.read(descriptor, len(_HEADER)) != _HEADER:
                        raise OutputError(f"{path}: is no list of sppnet; move it away, or name another folder")
                    data = (b"" if length else _HEADER) + line
                    if length and os.lseek(descriptor, -1, os.SEEK_END) >= 0 and os.read(descriptor, 1) != b"\n":
                        data = b"\n" + data  # a line that was cut off
                    if os.write(descriptor, data) != len(data):  # in one call, so that lines of two runs don't mix
                        raise OSError(errno.ENOSPC, "No space left on device")
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise OutputError(
                    f"{path}: can't be written ({error.strerror or error}); free some space, or name another folder"
                ) from error
            self._written.setdefault(name, set()).add((size, digest))

    def _read(self) -> None:
        """Lines that were added since the last time. What is no line of ours is left out."""
        path = self.folder / LIST_NAME
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_size <= self._read_to:
                return
            with open_regular(path, _LIST_BYTES) as file:
                file.seek(self._read_to)
                data = file.read(_LIST_BYTES)
            end = data.rfind(b"\n") + 1
            self._read_to += end
            for text in data[:end].splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    line = json.loads(text)
                    known = self._written.setdefault(str(line["name"]), set())
                    known.add((int(line["size"]), str(line["sha256"])))
