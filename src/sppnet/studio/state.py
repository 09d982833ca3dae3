"""The hidden folder beside the images, where the studio keeps its log and snapshots. One studio opens it at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from sppnet.errors import DatasetError

__all__ = ["open_state", "writing_to"]

_FOLDER = ".sppnet-studio"
_MARK = "made-by-sppnet-studio"


def open_state(folder: Path) -> tuple[Path, FileLock]:
    """Make the folder in ``folder``, if it is missing, and lock it.

    Returns:
        The folder, and the lock to release at the end.

    Raises:
        DatasetError: it can't be made, or another studio has it open.
    """
    state = folder / _FOLDER
    with writing_to(state):
        state.mkdir(exist_ok=True)
        (state / _MARK).touch()
    lock = FileLock(state / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DatasetError(f"{folder}: another studio has this folder open; close that one first") from None
    return state, lock


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an error that names the place and what to do.

    Raises:
        DatasetError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"{path}: can't be written ({error.strerror}); the studio keeps labels beside the images, so copy them "
            "to a folder that you may write to"
        ) from None
