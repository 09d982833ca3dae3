"""Images that come to a project later: files, zip archives and videos. Nothing outside the folder is ever written."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from PIL import Image

from sppnet.datasets.video import frame_name, is_video, read_frames
from sppnet.errors import ArgumentError, SppnetError
from sppnet.images import IMAGE_EXTENSIONS, image_size
from sppnet.storage.atomic import scratch_file, write_atomic
from sppnet.storage.names import real_path
from sppnet.studio.archive_labels import LOCKED, NO_IMAGES, NO_LABELS, Entry, labels_of_archive, labels_of_files
from sppnet.studio.imported import ANNOTATION_SUFFIXES, ImportedLabels

__all__ = ["Added", "AddingLimits", "add_file", "add_labels", "safe_name", "take_frames"]

_CHUNK_BYTES = 1 << 20
_placing = threading.Lock()  # two requests may add files of one name: each looks for a free name and takes it
_FORBIDDEN = set('<>:"|?*\\')  # not allowed in names of files on some systems
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class AddingLimits:
    """What is taken at most.

    Attributes:
        image_bytes: of one image.
        archive_bytes: of all images of an archive, unpacked.
        archive_files: files of an archive.
        label_bytes: of all annotations of an archive, unpacked.
        frames: of a video.
        every_s: seconds from a frame to the next.
        free_bytes: that stay free on the disk.
    """

    image_bytes: int = 512 << 20
    archive_bytes: int = 16 << 30
    archive_files: int = 100_000
    label_bytes: int = 1 << 30
    frames: int = 5000
    every_s: float = 1.0
    free_bytes: int = 256 << 20


@dataclass
class Added:
    """What became of files: ``names`` are now in the folder, ``skipped`` says of each other one why it is not.

    ``place`` is where a single image is now, also if it was there already. ``labels`` are those that came with images.
    """

    names: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    labels: ImportedLabels | None = None
    place: str | None = None


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


def add_file(
    folder: Path, name: str, file: Path, limits: AddingLimits | None = None, known: Sequence[str] = ()
) -> Added:
    """Take a file into the folder: an image as it is, images and labels of a zip archive, the frames of a video.

    What is in the folder is never replaced: a file of the same name and content is skipped, one of another content gets
    a number.

    Args:
        folder: of the project.
        name: of the file, where it came from.
        file: the file itself. It stays.
        limits: what is taken at most.
        known: names of the images in the project; an archive of labels alone is about them.

    Returns:
        What was taken and what was not.

    Raises:
        ArgumentError: nothing of it can be taken; the message says why.
    """
    limits = limits or AddingLimits()
    path = safe_name(name)
    added = Added()
    if path.suffix.lower() == ".zip":
        _unpack(folder, path, file, limits, added, known)
    elif is_video(path):
        take_frames(folder, folder / path.with_suffix(""), path.as_posix(), file, limits, added)
    elif path.suffix.lower() in IMAGE_EXTENSIONS:
        with file.open("rb") as stream:
            _, place = _take(folder, path, stream, file.stat().st_size, limits, added)
            added.place = place.relative_to(folder).as_posix() if place is not None else None
    else:
        added.skipped.append((name, "is no image, video or zip archive"))
    return added


def add_labels(folder: Path, file: Path, limits: AddingLimits | None = None, known: Sequence[str] = ()) -> Added:
    """Read annotations of images that were added before. Nothing of them stays in the folder.

    Args:
        folder: of the project.
        file: see :func:`sppnet.studio.archive_labels.labels_of_files`.
        limits: what is taken at most.
        known: names of the images in the project; labels that come without images are about them.

    Returns:
        The labels, and what is none, with the reason.

    Raises:
        ArgumentError: the file is something else.
    """
    added = Added()
    most = (limits or AddingLimits()).label_bytes
    added.labels, left_out = labels_of_files(file, folder, safe_name, most, known)
    added.skipped += [*left_out, *added.labels.problems]
    return added


def _take(
    folder: Path, path: PurePosixPath, stream: IO[bytes], size: int, limits: AddingLimits, added: Added
) -> tuple[int, Path | None]:
    """Write an image into the folder, if it is one. Returns its bytes, and where it is now."""
    name = path.as_posix()
    if size > limits.image_bytes:
        added.skipped.append((name, f"has more than {limits.image_bytes >> 20} MB"))
        return 0, None
    if shutil.disk_usage(folder).free - size < limits.free_bytes:
        raise ArgumentError("the disk is nearly full; make room, then add the rest")
    target = folder / path
    _inside(folder, target)
    with scratch_file(target) as scratch:
        count = 0
        with scratch.open("wb") as out:
            while chunk := stream.read(_CHUNK_BYTES):
                count += len(chunk)
                if count > limits.image_bytes:  # whatever the archive said
                    added.skipped.append((name, f"has more than {limits.image_bytes >> 20} MB"))
                    return count, None
                out.write(chunk)
        try:
            image_size(scratch)
        except SppnetError:
            added.skipped.append((name, "can't be read as an image"))
            return count, None
        with _placing:
            place, there = _place_for(target, scratch)
            if not there:
                with write_atomic(place) as temporary:
                    scratch.replace(temporary)
        if there:
            added.skipped.append((name, "is there already"))
            return count, place
        added.names.append(place.relative_to(folder).as_posix())
    return count, place


def _inside(folder: Path, target: Path) -> None:
    """Refuse a target that a link inside the folder leads out of it."""
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    if not real_path(parent).is_relative_to(real_path(folder)):
        raise ArgumentError(f"{target.name!r:.80}: a link leads out of the folder there")


def _place_for(target: Path, content: Path) -> tuple[Path, bool]:
    """A name that nothing has yet, or one where the same content is there already; and which of the two."""
    for k in range(1000):
        place = target if not k else target.with_name(f"{target.stem} ({k + 1}){target.suffix}")
        if not os.path.lexists(place):
            return place, False
        if place.is_file() and place.stat().st_size == content.stat().st_size and _same(place, content):
            return place, True
    raise ArgumentError(f"{target.name!r:.80}: there are a thousand files of this name")


def _same(a: Path, b: Path) -> bool:
    with a.open("rb") as first, b.open("rb") as second:
        while chunk := first.read(_CHUNK_BYTES):
            if chunk != second.read(_CHUNK_BYTES):
                return False
    return True


def _unpack(
    folder: Path, path: PurePosixPath, file: Path, limits: AddingLimits, added: Added, known: Sequence[str]
) -> None:
    """Take images and labels of an archive; into a folder of its name."""
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > limits.archive_files:
                raise ArgumentError(f"{path}: has more than {limits.archive_files} files")
            images, others = _contents(archive, added)
            placed: dict[PurePosixPath, Path] = {}
            try:
                _unpack_images(archive, images, folder, path, limits, added, placed)
            except ArgumentError as error:
                if not placed:
                    raise
                added.skipped.append((path.as_posix(), str(error).removeprefix(f"{path}: ")))
            annotations = [entry for entry in others if entry[1].suffix.lower() in ANNOTATION_SUFFIXES]
            unknown = ""
            try:
                found = labels_of_archive(archive, annotations, placed, folder, file.parent, limits.label_bytes, known)
                unknown = NO_LABELS if placed or (found is None and known) else NO_IMAGES
                added.labels = found if placed or (found is not None and found.boxes) else None
            except ArgumentError as error:
                added.skipped.append((path.as_posix(), str(error)))
            if added.labels is not None:
                unknown = ""
                added.skipped += added.labels.problems
            for _, name in others:
                why = unknown if name.suffix.lower() in ANNOTATION_SUFFIXES else "is no image"
                if why:
                    added.skipped.append((name.as_posix(), why))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        if isinstance(error, SppnetError):
            raise
        raise ArgumentError(f"{path}: can't be read as a zip archive ({error}); make it again") from None


def _unpack_images(
    archive: zipfile.ZipFile, images: list[Entry], folder: Path, path: PurePosixPath, limits: AddingLimits,
    added: Added, placed: dict[PurePosixPath, Path],
) -> None:  # fmt: skip
    total = 0
    for item, name in images:
        if item.flag_bits & 1:
            added.skipped.append((name.as_posix(), LOCKED))
            continue
        try:
            with archive.open(item) as stream:
                inner = path.with_suffix("") / name
                count, place = _take(folder, inner, stream, item.file_size, limits, added)
                total += count
                # of two names that became the same, annotations mean the one that was so from the beginning
                if place is not None and (name not in placed or _name_of(item) == name.as_posix()):
                    placed[name] = place
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            added.skipped.append((name.as_posix(), f"is damaged or encrypted ({error})"[:120]))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            added.skipped.append((name.as_posix(), "a file has the name of its folder"))
        if total > limits.archive_bytes:
            raise ArgumentError(f"{path}: holds more than {limits.archive_bytes >> 30} GB; the rest was left out")


def _name_of(item: zipfile.ZipInfo) -> str:
    """Name of a file in an archive. Some programs write UTF-8 and don't say so."""
    if not item.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            return item.filename.encode("cp437").decode("utf-8")
    return item.filename


