"""Label files of YOLO: which belongs to an image, and what its lines mean."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sppnet.datasets.duplicates import duplicate_groups, hash_images
from sppnet.datasets.formats.yolo_yaml import read_names
from sppnet.datasets.parsing import as_number, bounding_box, read_head, read_text, short
from sppnet.datasets.raw import RawObject
from sppnet.datasets.spelling import absolute_path, likeness, name_key, same_file
from sppnet.storage.walking import files_in, walk_files

__all__ = ["LabelFiles", "Line", "Names", "is_label_file", "is_pose", "read_line", "read_lines"]

_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "labels.names", "predefined_classes.txt")
_MAX_LABEL_BYTES = 64 << 20
_MAX_CLASS = 10_000
_MANY_FOLDERS = 64


@dataclass(frozen=True)
class Line:
    """A line of a label file: its number, from 1, and its fields."""

    position: int
    fields: tuple[str, ...]


class Names:
    """The names of the classes: one list for all, or the one nearest to each label file.

    Args:
        home: the folder of the data set.
        given: names by number, from ``data.yaml``; None where there is none.
    """

    def __init__(self, home: Path, given: dict[int, str] | None) -> None:
        self._home = home
        self._given = given
        self._of_folder: dict[Path, dict[int, str] | None] = {}
        self._numbers: set[int] = set()

    @property
    def guessed(self) -> bool:
        """Whether numbers stand for names that nothing says."""
        return bool(self._numbers)

    def of(self, file: Path) -> dict[int, str] | None:
        """Return the names for a label file; None where there are none."""
        return self._given if self._given is not None else self._in_folder(file.parent)

    def _in_folder(self, folder: Path) -> dict[int, str] | None:
        if folder not in self._of_folder:
            file = next(iter(_name_files(folder)), None)
            if file is None and folder != self._home and folder.is_relative_to(self._home):
                self._of_folder[folder] = self._in_folder(folder.parent)
            elif file is None:
                # also where labels and images have different parents, and where all is in another folder
                places = [self._home, *(self._home / name for name in ("labels", "Labels", "images", "data"))]
                files = [file for place in places for file in _name_files(place)]
                named = files or files_in(self._home, ".names")
                self._of_folder[folder] = read_names(named[0]) if named else None
            else:
                self._of_folder[folder] = read_names(file)
        return self._of_folder[folder]

    def number(self, number: int) -> str:
        """Return the name of a class that nothing names: its number."""
        self._numbers.add(number)
        return str(number)

    def all(self) -> list[str]:
        """Return all names, each once: those of the lists in the order of the folders, then numbers."""
        lists = [self._given] if self._given is not None else [names for names in self._of_folder.values() if names]
        known = [name for names in lists if names is not None for name in names.values()]
        if self._numbers:
            known += [str(number) for number in range(max(self._numbers) + 1)]
        return list(dict.fromkeys(known))


def _name_files(folder: Path) -> list[Path]:
    """Lists of classes in a folder, the likeliest first."""
    there = {file.name.lower(): file for file in files_in(folder, ".txt", ".names", ".labels")}
    return [there[name] for name in _NAME_FILES if name in there]


class LabelFiles:
    """The label file of each image.

    ``.../labels/x.txt`` for ``.../images/x.jpg`` (the last folder called images), else beside the image, else the one
    of that name anywhere in the data set.

    Args:
        home: the folder of the data set.

    Attributes:
        shared: label files that may be about several images of their name, and these.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.shared: dict[Path, list[Path]] = {}
        self._images_of: dict[Path, set[str]] = defaultdict(set)
        self._swapped: dict[Path, Path | None] = {}
        self._entries: dict[Path, dict[str, Path]] = {}
        self._stems: dict[Path, dict[str, Path]] = {}
        self._folders_of: dict[str, dict[Path, None]] = defaultdict(dict)
        self._paths: dict[tuple[Path, str], Path] = {}
        self._known: dict[Path, Path] = {}
        self._fits: dict[tuple[Path, Path], tuple[int, int, int]] = {}
        self._near: dict[Path, list[Path]] = {}
        self._placed: dict[tuple[str, str], dict[str | Path, list[Path]]] = {}
        self._names_in: dict[Path, set[str]] = defaultdict(set)
        self._beside: dict[Path, bool] = {}
        self._used: set[Path] = set()

    def know(self, images: Sequence[Path]) -> None:
        """Tell which images there are: whether labels lie beside them is decided folder by folder."""
        for path in images:
            self._images_of[path.parent].add(name_key(path.stem))
            self._folders_of[name_key(path.stem)][path.parent] = None
            self._paths.setdefault((path.parent, name_key(path.stem)), path)
            self._names_in[path.parent].add(path.stem)
        for known in (self._beside, self._known, self._fits, self._near, self._placed, self.shared):
            known.clear()

    def of(self, image: Path) -> Path:
        """Return the label file of an image, or where it would be."""
        if image not in self._known:
            self._known[image] = self._of(image)
            self._used.add(self._known[image])
        return self._known[image]

    def _of(self, image: Path) -> Path:
        folder = self._folder(image.parent)
        if folder is not None:
            found = self._find(folder, image) or self._find(image.parent, image)
            file = found or folder / f"{image.stem}.txt"
        elif self._lie_beside(image.parent):
            file = self._find(image.parent, image) or image.with_suffix(".txt")
        else:
            file = self._elsewhere(image) or image.with_suffix(".txt")
        return file

    def without_image(self, images: Sequence[Path]) -> list[Path]:
        """List label files of no image, in the folders where those of ``images`` are."""
        orphans = []
        for folder in sorted({self.of(path).parent for path in images}):
            named = any(part.lower() == "labels" for part in folder.parts)
            for file in self._in(folder).values():
                if file not in self._used and ((named and is_label_like(file)) or is_label_file(file)):
                    orphans.append(file)
                    self._used.add(file)
        return orphans

    def _folder(self, images: Path) -> Path | None:
        """The folder of labels that belongs to a folder of images by the rule of images and labels."""
        if images not in self._swapped:
            self._swapped[images] = None
            parts = absolute_path(images).parts
            for k in range(len(parts) - 1, -1, -1):
                if parts[k].lower() == "images":
                    base = Path(*parts[:k])
                    exact = [base / name for name in ("labels", "Labels", "LABELS") if (base / name).is_dir()]
                    place = exact[0].joinpath(*parts[k + 1 :]) if exact else None
                    # above the data set there may be labels of something else
                    if place is not None and (k >= len(absolute_path(self._home).parts) or place.is_dir()):
                        self._swapped[images] = self._home_shown(place)
                    break
        return self._swapped[images]

    def _home_shown(self, folder: Path) -> Path:
        """Return ``folder`` as the caller wrote the data set's: relative where that was relative."""
        home = absolute_path(self._home)
        return self._home / folder.relative_to(home) if folder.is_relative_to(home) else folder

    def _lie_beside(self, folder: Path) -> bool:
        if folder not in self._beside:
            files = self._in(folder)
            self._beside[folder] = any(stem in files for stem in self._images_of[folder])
        return self._beside[folder]

    def _find(self, folder: Path, image: Path) -> Path | None:
        """The label file of an image in a folder: the one of its very name, or of its name in other letters."""
        known = self._in(folder)
        found = self._stems[folder].get(image.stem) or known.get(name_key(image.stem))
        if found is not None and found.stem != image.stem and found.stem in self._names_in[image.parent]:
            return None  # it is called like another image
        return found

    def _elsewhere(self, image: Path) -> Path | None:
        """The label file of that name in another folder, where this and the image's fit each other best."""
        key = name_key(image.stem)
        files = self._anywhere.get(key, {})
        folders = self._best_labels(key, image.parent)
        rivals = {folder: self._rivals(key, folder) for folder in folders}
        folders = [folder for folder in folders if image.parent in rivals[folder]]
        if len(folders) != 1:
            return None
        (folder,) = folders
        fit = self._fit(image.parent, folder)[:2]
        if any(self._fit(image.parent, other)[:2] > fit for other in self._label_folders(image.parent)):
            return None  # labels of other images of its folder lie elsewhere: it has none
        others = [other for other in rivals[folder] if folder in self._best_labels(key, other)]
        if len(others) > 1:
            if not all(_look_alike(image, self._paths[other, key]) for other in others):
                return None  # whose it is can't be told
            self.shared.setdefault(files[folder], []).append(image)
        return files[folder]

    def _best_labels(self, key: str, images: Path) -> list[Path]:
        """Folders of labels with a name that fit a folder of images best."""
        near = self._few(("labels", key), self._anywhere.get(key, {}), images)
        return _best(near, lambda folder: self._fit(images, folder))

    def _rivals(self, key: str, labels: Path) -> list[Path]:
        """Folders of images with a name that fit a folder of labels best."""
        near = self._few(("images", key), self._folders_of[key], labels)
        return _best(near, lambda images: self._fit(images, labels))

    def _label_folders(self, images: Path) -> list[Path]:
        """Folders of labels with a name of one of the images in a folder, near to it if there are many."""
        if images not in self._near:
            found: dict[Path, None] = {}
            for key in sorted(self._images_of[images]):
                found |= dict.fromkeys(self._few(("labels", key), self._anywhere.get(key, {}), images))
            self._near[images] = list(found)
        return self._near[images]

    def _few(self, which: tuple[str, str], folders: Collection[Path], target: Path) -> list[Path]:
        """The ``folders``; of many only those that are called like ``target``, or lie beside it."""
        if len(folders) <= _MANY_FOLDERS:
            return list(folders)
        if which not in self._placed:
            placed: dict[str | Path, list[Path]] = defaultdict(list)
            for folder in folders:
                placed[folder.name].append(folder)
                placed[absolute_path(folder).parent].append(folder)
            self._placed[which] = placed
        placed = self._placed[which]
        return list(dict.fromkeys([*placed.get(target.name, []), *placed.get(absolute_path(target).parent, [])]))

    def _fit(self, images: Path, labels: Path) -> tuple[int, int, int]:
        """How well folders of images and labels fit: by their places, by words in their names, by names they share."""
        if (images, labels) not in self._fits:
            one, two = absolute_path(images).parts, absolute_path(labels).parts
            words = len(_words(one) & _words(two))
            shared = len(self._images_of[images] & self._in(labels).keys())
            self._fits[images, labels] = likeness(one, two), words, shared
        return self._fits[images, labels]

    def _in(self, folder: Path) -> dict[str, Path]:
        """Label files in a folder by the key of their stem."""
        if folder not in self._entries:
            found = [file for file in files_in(folder, ".txt") if is_label_like(file)]
            self._entries[folder] = {name_key(file.stem): file for file in found}
            self._stems[folder] = {file.stem: file for file in found}
        return self._entries[folder]

    @cached_property
    def _anywhere(self) -> dict[str, dict[Path, Path]]:
        """Label files in the whole data set by the key of their stem and their folder."""
        found: dict[str, dict[Path, Path]] = defaultdict(dict)
        for file in walk_files(self._home):
            if is_label_like(file) and (is_label_file(file) or not file.stat().st_size):
                found[name_key(file.stem)].setdefault(file.parent, file)
        return dict(found)


