"""Data sets of CVAT in its own XML, "CVAT for images 1.1" and "CVAT for video 1.1".

``<image>`` elements hold ``<box>`` with corners in pixels, 0-based. Of polygons, masks and ellipses the bounding box
counts; points and lines are left out. In videos, the boxes of a ``<track>`` belong to frames, whose images are called
``frame_000012`` or by their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import cos, radians, sin
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from sppnet.datasets.collecting import Collection, located
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import Box, as_number, bounding_box, read_head, read_xml, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.splits import split_of_folders, split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, check_xml_names, plain_objects
from sppnet.errors import DatasetError
from sppnet.storage.walking import files_near_top

__all__ = ["add_box", "add_image", "cvat_files", "cvat_tree", "is_cvat", "read_cvat", "write_cvat"]

_EXPECTED = "CVAT's XML, the element <annotations> with <image> elements"
_RULE = "xtl < xbr and ytl < ybr"
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_AREAS = ("box", "polygon", "mask", "ellipse", "cuboid")
_NO_AREA = ("points", "polyline", "tag", "skeleton")


def is_cvat(file: Path) -> bool:
    """Whether the beginning of a file looks like CVAT's XML."""
    return "<annotations" in read_head(file, 4000)


def cvat_files(root: Path) -> list[Path]:
    """List the XML files of CVAT in ``root`` and in the folders below it."""
    if root.is_file():
        return [root]
    return [file for file in files_near_top(root, ".xml") if is_cvat(file)]


def read_cvat(root: Path, images: Path | None = None) -> RawDataset:
    """Read every file of CVAT in a folder.

    Args:
        root: the folder of the data set, or the file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none, or one can't be read.
    """
    files = cvat_files(root)
    if not files:
        raise DatasetError(f"{root}: no annotations of CVAT; expected {_EXPECTED}")
    home = home_of(root)
    collection = Collection(root, home, "cvat", ImageIndex(home, images))
    names: list[str] = []
    for file in files:
        tree = read_xml(file, _EXPECTED)
        if tree.tag != "annotations":
            raise DatasetError(f"{file}: the outermost element is <{short(tree.tag)}>; expected {_EXPECTED}")
        names += [name for item in tree.iterfind("meta//label/name") if (name := (item.text or "").strip())]
        found = [_read_image(file, element, collection.extras) for element in tree.iterfind("image")]
        found += _read_tracks(file, tree, collection.extras)
        split = split_of_name(file.stem) or split_of_folders(file.parent.parts[-1:])
        near = folders_near(file.parent, home)
        places = collection.index.locate(
            [(name, [*_of_subset(near, subset), *near]) for _, name, subset in found]
        )  # fmt: skip
        for (image, name, subset), place in zip(found, places, strict=True):
            folders = PurePosixPath(name.replace("\\", "/")).parts[:-1]
            own = subset if subset.lower() != "default" else ""
            collection.add(located(image, place), own or split or split_of_folders(folders))
    known = {item.name for image, _ in collection.entries for item in image.objects}
    declared = [name for name in dict.fromkeys(names) if name]
    return collection.finish([*declared, *sorted(known - set(declared))], declared=bool(declared), rule=_RULE)


def _of_subset(near: Sequence[Path], subset: str) -> list[Path]:
    return [folder / subset for folder in near] if subset and "/" not in subset and subset not in (".", "..") else []


def _read_image(file: Path, element: Element, extras: Counter[str]) -> tuple[RawImage, str, str]:
    objects: list[RawObject] = []
    problems: list[Problem] = []
    for position, item in enumerate(element, 1):
        kind = item.tag if isinstance(item.tag, str) else ""
        if kind in _AREAS:
            _take(file, item, position, objects, problems, extras)
        elif kind in _NO_AREA and kind != "tag":
            what = f"is of the kind {kind}, which has no area, and is left out"
            advice = "draw a box if it is an object"
            problems.append(Problem("warning", "no box", str(file), what, advice, f"object {position}"))
    size = _size(element.get("width"), element.get("height"))
    image = RawImage("", file, file, size, tuple(objects), tuple(problems))
    return image, element.get("name", ""), element.get("subset", "").strip()


def _take(
    file: Path, item: Element, position: int, objects: list[RawObject], problems: list[Problem], extras: Counter[str],
    label: str = "",
) -> None:  # fmt: skip
    label = item.get("label", label).strip()
    try:
        if not label:
            raise ValueError("has no label")
        box, flat = _box_of(item)
    except ValueError as error:
        where = f"object {position}" + (f" ({label})" if label else "")
        problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
        return
    extras["outlines (segmentation)"] += item.tag != "box"
    extras["turned boxes"] += item.tag == "box" and _turn(item) != 0
    written = f"({box[0]:g}, {box[1]:g}, {box[2]:g}, {box[3]:g})"
    objects.append(RawObject(label, box, written, position, flat=flat))


def _turn(item: Element) -> float:
    return as_number(item.get("rotation", "0"), "rotation")