def _contents(archive: zipfile.ZipFile, added: Added) -> tuple[list[Entry], list[Entry]]:
    """The images of an archive, and its other files; without those whose names lead elsewhere."""
    images: list[Entry] = []
    others: list[Entry] = []
    for item in archive.infolist():
        given = _name_of(item)
        if item.is_dir() or given.startswith("__MACOSX/"):
            continue
        if stat.S_ISLNK(item.external_attr >> 16):
            added.skipped.append((given[:200], "is a link"))
            continue
        try:
            name = safe_name(given)
        except ArgumentError as error:
            added.skipped.append((given[:200], str(error).partition(": ")[2]))
            continue
        (images if name.suffix.lower() in IMAGE_EXTENSIONS else others).append((item, name))
    return images, others


def take_frames(
    folder: Path, home: Path, name: str, file: Path, limits: AddingLimits, added: Added,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:  # fmt: skip
    """Write frames of a video. A frame that is there already is left, one of another video gets a number.

    Args:
        folder: of the project.
        home: where in it the frames go.
        name: of the video, for messages and for the names of the frames.
        file: the video itself. It is only read.
        limits: what is taken at most.
        added: gets the names of the frames.
        stopped: whether somebody wants no more of them.

    Returns:
        Whether all were taken.

    Raises:
        ArgumentError: nothing of it can be taken; the message says why.
    """
    _inside(folder, home / "frame")
    again = 0
    try:
        for frame in read_frames(file, limits.every_s):
            if frame.number >= limits.frames:
                added.skipped.append((name, f"has more than {limits.frames} images; the rest was left out"))
                break
            if stopped():
                added.skipped.append((name, "was stopped; the images until there are kept"))
                return False
            if shutil.disk_usage(folder).free < limits.free_bytes:
                raise ArgumentError("the disk is nearly full; make room, then take the rest")
            target = home / frame_name(name, frame.time_s)
            with scratch_file(target) as scratch:
                Image.fromarray(frame.pixels).save(scratch, "JPEG", quality=95)
                with _placing:
                    place, there = _place_for(target, scratch)
                    if not there:
                        with write_atomic(place, sync=False) as temporary:
                            scratch.replace(temporary)
                again += there
                if not there:
                    added.names.append(place.relative_to(folder).as_posix())
    except OSError as error:  # such as a file that has the name of the folder
        raise ArgumentError(f"{name}: its images can't be written ({error.strerror or error})") from None
    except SppnetError as error:
        why = str(error).replace(str(file), name)
        if not added.names and not again:
            raise ArgumentError(why) from None
        added.skipped.append((name, why.removeprefix(f"{name}: ")[:200]))
        return not isinstance(error, ArgumentError)  # a damaged video has no more of them
    if again:
        added.skipped.append((name, f"{again} of its images are there already"))
    return True
