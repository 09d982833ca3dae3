"""The hidden folder beside the images, where the studio keeps its log and snapshots. One studio opens it at a time."""

from __future__ import annotations

import contextlib
import os
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
        DatasetError: it can't be made, a link in it leads elsewhere, or another studio has it open.
    """
    state = folder / _FOLDER
    with writing_to(state):
        if state.is_symlink() and not (state / _MARK).is_file():
            raise DatasetError(f"{state}: is a link to a folder that isn't the studio's; remove the link")
        _refuse_links(state, deep=False)
        state.mkdir(exist_ok=True)
        (state / _MARK).touch()
    lock = FileLock(state / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DatasetError(f"{folder}: another studio has this folder open; close that one first") from None
    try:
        with writing_to(state):
            _refuse_links(state, deep=True)
    except DatasetError:
        lock.release()
        raise
    return state, lock


def _refuse_links(state: Path, *, deep: bool) -> None:
    """Refuse a folder that was unpacked or copied with links in it: what the studio writes would land elsewhere."""
    folders = [state] if state.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise DatasetError(f"{entry.path}: is a link, and the studio would write where it leads; remove it")
                if deep and entry.is_dir():
                    folders.append(Path(entry.path))


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
