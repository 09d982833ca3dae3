"""Labels that another program made, in any format that the project reads, for images that are in the project."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from sppnet.datasets.assembling import assemble
from sppnet.datasets.loading import read_dataset
from sppnet.datasets.parsing import read_text
from sppnet.errors import ArgumentError, SppnetError, UnknownFormatError
from sppnet.storage.walking import walk_files
from sppnet.studio.labels import MAX_BOXES

__all__ = ["ANNOTATION_SUFFIXES", "ImportedLabels", "joined_labels", "labels_for_images", "read_labels"]

ANNOTATION_SUFFIXES = frozenset(
    {".xml", ".json", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".data", ".names", ".labels"}
)
_PROBLEMS_TOLD = 20
_MAX_YAML_BYTES = 10_000_000


@dataclass(frozen=True)
class ImportedLabels:
    """What another program said.

    Attributes:
        class_names: by number.
        boxes: ``(x0, y0, x1, y1, class)`` by name of the image in the project.
        unfinished: images of which something could not be used; somebody must look at them.
        problems: files, and what of them could not be used and why.
    """

    class_names: tuple[str, ...]
    boxes: dict[str, list[tuple[float, ...]]]
    unfinished: frozenset[str] = frozenset()
    problems: tuple[tuple[str, str], ...] = ()


def read_labels(root: Path, name_of: Callable[[Path], str | None]) -> ImportedLabels:
    """Read a folder as a data set.

    An image of which no annotation says anything is left out: YOLO has no file for one without objects, nor for one
    that nobody has labelled yet.

    Args:
        root: of the data set.
        name_of: name in the project of an image that the annotations name; None where it isn't one of the project.

    Raises:
        UnknownFormatError: it is no data set of a known format.
        SppnetError: it is one, but can't be read.
    """
    raw = read_dataset(root)
    data = assemble(raw, None, allow_outside=False)
    boxes: dict[str, list[tuple[float, ...]]] = {}
    unfinished: set[str] = set()
    many: list[tuple[str, str]] = []
    for record in data:
        image = raw.images[record.image_id]
        name = name_of(record.path)
        if name is None or not image.file.is_file():
            continue
        if len(record) > MAX_BOXES:  # nobody could change them on the page
            many.append((name, f"has {len(record)} boxes, more than {MAX_BOXES}; they were left out"))
            continue
        if len(record) < len(image.objects) or any(problem.level == "error" for problem in image.problems):
            if not len(record):
                continue
            unfinished.add(name)
        boxes[name] = [(*box, c) for box, c in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)]
    texts = [*data.problems, *(str(p) for p in raw.problems if p.kind == "no class names")]
    told = [*many, *(_told(text, root) for text in texts)]
    problems = told[:_PROBLEMS_TOLD]
    if len(told) > len(problems):
        problems.append(("labels", f"{len(told) - len(problems)} more could not be used"))
    return ImportedLabels(tuple(data.class_names), boxes, frozenset(unfinished), tuple(problems))


def labels_for_images(
    write: Callable[[Path], None], images: Mapping[PurePosixPath, Path], folder: Path, scratch: Path
) -> ImportedLabels | None:
    """Read annotations together with the images that came with them.

    Args:
        write: puts the annotations below the folder that it is given.
        images: where the images are now, by where they were beside the annotations.
        folder: of the project.
        scratch: a folder for a while, best on the disk of the images.

    Returns:
        The labels, or None where the files are no data set of a known format.

    Raises:
        ArgumentError: they are one, but can't be read; or ``write`` raised it.
    """
    with TemporaryDirectory(dir=scratch, prefix="labels-") as name:
        root = Path(name) / "dataset"
        root.mkdir()
        write(root)
        _keep_inside(root)
        for inner, path in images.items():
            _link(path, root / inner)

        def name_of(path: Path) -> str | None:
            try:
                place = images[PurePosixPath(path.relative_to(root).as_posix())]
            except (ValueError, KeyError):
                return None  # the annotations name an image elsewhere
            return place.relative_to(folder).as_posix()

        try:
            return read_labels(root, name_of)
        except UnknownFormatError:
            return None
        except SppnetError as error:
            text = re.sub(r"; say which with format.*", "; keep one of them", _without(str(error), root))
            raise ArgumentError(f"its labels can't be read: {text}"[:300]) from None


def joined_labels(parts: Iterable[ImportedLabels]) -> ImportedLabels:
    """One of several, whose classes are told apart by their names only."""
    names: list[str] = []
    boxes: dict[str, list[tuple[float, ...]]] = {}
    unfinished: set[str] = set()
    problems: list[tuple[str, str]] = []
    for part in parts:
        unfinished |= part.unfinished
        for image, rows in part.boxes.items():
            boxes[image] = [(*row[:4], len(names) + int(row[4])) for row in rows]
        names += part.class_names
        problems += part.problems
    return ImportedLabels(tuple(names), boxes, frozenset(unfinished), tuple(problems))


def _keep_inside(root: Path) -> None:
    """Let YOLO's descriptions lead nowhere else: ``path: /`` would make the whole disk be looked through.

    An address of another machine means the same place by its last parts, so they become such addresses.
    """

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        leads_out = isinstance(value, str) and (value.lstrip().startswith(("/", "\\", "~")) or ".." in value)
        return f"x:/{value.lstrip()}" if leads_out else value

    for file in walk_files(root):
        suffix = file.suffix.lower()
        if suffix not in (".yaml", ".yml", ".data"):
            continue
        try:
            text = read_text(file, "a description of YOLO", _MAX_YAML_BYTES)
            if suffix == ".data":
                pairs = (line.partition("=") for line in text.splitlines())
                file.write_text("".join(f"{a}{b}{moved(c)}\n" for a, b, c in pairs), encoding="utf-8")
                continue
            document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 (makes no objects)
            if isinstance(document, dict):
                document = {key: moved(value) for key, value in document.items()}
                file.write_text(yaml.dump(document, Dumper=yaml.SafeDumper, allow_unicode=True), encoding="utf-8")
        except (yaml.YAMLError, RecursionError, ValueError, OSError, SppnetError):
            continue  # it will be told that it can't be read


def _told(text: str, root: Path) -> tuple[str, str]:
    name, _, why = text.partition(": ")
    shown = "labels" if name == str(root) else _without(name, root)
    return shown[:200], _without(why, root).replace(" (--images DIR)", "")[:300]


def _without(text: str, root: Path) -> str:
    """A message without the place where the files lie for a while."""
    return text.replace(f"{root}{os.sep}", "").replace(f"{root}: ", "").replace(str(root), "it")


def _link(path: Path, place: Path) -> None:
    """The same file in a second place, where the disk allows it; else a copy."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), place)
        except FileExistsError:
            return
        except OSError:
            shutil.copyfile(path, place)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return  # a file has the name of its folder: the annotations can't mean it
