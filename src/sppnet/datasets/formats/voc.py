"""Data sets in the layout of PASCAL VOC: ``Annotations/*.xml``, ``JPEGImages/*``, ``ImageSets/Main/<split>.txt``.

Also what labelling tools write as "VOC": XML files in any folder, beside their images or not, matched by name. Folders
called train, valid and test are splits.
VOC boxes are 1-based with both ends inclusive. They become 0-based half-open: 1 is subtracted from xmin and ymin only.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from sppnet._types import OnError
from sppnet.datasets.assembling import assemble
from sppnet.datasets.collecting import Collection, located, unreadable_image
from sppnet.datasets.formats.voc_layout import VocLayout, find_layout, read_list
from sppnet.datasets.locating import ImageIndex, folders_near
from sppnet.datasets.parsing import as_number, bounding_box, read_xml, short, sorted_names
from sppnet.datasets.raw import CONFIDENCES, Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.splits import split_of_folders
from sppnet.datasets.write_job import Wrap, WriteJob, check_xml_names, order_lost, plain_objects
from sppnet.errors import DatasetError

__all__ = [
    "VOC_CLASS_NAMES",
    "add_object",
    "annotation_tree",
    "load_voc",
    "read_voc",
    "whole_corners",
    "write_voc",
]

VOC_CLASS_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 20 classes of PASCAL VOC, in its alphabetical order."""

_RULE = "xmin < xmax and ymin < ymax"
_EXPECTED = "an annotation of PASCAL VOC, the element <annotation>"
_MEND = "mend or remove it"


def load_voc(
    root: str | os.PathLike[str],
    split: str = "train",
    *,
    class_names: Sequence[str] | None = None,
    on_error: OnError = "skip",
) -> DetectionDataset:
    """Read a data set in VOC layout. Of images only the headers are read.

    Args:
        root: the folder that holds ``Annotations`` (``VOC2007``), or ``VOCdevkit`` above it, or the one above that.
        split: the name of a list in ``ImageSets/Main``; a second column in it is ignored. ``all`` means every
            annotation, unless there is a list of that name.
        class_names: the classes and their order; objects of other classes are left out, and ``problems`` says so.
            By default the 20 classes of VOC, if all names in the data set are among them, else all names found in
            any of its annotations (of whatever split), sorted.
        on_error: ``skip``: objects and images that are wrong are left out, and listed in the ``problems`` of the
            result. ``fail``: one DatasetError that lists what is wrong.

    Returns:
        A :class:`DetectionDataset` in the order of the list. Boxes are 0-based, half-open, clipped to the image,
        whose size is that of its header (upright), whatever the XML file says.
        Objects that lack ``difficult`` aren't difficult; ``part`` elements are ignored. A box whose corners coincide
        (xmin = xmax: a stray click) counts as one without area.

    Raises:
        DatasetError: no such folder or list; and for ``on_error="fail"``: malformed XML, a box without area, an
            image or annotation that is missing, an image annotated before its EXIF orientation was applied.
    """
    layout = find_layout(Path(root))
    files = layout.files()
    ids = read_list(layout, split, set(files))
    if class_names is not None:
        wanted = set(ids)
        files = {stem: file for stem, file in files.items() if stem in wanted}
    return assemble(_read(layout, files, {split: tuple(ids)}, None), split, class_names=class_names, on_error=on_error)


def read_voc(root: Path, images: Path | None = None) -> RawDataset:
    """Read every annotation and every list of a data set; lists of one class (``cat_train``) are left alone.

    Args:
        root: the folder of the data set.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: no such folder, or no annotations in it.
    """
    layout = find_layout(root)
    files = layout.files()
    known = set(files)
    splits: dict[str, tuple[str, ...]] = {}
    broken: dict[str, str] = {}
    for name in layout.lists:
        if any(name.endswith(f"_{other}") for other in layout.lists):
            continue
        try:
            splits[name] = tuple(read_list(layout, name, known))
        except DatasetError as error:
            broken[name] = str(error)
    return replace(_read(layout, files, splits if layout.lists else None, images), broken_splits=broken)