def _best(folders: Sequence[Path], fit: Callable[[Path], tuple[int, int, int]]) -> list[Path]:
    """The folders that fit best."""
    if len(folders) < 2:
        return list(folders)
    fits = [fit(folder) for folder in folders]
    best = max(fits)
    return [folder for folder, value in zip(folders, fits, strict=True) if value == best]


def _look_alike(one: Path, two: Path) -> bool:
    """Whether two images are copies, perhaps of another size."""
    return one == two or same_file(one, two) or len(set(duplicate_groups(hash_images([one, two])))) == 1


def _words(parts: Sequence[str]) -> set[str]:
    return {word for part in parts for word in re.split(r"[^a-z0-9]+", name_key(part)) if word}


def is_label_like(file: Path) -> bool:
    """Whether a file may be one with labels, by its name."""
    return file.suffix.lower() == ".txt" and file.name.lower() not in _NAME_FILES


def is_label_file(file: Path) -> bool:
    """Whether the first line is a class and four numbers or more."""
    try:
        fields = read_head(file, 100_000).lstrip().partition("\n")[0].split()
        if len(fields) < 5 or len(fields) == 6 or not all(abs(float(field)) < 1e6 for field in fields):
            return False
        return float(fields[0]) == int(float(fields[0])) and (len(fields) == 5 or max(map(float, fields[1:])) <= 2)
    except (ValueError, OverflowError):
        return False


