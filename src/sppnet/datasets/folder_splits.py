"""Which images of an image folder to train on and which to measure on, however it is laid out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sppnet._types import OnError
from sppnet.datasets.duplicates import duplicate_groups, hash_images
from sppnet.datasets.folder import ImageFolder, check_renames, load_image_folder
from sppnet.datasets.splits import SPLIT_NAMES, TEST, TRAIN, VALIDATION, first_split
from sppnet.datasets.splitting import split_folder
from sppnet.errors import DatasetError
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.names import class_names_problem, real_path

__all__ = [
    "FolderSplits",
    "find_folder_splits",
    "load_folder_splits",
    "load_folder_test",
    "refuse_small_classes",
]


@dataclass(frozen=True)
class FolderSplits:
    """What :func:`load_folder_splits` found.

    Attributes:
        train: images to train on. validation: those to measure on, with the same classes, or None.
        sha256: :meth:`ImageFolder.sha256` of all images, where ``validation`` was drawn from them, else empty.
        notes: what to tell about it, a sentence each.
    """

    train: ImageFolder
    validation: ImageFolder | None
    sha256: str
    notes: tuple[str, ...]


def find_folder_splits(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The folders of ``root`` that are splits, as in ``root/train/cat/1.jpg`` and ``root/val/cat/2.jpg``.

    Without a training split and another one (or nothing else) beside it there are none: ``root/train`` may as well hold
    images of trains. A split has folders and no images of its own; beside ``train``, a folder that is called like a
    split and has images only isn't a class.
    """
    root = Path(root)
    if not root.is_dir():
        return ()
    folders = sorted(
        p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "__MACOSX"
    )
    parts = tuple(n for n in folders if n.lower() in SPLIT_NAMES and _holds_classes(root / n))
    training = any(name.lower() in TRAIN for name in parts)
    return parts if training and (len(parts) > 1 or all(name.lower() in SPLIT_NAMES for name in folders)) else ()


def load_folder_splits(
    root: str | os.PathLike[str],
    train: str | None = None,
    validation: str | None = None,
    *,
    train_list: str | os.PathLike[str] | None = None,
    validation_list: str | os.PathLike[str] | None = None,
    seed: int = 0,
    on_error: OnError = "skip",
    rename: Mapping[str, str] | None = None,
    threads: int = 2,
) -> FolderSplits:
    """Images to train and to measure on.

    Args:
        root: with one folder a class; or with a folder for each split, which has one folder a class.
        train: the split of ``root`` (its folder's name); None: the one called train, or where there are no splits four
            images of five of each class; images that look alike are in the same split.
        validation: the same; ``none`` for none; None: the one called val, or one image in five of ``train``.
        train_list: a text file with one image a line, ``CLASS/image.jpg``, relative to ``root``, instead of ``train``.
        validation_list: the same instead of ``validation``.
        seed: of the drawing.
        on_error: as of :func:`~sppnet.datasets.folder.load_image_folder`.
        rename: as of :func:`~sppnet.datasets.folder.load_image_folder`.
        threads: that look for images which are alike, where images are drawn.

    Raises:
        DatasetError: there is no such split, or a class has too few images: two to train on and, if they are drawn from
            the same, one to measure on. ImageError: an image can't be read, and ``on_error`` is "fail".
    """
    root = Path(root)
    splits = find_folder_splits(root)
    how = _Reading(on_error, _renames(root, splits, rename))
    if train_list is not None:
        data = load_image_folder(root, train_list, split="train", on_error=on_error, rename=how.rename)
    else:
        train = first_split(splits, TRAIN) if train is None else train
        data = _part(root, train, how)
    second: ImageFolder | None = None
    drawn = False
    if validation_list is not None:
        second = load_image_folder(
            root, validation_list, class_names=data.class_names, split="val", on_error=on_error, rename=how.rename
        )  # fmt: skip
    elif validation is None and train_list is None and (name := first_split(splits, VALIDATION)) not in (None, train):
        second = _part(root, name, how, data.class_names)
    elif validation is None:
        drawn = True
    elif validation != "none":
        second = _part(root, validation, how, data.class_names)
    refuse_small_classes(root, data, drawn)
    problem = class_names_problem(data.class_names)
    if problem:  # before hours of training: a model file couldn't hold it
        raise DatasetError(f"{root}: classes: {problem}; rename the folder, or give the class another name (--rename)")
    if drawn:
        sha256 = data.sha256()
        (data, second), alike = _draw(data, seed, threads)
        refuse_small_classes(root, data, alike=bool(alike))
        total = len(data) + len(second)
        note = f"no split to measure on: {len(second)} images of {total} are kept for that (stratified, seed {seed}"
        note += f"{alike})"
        return FolderSplits(data, second, sha256, (note,))
    notes: tuple[str, ...] = ()
    if second is not None:
        both = {real_path(path) for path in data.paths} & {real_path(path) for path in second.paths}
        if both:
            notes = (f"{len(both)} images are in both splits: what is measured on them says little",)
    return FolderSplits(data, second, "", notes)


