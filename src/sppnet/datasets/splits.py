"""The names of splits, and what people call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sppnet.errors import DatasetError

__all__ = [
    "SPLIT_NAMES",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "canonical_split",
    "check_split_name",
    "first_split",
    "plain_split",
    "split_of_folders",
    "split_of_name",
    "split_order",
]

TRAIN = ("train", "training")
VALIDATION = ("val", "valid", "validation")
TEST = ("test", "testing")
SPLIT_NAMES = (*TRAIN, *VALIDATION, *TEST)
"""Every name that is taken for a split where it names a folder or a file."""

# What stands beside the name of a split in names of files: train_labels.csv, instances_train2017.json
_BESIDE = frozenset(
    (
        *("instances", "labels", "label", "annotations", "annotation", "annot", "annots", "boxes", "box", "bbox"),
        *("bboxes", "data", "dataset", "images", "image", "img", "imgs", "set", "split", "obj", "coco", "yolo", "csv"),
        *("df", "gt", "list", "oidv", "v", "keypoints", "ds"),
    )
)
_NOT_IN_A_NAME = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')


def split_of_name(name: str) -> str:
    """Return ``train`` for ``train``, ``instances_train2017`` and ``train_labels``; empty where no split is named."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    found = [word for word in words if word in SPLIT_NAMES]
    return found[0] if len(found) == 1 and all(word in _BESIDE for word in words if word not in found) else ""


def split_of_folders(folders: Sequence[str]) -> str:
    """Return the split that one of the ``folders`` above a file names, the outermost first; or an empty text."""
    return next((split for folder in folders if (split := split_of_name(folder))), "")


def canonical_split(name: str) -> str:
    """Return ``train`` for ``TRAIN``: the known names in lower case; others as they are, without blanks around."""
    name = name.strip()
    return name.lower() if name.lower() in SPLIT_NAMES else name


def plain_split(name: str) -> str:
    """Return ``val`` for ``valid``, ``validation`` and ``VAL``: the first of the names of a split.

    >>> plain_split("Validation")
    'val'
    """
    lower = name.strip().lower()
    return next((names[0] for names in (TRAIN, VALIDATION, TEST) if lower in names), lower)


def check_split_name(name: str) -> None:
    """Refuse the name of a split that can't be the name of a folder.

    Raises:
        DatasetError: it holds a slash or another character that leads elsewhere, is ``.`` or ``..``, or is too long.
    """
    if not name or name.strip(" .") != name or len(name.encode(errors="replace")) > 100 or _NOT_IN_A_NAME.search(name):
        raise DatasetError(
            f"split {name[:100]!r} can't be the name of a folder; give it a plain name like train, val or test"
        )


def first_split(splits: Iterable[str], names: tuple[str, ...]) -> str | None:
    """Return the first of ``splits`` that is one of ``names``, in the order of these; None where none is.

    >>> first_split(["Valid", "test"], VALIDATION)
    'Valid'
    """
    known = list(splits)
    return next((split for name in names for split in known if split.lower() == name), None)


def split_order(name: str) -> tuple[int, str]:
    """Return a key that sorts splits: train, val, test, then the others by name."""
    return (SPLIT_NAMES.index(name) if name in SPLIT_NAMES else len(SPLIT_NAMES), name)
