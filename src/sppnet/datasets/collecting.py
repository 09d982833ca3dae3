"""From the images that a reader found to a data set: ids, splits, and images that come twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sppnet.datasets.locating import ImageIndex, Location
from sppnet.datasets.parsing import read_json, shown_path, sorted_names, without_suffix
from sppnet.datasets.raw import Problem, RawDataset, RawImage
from sppnet.datasets.splits import canonical_split, check_split_name, split_of_folders
from sppnet.errors import DatasetError

__all__ = ["Collection", "json_documents", "located", "split_of_place", "unreadable_image"]


def located(image: RawImage, place: Location) -> RawImage:
    """Return ``image`` with the file that was found for it."""
    return replace(image, path=place.path, found=place.found, outside=place.outside, missing=place.missing)


def split_of_place(file: Path, home: Path) -> str:
    """Name the split that the folders between ``home`` and ``file`` are called after; empty where none is."""
    return split_of_folders(file.relative_to(home).parts[:-1]) if file.is_relative_to(home) else ""


def json_documents(
    files: Iterable[Path],
    is_one: Callable[[object], bool],
    expected: str,
    must_be_read: Callable[[Path], bool],
) -> list[tuple[Path, Any]]:
    """Read the JSON files that are of one format; others are left out.

    Args:
        files: to look at.
        is_one: tells whether parsed JSON is of the format.
        expected: what the format is, for errors.
        must_be_read: whether a file that can't be read is an error; of the others nothing is said.

    Raises:
        DatasetError: a file that must be read can't be.
    """
    documents = []
    for file in files:
        try:
            document = read_json(file, expected)
        except DatasetError:
            if must_be_read(file):
                raise
            continue
        if is_one(document):
            documents.append((file, document))
    return documents


def unreadable_image(file: Path, error: Exception) -> RawImage:
    """Return an image of whose annotation ``file`` nothing can be made."""
    what = str(error).removeprefix(f"{file}: ")
    what, _, advice = what.rpartition("; ")
    problem = Problem("error", "unreadable annotation", str(file), *((what, advice) if what else (advice, "mend it")))
    return RawImage("", file.with_suffix(".jpg"), file, problems=(problem,), found=False, readable=False)


@dataclass
class Collection:
    """The images of a data set while it is read.

    Attributes:
        root: the folder or file. home: the folder of the data set. format: its name.
        index: finds images.
        entries: an image and the name of its split (or an empty text), in order.
        problems: of the data set as a whole. extras: as of :class:`RawDataset`.
        broken_splits: splits that can't be read, and why.
    """

    root: Path
    home: Path
    format: str
    index: ImageIndex
    entries: list[tuple[RawImage, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    extras: Counter[str] = field(default_factory=Counter)
    broken_splits: dict[str, str] = field(default_factory=dict)

    def add(self, image: RawImage, split: str = "") -> None:
        """Take in an image; what its split is called is checked."""
        split = canonical_split(split)
        if split:
            try:
                check_split_name(split)
            except DatasetError as error:
                what, _, advice = str(error).partition("; ")
                problem = Problem("error", "split", str(image.file), f"puts {image.path.name} into {what}", advice)
                image, split = replace(image, problems=(*image.problems, problem), readable=False), ""
        self.entries.append((image, split))

    def add_located(self, found: Sequence[tuple[RawImage, str]], near: Sequence[Path], split: str = "") -> None:
        """Take in images whose files are looked for by name.

        Args:
            found: each image, and the name that the annotation gives it.
            near: folders to look into first.
            split: of all of them.
        """
        for (image, _), place in zip(found, self.index.locate([(name, near) for _, name in found]), strict=True):
            self.add(located(image, place), split)

    def finish(
        self,
        class_names: Sequence[str] | None = None,
        *,
        declared: bool = False,
        rule: str = "x0 < x1 and y0 < y1",
        splits: dict[str, tuple[str, ...]] | None = None,
    ) -> RawDataset:
        """Return the data set.

        Args:
            class_names: None: those found, sorted.
            declared: the format lists the classes.
            rule: what a good box is, in the words of the format.
            splits: ids of each split, instead of those of the entries.
        """
        images, found_splits = self._joined()
        ids = _unique_ids([image.path for image in images], self.home)
        numbered = {i: replace(image, image_id=i) for i, image in zip(ids, images, strict=True)}
        named: dict[str, list[str]] = {}
        for image_id, names in zip(ids, found_splits, strict=True):
            for name in names:
                named.setdefault(name, []).append(image_id)
        for folder in self.index.unreadable:
            what = "the folder can't be read, so nothing in it is used"
            self.problems.append(Problem("error", "unreadable folder", str(folder), what, "make it readable"))
        return RawDataset(
            self.root, self.format, self.home.name if self.root.is_dir() else self.root.stem, numbered,
            tuple(class_names) if class_names is not None
            else sorted_names(item.name for image in images for item in image.objects),
            declared, {name: tuple(items) for name, items in named.items()} if splits is None else splits,
            self.broken_splits, rule, tuple(self.problems), self.extras,
        )  # fmt: skip

    def _joined(self) -> tuple[list[RawImage], list[list[str]]]:
        """Images, each once, and the splits of each. Annotations about one image are joined."""
        places: dict[str, int] = {}
        images: list[RawImage] = []
        splits: list[list[str]] = []
        for image, split in self.entries:
            key = f"{image.path}" if image.readable or image.found else f"{image.file}\0"
            if key not in places:
                places[key] = len(images)
                images.append(image)
                splits.append([])
            else:
                images[places[key]] = _join(images[places[key]], image, self.home)
            if split and split not in splits[places[key]]:
                splits[places[key]].append(split)
        return images, splits


def _join(one: RawImage, two: RawImage, home: Path) -> RawImage:
    """Both annotations of one image as one; objects that are in both count once."""
    known = {(item.name, item.box) for item in one.objects}
    new = tuple(item for item in two.objects if (item.name, item.box) not in known)
    problems = list(one.problems)
    if new:
        other = f" and by {shown_path(two.file, home)}" if two.file != one.file else ", twice"
        what = f"{one.path.name} is annotated by {shown_path(one.file, home)}{other}; the objects are joined"
        problems.append(
            Problem("warning", "annotated twice", str(two.file), what, "keep one annotation for each image")
        )
    problems += [problem for problem in two.problems if problem not in problems]
    return replace(
        one if one.readable else two,
        objects=(*one.objects, *new), problems=tuple(problems), readable=one.readable or two.readable,
        size=one.size or two.size,
    )  # fmt: skip


def _unique_ids(paths: Sequence[Path], root: Path) -> list[str]:
    """An id for each image: its stem if all stems differ, else its path below ``root``, with / between the parts."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    absolute = Path(root).absolute()
    names = [
        (path.absolute().relative_to(absolute) if path.absolute().is_relative_to(absolute) else path).as_posix()
        for path in paths
    ]
    ids = [without_suffix(name) for name in names]
    twice = Counter(ids)
    ids = [name if twice[i] > 1 else i for i, name in zip(ids, names, strict=True)]
    taken: Counter[str] = Counter()
    for k, image_id in enumerate(ids):
        taken[image_id] += 1
        if taken[image_id] > 1:  # annotations that name no image
            ids[k] = f"{image_id} ({taken[image_id]})"
    return ids
