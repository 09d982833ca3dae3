"""Images that come to a project later: files, zip archives and videos. Nothing outside the folder is ever written."""

from __future__ import annotations

import os
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from sppnet.datasets.video import is_video, write_frames
from sppnet.errors import ArgumentError, SppnetError
from sppnet.images import IMAGE_EXTENSIONS, image_size
from sppnet.storage.atomic import write_atomic
from sppnet.storage.names import real_path

__all__ = ["Added", "AddingLimits", "add_file", "safe_name"]

_CHUNK_BYTES = 1 << 20
_FORBIDDEN = set('<>:"|?*\\')  # not allowed in names of files on some systems
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class AddingLimits:
    """What is taken at most.

    Attributes:
        image_bytes: of one image.
        archive_bytes: of all images of an archive, unpacked.
        archive_files: files of an archive.
        frames: of a video.
        every_s: seconds from a frame to the next.
        free_bytes: that stay free on the disk.
    """

    image_bytes: int = 512 << 20
    archive_bytes: int = 16 << 30
    archive_files: int = 100_000
    frames: int = 5000
    every_s: float = 1.0
    free_bytes: int = 256 << 20


@dataclass
class Added:
    """What became of files: ``names`` are now in the folder, ``skipped`` says of each other one why it is not."""

    names: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def safe_name(name: str) -> PurePosixPath:
    """Make a name below the folder from one that came from elsewhere.

    Args:
        name: with forward or backward slashes, such as a browser or an archive gives.

    Returns:
        A relative path that is allowed on all systems.

    Raises:
        ArgumentError: it is empty, absolute, hidden, too long, or leads upwards.
    """
    shown = repr(name[:80])
    text = unicodedata.normalize("NFC", name).replace("\\", "/")
    if text.startswith("/") or text[1:2] == ":":
        raise ArgumentError(f"{shown}: is an absolute path")
    parts = []
    for part in text.split("/"):
        if part in ("", "."):
            continue
        if part == ".." or part.startswith("."):
            raise ArgumentError(f"{shown}: leads elsewhere or is hidden")
        clean = "".join("_" if c in _FORBIDDEN or unicodedata.category(c)[0] == "C" else c for c in part).rstrip(". ")
        if not clean or clean.split(".")[0].casefold() in _RESERVED:
            clean = f"_{clean}"
        parts.append(clean)
    if not parts:
        raise ArgumentError(f"{shown}: is no name")
    if len(parts) > 16 or any(len(part.encode("utf-8", "replace")) > 200 for part in parts):
        raise ArgumentError(f"{shown}: is too long")
    return PurePosixPath(*parts)


def add_file(folder: Path, name: str, file: Path, limits: AddingLimits | None = None) -> Added:
    """Take a file into the folder: an image as it is, the images of a zip archive, the frames of a video.

    What is in the folder is never replaced: a file of the same name and content is skipped, one of another content gets
    a number.

    Args:
        folder: of the project.
        name: of the file, where it came from.
        file: the file itself. It stays.
        limits: what is taken at most.

    Returns:
        What was taken and what was not.

    Raises:
        ArgumentError: nothing of it can be taken; the message says why.
    """
    limits = limits or AddingLimits()
    path = safe_name(name)
    added = Added()
    if path.suffix.lower() == ".zip":
        _unpack(folder, path, file, limits, added)
    elif is_video(path):
        _take_frames(folder, path, file, limits, added)
    elif path.suffix.lower() in IMAGE_EXTENSIONS:
        with file.open("rb") as stream:
            _take(folder, path, stream, file.stat().st_size, limits, added)
    else:
        added.skipped.append((name, "is no image, video or zip archive"))
    return added


def _take(folder: Path, path: PurePosixPath, stream: IO[bytes], size: int, limits: AddingLimits, added: Added) -> int:
    """Write an image into the folder, if it is one. Returns its bytes."""
    name = path.as_posix()
    if size > limits.image_bytes:
        added.skipped.append((name, f"has more than {limits.image_bytes >> 20} MB"))
        return 0
    if shutil.disk_usage(folder).free - size < limits.free_bytes:
        raise ArgumentError("the disk is nearly full; make room, then add the rest")
    target = folder / path
    _inside(folder, target)
    with _scratch(target) as scratch:
        count = 0
        with scratch.open("wb") as out:
            while chunk := stream.read(_CHUNK_BYTES):
                count += len(chunk)
                if count > limits.image_bytes:  # whatever the archive said
                    added.skipped.append((name, f"has more than {limits.image_bytes >> 20} MB"))
                    return count
                out.write(chunk)
        try:
            image_size(scratch)
        except SppnetError:
            added.skipped.append((name, "can't be read as an image"))
            return count
        place = _free_place(target, scratch)
        if place is None:
            added.skipped.append((name, "is there already"))
            return count
        with write_atomic(place) as temporary:
            scratch.replace(temporary)
        added.names.append(place.relative_to(folder).as_posix())
    return count


