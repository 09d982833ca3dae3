"""Labels that come with the images of a zip archive, in any format that the project reads."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from sppnet.datasets.loading import load_dataset
from sppnet.errors import ArgumentError, SppnetError, UnknownFormatError

__all__ = ["ANNOTATION_SUFFIXES", "ArchiveLabels", "labels_of_archive"]

ANNOTATION_SUFFIXES = frozenset(
    {".xml", ".json", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".data", ".names", ".labels"}
)
_CHUNK_BYTES = 1 << 20

Entry = tuple[zipfile.ZipInfo, PurePosixPath]


@dataclass(frozen=True)
class ArchiveLabels:
    """Boxes ``(x0, y0, x1, y1, class)`` by name of the image in the project, and the names of the classes."""

    class_names: tuple[str, ...]
    boxes: dict[str, list[tuple[float, ...]]]


def labels_of_archive(
    archive: zipfile.ZipFile,
    annotations: Sequence[Entry],
    images: Mapping[PurePosixPath, Path],
    folder: Path,
    scratch: Path,
    most_bytes: int,
) -> ArchiveLabels | None:
    """Read the annotations of an archive as a data set, with the images that were taken from it.

    Args:
        archive: open.
        annotations: its files that may be annotations, and their safe names.
        images: where its images are now, by their safe names in the archive.
        folder: of the project.
        scratch: a folder for a while, best on the disk of the images.
        most_bytes: of all annotations, unpacked.

    Returns:
        The labels, or None where the files are no data set of a known format.

    Raises:
        ArgumentError: they are one, but can't be read; or they are too large.
    """
    if not annotations or not images:
        return None
    with TemporaryDirectory(dir=scratch, prefix="labels-") as name:
        root = Path(name) / "dataset"
        _unpack(archive, annotations, root, most_bytes)
        for inner, path in images.items():
            _link(path, root / inner)
        try:
            data = load_dataset(root, on_error="skip")
        except UnknownFormatError:
            return None
        except SppnetError as error:
            raise ArgumentError(
                f"its labels can't be read: {str(error).replace(f'{root}{os.sep}', '')}"[:300]
            ) from None
        boxes: dict[str, list[tuple[float, ...]]] = {}
        for record in data:
            try:
                place = images[PurePosixPath(record.path.relative_to(root).as_posix())]
            except (ValueError, KeyError):
                continue  # the annotations name an image elsewhere
            rows = zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
            boxes[place.relative_to(folder).as_posix()] = [(*box, c) for box, c in rows]
    return ArchiveLabels(tuple(data.class_names), boxes) if any(boxes.values()) else None


def _unpack(archive: zipfile.ZipFile, annotations: Sequence[Entry], root: Path, most_bytes: int) -> None:
    left = most_bytes
    for item, name in annotations:
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with archive.open(item) as stream, target.open("wb") as out:
                while chunk := stream.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    if left < 0:  # whatever the archive said
                        raise ArgumentError(f"its annotations have more than {most_bytes >> 20} MB; they were left out")
                    out.write(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ArgumentError(f"{name}: is damaged or encrypted ({error})"[:200]) from None
        except OSError as error:  # such as one file where another has a folder
            raise ArgumentError(f"{name}: can't be unpacked ({error.strerror})") from None


def _link(path: Path, place: Path) -> None:
    """The same file in a second place, where the disk allows it; else a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)
