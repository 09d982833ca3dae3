"""Data sets in the JSON format of COCO: ``images``, ``annotations`` with ``bbox`` x, y, width, height, ``categories``.

Found are a file by itself, ``annotations/instances_*.json`` beside the pictures' folders, and
``train/_annotations.coco.json``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sppnet.datasets.parsing import as_number, find_picture, read_json, short, unique_ids
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, plain_objects, write_json
from sppnet.errors import DatasetError

__all__ = ["coco_files", "is_coco", "read_coco", "write_coco"]

_EXPECTED = "COCO's JSON, an object with the lists images, annotations and categories"
_RULE = "x, y, width, height with width > 0 and height > 0"


def is_coco(document: object) -> bool:
    """Whether parsed JSON looks like a COCO file."""
    return isinstance(document, dict) and isinstance(document.get("images"), list) and "annotations" in document


def coco_files(root: Path) -> list[Path]:
    """JSON files in the places where COCO's annotations are kept; what is in them isn't looked at."""
    if root.is_file():
        return [root]
    found = [
        path
        for pattern in ("*.json", "annotations/*.json", "*/_annotations.coco.json", "*/annotations/*.json")
        for path in sorted(root.glob(pattern))
        if not path.name.startswith(".")
    ]
    instances = [path for path in found if path.name.startswith("instances_")]
    named = [path for path in instances or found if _split(path)]
    return named or instances or found


def read_coco(root: str | os.PathLike[str]) -> RawDataset:
    """Every COCO file of a data set; one whose name (or folder) is that of a split becomes that split.

    ``iscrowd`` and ``ignore`` make an object difficult: neither hit nor miss. Outlines aren't kept.

    Raises:
        DatasetError: there is none, or several that aren't splits; the file isn't COCO's; a picture comes twice.
    """
    root = Path(root)
    documents = [(file, document) for file in coco_files(root) if is_coco(document := read_json(file, _EXPECTED))]
    if not documents:
        raise DatasetError(f"{root}: no COCO annotations; expected {_EXPECTED}, here or in annotations")
    if len(documents) > 1 and not all(_split(file) for file, _ in documents):
        listed = ", ".join(file.name for file, _ in documents)
        raise DatasetError(f"{root}: holds several COCO files ({listed}); name one of them")
    names: list[str] = []
    problems: list[Problem] = []
    extras: Counter[str] = Counter()
    images: list[RawImage] = []
    splits: list[str] = []
    for file, document in documents:
        categories = _read_categories(file, document, problems)
        names += [name for name in categories.values() if name not in names]
        found = list(_read_images(file, document, categories, problems, extras))
        images += found
        # A lone file called anything (instances_default) isn't a part of something
        splits += [_split(file) if len(documents) > 1 else split_of_name(_split(file))] * len(found)
    home = root if root.is_dir() else root.parent
    ids = unique_ids([image.path for image in images], home)
    parts: dict[str, list[str]] = {}
    for image_id, split in zip(ids, splits, strict=True):
        parts.setdefault(split, []).append(image_id)
    return RawDataset(
        root, "coco", root.name if root.is_dir() else root.stem,
        {i: RawImage(**{**vars(image), "image_id": i}) for i, image in zip(ids, images, strict=True)},
        tuple(names), declared=True,
        splits={name: tuple(items) for name, items in parts.items() if name},
        rule=_RULE, problems=tuple(problems), extras=extras,
    )  # fmt: skip


def _split(file: Path) -> str:
    """``train`` for ``instances_train2017.json``; any name goes that follows ``instances_``."""
    stem = file.parent.name if file.name.startswith("_annotations") else file.stem
    return split_of_name(stem) or (stem.removeprefix("instances_") if stem.startswith("instances_") else "")


def _read_categories(file: Path, document: dict[str, Any], problems: list[Problem]) -> dict[int, str]:
    """Names by id, in the order of ids."""
    listed = document.get("categories")
    if not isinstance(listed, list):
        raise DatasetError(f"{file}: categories is {short(listed)}, expected a list; {_EXPECTED}")
    categories: dict[int, str] = {}
    for position, item in enumerate(listed, 1):
        name = item.get("name") if isinstance(item, dict) else None
        number = item.get("id") if isinstance(item, dict) else None
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            what = f"category {position} is {short(item)} with id {short(number)} and name {short(name)}"
            advice = "expected a whole number and a text; correct it"
            problems.append(Problem("error", "malformed category", str(file), what, advice))
        elif number in categories:
            what = f"has two categories of id {short(number)}: {short(categories[number])} and {short(name)}"
            problems.append(Problem("error", "malformed category", str(file), what, "give each an id of its own"))
        else:
            categories[number] = name.strip()
    return dict(sorted(categories.items()))


def _read_images(
    file: Path, document: dict[str, Any], categories: dict[int, str], problems: list[Problem], extras: Counter[str]
) -> Iterator[RawImage]:
    folders = _folders(file)
    objects: dict[int, list[RawObject]] = {}
    flaws: dict[int, list[Problem]] = {}
    known: dict[int, dict[str, Any]] = {}
    for position, item in enumerate(document["images"], 1):
        number = item.get("id") if isinstance(item, dict) else None
        name = item.get("file_name") if isinstance(item, dict) else None
        if not isinstance(number, int) or not isinstance(name, str) or not name:
            what = f"image {position} has id {short(number)} and file_name {short(name)}, expected a number and a name"
            problems.append(Problem("error", "malformed image", str(file), what, "correct it"))
        elif number in known:
            what = f"image {position} ({short(name)}) has the id {short(number)} of another one"
            problems.append(Problem("error", "malformed image", str(file), what, "give each image an id of its own"))
        else:
            known[number] = item
            objects[number], flaws[number] = [], []
    annotations = document["annotations"]
    if not isinstance(annotations, list):
        raise DatasetError(f"{file}: annotations is {short(annotations)}, expected a list; {_EXPECTED}")
    for position, item in enumerate(annotations, 1):
        where = f"annotation {position}"
        try:
            number, found = _read_object(item, position, known, categories)
        except ValueError as error:
            problem = Problem(
                "error", "malformed object", str(file), str(error), "correct or remove it", where + _id_of(item)
            )
            image = item.get("image_id") if isinstance(item, dict) else None
            # Of a picture where that is known, so that it counts only in its split
            (flaws[image] if isinstance(image, int) and image in known else problems).append(problem)
            continue
        extras["outlines (segmentation)"] += bool(item.get("segmentation"))
        extras["keypoints"] += bool(item.get("keypoints"))
        objects[number].append(found)
    for number, item in known.items():
        path = find_picture(item["file_name"], folders)
        where_expected = folders[0] / item["file_name"].replace("\0", "?")[-200:]
        yield RawImage(
            "", path or where_expected, file, _read_size(item), tuple(objects[number]), tuple(flaws[number]),
            found=path is not None,
        )  # fmt: skip


def _folders(file: Path) -> list[Path]:
    """Where the pictures of a COCO file may be, the likeliest first."""
    here, above = file.parent, file.parent.parent
    names = [file.stem.removeprefix("instances_"), _split(file)]
    inside = [base / "images" / name for base in (above, here) for name in names if name]
    beside = [base / name for base in (above, here) for name in names if name]
    return [*inside, *beside, here, here / "images", above, above / "images"]


def _read_size(item: dict[str, Any]) -> tuple[int, int] | None:
    width, height = item.get("width"), item.get("height")
    if isinstance(width, int) and isinstance(height, int) and 0 < width < 1 << 31 and 0 < height < 1 << 31:
        return width, height
    return None


def _id_of(item: object) -> str:
    return f" (id {short(item['id'], 20)})" if isinstance(item, dict) and "id" in item else ""


def _read_object(
    item: object, position: int, known: dict[int, dict[str, Any]], categories: dict[int, str]
) -> tuple[int, RawObject]:
    if not isinstance(item, dict):
        raise ValueError(f"is {short(item)}, expected an object")
    image, category, box = item.get("image_id"), item.get("category_id"), item.get("bbox")
    if not isinstance(image, int) or image not in known:
        raise ValueError(f"has image_id {short(image)}, expected the id of one of the {len(known)} images")
    if not isinstance(category, int) or category not in categories:
        some = ", ".join(f"{number} {name}" for number, name in list(categories.items())[:20])
        raise ValueError(f"has category_id {short(category)}, expected one of: {some}")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"({categories[category]}) has bbox {short(box)}, expected [x, y, width, height]")
    x, y, w, h = (
        as_number(value, f"bbox {name}") for value, name in zip(box, ("x", "y", "width", "height"), strict=True)
    )
    crowd = bool(item.get("iscrowd")) or bool(item.get("ignore"))
    written = f"[{x:g}, {y:g}, {w:g}, {h:g}]"
    flat = w == 0 or h == 0
    return image, RawObject(categories[category], (x, y, x + w, y + h), written, position, crowd, flat)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_coco(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(job.dataset.class_names)]
    documents: dict[str, dict[str, list[dict[str, Any]]]] = {
        split: {"images": [], "annotations": [], "categories": categories} for split in job.splits
    }
    number = 0
    ignored = 0
    order = [(split, i) for split, items in job.splits.items() for i in items]
    for k in progress(range(len(order))):
        split, i = order[k]
        record = job.dataset[i]
        job.place(i, job.root / (split or "images"))
        documents[split]["images"].append(
            {"id": i + 1, "file_name": job.names[i], "width": record.width, "height": record.height}
        )
        for label, (x0, y0, x1, y1), difficult in plain_objects(record):
            number += 1
            w, h = round(x1 - x0, 9), round(y1 - y0, 9)
            item = {"id": number, "image_id": i + 1, "category_id": label + 1, "bbox": [x0, y0, w, h], "area": w * h}
            item |= {"iscrowd": 0} | ({"ignore": 1} if difficult else {})
            ignored += difficult
            documents[split]["annotations"].append(item)
    for split, document in documents.items():
        write_json(job.root / "annotations" / f"instances{'_' + split if split else ''}.json", document)
    if not ignored:
        return []
    return [f"{ignored} difficult objects have ignore = 1: sppnet reads that; other tools take them as ordinary ones"]
