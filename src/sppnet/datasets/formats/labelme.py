"""Data sets of LabelMe: a JSON file for each picture, with ``shapes``.

A rectangle is two opposite corners, in pixels, 0-based; corners may be given in any order. Of polygons, circles and
masks the bounding box counts. A flag ``difficult`` is understood. Folders called train, val or test are splits.
"""

from __future__ import annotations

import os
from collections import Counter
from math import hypot
from pathlib import Path
from typing import Any

from sppnet.datasets.parsing import as_number, find_picture, read_json, short, sorted_names, unique_ids
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, order_lost, plain_objects, write_json
from sppnet.errors import DatasetError
from sppnet.images import IMAGE_EXTENSIONS

__all__ = ["is_labelme", "labelme_files", "read_labelme", "write_labelme"]

_EXPECTED = "a JSON file of LabelMe, an object with imagePath and a list shapes"
_RULE = "two different corners"
_AREAS = ("rectangle", "polygon", "circle", "mask", "linestrip")


def is_labelme(document: object) -> bool:
    """Whether parsed JSON looks like a LabelMe file."""
    return isinstance(document, dict) and "shapes" in document


def labelme_files(root: Path) -> list[Path]:
    """JSON files in ``root`` and up to two levels below; what is in them isn't looked at."""
    if root.is_file():
        return [root]
    patterns = ("*.json", "*/*.json", "*/*/*.json")
    return [path for pattern in patterns for path in sorted(root.glob(pattern)) if not path.name.startswith(".")]


def read_labelme(root: str | os.PathLike[str]) -> RawDataset:
    """Every LabelMe file of a folder.

    Raises:
        DatasetError: there is none, or two are about one picture.
    """
    root = Path(root)
    home = root if root.is_dir() else root.parent
    images: list[RawImage] = []
    problems: list[Problem] = []
    extras: Counter[str] = Counter()
    for file in labelme_files(root):
        try:
            document = read_json(file, _EXPECTED)
        except DatasetError as error:
            what, _, advice = str(error).removeprefix(f"{file}: ").rpartition("; ")
            problem = Problem("error", "unreadable annotation", str(file), what, advice)
            images.append(RawImage("", file.with_suffix(".jpg"), file, problems=(problem,), readable=False))
            continue
        if is_labelme(document):
            images.append(_read_image(file, document, extras))
        else:
            what = "holds no shapes and is left out"
            problems.append(
                Problem("warning", "no annotation", str(file), what, "remove it if it isn't of this data set")
            )
    if not any(image.readable for image in images):
        detail = f" ({problems[0]})" if problems else f" ({images[0].problems[0]})" if images else ""
        expected = "" if detail else f"; expected {_EXPECTED}"
        raise DatasetError(f"{root}: no LabelMe annotations{detail}{expected}")
    ids = unique_ids([image.path for image in images], home)
    parts: dict[str, list[str]] = {}
    for image_id, image in zip(ids, images, strict=True):
        folders = image.file.relative_to(home).parts[:-1]
        split = next((part.lower() for part in folders if split_of_name(part)), "")
        parts.setdefault(split, []).append(image_id)
    return RawDataset(
        root, "labelme", home.name,
        {i: RawImage(**{**vars(image), "image_id": i}) for i, image in zip(ids, images, strict=True)},
        sorted_names(item.name for image in images for item in image.objects),
        splits={name: tuple(items) for name, items in parts.items() if name},
        rule=_RULE, problems=tuple(problems), extras=extras,
    )  # fmt: skip


