"""Data sets in the format of YOLO: ``data.yaml``, ``images/<split>/*``, ``labels/<split>/*.txt``.

Also label files beside their pictures, as labelImg, darknet and CVAT's "YOLO 1.1" have them.
A line of a label file is ``class cx cy width height`` in fractions of the picture. Longer lines are outlines (their
bounding box counts). Without ``data.yaml`` the names are in ``classes.txt``, ``obj.names`` or ``_darknet.labels``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from sppnet.datasets.parsing import as_number, find_picture, read_text, short, unique_ids, whole_text
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, plain_objects
from sppnet.errors import DatasetError
from sppnet.images import list_images

__all__ = ["find_yaml", "labels_beside", "read_yolo", "write_yolo", "yolo_folders"]

_EXPECTED = "a YAML file with the names of the classes (names) and the folders of pictures (train, val)"
_RULE = "cx cy width height in fractions from 0 to 1 with width > 0 and height > 0"
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_MAX_YAML_BYTES = 1 << 20


def find_yaml(root: Path) -> Path | None:
    """The YAML file of a data set: ``root`` itself, or the one in it that has names."""
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    found = sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda p: (p.stem != "data", p.name))
    for file in found:
        if file.stem == "data":
            return file  # whatever is in it: reading it gives the error
        try:
            document = _read_yaml(file)
        except DatasetError:
            continue
        if isinstance(document, dict) and "names" in document:
            return file
    return None


def yolo_folders(root: Path) -> list[Path]:
    """Folders of label files in a data set without a YAML file."""
    return sorted(
        path
        for pattern in ("labels", "labels/*", "*/labels")
        for path in root.glob(pattern)
        if path.is_dir() and any(file.suffix == ".txt" for file in path.iterdir())
    )


def labels_beside(pictures: Sequence[Path]) -> list[Path]:
    """Those of ``pictures`` that lie in a folder in which some picture has a label file beside it."""
    folders: dict[Path, bool] = {}
    for path in pictures:
        if not folders.get(path.parent):
            folders[path.parent] = _is_label_file(path.with_suffix(".txt"))
    return [path for path in pictures if folders[path.parent]]


def _is_label_file(file: Path) -> bool:
    """Whether the first line is a class and four numbers."""
    try:
        with file.open("rb") as stream:
            fields = stream.readline(1000).split()
        return len(fields) == 5 and all(abs(float(field)) < 1e6 for field in fields)
    except (OSError, ValueError):
        return False


def read_yolo(root: str | os.PathLike[str]) -> RawDataset:
    """Every picture and label file of a data set. A picture without a label file has no objects.

    Raises:
        DatasetError: no names, no pictures, an unreadable ``data.yaml``, or a folder in it that is missing.
    """
    root = Path(root)
    file = find_yaml(root)
    home = root if root.is_dir() else root.parent
    problems: list[Problem] = []
    names: tuple[str, ...] | None
    if file is not None:
        names, splits = _read_data_yaml(file)
    else:
        names, splits = _without_yaml(home)
    paths = [path for found in splits.values() for path in found]
    if not paths:
        raise DatasetError(f"{file or home}: no pictures in the folders it names; expected images/<split>/*")
    ids = dict(zip(paths, unique_ids(paths, home), strict=True))
    numbers: set[int] = set()
    extras: Counter[str] = Counter()
    images = {ids[path]: _read_image(ids[path], path, names, numbers, extras) for path in paths}
    labels = {image.file for image in images.values()}
    parts = {split: [ids[path] for path in found] for split, found in splits.items()}
    for split, found in splits.items():
        for orphan in _without_picture(found, labels):
            image_id = f"{orphan.parent.name}/{orphan.stem} (no picture)"
            path = Path(str(orphan.parent).replace("labels", "images")) / f"{orphan.stem}.jpg"
            images[image_id] = RawImage(image_id, path, orphan, found=False)
            parts[split].append(image_id)
            labels.add(orphan)
    if names is None:
        known = tuple(str(number) for number in range(max(numbers, default=-1) + 1))
        what = f"neither data.yaml nor {_NAME_FILES[0]} names the classes: they are called {', '.join(known[:3])} ..."
        problems.append(Problem("warning", "no class names", str(home), what, "write their names into classes.txt"))
    else:
        known = names
    return RawDataset(
        root, "yolo", home.name, images, known, declared=True,
        splits={split: tuple(items) for split, items in parts.items() if split},
        rule=_RULE, problems=tuple(problems), extras=extras,
    )  # fmt: skip


# --- which pictures --------------------------------------------------------------------------------------------------


def _read_yaml(file: Path) -> Any:
    try:
        if file.stat().st_size > _MAX_YAML_BYTES:
            raise DatasetError(f"{file}: more than {_MAX_YAML_BYTES} bytes; expected {_EXPECTED}")
        # BaseLoader makes texts, lists and dictionaries only: nothing is executed, and a class "no" stays "no".
        return whole_text(yaml.load(read_text(file, _EXPECTED), Loader=yaml.BaseLoader))  # noqa: S506 (makes no objects)
    except (yaml.YAMLError, RecursionError, ValueError, OSError) as error:
        if isinstance(error, DatasetError):
            raise
        detail = " ".join(str(error).split())[:200]
        raise DatasetError(f"{file}: not YAML ({detail}); expected {_EXPECTED}") from None


def _read_data_yaml(file: Path) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    document = _read_yaml(file)
    if not isinstance(document, dict):
        raise DatasetError(f"{file}: holds {short(document)}, expected {_EXPECTED}")
    names = _names(file, document.get("names"))
    here = file.parent
    base = document.get("path", "")
    bases = [here]
    if isinstance(base, str) and base and "\0" not in base:
        bases = [here / base, here]
    splits: dict[str, list[Path]] = {}
    for key in ("train", "val", "valid", "test"):
        value = document.get(key)
        if not value or value == "null" or value == "~":
            continue
        entries = value if isinstance(value, list) else [value]
        found: list[Path] = []
        for entry in entries:
            if not isinstance(entry, str) or "\0" in entry:
                raise DatasetError(f"{file}: {key} is {short(entry)}, expected a folder or a list file")
            found += _pictures(file, key, entry, bases)
        splits[key] = list(dict.fromkeys(found))
    if not splits:
        raise DatasetError(f"{file}: has none of train, val and test; expected {_EXPECTED}")
    return names, splits


def _names(file: Path, listed: object) -> tuple[str, ...]:
    """``[cat, dog]`` or ``{0: cat, 1: dog}``."""
    if isinstance(listed, dict):
        try:
            listed = [listed[key] for key in sorted(listed, key=int)] if _consecutive(listed) else None
        except (TypeError, ValueError):
            listed = None
    if not isinstance(listed, list) or not listed or not all(isinstance(n, str) and n.strip() for n in listed):
        raise DatasetError(
            f"{file}: names is {short(listed)}, expected the names of the classes, as a list or numbered 0, 1, 2 ..."
        )
    names = tuple(name.strip() for name in listed)
    for name, count in Counter(names).items():
        if count > 1:
            raise DatasetError(f"{file}: names has {short(name)} {count} times; give each class a name of its own")
    return names


def _consecutive(numbered: dict[Any, Any]) -> bool:
    return sorted(int(key) for key in numbered) == list(range(len(numbered)))


def _pictures(file: Path, key: str, entry: str, bases: Sequence[Path]) -> list[Path]:
    """The pictures of one entry of ``data.yaml``: a folder, or a text file that lists them."""
    # Exports often say ../train/images though the folder is beside the file.
    spellings = [entry, entry.removeprefix("../")]
    for base in bases:
        for spelling in spellings:
            path = Path(os.path.normpath(base / spelling))
            try:
                if path.is_dir():
                    # "/" would mean every picture of the machine
                    if path.resolve() in file.parent.resolve().parents:
                        raise DatasetError(f"{file}: {key} is {short(entry)}, a folder above the data set; correct it")
                    return list_images([path])
                if path.is_file() and path.suffix == ".txt":
                    return _listed(path, [path.parent, *bases])
            except OSError:
                continue
    raise DatasetError(
        f"{file}: {key} is {short(entry)}, but there is no such folder or list (looked in "
        f"{', '.join(map(str, bases))}); correct it, or path"
    )


def _listed(file: Path, folders: Sequence[Path]) -> list[Path]:
    found = []
    for line in filter(None, map(str.strip, read_text(file, "one picture a line").splitlines())):
        path = find_picture(line, folders)
        if path is None:
            raise DatasetError(f"{file}: lists {short(line)}, but there is no such picture; correct or remove the line")
        found.append(path)
    return found


def _without_yaml(home: Path) -> tuple[tuple[str, ...] | None, dict[str, list[Path]]]:
    splits: dict[str, list[Path]] = {}
    for labels in yolo_folders(home):
        # labels/train belongs to images/train, train/labels to train/images
        below = labels.relative_to(home).parts
        folder = home.joinpath(*("images" if part == "labels" else part for part in below))
        pictures = [path for path in list_images([folder]) if path.parent == folder] if folder.is_dir() else []
        splits.setdefault(_split(below), []).extend(pictures)
    if not splits:
        for path in labels_beside(list_images([home])):
            splits.setdefault(_split(path.relative_to(home).parts[:-1]), []).append(path)
    places = [home, home / "labels", *sorted({path.parent for found in splits.values() for path in found})]
    for file in (place / name for place in places for name in _NAME_FILES):
        if file.is_file():
            lines = read_text(file, "the name of one class a line").splitlines()
            return _names(file, [line for line in map(str.strip, lines) if line]), splits
    return None, splits


def _split(folders: Sequence[str]) -> str:
    """``train`` for ``labels/train``, ``train/labels`` and CVAT's ``obj_train_data``."""
    plain = (folder.lower().removeprefix("obj_").removesuffix("_data") for folder in folders)
    return next((name for name in plain if split_of_name(name)), "")