def _read(
    layout: VocLayout, files: dict[str, Path], splits: dict[str, tuple[str, ...]] | None, images: Path | None
) -> RawDataset:
    collection = Collection(layout.home, layout.home, "voc", ImageIndex(layout.home, images))
    read = {stem: _read_annotation(file, collection.extras) for stem, file in files.items()}
    requests = [(file.stem, folders_near(file.parent, layout.home)) for file in files.values()]
    places = collection.index.locate(requests)
    lost = [k for k, place in enumerate(places) if not place.found or place.guessed]
    called = [read[stem][1] or "?" for stem in files]
    taken = {place.path for place in places if place.found}
    again = collection.index.locate([(called[k], requests[k][1]) for k in lost], taken=taken)
    for k, place in zip(lost, again, strict=True):
        if place.found and not (places[k].found and place.guessed):
            places[k] = place
    identified: dict[str, RawImage] = {}
    for (stem, (image, _)), place in zip(read.items(), places, strict=True):
        path = replace(place, path=place.path if place.found else place.path.with_name(f"{place.path.name}.jpg"))
        identified[stem] = located(image, path) if image.readable else image
    for name, ids in (splits or {}).items():
        for image_id in ids:
            if image_id not in identified:
                file = layout.annotations / f"{image_id}.xml"
                what = f"no such file, but {name}.txt lists it"
                problem = Problem("error", "missing annotation", str(file), what, "add it or remove it from the list")
                identified[image_id] = RawImage(
                    "", file.with_suffix(".jpg"), file, problems=(problem,), found=False, readable=False
                )
    for image in identified.values():
        below = image.file.relative_to(layout.home).parts[:-1] if image.file.is_relative_to(layout.home) else ()
        collection.add(image, "" if splits is not None else split_of_folders(below))
    raw = collection.finish(rule=_RULE)
    return replace(_with_own_ids(raw, identified, splits), class_names=_found_names(raw.images.values()))


def _with_own_ids(
    raw: RawDataset, identified: dict[str, RawImage], splits: dict[str, tuple[str, ...]] | None
) -> RawDataset:
    """The images by the names of their annotations, which is what lists hold; joined ones by the first of them."""
    of_image = {str(image.file): image_id for image_id, image in raw.images.items()}
    of_path = {str(image.path): image_id for image_id, image in raw.images.items()}
    new: dict[str, str] = {}
    for stem, image in identified.items():
        old = of_image.get(str(image.file)) or of_path[str(image.path)]
        new.setdefault(old, stem)
    old_of = {stem: of_image.get(str(i.file)) or of_path[str(i.path)] for stem, i in identified.items()}
    named = {name: tuple(dict.fromkeys(new[old_of[i]] for i in ids)) for name, ids in (splits or {}).items()}
    return replace(
        raw, images={new[i]: replace(image, image_id=new[i]) for i, image in raw.images.items()},
        splits=named if splits is not None else {s: tuple(new[i] for i in ids) for s, ids in raw.splits.items()},
    )  # fmt: skip


# --- annotations -----------------------------------------------------------------------------------------------------


def _read_annotation(file: Path, extras: Counter[str]) -> tuple[RawImage, str]:
    """The annotation, its image not yet looked for, and what it calls the image."""
    try:
        tree = read_xml(file, _EXPECTED)
        if tree.tag != "annotation":
            raise DatasetError(f"{file}: the outermost element is <{short(tree.tag)}>; expected <annotation>")
    except DatasetError as error:
        return unreadable_image(file, error), ""
    objects: list[RawObject] = []
    problems: list[Problem] = []
    for position, element in enumerate(tree.findall("object"), 1):
        name = _text(element, "name")
        title = f"object {position} ({name})" if name else f"object {position}"
        try:
            objects.append(_read_object(element, name, position, extras))
        except ValueError as error:
            what, _, advice = str(error).partition("; ")
            problems.append(Problem("error", "malformed object", str(file), what, advice or _MEND, title))
        extras["parts"] += len(element.findall("part"))
        extras["flags truncated and occluded"] += (
            _text(element, "truncated") == "1" or _text(element, "occluded") == "1"
        )
    return RawImage("", file, file, _read_size(tree), tuple(objects), tuple(problems)), _text(tree, "filename")


