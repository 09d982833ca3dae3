"""Where machine code is kept, and whose files are trusted.

Code that is loaded is run, so a folder counts only if its path is absolute, and if nobody but the user and the
administrator can write to it or to the file. Without such a folder kernels are compiled in memory: some seconds a
process. A disk that is full costs the same, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["folders", "read", "seal", "write"]

_LARGEST = 64 << 20  # bytes of a kernel; ours are some 100 KB
_DIGEST = 32


def folders() -> list[Path]:
    """Folders of compiled kernels, the first is tried first.

    ``SPPNET_KERNEL_CACHE`` names the only one. Otherwise they are ``__pycache__`` beside the source, and ``sppnet`` in
    the user's cache folder (``XDG_CACHE_HOME``, ``~/.cache``). A relative path is left out: it would depend on the
    folder in which the program runs.
    """
    if chosen := os.environ.get("SPPNET_KERNEL_CACHE"):
        found = [Path(chosen)]
    else:
        home = os.environ.get("XDG_CACHE_HOME", "")
        if not Path(home).is_absolute():
            home = os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118  # Path.home() may raise
        found = [Path(__file__).parent / "__pycache__", Path(home) / "sppnet"]
    return [folder for folder in found if folder.is_absolute()]


def read(name: str) -> bytes | None:
    """The machine code of that name from the first folder that has it whole and is trusted, None if none does."""
    for folder in folders():
        with suppress(OSError):
            if _trusted(folder.stat()) and (data := _read_file(folder / name)) is not None:
                return data
    return None


def seal(code: bytes) -> bytes:
    """What a file of this code holds: its digest, then the code."""
    return hashlib.sha256(code).digest() + code


def write(name: str, code: bytes) -> None:
    """Keep machine code under a name, in the first folder where that is possible; nothing happens if there is none.

    The file appears in one step, whoever else is reading or writing it.
    """
    for folder in folders():
        temporary = folder / f"{name}.{os.getpid()}.{threading.get_ident()}.part"
        try:
            if not folder.is_dir():
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir(mode=0o700, exist_ok=True)
            if not _trusted(folder.stat()):
                continue
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(seal(code))
            temporary.replace(folder / name)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            continue
        return


def _read_file(path: Path) -> bytes | None:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for somebody who writes to it
        return None
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size > _LARGEST or not _trusted(status):
            return None
        data = file.read(_LARGEST + 1)
    code = data[_DIGEST:]
    return code if seal(code) == data else None


def _trusted(status: os.stat_result) -> bool:
    """Whether nobody but this user and the administrator can write to the file or folder."""
    if os.name == "nt":  # permissions are lists there; the folders are the user's own
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
