"""Data sets in the layout of PASCAL VOC: ``Annotations/*.xml``, ``JPEGImages/*``, ``ImageSets/Main/<split>.txt``.

Also what labelling tools write as "VOC": XML files in any folder, beside their images or not, matched by name. Folders
called train, valid and test are splits.
VOC boxes are 1-based with both ends inclusive. They become 0-based half-open: 1 is subtracted from xmin and ymin only.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from sppnet._types import OnError
from sppnet.datasets.assembling import assemble
from sppnet.datasets.collecting import Collection, located, unreadable_image
from sppnet.datasets.locating import ImageIndex, folders_near
from sppnet.datasets.parsing import as_number, bounding_box, read_text, read_xml, short, sorted_names, without_suffix
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.splits import SPLIT_NAMES, split_of_folders
from sppnet.datasets.write_job import Wrap, WriteJob, check_xml_names, order_lost, plain_objects
from sppnet.errors import DatasetError, did_you_mean
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.walking import walk_files

__all__ = [
    "VOC_CLASS_NAMES",
    "add_object",
    "annotation_tree",
    "has_annotations",
    "is_annotation",
    "load_voc",
    "read_voc",
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
# Lists of images outside ImageSets, as the Oxford pets and many others have them
_LISTS = ("trainval", *SPLIT_NAMES)


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
    layout = _find_layout(Path(root))
    files = layout.files()
    ids = _read_list(layout, split, set(files))
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
    layout = _find_layout(root)
    files = layout.files()
    known = set(files)
    splits: dict[str, tuple[str, ...]] = {}
    broken: dict[str, str] = {}
    for name in layout.lists:
        if any(name.endswith(f"_{other}") for other in layout.lists):
            continue
        try:
            splits[name] = tuple(_read_list(layout, name, known))
        except DatasetError as error:
            broken[name] = str(error)
    return replace(_read(layout, files, splits if layout.lists else None, images), broken_splits=broken)


# --- folders and lists -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Where things are: the data set, its annotations, its lists by name."""

    home: Path
    annotations: Path
    lists: dict[str, Path]

    def files(self) -> dict[str, Path]:
        """All annotations by their path below ``annotations`` without extension; by their stem if all stems differ."""
        found = [file for file in walk_files(self.annotations) if file.suffix.lower() == ".xml"]
        if self.annotations == self.home:  # there may be XML files of anything
            found = [file for file in found if file.parent == self.home or is_annotation(file)]
        below = [without_suffix(file.relative_to(self.annotations).as_posix()) for file in found]
        stems = [PurePosixPath(name).name for name in below]
        shorter = [re.sub(r"(^|/)annotations?/", r"\1", name, flags=re.IGNORECASE) for name in below]
        names = next(tried for tried in (stems, shorter, below) if len(set(tried)) == len(tried))
        return dict(sorted(zip(names, found, strict=True)))


def has_annotations(folder: Path, limit: int = 20) -> bool:
    """Whether XML files in or below ``folder`` look like annotations of VOC; at most ``limit`` are opened."""
    for file in walk_files(folder):
        if file.suffix.lower() == ".xml":
            if is_annotation(file):
                return True
            limit -= 1
            if not limit:
                break
    return False


def is_annotation(file: Path) -> bool:
    """Whether the beginning of a file looks like an annotation of VOC."""
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            return re.search(rb"<annotation[\s>]", stream.read(2000).replace(b"\0", b"")) is not None
    except OSError:
        return False


