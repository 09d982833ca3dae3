"""Labels that come with images: in a zip archive, or in a folder that the page sends file by file."""

from __future__ import annotations

import itertools
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from sppnet.errors import ArgumentError
from sppnet.studio.imported import ImportedLabels, joined_labels, labels_for_images

__all__ = ["LOCKED", "NO_IMAGES", "NO_LABELS", "Entry", "labels_of_archive", "labels_of_files"]

LOCKED = "is protected by a password; pack it without one"
NO_LABELS = "is no image, nor labels in a known format"
NO_IMAGES = "none of its images came with it, and it names none of the images here"
_CHUNK_BYTES = 1 << 20
_MAX_LIST_BYTES = 64 << 20
_MAX_FILES = 200_000

Entry = tuple[zipfile.ZipInfo, PurePosixPath]
Sent = tuple[PurePosixPath, int, int]  # name, where it begins, bytes


def labels_of_archive(
    archive: zipfile.ZipFile,
    annotations: Sequence[Entry],
    images: Mapping[PurePosixPath, Path],
    folder: Path,
    scratch: Path,
    most_bytes: int,
    known: Sequence[str] = (),
) -> ImportedLabels | None:
    """Read the annotations of an archive as a data set, with the images that were taken from it.

    Where it has no images, its annotations are those of images that are in the project already.

    Args:
        archive: open.
        annotations: its files that may be annotations, and their safe names.
        images: where its images are now, by their safe names in the archive.
        folder: of the project.
        scratch: a folder for a while, best on the disk of the images.
        most_bytes: of all annotations, unpacked.
        known: names of the images in the project.

    Returns:
        The labels, or None where the files are no data set of a known format.

    Raises:
        ArgumentError: they are one, but can't be read; or they are too large.
    """
    if not annotations:
        return None

    def write(root: Path) -> None:
        left = most_bytes
        for item, name in annotations:
            if item.flag_bits & 1:
                raise ArgumentError(f"{name}: {LOCKED}")
            try:
                with archive.open(item) as stream:
                    left = _write(root, name, _chunks(stream), left, most_bytes)
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise ArgumentError(f"{name}: is damaged or encrypted ({error})"[:200]) from None

    layouts = [images] if images else _layouts([name for _, name in annotations], folder, known)
    return _read(write, layouts, folder, scratch)