def read_lines(file: Path) -> list[Line]:
    """Read the lines of a label file that aren't blank.

    Raises:
        DatasetError: it can't be read.
    """
    text = read_text(file, "class cx cy width height a line", _MAX_LABEL_BYTES)
    return [Line(k, tuple(line.split())) for k, line in enumerate(text.splitlines(), 1) if line.strip()]


def is_pose(lines: Sequence[Line], keypoints: tuple[int, int] | None) -> bool:
    """Whether long lines are a box and keypoints, not an outline.

    ``keypoints`` of ``data.yaml`` says it. Otherwise all long lines must have the same length, and either every third
    number behind the box is 0, 1 or 2 (whether the point is visible), or in at least three lines all points lie in
    the box. Points that mostly go round a convex shape, as four corners do, are an outline.
    """
    long = [line for line in lines if len(line.fields) > 5]
    if keypoints is not None:
        return any(len(line.fields) == 5 + keypoints[0] * keypoints[1] for line in long)
    lengths = {len(line.fields) for line in long}
    if len(lengths) != 1:
        return False
    more = lengths.pop() - 5
    try:
        values = [[float(field) for field in line.fields[1:]] for line in long]
    except ValueError:
        return False
    if more % 3 == 0 and all(value in (0, 1, 2) for row in values for value in row[6::3]):
        return True
    if more % 2 or all(row[:2] == row[-2:] for row in values) or sum(map(_is_convex, values)) * 2 > len(values):
        return False  # an outline: one that is closed, or that goes round a shape, as the corners of a turned box do
    # a box may stick out of the image, most don't
    inside = sum(map(_box_in_image, values)) >= 0.8 * len(values)
    return more > 2 and len(long) >= 3 and inside and all(map(_points_in_box, values))


