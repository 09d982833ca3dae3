"""Walking through folders, symbolic links included, without running in circles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["walk_files"]


def walk_files(folder: str | os.PathLike[str], *, unreadable: list[Path] | None = None) -> Iterator[Path]:
    """Every file in and below ``folder``; names that begin with a dot, and ``__MACOSX``, are left alone.

    Folders are walked in sorted order, the files of a folder before the folders in it. Links to folders are followed
    after all real folders, in sorted order. A folder that was walked before is not walked again, whatever leads to it:
    so links in a circle end.

    Args:
        folder: where to begin; it may be a link itself.
        unreadable: gets each folder that can't be read.
    """
    seen: set[tuple[int, int]] = set()
    links = [Path(folder)]
    while links:
        found: list[Path] = []
        for start in links:
            yield from _walk_real(start, seen, found, unreadable)
        links = sorted(found)


def _walk_real(
    start: Path, seen: set[tuple[int, int]], links: list[Path], unreadable: list[Path] | None
) -> Iterator[Path]:
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        files, folders = [], []
        try:
            status = folder.stat()
            mark = (status.st_dev, status.st_ino)
            if mark in seen and status.st_ino:  # some file systems number nothing
                continue
            seen.add(mark)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if not entry.is_dir():
                        files.append(entry.name)
                    elif entry.is_symlink():
                        links.append(folder / entry.name)
                    else:
                        folders.append(entry.name)
        except OSError:
            if unreadable is not None:
                unreadable.append(folder)
            continue
        yield from (folder / name for name in sorted(files))
        waiting += [folder / name for name in sorted(folders, reverse=True)]
