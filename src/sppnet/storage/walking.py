"""Walking through folders, symbolic links included, without running in circles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sppnet.storage.output_folder import LIST_NAME, OutputFolder

__all__ = ["files_in", "files_near_top", "folders_in", "walk_files"]

_DRAWN = (".jpg", ".jpeg", ".png")  # images that are written into such folders are drawn ones


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """List the files right in ``folder`` with one of these extensions (lower case; files may have any), sorted.

    Names that begin with a dot are left alone: macOS puts ``._a.txt`` beside ``a.txt``.

    Args:
        folder: where to look. One that is missing or can't be read has no files.
        suffixes: with their dots.
    """
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    return [
        path for path in found
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and not path.is_dir()
    ]  # fmt: skip


def folders_in(folder: Path) -> list[Path]:
    """List the folders right in ``folder``, sorted; those of the system (``.git``, ``__MACOSX``) are left alone."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in found if not path.name.startswith(".") and path.name != "__MACOSX" and path.is_dir()]


def files_near_top(root: Path, *suffixes: str) -> list[Path]:
    """List the files with one of these extensions in ``root``, then those in the folders right below it.

    Args:
        root: where to look.
        suffixes: with their dots, lower case.
    """
    return [file for folder in (root, *folders_in(root)) for file in files_in(folder, *suffixes)]


def walk_files(folder: str | os.PathLike[str], *, unreadable: list[Path] | None = None) -> Iterator[Path]:
    """Every file in and below ``folder``; names that begin with a dot, and ``__MACOSX``, are left alone.

    So are images that sppnet drew, by the list of their folder (:class:`sppnet.storage.output_folder.OutputFolder`):
    a later run must not take them for new ones.

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
        files, folders, listed = [], [], False
        try:
            status = folder.stat()
            mark = (status.st_dev, status.st_ino)
            if mark in seen and status.st_ino:  # some file systems number nothing
                continue
            seen.add(mark)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        listed |= entry.name == LIST_NAME
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
        if listed:
            ours = OutputFolder(folder)
            files = [name for name in files if not (name.lower().endswith(_DRAWN) and ours.owns(name))]
        yield from (folder / name for name in sorted(files))
        waiting += [folder / name for name in sorted(folders, reverse=True)]