def _read_object(element: Element, name: str, position: int, extras: Counter[str]) -> RawObject:
    if not name:
        raise ValueError("has no name; add <name>")
    flag = _text(element, "difficult").lower()
    if flag not in ("", "0", "1", "true", "false"):
        raise ValueError(f"has difficult {short(flag)}, expected 0 or 1")
    extras[CONFIDENCES] += element.find("score") is not None
    corners, outline = element.find("bndbox"), element.find("polygon")
    if corners is None and outline is not None:
        extras["outlines (segmentation)"] += 1
        xmin, ymin, xmax, ymax = _outline(outline)
    elif corners is None:
        raise ValueError("has no bndbox; add <bndbox> with xmin, ymin, xmax, ymax")
    else:
        xmin, ymin, xmax, ymax = (as_number(_text(corners, key), key) for key in ("xmin", "ymin", "xmax", "ymax"))
    return RawObject(
        name,
        # 1-based inclusive to 0-based half-open
        (xmin - 1, ymin - 1, xmax, ymax),
        f"xmin={xmin:g} ymin={ymin:g} xmax={xmax:g} ymax={ymax:g}",
        position,
        flag in ("1", "true"),
        # xmin == xmax would nominally be one pixel wide; in real files it is a stray click.
        flat=xmax <= xmin or ymax <= ymin,
    )


def _outline(element: Element) -> tuple[float, float, float, float]:
    """Roboflow numbers the corners of outlines (x1, y1, x2 ...); others have one <pt> each."""
    axes: dict[str, list[float]] = {"x": [], "y": []}
    for item in element.iter():
        axis = item.tag.rstrip("0123456789") if isinstance(item.tag, str) else ""
        if axis in axes:
            axes[axis].append(as_number((item.text or "").strip(), item.tag))
    if not axes["x"] or not axes["y"]:
        raise ValueError("has no bndbox and a polygon without corners; add <bndbox>")
    return bounding_box(axes["x"], axes["y"])


def _read_size(tree: Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(_text(tree, f"size/{key}"))) for key in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _found_names(images: Iterable[RawImage]) -> tuple[str, ...]:
    names = sorted_names(item.name for image in images for item in image.objects)
    return VOC_CLASS_NAMES if set(names) <= set(VOC_CLASS_NAMES) else names


# --- writing ----------------------------------------------------------------------------------------------------------


def annotation_tree(name: str, width: int, height: int, folder: str = "", path: str = "") -> Element:
    """Return ``<annotation>`` of an image, without objects."""
    tree = Element("annotation")
    for key, text in (("folder", folder), ("filename", name), ("path", path)):
        if text or key == "filename":
            SubElement(tree, key).text = text
    size = SubElement(tree, "size")
    for key, side in (("width", width), ("height", height), ("depth", 3)):
        SubElement(size, key).text = str(side)
    return tree


def add_object(tree: Element, name: str, corners: Sequence[str], difficult: bool = False, **more: str) -> None:
    """Add an ``<object>`` with ``corners`` xmin, ymin, xmax, ymax, 1-based and with both ends inside."""
    item = SubElement(tree, "object")
    SubElement(item, "name").text = name
    SubElement(item, "difficult").text = str(int(difficult))
    for key, value in more.items():
        SubElement(item, key).text = value
    box = SubElement(item, "bndbox")
    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
        SubElement(box, key).text = value


def whole_corners(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Round a box to the whole pixels of VOC: 1-based, with both ends inside the image."""
    x0, y0 = min(round(box[0]) + 1, width), min(round(box[1]) + 1, height)
    return x0, y0, max(round(box[2]), x0), max(round(box[3]), y0)


def write_voc(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    check_xml_names(job.dataset.class_names)
    thin = 0
    for i in progress(range(len(job.dataset))):
        record = job.dataset[i]
        job.place(i, "JPEGImages")
        tree = annotation_tree(job.names[i], record.width, record.height, "JPEGImages")
        for label, (x0, y0, x1, y1), difficult in plain_objects(record):
            # 1-based with both ends inside: a box of at most one pixel can't be told from a stray click
            if x1 <= x0 + 1 or y1 <= y0 + 1:
                thin += 1
                continue
            corners = [f"{round(value, 7):.12g}" for value in (x0 + 1, y0 + 1, x1, y1)]
            add_object(tree, job.dataset.class_names[label], corners, difficult)
        indent(tree)
        ElementTree(tree).write(job.target("Annotations", f"{Path(job.names[i]).stem}.xml"), encoding="utf-8")
    if job.split:
        for split, items in job.splits.items():
            text = "".join(f"{Path(job.names[i]).stem}\n" for i in items)
            job.write(text, "ImageSets", "Main", f"{split}.txt")
    losses = order_lost(job, VOC_CLASS_NAMES)
    if thin:
        losses.append(f"{thin} objects at most one pixel wide or high are left out: VOC can't hold them")
    return losses