def _is_convex(row: list[float]) -> bool:
    """Whether numbers are the corners of a convex shape, in order; box and keypoints seldom are."""
    points = list(zip(row[::2], row[1::2], strict=True))
    if (0, 0) in points[2:]:  # a keypoint that isn't there
        return False
    triples = zip(points, points[1:] + points[:1], points[2:] + points[:2], strict=True)
    turns = [(x1 - x0) * (y2 - y1) - (y1 - y0) * (x2 - x1) for (x0, y0), (x1, y1), (x2, y2) in triples]
    return min(turns) >= -1e-6 or max(turns) <= 1e-6


def _box_in_image(row: list[float]) -> bool:
    cx, cy, w, h = row[:4]
    return min(cx - w / 2, cy - h / 2) >= -0.01 and max(cx + w / 2, cy + h / 2) <= 1.01


def _points_in_box(row: list[float]) -> bool:
    cx, cy, w, h = row[:4]
    points = zip(row[4::2], row[5::2], strict=True)
    near = 1.1 / 2
    return all(
        (abs(x - cx) <= near * w and abs(y - cy) <= near * h) or (x == 0 and y == 0) for x, y in points
    )  # fmt: skip


def read_line(line: Line, numbered: dict[int, str] | None, pose: bool, extras: Counter[str], names: Names) -> RawObject:
    """Read an object.

    Raises:
        ValueError: it is malformed.
    """
    fields = line.fields
    outline = len(fields) != 5 and not pose
    if len(fields) < 5 or (outline and (len(fields) < 7 or len(fields) % 2 == 0)):
        hint = " (six numbers: is it a prediction with a score?)" if len(fields) == 6 else ""
        raise ValueError(f"has {len(fields)} numbers, expected class cx cy width height{hint}")
    number = as_number(fields[0], "class")
    if number != int(number) or not 0 <= number < _MAX_CLASS or (numbered is not None and number not in numbered):
        limit = "a number"
        if numbered:
            first, last = next(iter(numbered)), next(reversed(numbered))
            limit = f"one of the {len(numbered)} numbers from {first} ({numbered[first]}) to {last} ({numbered[last]})"
        raise ValueError(f"has class {short(fields[0])}, expected {limit}")
    values = [as_number(text, "coordinate") for text in (fields[1:] if outline else fields[1:5])]
    if max(map(abs, values)) > 2:
        raise ValueError(f"has {short(' '.join(fields[1:5]))}, expected fractions from 0 to 1 (are these pixels?)")
    flat = False
    if outline:
        box = bounding_box(values[::2], values[1::2])
        extras["outlines (segmentation)"] += 1
    else:
        cx, cy, w, h = values
        box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        flat = w == 0 or h == 0
        extras["keypoints"] += len(fields) > 5
    name = numbered[int(number)] if numbered is not None else names.number(int(number))
    return RawObject(name, box, " ".join(f"{v:g}" for v in values[:4]), line.position, flat=flat)