def _box_of(item: Element) -> tuple[Box, bool]:
    """The bounding box of a shape, and whether it has no area.

    Raises:
        ValueError: it is malformed.
    """
    if item.tag == "polygon":
        corners = [pair.split(",") for pair in item.get("points", "").split(";") if pair.strip()]
        if not corners or any(len(pair) != 2 for pair in corners):
            raise ValueError(f"has points {short(item.get('points', ''))}, expected x,y;x,y ...")
        return bounding_box([as_number(x, "x") for x, _ in corners], [as_number(y, "y") for _, y in corners]), False
    if item.tag == "mask":
        left, top, width, height = (as_number(item.get(key), key) for key in ("left", "top", "width", "height"))
        return (left, top, left + width, top + height), width == 0 or height == 0
    if item.tag == "ellipse":
        cx, cy, rx, ry = (as_number(item.get(key), key) for key in ("cx", "cy", "rx", "ry"))
        return _turned(cx - rx, cy - ry, cx + rx, cy + ry, _turn(item)), rx == 0 or ry == 0
    if item.tag == "cuboid":
        keys = sorted(key for key in item.attrib if key[:2] in ("xt", "xb", "yt", "yb"))
        xs = [as_number(item.get(key), key) for key in keys if key.startswith("x")]
        ys = [as_number(item.get(key), key) for key in keys if key.startswith("y")]
        if not xs or not ys:
            raise ValueError("has no corners")
        return bounding_box(xs, ys), False
    x0, y0, x1, y1 = (as_number(item.get(key), key) for key in _CORNERS)
    return _turned(x0, y0, x1, y1, _turn(item)), x0 == x1 or y0 == y1


def _turned(x0: float, y0: float, x1: float, y1: float, degrees: float) -> Box:
    """The bounding box of a box that is turned about its centre."""
    if degrees % 180 == 0 or x1 < x0 or y1 < y0:
        return x0, y0, x1, y1
    c, s = abs(cos(radians(degrees))), abs(sin(radians(degrees)))
    w, h = (x1 - x0) * c + (y1 - y0) * s, (x1 - x0) * s + (y1 - y0) * c
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _read_tracks(file: Path, tree: Element, extras: Counter[str]) -> list[tuple[RawImage, str, str]]:
    """The frames of a video, each with the boxes that are visible in it."""
    frames: dict[int, tuple[list[RawObject], list[Problem]]] = {}
    if len({track.get("task_id", "") for track in tree.iterfind("track")}) > 1:
        raise DatasetError(
            f"{file}: holds tracks of several tasks, whose frames have the same numbers; export each task by itself"
        )
    for track in tree.iterfind("track"):
        for position, item in enumerate(track, 1):
            number = item.get("frame", "")
            if item.tag in _AREAS and item.get("outside", "0") != "1" and number.isdecimal() and len(number) < 10:
                objects, problems = frames.setdefault(int(number), ([], []))
                _take(file, item, position, objects, problems, extras, track.get("label", ""))
    size = _size(tree.findtext("meta//original_size/width"), tree.findtext("meta//original_size/height"))
    return [
        (RawImage("", file, file, size, tuple(objects), tuple(problems)), f"frame_{number:06d}", "")
        for number, (objects, problems) in sorted(frames.items())
    ]


def _size(width: str | None, height: str | None) -> tuple[int, int] | None:
    try:
        size = int(float(width or "")), int(float(height or ""))
    except (ValueError, OverflowError):
        return None
    return size if 0 < size[0] < 1 << 31 and 0 < size[1] < 1 << 31 else None


# --- writing ----------------------------------------------------------------------------------------------------------


def cvat_tree(class_names: Sequence[str], images: int) -> Element:
    """Return ``<annotations>`` with the labels, without images."""
    tree = Element("annotations")
    SubElement(tree, "version").text = "1.1"
    task = SubElement(SubElement(tree, "meta"), "task")
    SubElement(task, "size").text = str(images)
    SubElement(task, "mode").text = "annotation"
    labels = SubElement(task, "labels")
    for name in class_names:
        item = SubElement(labels, "label")
        SubElement(item, "name").text = name
        SubElement(item, "attributes")
    return tree


def add_image(tree: Element, number: int, name: str, width: int, height: int, subset: str = "") -> Element:
    """Add an ``<image>``; returns it."""
    more = {"subset": subset} if subset else {}
    return SubElement(tree, "image", {"id": str(number), "name": name, **more, "width": str(width),
                                      "height": str(height)})  # fmt: skip


def add_box(image: Element, label: str, corners: Sequence[str], source: str) -> None:
    """Add a ``<box>`` with ``corners`` left, top, right, bottom."""
    box = dict(zip(_CORNERS, corners, strict=True))
    SubElement(image, "box", {"label": label, "occluded": "0", "source": source, **box, "z_order": "0"})


def write_cvat(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    check_xml_names(job.dataset.class_names)
    tree = cvat_tree(job.dataset.class_names, len(job.dataset))
    order = job.order
    flags = 0
    for k in progress(range(len(order))):
        split, i = order[k]
        record = job.dataset[i]
        job.place(i, "images", split)
        flags += int(record.difficult.sum())
        image = add_image(tree, k, job.names[i], record.width, record.height, split)
        for label, box, _ in plain_objects(record):
            add_box(image, job.dataset.class_names[label], [f"{v:.12g}" for v in box], "manual")
    indent(tree)
    ElementTree(tree).write(job.target("annotations.xml"), encoding="utf-8", xml_declaration=True)
    return [f"{flags} difficult flags are lost: those objects become ordinary ones"] if flags else []