class _scratch:  # noqa: N801 - used as a function
    """A file beside the target while it is being checked; gone at the end."""

    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path = target.with_name(f".adding-{os.getpid()}-{id(self):x}{target.suffix.lower()}")

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.path.unlink(missing_ok=True)


def _inside(folder: Path, target: Path) -> None:
    """Refuse a target that a link inside the folder leads out of it."""
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    if not real_path(parent).is_relative_to(real_path(folder)):
        raise ArgumentError(f"{target.name!r:.80}: a link leads out of the folder there")


def _free_place(target: Path, content: Path) -> Path | None:
    """A name that nothing has yet; None where the same content is there already."""
    for k in range(1000):
        place = target if not k else target.with_name(f"{target.stem} ({k + 1}){target.suffix}")
        if not os.path.lexists(place):
            return place
        if place.is_file() and place.stat().st_size == content.stat().st_size and _same(place, content):
            return None
    raise ArgumentError(f"{target.name!r:.80}: there are a thousand files of this name")


def _same(a: Path, b: Path) -> bool:
    with a.open("rb") as first, b.open("rb") as second:
        while chunk := first.read(_CHUNK_BYTES):
            if chunk != second.read(_CHUNK_BYTES):
                return False
    return True


def _unpack(folder: Path, path: PurePosixPath, file: Path, limits: AddingLimits, added: Added) -> None:
    """Take the images of an archive; into a folder of its name where they lie at its top."""
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > limits.archive_files:
                raise ArgumentError(f"{path}: has more than {limits.archive_files} files")
            total = 0
            for item, name in _images_of(archive, added):
                try:
                    with archive.open(item) as stream:
                        total += _take(folder, path.with_suffix("") / name, stream, item.file_size, limits, added)
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                    added.skipped.append((name.as_posix(), f"is damaged or encrypted ({error})"[:120]))
                if total > limits.archive_bytes:
                    raise ArgumentError(
                        f"{path}: holds more than {limits.archive_bytes >> 30} GB; the rest was left out"
                    )
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        if isinstance(error, SppnetError):
            raise
        raise ArgumentError(f"{path}: can't be read as a zip archive ({error}); make it again") from None


def _images_of(archive: zipfile.ZipFile, added: Added) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    for item in archive.infolist():
        if item.is_dir() or item.filename.startswith("__MACOSX/"):
            continue
        if stat.S_ISLNK(item.external_attr >> 16):
            added.skipped.append((item.filename[:200], "is a link"))
            continue
        try:
            name = safe_name(item.filename)
        except ArgumentError as error:
            added.skipped.append((item.filename[:200], str(error).partition(": ")[2]))
            continue
        if name.suffix.lower() in IMAGE_EXTENSIONS:
            yield item, name
        else:
            added.skipped.append((name.as_posix(), "is no image"))


def _take_frames(folder: Path, path: PurePosixPath, file: Path, limits: AddingLimits, added: Added) -> None:
    """Write the frames of a video into a folder of its name."""
    home = folder / path.with_suffix("")
    _inside(folder, home / "frame")
    named = file.with_name(path.name)
    if named != file:  # frames are called by the video
        file.rename(named)
    try:
        for frame in write_frames(named, home, limits.every_s, limit=limits.frames):
            added.names.append(frame.relative_to(folder).as_posix())
            if shutil.disk_usage(folder).free < limits.free_bytes:
                raise ArgumentError("the disk is nearly full; make room, then add the rest")
    except SppnetError as error:
        if not added.names:
            raise ArgumentError(str(error).replace(str(named), path.as_posix())) from None
        added.skipped.append((path.as_posix(), str(error).replace(str(named), path.name)[:200]))
    finally:
        if named != file:
            named.rename(file)
