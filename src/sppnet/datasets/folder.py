"""Images sorted into folders, one folder a class: ``DIR/cat/1.jpg``, ``DIR/dog/7.png``."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sppnet._types import OnError
from sppnet.checking import check_one_of
from sppnet.datasets.choosing import chosen_indices
from sppnet.errors import DatasetError, ImageError, did_you_mean, first_names
from sppnet.images import image_size, list_images
from sppnet.storage.names import real_path
from sppnet.storage.reading import read_regular

__all__ = ["ImageFolder", "check_renames", "load_image_folder"]

_LIST_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images with one class each.

    Attributes:
        paths: of the images, in a fixed order. They are not opened here.
        labels: int64 ``(n,)``, indices into ``class_names``.
        class_names: none twice.
        name: of the data set, for tables and model files. split: e.g. ``train``.
        problems: what was left out and why, one sentence each (with ``on_error="skip"``).

    Raises:
        DatasetError: the lengths differ, a label has no name, or a name comes twice.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    name: str = ""
    split: str = ""
    problems: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(Path(p) for p in self.paths))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        labels = np.array(self.labels, np.int64)
        labels.setflags(write=False)
        object.__setattr__(self, "labels", labels)
        if labels.shape != (len(self.paths),):
            raise DatasetError(f"labels: expected shape ({len(self.paths)},), one an image, got {labels.shape}")
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.class_names)):
            raise DatasetError(
                f"labels: from {labels.min()} to {labels.max()}, expected 0 to {len(self.class_names) - 1}"
            )
        twice = [name for name, count in Counter(self.class_names).items() if count > 1]
        if twice:
            raise DatasetError(f"class name {twice[0]!r} occurs twice; each must be unique")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[Path, int]]:
        return iter(zip(self.paths, self.labels.tolist(), strict=True))

    def __repr__(self) -> str:
        title = " ".join(part for part in (self.name, self.split) if part) or "images"
        return f"<ImageFolder {title}: {len(self)} images, {len(self.class_names)} classes>"

    def counts(self) -> NDArray[np.int64]:
        """Images of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    def sha256(self) -> str:
        """Tells these images from others: a digest of the names of the classes and files, not of what files hold."""
        digest = hashlib.sha256()
        for path, label in self:
            digest.update(f"{self.class_names[label]}/{path.name}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def subset(self, indices: Iterable[int] | NDArray[np.integer] | NDArray[np.bool_]) -> ImageFolder:
        """The images at ``indices``, in that order, with the same classes. A mask of booleans ``(n,)`` does, too.

        Raises:
            DatasetError: an index out of range or that is no whole number, or a mask of another length.
        """
        chosen = np.array(chosen_indices(indices, len(self)), np.int64)
        return ImageFolder(
            tuple(self.paths[i] for i in chosen), self.labels[chosen], self.class_names, self.name, self.split
        )


def load_image_folder(
    root: str | os.PathLike[str],
    list_file: str | os.PathLike[str] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    split: str = "",
    on_error: OnError = "skip",
    rename: Mapping[str, str] | None = None,
) -> ImageFolder:
    """Read ``root/CLASS/image.jpg``.

    Args:
        root: the folder with one folder a class. Images lie in those, at any depth; other files and names that begin
            with a dot are left alone.
        list_file: a text file with one image a line, ``CLASS/image.jpg``, relative to ``root``. Only these are taken,
            in its order.
        class_names: the order of the classes, for instance that of the training images. By default the names of all
            folders of ``root``, sorted (also those that ``list_file`` doesn't mention).
        split: a name for what was read.
        rename: new names of classes by those of their folders; two folders may get one name. ``class_names`` are the
            new names.
        on_error: every image's header is looked at; one that can't be read raises, or is left out and told in
            ``problems``.

    Raises:
        ArgumentError: ``on_error`` is neither "skip" nor "fail".
        DatasetError: there is no folder, no class, no image; a class isn't among ``class_names``; or the list names
            an image that isn't there.
        ImageError: an image can't be read, and ``on_error`` is "fail".
    """
    check_one_of("on_error", on_error, ("fail", "skip"))
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected one with a folder of images for each class")
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    rename = dict(rename or {})
    check_renames(rename, folders, root)
    renamed = sorted({rename.get(folder, folder) for folder in folders})
    names = tuple(class_names) if class_names is not None else tuple(renamed)
    if not names:
        raise DatasetError(f"{root}: has no folders; expected one a class with its images, as {root / 'cat' / '1.jpg'}")
    place = {name: i for i, name in enumerate(names)}
    if list_file is None:
        entries: Iterable[tuple[Path, str]] = ((p, p.relative_to(root).parts[0]) for p in _photos(root, folders))
    else:
        entries = _from_list(root, Path(list_file))
    paths, labels, problems = [], [], []
    for path, folder in entries:
        name = rename.get(folder, folder)
        if name not in place:
            raise DatasetError(
                f"{path}: its class {name!r} is none of the {len(names)} expected ({first_names(names)})"
            )
        try:
            image_size(path)
        except ImageError as error:
            if on_error == "fail":
                raise
            problems.append(str(error))
            continue
        paths.append(path)
        labels.append(place[name])
    if not paths:
        raise DatasetError(f"{list_file or root}: no images that can be read in {len(folders)} folders")
    return ImageFolder(tuple(paths), np.array(labels, np.int64), names, real_path(root).name, split, tuple(problems))


def check_renames(rename: Mapping[str, str], folders: Collection[str], root: Path) -> None:
    """Refuse new names for classes that aren't there, and empty ones.

    Args:
        rename: as of :func:`load_image_folder`.
        folders: names of the classes.
        root: where they are, for messages.

    Raises:
        DatasetError: one is refused.
    """
    for old, new in rename.items():
        if old not in folders:
            hint = did_you_mean(old, folders)
            raise DatasetError(f"{root}: no class {old!r} to rename; {hint}there are {first_names(sorted(folders))}")
        if not new.strip():
            raise DatasetError(f"{root}: the new name of {old!r} is empty; give one")


def _photos(root: Path, folders: Sequence[str]) -> list[Path]:
    return list_images([root / name for name in folders])


def _from_list(root: Path, list_file: Path) -> Iterator[tuple[Path, str]]:
    try:
        lines = (
            read_regular(list_file, _LIST_BYTES, error=DatasetError).decode("utf-8-sig").splitlines()
        )  # editors on Windows put a mark first
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or error
        raise DatasetError(f"{list_file}: can't be read as a list of images ({what}); check the name") from None
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        parts = Path(entry).parts
        if len(parts) < 2 or Path(entry).is_absolute() or ".." in parts:
            raise DatasetError(f"{list_file}, line {number}: got {entry!r}, expected CLASS/image.jpg")
        if not (root / entry).is_file():
            raise DatasetError(f"{list_file}, line {number}: {root / entry} isn't there; correct the list")
        yield root / entry, parts[0]
