"""Data sets of LabelMe and X-AnyLabeling: a JSON file for each image, with ``shapes``.

A rectangle is two opposite corners, or all four, in pixels, 0-based; corners may be given in any order. Of polygons,
turned rectangles, circles and masks the bounding box counts; points and lines are left out. A flag ``difficult`` is
understood, and one at the shape itself. An image inside the file (``imageData``) is used where there is no other.
Folders called train, val or test are splits.
"""

from __future__ import annotations

from collections import Counter
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np

from sppnet.datasets.collecting import Collection, located, split_of_place, unreadable_image
from sppnet.datasets.embedded import embedded_image
from sppnet.datasets.locating import ImageIndex, Location, folders_near, home_of
from sppnet.datasets.parsing import as_number, bounding_box, read_json, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, order_lost, plain_objects, to_json
from sppnet.errors import DatasetError, SppnetError
from sppnet.images import load_image
from sppnet.storage.walking import walk_files

__all__ = ["is_labelme", "labelme_files", "read_labelme", "write_labelme"]

_EXPECTED = "a JSON file of LabelMe, an object with imagePath and a list shapes"
_RULE = "two different corners"
_AREAS = ("rectangle", "polygon", "rotation", "circle", "mask", "linestrip", "quadrilateral", "cuboid")
_NO_AREA = ("point", "points", "line")


def is_labelme(document: object) -> bool:
    """Whether parsed JSON looks like a LabelMe file."""
    return isinstance(document, dict) and "shapes" in document


def labelme_files(root: Path) -> list[Path]:
    """List the JSON files in and below ``root``; what is in them isn't looked at."""
    if root.is_file():
        return [root]
    return [path for path in walk_files(root) if path.suffix.lower() == ".json"]


def read_labelme(root: Path, images: Path | None = None) -> RawDataset:
    """Read every LabelMe file of a folder.

    Args:
        root: the folder of the data set, or one file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none.
    """
    home = home_of(root)
    collection = Collection(root, home, "labelme", ImageIndex(home, images))
    read: list[tuple[RawImage, str, object]] = []
    good = 0
    for file in labelme_files(root):
        try:
            document = read_json(file, _EXPECTED)
        except DatasetError as error:
            read.append((unreadable_image(file, error), "", None))
            continue
        if is_labelme(document):
            read.append((_read_shapes(file, document, collection.extras), *_image_of(document)))
            good += 1
        else:
            what = "holds no shapes and is left out"
            advice = "remove it if it isn't of this data set"
            collection.problems.append(Problem("warning", "no annotation", str(file), what, advice))
    if not good:
        problems = [*collection.problems, *(problem for image, _, _ in read for problem in image.problems)]
        detail = f" ({problems[0]})" if problems else ""
        expected = "" if detail else f"; expected {_EXPECTED}"
        raise DatasetError(f"{root}: no LabelMe annotations{detail}{expected}")
    for (image, _, data), place in zip(read, _places(read, collection), strict=True):
        if image.readable and (not place.found or place.guessed) and isinstance(data, str) and data:
            try:
                embedded = embedded_image(data)
                if not place.found or not _same_pixels(place.path, embedded):
                    place = Location(embedded)
            except ValueError as error:
                if not place.found:
                    place = Location(place.path, False, missing=f"and that in imageData can't be used: {error}")
        collection.add(located(image, place) if image.readable else image, split_of_place(image.file, home))
    return collection.finish(rule=_RULE)


def _same_pixels(one: Path, two: Path) -> bool:
    try:
        return np.array_equal(load_image(one), load_image(two))
    except SppnetError:
        return False


def _image_of(document: dict[str, Any]) -> tuple[str, object]:
    name = document.get("imagePath")
    return name if isinstance(name, str) else "", document.get("imageData")


def _places(read: list[tuple[RawImage, str, object]], collection: Collection) -> list[Location]:
    """The image that each file names, else the one that is called like the file."""
    near = [folders_near(image.file.parent, collection.home) for image, _, _ in read]
    names = [name or image.file.stem for image, name, _ in read]
    places = collection.index.locate(list(zip(names, near, strict=True)))
    lost = [k for k, place in enumerate(places) if not place.found]
    taken = {place.path for place in places if place.found}
    found = collection.index.locate([(read[k][0].file.stem, near[k][:1]) for k in lost], taken=taken)
    for k, place in zip(lost, found, strict=True):
        if place.found:
            places[k] = place
    return places


def _read_shapes(file: Path, document: dict[str, Any], extras: Counter[str]) -> RawImage:
    objects: list[RawObject] = []
    problems: list[Problem] = []
    shapes = document["shapes"]
    if not isinstance(shapes, list):
        what = f"shapes is {short(shapes)}, expected a list"
        problems.append(Problem("error", "unreadable annotation", str(file), what, "correct it"))
        shapes = []
    for position, shape in enumerate(shapes, 1):
        label = shape.get("label") if isinstance(shape, dict) else None
        where = f"object {position}" + (f" ({label})" if isinstance(label, str) and len(label) < 80 else "")
        if isinstance(shape, dict) and shape.get("shape_type") in _NO_AREA:
            what = f"is a {shape['shape_type']}, which has no area, and is left out"
            problems.append(Problem("warning", "no box", str(file), what, "draw a rectangle if it is an object", where))
            continue
        try:
            objects.append(_read_shape(shape, position, extras))
        except ValueError as error:
            problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
    size = (document.get("imageWidth"), document.get("imageHeight"))
    usable = all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 1 << 31 for side in size)
    return RawImage("", file, file, size if usable else None, tuple(objects), tuple(problems))  # type: ignore[arg-type]  # checked


def _read_shape(shape: object, position: int, extras: Counter[str]) -> RawObject:
    if not isinstance(shape, dict):
        raise ValueError(f"is {short(shape)}, expected an object")
    label, points, kind = shape.get("label"), shape.get("points"), shape.get("shape_type") or "polygon"
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
    box = bounding_box(xs, ys)
    extras["outlines (segmentation)"] += kind not in ("rectangle", "rotation")
    extras["turned boxes"] += kind == "rotation"
    flags = shape.get("flags")
    difficult = (isinstance(flags, dict) and flags.get("difficult") is True) or shape.get("difficult") is True
    written = f"({box[0]:g}, {box[1]:g}, {box[2]:g}, {box[3]:g})"
    return RawObject(label.strip(), box, written, position, difficult)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_labelme(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    order = job.order
    for k in progress(range(len(order))):
        split, i = order[k]
        record = job.dataset[i]
        job.place(i, split)
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
        job.write(to_json(document), split, f"{Path(job.names[i]).stem}.json")
    strange = [split for split in job.splits if split and not split_of_name(split)]
    losses = order_lost(job, ())
    if strange:
        losses.append(f"only folders called train, val and test are read as splits, not {', '.join(strange)}")
    return losses