def labels_of_files(
    file: Path, folder: Path, safe_name: Callable[[str], PurePosixPath], most_bytes: int, known: Sequence[str] = ()
) -> tuple[ImportedLabels, list[tuple[str, str]]]:
    """Read annotations that were sent one after the other, with images that were added before them.

    Annotations without images are those of images that are in the project already, by their names.

    Args:
        file: what was sent. Its first line is JSON: ``files`` is a list of names and sizes in bytes, ``images`` has the
            names in the project by those that the images had beside the annotations. The contents of the files follow.
        folder: of the project.
        safe_name: makes a name below a folder from one that came from elsewhere.
        most_bytes: of all annotations.
        known: names of the images in the project.

    Returns:
        The labels; and files that say nothing about the images, with the reason.

    Raises:
        ArgumentError: the first line is something else, or there are too many bytes.
    """
    with file.open("rb") as stream:
        try:
            head = json.loads(stream.readline(_MAX_LIST_BYTES))
            sizes, places = head["files"], head["images"]
            names = [(safe_name(str(name)), int(size)) for name, size in sizes]
            images = {safe_name(str(given)): folder / safe_name(str(place)) for given, place in places.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(
                'labels: expected a first line such as {"files": [["a.json", 120]], "images": {"a.png": "a.png"}}'
            ) from None
        if (
            len(names) > _MAX_FILES
            or sum(size for _, size in names) > most_bytes
            or min([0, *(s for _, s in names)]) < 0
        ):
            raise ArgumentError(f"the labels have more than {_MAX_FILES} files or {most_bytes >> 20} MB")
        starts = itertools.accumulate((size for _, size in names), initial=stream.tell())
        files = [(name, start, size) for (name, size), start in zip(names, starts, strict=False)]
        images = {given: path for given, path in images.items() if path.is_file()}
        parts: list[ImportedLabels] = []
        left_out: list[tuple[str, str]] = []
        for group, near in _groups(files, images):

            def write(root: Path, group: Sequence[Sent] = group) -> None:
                for name, start, size in group:
                    stream.seek(start)
                    _write(root, name, _chunks(stream, size), size, most_bytes)

            why = NO_LABELS
            layouts = [near] if near else _layouts([name for name, *_ in group], folder, known)
            try:
                part = _read(write, layouts, folder, file.parent)
            except ArgumentError as error:
                left_out.append((group[0][0].parts[0], str(error)))
                continue
            if not near and not (part is not None and part.boxes):
                part, why = None, NO_LABELS if part is None and layouts else NO_IMAGES
            if part is None:
                left_out += [(name.as_posix(), why) for name, *_ in group]
            else:
                parts.append(part)
    return joined_labels(parts), left_out


def _read(
    write: Callable[[Path], None], layouts: Sequence[Mapping[PurePosixPath, Path]], folder: Path, scratch: Path
) -> ImportedLabels | None:
    """Read annotations with the first of some layouts of the images with which they say something."""
    found: ImportedLabels | None = None
    for k, images in enumerate(layouts):
        try:
            found = labels_for_images(write, images, folder, scratch)
        except ArgumentError:
            if k + 1 == len(layouts):
                raise
            continue
        if found is not None and found.boxes:
            break
    return found


def _layouts(
    annotations: Sequence[PurePosixPath], folder: Path, known: Sequence[str]
) -> list[dict[PurePosixPath, Path]]:
    """Places at which annotations that came alone may look for the images of the project."""
    own = {PurePosixPath(name): folder / name for name in known}
    by_file: dict[str, list[Path]] = {}
    by_end: dict[tuple[str, ...], list[Path]] = {}  # of the name without suffix: d, one/d, home/one/d
    for name, path in own.items():
        by_file.setdefault(path.name, []).append(path)
        for end in _ends(name):
            by_end.setdefault(end, []).append(path)
    flat = {name: paths[0] for name, paths in by_file.items() if len(paths) == 1}  # which of two is meant nobody knows
    beside: dict[PurePosixPath, Path] = {}
    by_folder = False
    for name in annotations:
        paths = next((by_end[end] for end in _ends(name) if end in by_end), [])
        if len(paths) == 1:
            parts = ["images" if part == "labels" else part for part in name.parent.parts]
            beside[PurePosixPath(*parts, paths[0].name)] = paths[0]
            by_folder |= bool(parts) and name.suffix.lower() == ".txt"
    layouts = [
        own,
        {PurePosixPath(name): path for name, path in flat.items()},
        {PurePosixPath("images", name): path for name, path in flat.items()},
        beside,
    ]
    if by_folder:  # YOLO's labels don't name their image: it is the one at the same place
        placed = set(beside.values())
        layouts[0] = beside | {name: path for name, path in own.items() if path not in placed}
        layouts[3] = own
    return [layout for layout in layouts if layout]


def _ends(name: PurePosixPath) -> list[tuple[str, ...]]:
    """The last parts of a name, the most first, without its suffix, and without folders of images or labels as such."""
    parts = (*(part for part in name.parent.parts if part.lower() not in ("images", "labels")), name.stem)
    return [parts[k:] for k in range(len(parts))]


def _groups(
    files: Sequence[Sent], images: Mapping[PurePosixPath, Path]
) -> list[tuple[list[Sent], dict[PurePosixPath, Path]]]:
    """Several folders are several data sets, unless labels lie in other folders than images do."""

    def top(name: PurePosixPath) -> str:
        return name.parts[0] if len(name.parts) > 1 else ""

    tops = list(dict.fromkeys(top(name) for name, *_ in files))
    if not set(tops) <= {top(name) for name in images}:
        return [(list(files), dict(images))]
    return [
        ([f for f in files if top(f[0]) == one], {name: path for name, path in images.items() if top(name) == one})
        for one in tops
    ]


def _write(root: Path, name: PurePosixPath, stream: Iterable[bytes], left: int, most_bytes: int) -> int:
    """Write a file below ``root``. Returns how many bytes may follow."""
    target = root / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            for chunk in stream:
                left -= len(chunk)
                if left < 0:  # whatever the archive said
                    raise ArgumentError(f"its annotations have more than {most_bytes >> 20} MB; they were left out")
                out.write(chunk)
    except OSError as error:  # such as one file where another has a folder
        raise ArgumentError(f"{name}: can't be unpacked ({error.strerror})") from None
    return left


def _chunks(stream: IO[bytes], size: int | None = None) -> Iterator[bytes]:
    """Read to the end, or at most ``size`` bytes."""
    left = _CHUNK_BYTES if size is None else size
    while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
        if size is not None:
            left -= len(chunk)
        yield chunk
