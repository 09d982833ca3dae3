"""Where an annotation has its images: an image of another folder that is only called alike isn't its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path

from sppnet.datasets.spelling import same_file

__all__ = ["Homes"]

_NUMBER = re.compile(r"\d+")


class Homes:
    """The folders in which an annotation has its images.

    Args:
        series: gives, of each folder with images, these by the key of their names without extension; it is asked only
            where an image lies elsewhere.
        homes: the folders.
    """

    def __init__(self, series: Callable[[], Mapping[Path, Mapping[str, Path]]], homes: Collection[Path]) -> None:
        self._series, self._homes = series, frozenset(homes)
        self._known: dict[Path, bool] = {}

    @cached_property
    def _names(self) -> dict[str, Path]:
        return {key: file for home in sorted(self._homes) for key, file in self._series().get(home, {}).items()}

    @cached_property
    def _numbered(self) -> set[str]:
        return _numbered(self._names)

    def is_anothers(self, path: Path, lost: set[str]) -> bool:
        """Whether an image is that of other annotations: it lies elsewhere, and its folder is numbered alike.

        Below one of the folders the numbers may go on; there it must have a name twice. A folder all of whose images
        are among the ``lost`` names of the annotation isn't another's either; copies of those in the folders don't
        count.
        """
        folder = path.parent
        if not self._homes or folder in self._homes or folder not in self._series():
            return False
        if folder not in self._known:
            self._known[folder] = self._is_anothers(folder, lost)
        return self._known[folder]

    def _is_anothers(self, folder: Path, lost: set[str]) -> bool:
        names = self._series()[folder]
        common = names.keys() & self._names.keys()
        rest = names.keys() - common
        if len(rest) > 1 and rest <= lost and all(same_file(names[key], self._names[key]) for key in sorted(common)):
            return False
        if any(parent in self._homes for parent in folder.parents):
            return bool(common)
        return not _numbered(names).isdisjoint(self._numbered)


def _numbered(names: Iterable[str]) -> set[str]:
    """The names with all numbers alike."""
    return {_NUMBER.sub("#", name) for name in names}
