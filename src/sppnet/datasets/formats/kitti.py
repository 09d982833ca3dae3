"""Data sets in the format of KITTI: a text file for each image, ``Car 0.00 0 -1.57 x0 y0 x1 y1 ...`` a line.

Of the 15 fields (16 with a score) the class and the corners count; these are in pixels, 0-based. Regions of the class
``DontCare`` are no objects, and are counted. The images of ``label_2`` are in ``image_2``; those of ``labels`` in
``images`` or ``data``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sppnet.datasets.collecting import Collection, located, split_of_place, unreadable_image
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import as_number, read_head, read_text, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.errors import DatasetError
from sppnet.storage.walking import walk_files

__all__ = ["has_kitti", "is_kitti", "read_kitti"]

_EXPECTED = "lines of class truncated occluded alpha x0 y0 x1 y1 and seven numbers more"
_FIELDS = (15, 16)
_MAX_BYTES = 64 << 20
_PEEK = 200


def is_kitti(file: Path) -> bool:
    """Whether the first line of a text file is an object of KITTI."""
    fields = read_head(file, 4096).lstrip().partition("\n")[0].split()
    if len(fields) not in _FIELDS or _is_number(fields[0]):
        return False
    return all(map(_is_number, fields[1:]))


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < 1e12
    except ValueError:
        return False


def has_kitti(root: Path) -> bool:
    """Whether there are such files in or below a folder; a number of text files are opened."""
    texts = (file for file in walk_files(root) if file.suffix.lower() == ".txt")
    return any(is_kitti(file) for file, _ in zip(texts, range(_PEEK), strict=False))


def read_kitti(root: Path, images: Path | None = None) -> RawDataset:
    """Read every label file of a data set; empty ones beside them are images without objects.

    Args:
        root: the folder of the data set, or one label file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none.
    """
    texts = [root] if root.is_file() else [file for file in walk_files(root) if file.suffix.lower() == ".txt"]
    folders = {file.parent for file in texts if is_kitti(file)}
    files = [file for file in texts if file.parent in folders]
    if not files:
        raise DatasetError(f"{root}: no label files of KITTI; expected {_EXPECTED}")
    home = home_of(root)
    collection = Collection(root, home, "kitti", ImageIndex(home, images))
    read = [_read_file(file, collection.extras) for file in files]
    places = collection.index.locate([(f"{file.stem}.png", _image_folders(file.parent, home)) for file in files])
    for file, image, place in zip(files, read, places, strict=True):
        collection.add(located(image, place), split_of_place(file, home))
    return collection.finish()


def _image_folders(labels: Path, home: Path) -> list[Path]:
    """Where the images of a folder of labels may be, the likeliest first."""
    own = labels.name.lower()
    names = [own.replace("labels", "images"), own.replace("label", "image"), "images", "image", "data"]
    beside = [labels.parent / name for name in names if name != own]
    return [*dict.fromkeys(beside), *folders_near(labels, home)]


def _read_file(file: Path, extras: Counter[str]) -> RawImage:
    objects: list[RawObject] = []
    problems: list[Problem] = []
    try:
        lines = read_text(file, _EXPECTED, _MAX_BYTES).splitlines()
    except DatasetError as error:
        return unreadable_image(file, error)
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        if fields[0].lower() == "dontcare":
            extras["regions that say DontCare"] += 1
            continue
        try:
            if len(fields) not in _FIELDS:
                raise ValueError(f"has {len(fields)} fields ({short(line.strip())}), expected 15 with a class first")
            if not all(map(_is_number, fields[1:])):  # a class of two words would move every field
                raise ValueError(f"is {short(line.strip())}, expected a class in one word, and numbers behind it")
            x0, y0, x1, y1 = (as_number(text, t) for text, t in zip(fields[4:8], ("x0", "y0", "x1", "y1"), strict=True))
        except ValueError as error:
            where = f"line {number}"
            problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
            continue
        objects.append(RawObject(fields[0], (x0, y0, x1, y1), f"({', '.join(fields[4:8])})", number))
    return RawImage("", file, file, None, tuple(objects), tuple(problems))