def load_folder_test(
    root: str | os.PathLike[str],
    class_names: Sequence[str],
    split: str | None = None,
    *,
    list_file: str | os.PathLike[str] | None = None,
    drawn_from: str = "",
    seed: int = 0,
    on_error: OnError = "skip",
    rename: Mapping[str, str] | None = None,
    threads: int = 2,
) -> tuple[ImageFolder, str]:
    """Images to measure a classifier on, and a note on which they are (or an empty text).

    Args:
        root: as of :func:`load_folder_splits`.
        class_names: of the classifier.
        split: the split; None: the one called val, else test; else all images, but where the classifier was trained on
            a split of these only those that were kept to measure on.
        list_file: with one image a line, instead of a split.
        drawn_from: ``FolderSplits.sha256`` of the training.
        seed: of the training.
        on_error: as of :func:`~sppnet.datasets.folder.load_image_folder`.
        rename: as of :func:`~sppnet.datasets.folder.load_image_folder`.
        threads: that look for images which are alike.

    Raises:
        DatasetError: there is no such split, or a class that isn't among ``class_names``. ImageError: an image can't be
            read, and ``on_error`` is "fail".
    """
    root = Path(root)
    splits = find_folder_splits(root)
    how = _Reading(on_error, _renames(root, splits, rename))
    if list_file is not None:
        listed = load_image_folder(root, list_file, class_names=class_names, on_error=on_error, rename=how.rename)
        return listed, ""
    name = split or first_split(splits, VALIDATION) or first_split(splits, TEST)
    data = _part(root, name or first_split(splits, TRAIN), how, class_names)
    if name is None and drawn_from and data.sha256() == drawn_from:
        total = len(data)
        data = _draw(data, seed, threads)[0][1]
        return data, f"only the {len(data)} images of {total} that training with seed {seed} kept to measure on"
    return data, ""


@dataclass(frozen=True)
class _Reading:
    """How folders are read, see :func:`~sppnet.datasets.folder.load_image_folder`."""

    on_error: OnError
    rename: dict[str, str]


def _renames(root: Path, splits: Sequence[str], rename: Mapping[str, str] | None) -> dict[str, str]:
    """``rename``, of which every class is in some split."""
    if rename and root.is_dir():
        places = [root, *(root / name for name in splits)]
        check_renames(rename, {p.name for place in places for p in place.iterdir() if p.is_dir()}, root)
    return dict(rename or {})


def _draw(data: ImageFolder, seed: int, threads: int) -> tuple[tuple[ImageFolder, ImageFolder], str]:
    """Four images of five, the fifth, and a remark; images that look alike stay together."""
    groups = duplicate_groups(hash_images(data.paths, threads=threads))
    together = len(groups) - len(set(groups))
    if len(set(groups)) < 2:
        first, second = split_folder(data, seed=seed)
        return (first, second), "; all images look alike, so the figures will be too good"
    first, second = split_folder(data, seed=seed, groups=groups)
    return (first, second), f"; images that look alike stay together: {together}" if together else ""


def _part(root: Path, name: str | None, how: _Reading, class_names: Sequence[str] | None = None) -> ImageFolder:
    if name is None:
        return load_image_folder(root, class_names=class_names, on_error=how.on_error, rename=how.rename)
    if root.is_dir() and not _holds_classes(root / name):
        known = ", ".join(find_folder_splits(root)) or "none"
        raise DatasetError(
            f"{root / name}: isn't a split of the images, which would be a folder with one folder a class; splits that "
            f"are there: {known}"
        )
    there = {p.name for p in (root / name).iterdir()}
    rename = {old: new for old, new in how.rename.items() if old in there}
    data = load_image_folder(root / name, class_names=class_names, split=name, on_error=how.on_error, rename=rename)
    return replace(data, name=real_path(root).name)


def _holds_classes(folder: Path) -> bool:
    """Whether there are folders in it, and no images beside them."""
    if not folder.is_dir():
        return False
    entries = [p for p in folder.iterdir() if not p.name.startswith(".")]
    return any(p.is_dir() for p in entries) and not any(p.suffix.lower() in IMAGE_EXTENSIONS for p in entries)


def refuse_small_classes(root: Path, data: ImageFolder, drawn: bool = False, *, alike: bool = False) -> None:
    """Two classes at least, and two images of each; three where those to measure on are still to be drawn from them.

    Args:
        root: where they are, for messages.
        data: the images.
        drawn: whether those to measure on are still to be drawn.
        alike: whether images that look alike were kept together.

    Raises:
        DatasetError: there are fewer.
    """
    if len(data.class_names) < 2:
        raise DatasetError(
            f"{root}: one class only ({data.class_names[0]}); expected at least two folders, one a class"
        )
    counts, least = data.counts(), 3 if drawn else 2
    small = int(counts.argmin())
    if counts[small] < least:
        why = "two to train on and one to measure on" if drawn else "to train on"
        why += ", as others look alike and are kept to measure on" if alike else ""
        raise DatasetError(
            f"{root}: class {data.class_names[small]!r} has {counts[small]} images, expected at least {least} ({why}); "
            "add some, or remove its folder"
        )
