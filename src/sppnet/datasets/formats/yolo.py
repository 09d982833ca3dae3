"""Data sets in the format of YOLO: ``data.yaml``, ``images/<split>/*``, ``labels/<split>/*.txt``.

Also label files beside their images or in any other folder, as labelImg, darknet and CVAT's "YOLO 1.1" have them.
A line of a label file is ``class cx cy width height`` in fractions of the image. In longer lines these numbers are
followed by keypoints, or all are corners of an outline (its bounding box counts). Without ``data.yaml`` the names of
the classes are in ``classes.txt``, ``obj.names`` or ``_darknet.labels`` beside the label files or in a folder above.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sppnet.datasets.collecting import Collection, split_of_place
from sppnet.datasets.formats.yolo_labels import (
    LabelFiles,
    Line,
    Names,
    is_label_file,
    is_pose,
    read_line,
    read_lines,
)
from sppnet.datasets.formats.yolo_yaml import RESERVED, Entry, find_yaml, read_data_file, read_data_yaml
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import read_text
from sppnet.datasets.raw import Problem, RawDataset, RawImage
from sppnet.datasets.write_job import Wrap, WriteJob, plain_objects
from sppnet.errors import DatasetError
from sppnet.images import list_images
from sppnet.storage.walking import walk_files

__all__ = ["data_yaml", "find_yaml", "has_labels", "label_line", "read_yolo", "write_yolo"]

_RULE = "cx cy width height in fractions from 0 to 1 with width > 0 and height > 0"


@dataclass(frozen=True)
class _Place:
    """An image, or a line of a list that names none."""

    path: Path
    found: bool = True
    outside: bool = False
    missing: str = ""


def has_labels(root: Path, limit: int = 200) -> bool:
    """Whether there are label files in or below a folder; at most ``limit`` text files are opened."""
    for file in walk_files(root):
        if file.suffix.lower() == ".txt":
            if is_label_file(file):
                return True
            limit -= 1
            if not limit:
                break
    return False


def read_yolo(root: Path, images: Path | None = None) -> RawDataset:
    """Read every image and label file of a data set. An image without a label file has no objects.

    Args:
        root: the folder of the data set, or its ``data.yaml``.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: no names, no images, an unreadable ``data.yaml``, or none of the folders in it is there.
    """
    file = find_yaml(root)
    home = home_of(root)
    collection = Collection(root, home, "yolo", ImageIndex(home, images))
    elsewhere = images is not None
    data = read_data_yaml(file, images_elsewhere=elsewhere) if file is not None else read_data_file(home)
    splits: dict[str, list[_Place]] = {}
    for split, entries in data.splits.items():
        places = [place for entry in entries for place in _images(entry, collection, data.bases)]
        splits[split] = list({place.path: place for place in places}.values())
    if images is not None and not any(place.found for found in splits.values() for place in found):
        splits, broken = {"": [_Place(path) for path in list_images([images])]}, {}
    else:
        broken = data.broken
    for split, why in broken.items():
        collection.broken_splits[split] = why
        what, _, advice = why.removeprefix(f"{file}: ").rpartition("; ")
        collection.problems.append(Problem("warning", "split", str(file or home), what, advice))
    labels = LabelFiles(home)
    if not splits:
        splits = _by_folders(home, collection.index.files, labels)
    paths = list({place.path: place for found in splits.values() for place in found}.values())
    if not paths:
        raise DatasetError(f"{file or home}: no images in the folders it names; expected images/<split>/*")
    _warn_of_equal_splits(file or home, splits, collection)
    names = Names(home, data.names)
    read = _read_all(paths, labels, names, data.keypoints, collection)
    for label, about in sorted(labels.shared.items()):
        if len(about) < 2:
            continue
        what = f"is taken for the labels of {about[0]} and {about[1]}, which are called alike and look so"
        advice = "fine if these are copies; else put it beside its image"
        collection.problems.append(Problem("warning", "shared label file", str(label), what, advice))
    for split, found in splits.items():
        for place in found:
            collection.add(read[place.path], split)
        for orphan in labels.without_image([place.path for place in found]):
            path = Path(str(orphan.parent).replace("labels", "images")) / f"{orphan.stem}.jpg"
            collection.add(RawImage("", path, orphan, found=False), split)
    known = names.all()
    if names.guessed:
        what = f"nothing names the classes (data.yaml, classes.txt): they are called {', '.join(known[:3])} ..."
        collection.problems.append(
            Problem("warning", "no class names", str(home), what, "write their names into classes.txt")
        )
    return collection.finish(known, declared=True, rule=_RULE)


def _warn_of_equal_splits(file: Path, splits: dict[str, list[_Place]], collection: Collection) -> None:
    seen: dict[frozenset[Path], str] = {}
    for split, found in splits.items():
        paths = frozenset(place.path for place in found)
        if paths and paths in seen:
            what = f"{seen[paths]} and {split} are the same images: figures measured on training images mean little"
            collection.problems.append(
                Problem("warning", "same split twice", str(file), what, f"keep other images for {split}")
            )
        seen.setdefault(paths, split)


# --- which images ----------------------------------------------------------------------------------------------------


def _images(entry: Entry, collection: Collection, bases: Sequence[Path]) -> list[_Place]:
    """The images of one entry: those in a folder, or those that a text file lists."""
    if entry.path.is_dir():
        return [_Place(path, outside=not collection.index.inside(path)) for path in list_images([entry.path])]
    lines = [line for line in map(str.strip, read_text(entry.path, "one image a line").splitlines()) if line]
    near = [*bases, *folders_near(entry.path.parent, collection.home)]
    found = collection.index.locate([(line, [entry.path.parent, *near]) for line in lines])
    why = f"{entry.path.name} lists it"
    return [
        _Place(place.path, place.found, place.outside, place.missing or ("" if place.found else why)) for place in found
    ]


def _by_folders(home: Path, images: Sequence[Path], labels: LabelFiles) -> dict[str, list[_Place]]:
    """Without a file that names the splits: images with labels, and those beside them; folders name the splits."""
    base = Path(home).absolute()
    shown = [home / path.relative_to(base) if path.is_relative_to(base) else path for path in images]
    labels.know(shown)
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in shown:
        folders[path.parent].append(path)
    splits: dict[str, list[_Place]] = {}
    for found in folders.values():
        if any(labels.of(path).is_file() for path in found):
            for path in found:
                label = labels.of(path)
                split = split_of_place(path, home) or split_of_place(label, home)
                splits.setdefault(split, []).append(_Place(path))
    return splits


# --- label files -----------------------------------------------------------------------------------------------------


def _read_all(
    places: Sequence[_Place], labels: LabelFiles, names: Names, keypoints: tuple[int, int] | None,
    collection: Collection,
) -> dict[Path, RawImage]:  # fmt: skip
    labels.know([place.path for place in places])
    images: dict[Path, RawImage] = {}
    lines: dict[Path, list[Line]] = {}
    for place in places:
        file = labels.of(place.path)
        image = RawImage("", place.path, file, found=place.found, outside=place.outside, missing=place.missing,
                         fractions=True)  # fmt: skip
        if not file.is_file():
            if place.found:
                what = f"{place.path.name} has no label file, so no objects"
                problem = Problem("warning", "no label file", str(file), what, "write an empty file if that is so")
                image = replace(image, problems=(problem,))
        else:
            try:
                lines[place.path] = read_lines(file)
            except DatasetError as error:
                what, _, advice = str(error).removeprefix(f"{file}: ").rpartition("; ")
                problem = Problem("error", "unreadable annotation", str(file), what, advice)
                image = replace(image, problems=(problem,))
        images[place.path] = image
    pose = is_pose([line for found in lines.values() for line in found], keypoints)
    for path, found in lines.items():
        objects, problems = [], []
        numbered = names.of(images[path].file)
        for line in found:
            try:
                objects.append(read_line(line, numbered, pose, collection.extras, names))
            except ValueError as error:
                problems.append(
                    Problem("error", "malformed object", str(images[path].file), str(error), "correct or remove it",
                            f"line {line.position}")
                )  # fmt: skip
        images[path] = replace(images[path], objects=tuple(objects), problems=tuple(problems))
    return images


# --- writing ----------------------------------------------------------------------------------------------------------


def label_line(label: int, box: Sequence[float], width: int, height: int, digits: str = ".12g") -> str:
    """Return a line of a label file, for a box ``(x0, y0, x1, y1)`` in pixels."""
    x0, y0, x1, y1 = box
    values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return f"{label} " + " ".join(f"{v:{digits}}" for v in values) + "\n"


def data_yaml(splits: dict[str, str], names: Sequence[str]) -> str:
    """Return the text of ``data.yaml``."""
    document: dict[str, Any] = {**splits, "names": dict(enumerate(names))}
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000))


def write_yolo(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    losses = []
    splits = job.splits
    if not job.split:
        splits = {"train": job.splits[""]}
        losses.append("the data set isn't split and YOLO's format wants it: every image is put into train")
    order = [(split, i) for split, items in splits.items() for i in items]
    flags = 0
    for k in progress(range(len(order))):
        split, i = order[k]
        record = job.dataset[i]
        job.place(i, "images", split)
        flags += int(record.difficult.sum())
        lines = [label_line(label, box, record.width, record.height) for label, box, _ in plain_objects(record)]
        job.write("".join(lines), "labels", split, f"{Path(job.names[i]).stem}.txt")
    strange = [split for split in splits if split not in ("train", "val", "valid", "test")]
    reserved = [split for split in strange if split in RESERVED]
    named = {split: f"images/{split}" for split in splits if split not in reserved}
    job.write(data_yaml(named, job.dataset.class_names), "data.yaml")
    if strange:
        losses.append(f"other tools read train, val and test only, not {', '.join(strange)}")
    if reserved:
        losses.append(f"data.yaml can't name the splits {', '.join(reserved)}: their images are only in the folders")
    if flags:
        losses.append(f"{flags} difficult flags are lost: those objects become ordinary ones")
    return losses