def _read_image(file: Path, document: dict[str, Any], extras: Counter[str]) -> RawImage:
    objects: list[RawObject] = []
    problems: list[Problem] = []
    shapes = document["shapes"]
    if not isinstance(shapes, list):
        what = f"shapes is {short(shapes)}, expected a list"
        problems.append(Problem("error", "unreadable annotation", str(file), what, "correct it"))
        shapes = []
    for position, shape in enumerate(shapes, 1):
        try:
            objects.append(_read_shape(shape, position, extras))
        except ValueError as error:
            label = shape.get("label") if isinstance(shape, dict) else None
            where = f"object {position}" + (f" ({label})" if isinstance(label, str) and len(label) < 80 else "")
            problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
    name = document.get("imagePath")
    folders = [file.parent, file.parent / "images", file.parent.parent / "images"]
    path = find_picture(name, folders) if isinstance(name, str) else None
    if path is None:
        beside = [file.with_suffix(suffix) for suffix in sorted(IMAGE_EXTENSIONS)]
        path = next((candidate for candidate in beside if candidate.is_file()), None)
    expected = file.parent / (Path(name.replace("\0", "?")).name[-200:] if isinstance(name, str) and name else "?")
    found = path is not None
    if not found and document.get("imageData"):
        what = f"holds its picture itself (imageData), and there is no file {expected.name}"
        advice = "save the picture beside it (labelme_export_json, or `keep imageData` off in LabelMe)"
        problems.append(Problem("error", "missing picture", str(file), what, advice))
        return RawImage("", expected, file, problems=tuple(problems), found=False, readable=False)
    size = (document.get("imageWidth"), document.get("imageHeight"))
    usable = all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 1 << 31 for side in size)
    return RawImage(
        "", path or expected, file, size if usable else None, tuple(objects), tuple(problems), found=found  # type: ignore[arg-type]
    )  # fmt: skip


def _read_shape(shape: object, position: int, extras: Counter[str]) -> RawObject:
    if not isinstance(shape, dict):
        raise ValueError(f"is {short(shape)}, expected an object")
    label, points, kind = shape.get("label"), shape.get("points"), shape.get("shape_type", "polygon")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"has label {short(label)}, expected the name of a class")
    if kind not in _AREAS:
        raise ValueError(f"is a {short(kind)}, expected a shape with an area: {', '.join(_AREAS)}")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise ValueError(f"has points {short(points)}, expected a list of [x, y]")
    if len(points) < 2 or (kind == "rectangle" and len(points) not in (2, 4)):
        raise ValueError(f"has {len(points)} points, expected {'2' if kind == 'rectangle' else '2 or more'}")
    xs = [as_number(point[0], "x") for point in points]
    ys = [as_number(point[1], "y") for point in points]
    if kind == "circle":  # centre, and a point on the edge
        radius = hypot(xs[1] - xs[0], ys[1] - ys[0])
        xs, ys = [xs[0] - radius, xs[0] + radius], [ys[0] - radius, ys[0] + radius]
    box = (min(xs), min(ys), max(xs), max(ys))
    extras["outlines (segmentation)"] += kind not in ("rectangle",)
    flags = shape.get("flags")
    difficult = isinstance(flags, dict) and bool(flags.get("difficult"))
    written = f"({box[0]:g}, {box[1]:g}, {box[2]:g}, {box[3]:g})"
    return RawObject(label.strip(), box, written, position, difficult)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_labelme(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    order = [(split, i) for split, items in job.splits.items() for i in items]
    for k in progress(range(len(order))):
        split, i = order[k]
        record = job.dataset[i]
        folder = job.root / split if split else job.root
        job.place(i, folder)
        shapes = [
            {
                "label": job.dataset.class_names[label],
                "points": [[x0, y0], [x1, y1]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {"difficult": True} if difficult else {},
            }
            for label, (x0, y0, x1, y1), difficult in plain_objects(record)
        ]
        document: dict[str, Any] = {
            "version": "5.0.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": job.names[i],
            "imageData": None,
            "imageHeight": record.height,
            "imageWidth": record.width,
        }
        write_json(folder / f"{Path(job.names[i]).stem}.json", document)
    strange = [split for split in job.splits if split and not split_of_name(split)]
    losses = order_lost(job, ())
    if strange:
        losses.append(f"only folders called train, val and test are read as splits, not {', '.join(strange)}")
    return losses