# --- label files -----------------------------------------------------------------------------------------------------


def _label_file(picture: Path) -> Path:
    """``.../labels/x.txt`` for ``.../images/x.jpg`` (the last ``images`` of the path), else beside the picture."""
    parts = list(picture.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            beside = picture.with_suffix(".txt")
            there = Path(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt")
            return beside if beside.is_file() and not there.is_file() else there
    return picture.with_suffix(".txt")


def _without_picture(pictures: Sequence[Path], used: set[Path]) -> list[Path]:
    """Label files of no picture, in the folders named labels where those of ``pictures`` are."""
    folders = sorted({_label_file(path).parent for path in pictures})
    return [
        file
        for folder in folders
        if "labels" in folder.parts and folder.is_dir()
        for file in sorted(folder.glob("*.txt"))
        if file not in used and file.name != "classes.txt"
    ]


def _read_image(
    image_id: str, path: Path, names: tuple[str, ...] | None, numbers: set[int], extras: Counter[str]
) -> RawImage:
    file = _label_file(path)
    if not file.is_file():
        what = f"{path.name} has no label file, so no objects"
        problem = Problem("warning", "no label file", str(file), what, "write an empty file if that is so")
        return RawImage(image_id, path, file, problems=(problem,), fractions=True)
    objects: list[RawObject] = []
    problems: list[Problem] = []
    try:
        lines = read_text(file, "class cx cy width height a line").splitlines()
    except DatasetError as error:
        what, _, advice = str(error).removeprefix(f"{file}: ").rpartition("; ")
        problems.append(Problem("error", "unreadable annotation", str(file), what, advice))
        lines = []
    for position, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            objects.append(_read_line(line, position, names, numbers, extras))
        except ValueError as error:
            problem = Problem(
                "error", "malformed object", str(file), str(error), "correct or remove it", f"line {position}"
            )
            problems.append(problem)
    return RawImage(image_id, path, file, None, tuple(objects), tuple(problems), fractions=True)


def _read_line(
    line: str, position: int, names: tuple[str, ...] | None, numbers: set[int], extras: Counter[str]
) -> RawObject:
    fields = line.split()
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        hint = " (six numbers: is it a prediction with a score?)" if len(fields) == 6 else ""
        raise ValueError(f"has {len(fields)} numbers, expected class cx cy width height{hint}")
    number = as_number(fields[0], "class")
    count = len(names) if names is not None else 10_000
    if number != int(number) or not 0 <= number < count:
        limit = f"one of the {count} numbers from 0 ({names[0]}) to {count - 1} ({names[-1]})" if names else "a number"
        raise ValueError(f"has class {short(fields[0])}, expected {limit}")
    values = [as_number(text, "coordinate") for text in fields[1:]]
    if max(map(abs, values)) > 2:
        raise ValueError(f"has {short(' '.join(fields[1:5]))}, expected fractions from 0 to 1 (are these pixels?)")
    if len(values) == 4:
        cx, cy, w, h = values
        box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        flat = w == 0 or h == 0
    else:
        xs, ys = values[::2], values[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
        flat = False
        extras["outlines (segmentation)"] += 1
    numbers.add(int(number))
    name = names[int(number)] if names is not None else str(int(number))
    return RawObject(name, box, " ".join(f"{v:g}" for v in values[:4]), position, flat=flat)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_yolo(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    losses = []
    splits = job.splits
    if not job.split:
        splits = {"train": job.splits[""]}
        losses.append("the data set isn't split and YOLO's format wants it: every picture is put into train")
    order = [(split, i) for split, items in splits.items() for i in items]
    flags = 0
    for k in progress(range(len(order))):
        split, i = order[k]
        record = job.dataset[i]
        job.place(i, job.root / "images" / split)
        lines = []
        for label, (x0, y0, x1, y1), difficult in plain_objects(record):
            flags += difficult
            centre = [(x0 + x1) / 2 / record.width, (y0 + y1) / 2 / record.height]
            values = [*centre, (x1 - x0) / record.width, (y1 - y0) / record.height]
            lines.append(f"{label} " + " ".join(f"{v:.12g}" for v in values) + "\n")
        file = job.root / "labels" / split / f"{Path(job.names[i]).stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines), encoding="utf-8")
    known = [split for split in splits if split in ("train", "val", "valid", "test")]
    strange = [split for split in splits if split not in known]
    document: dict[str, Any] = {split: f"images/{split}" for split in known}
    document["names"] = dict(enumerate(job.dataset.class_names))
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    (job.root / "data.yaml").write_text(text, encoding="utf-8")
    if strange:
        losses.append(f"data.yaml knows train, val and test only; not in it: {', '.join(strange)}")
    if flags:
        losses.append(f"{flags} difficult flags are lost: those objects become ordinary ones")
    return losses