def _find_layout(root: Path) -> _Layout:
    """``root`` or the one folder up to two levels below it that holds ``Annotations``; else XML files anywhere."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; name the one that holds Annotations and ImageSets")
    for pattern in ("Annotations", "*/Annotations", "*/*/Annotations", "annotations", "*/annotations"):
        found = sorted(path.parent for path in root.glob(pattern) if path.is_dir())
        if pattern.endswith("annotations"):  # COCO has such a folder too, of JSON files
            found = [home for home in found if any((home / "annotations").rglob("*.xml"))]
        if len(found) == 1:
            home = found[0]
            annotations = home / pattern.rpartition("/")[2]
            return _Layout(home, annotations, _find_lists(home, annotations))
        if found and not all(split_of_folders([home.name]) for home in found):
            raise DatasetError(f"{root}: holds several data sets ({', '.join(map(str, found))}); name one of them")
    if any(root.glob("*.xml")) or has_annotations(root):
        return _Layout(root, root, _find_lists(root, root))
    raise DatasetError(
        f"{root}: neither it nor a folder up to two levels below holds Annotations; expected the VOC layout "
        "(Annotations/*.xml, JPEGImages/*, ImageSets/Main/*.txt)"
    )


def _find_lists(home: Path, annotations: Path) -> dict[str, Path]:
    """The lists of images by the name of the split."""
    for folder in (home / "ImageSets" / "Main", home / "ImageSets"):
        found = sorted(folder.glob("*.txt")) if folder.is_dir() else []
        if found or (folder.name == "Main" and folder.is_dir()):
            return {file.stem: file for file in found}
    for folder in (annotations, home):
        found = [file for file in sorted(folder.glob("*.txt")) if file.stem.removesuffix("_list").lower() in _LISTS]
        if found:
            return {file.stem.removesuffix("_list").lower(): file for file in found}
    return {}


def _read_list(layout: _Layout, split: str, stems: set[str]) -> list[str]:
    if split not in layout.lists:
        if split == "all":
            return sorted(stems)
        file = layout.home / "ImageSets" / "Main" / f"{split}.txt"
        raise DatasetError(
            f"{file}: no such list; {did_you_mean(split, layout.lists)}available: "
            f"{', '.join([*sorted(layout.lists), 'all'])}"
        )
    file = layout.lists[split]
    lines = [line for line in map(str.strip, read_text(file, "one image's name a line").splitlines()) if line]
    ids = [_listed(line, stems) for line in lines if not (line.startswith("#") and line not in stems)]
    if not ids:
        raise DatasetError(f"{file}: the list is empty; expected one image's name a line")
    for image_id, count in Counter(ids).items():
        if count > 1:
            raise DatasetError(f"{file}: lists {image_id!r} {count} times; remove the repetition")
    return ids


def _listed(line: str, stems: set[str]) -> str:
    """The annotation that a line means. A name may hold a space, end in an extension, and have columns behind it."""
    first = line.split()[0]
    for name in (line, line.rsplit(None, 1)[0], first):
        name = name.replace("\\", "/")
        suffix = PurePosixPath(name).suffix.lower()
        short_name = without_suffix(name) if suffix in IMAGE_EXTENSIONS or suffix == ".xml" else name
        for candidate in (name, short_name, PurePosixPath(short_name).name):
            if candidate in stems:
                return candidate
    return line.rsplit(None, 1)[0]


def _read(
    layout: _Layout, files: dict[str, Path], splits: dict[str, tuple[str, ...]] | None, images: Path | None
) -> RawDataset:
    collection = Collection(layout.home, layout.home, "voc", ImageIndex(layout.home, images))
    read = {stem: _read_annotation(file, collection.extras) for stem, file in files.items()}
    requests = [(file.stem, folders_near(file.parent, layout.home)) for file in files.values()]
    places = collection.index.locate(requests)
    lost = [k for k, place in enumerate(places) if not place.found]
    called = [read[stem][1] or "?" for stem in files]
    for k, place in zip(lost, collection.index.locate([(called[k], requests[k][1]) for k in lost]), strict=True):
        if place.found:
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


def annotation_tree(name: str, width: int, height: int, folder: str = "") -> Element:
    """Return ``<annotation>`` of an image, without objects."""
    tree = Element("annotation")
    if folder:
        SubElement(tree, "folder").text = folder
    SubElement(tree, "filename").text = name
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
