"""Data sets in the layout of PASCAL VOC: ``Annotations/*.xml``, ``JPEGImages/*``, ``ImageSets/Main/<split>.txt``.

Also what labelling tools write as "VOC": ``annotations`` beside ``images``, and XML files beside their pictures, all of
them with folders below; folders called train, valid and test are splits.
VOC boxes are 1-based with both ends inclusive. They become 0-based half-open: 1 is subtracted from xmin and ymin only.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement, indent

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from sppnet._types import OnError
from sppnet.datasets.assembling import assemble
from sppnet.datasets.parsing import as_number, read_text, short, sorted_names, without_suffix
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.splits import split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, order_lost, plain_objects
from sppnet.errors import DatasetError, did_you_mean
from sppnet.images import IMAGE_EXTENSIONS

__all__ = ["VOC_CLASS_NAMES", "has_annotations", "load_voc", "read_voc", "write_voc"]

VOC_CLASS_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 20 classes of PASCAL VOC, in its alphabetical order."""

_RULE = "xmin < xmax and ymin < ymax"
_MEND = "mend or remove it"


def load_voc(
    root: str | os.PathLike[str],
    split: str = "train",
    *,
    class_names: Sequence[str] | None = None,
    on_error: OnError = "skip",
) -> DetectionDataset:
    """Read a data set in VOC layout. Of pictures only the headers are read.

    Args:
        root: the folder that holds ``Annotations`` (``VOC2007``), or ``VOCdevkit`` above it, or the one above that.
        split: the name of a list in ``ImageSets/Main``; a second column in it is ignored. ``all`` means every
            annotation, unless there is a list of that name.
        class_names: the classes and their order; objects of other classes are left out, and ``problems`` says so.
            By default the 20 classes of VOC, if all names in the data set are among them, else all names found in
            any of its annotations (of whatever split), sorted.
        on_error: ``fail``: one DatasetError that lists what is wrong. ``skip``: objects and pictures that are wrong
            are left out, and listed in the ``problems`` of the result.

    Returns:
        A :class:`DetectionDataset` in the order of the list. Boxes are 0-based, half-open, clipped to the picture,
        whose size is that of its header (upright), whatever the XML file says.
        Objects that lack ``difficult`` aren't difficult; ``part`` elements are ignored. A box whose corners coincide
        (xmin = xmax: a stray click) counts as one without area.

    Raises:
        DatasetError: no such folder or list; and for ``on_error="fail"``: malformed XML, a box without area, a
            picture or annotation that is missing, a picture annotated before its EXIF orientation was applied.
    """
    layout = _find_layout(Path(root))
    stems = layout.stems()
    ids = _read_list(layout, split, set(stems))
    if class_names is not None:
        wanted = set(ids)
        stems = [stem for stem in stems if stem in wanted]
    raw = _read(layout, stems, {split: tuple(ids)})
    return assemble(raw, split, class_names=class_names, on_error=on_error)


def read_voc(root: str | os.PathLike[str]) -> RawDataset:
    """Every annotation and every list of a data set in VOC layout; lists of one class (``cat_train``) are left alone.

    Raises:
        DatasetError: no such folder.
    """
    parts = _split_folders(Path(root))
    if parts:
        return _joined(Path(root), {name: _read_layout(layout) for name, layout in parts.items()})
    return _read_layout(_find_layout(Path(root)))


def _read_layout(layout: _Layout) -> RawDataset:
    stems = layout.stems()
    known = set(stems)
    lists = sorted(path.stem for path in layout.lists.glob("*.txt")) if layout.lists.is_dir() else []
    splits: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for name in lists:
        if any(name.endswith(f"_{other}") for other in lists):
            continue
        try:
            splits[name] = tuple(_read_list(layout, name, known))
        except DatasetError as error:
            what, _, advice = str(error).partition(": ")[2].rpartition("; ")
            problems.append(Problem("error", "split", str(layout.lists / f"{name}.txt"), what, advice))
    raw = _read(layout, stems, splits)
    if not lists:  # folders called train and so on
        for stem in raw.images:
            split = split_of_name(stem.partition("/")[0]) if "/" in stem else ""
            if split:
                splits[split] = (*splits.get(split, ()), stem)
        raw = replace(raw, splits=splits)
    return replace(raw, problems=tuple(problems))


def _split_folders(root: Path) -> dict[str, _Layout]:
    """Folders ``train``, ``val`` and so on, each a data set by itself; empty where they aren't that."""
    for name in ("Annotations", "annotations"):
        homes = sorted(path.parent for path in root.glob(f"*/{name}") if path.is_dir() and any(path.glob("*.xml")))
        if len(homes) > 1 and all(split_of_name(home.name) for home in homes):
            return {home.name: _find_layout(home) for home in homes}
    return {}


def _joined(root: Path, parts: dict[str, RawDataset]) -> RawDataset:
    images: dict[str, RawImage] = {}
    splits: dict[str, tuple[str, ...]] = {}
    extras: Counter[str] = Counter()
    for name, raw in parts.items():
        own = {f"{name}/{i}": replace(image, image_id=f"{name}/{i}") for i, image in raw.images.items()}
        images |= own
        split = split_of_name(name)
        splits[split] = (*splits.get(split, ()), *own)
        extras += raw.extras
    problems = tuple(problem for raw in parts.values() for problem in raw.problems)
    names = _found_names(images.values())
    return RawDataset(root, "voc", root.resolve().name, images, names, splits=splits, rule=_RULE, problems=problems,
                      extras=extras)  # fmt: skip


# --- folders and lists -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    home: Path
    annotations: Path
    pictures: Path
    lists: Path

    def stems(self) -> list[str]:
        """Of all annotations, with / between the folders below ``annotations``."""
        return sorted(stem for stem, extension in _walk(self.annotations) if extension == ".xml")


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Path below ``folder`` without extension, and extension, of every file in and below it that isn't hidden."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        below = os.path.relpath(place, folder).replace(os.sep, "/") + "/"
        for name in sorted(files):
            if not name.startswith("."):
                stem, extension = (Path(name).stem, Path(name).suffix)
                yield (stem if below == "./" else below + stem), extension


def has_annotations(folder: Path) -> bool:
    """Whether XML files in or below ``folder`` look like annotations of VOC; a few are opened."""
    names = [folder / f"{stem}{extension}" for stem, extension in _walk(folder) if extension == ".xml"]
    return any(_is_annotation(name) for name in names[:20])


def _is_annotation(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return re.search(rb"<annotations?[\s>]", stream.read(2000)) is not None
    except OSError:
        return False


def _find_layout(root: Path) -> _Layout:
    """``root`` or the one folder up to two levels below it that holds ``Annotations``; else XML beside pictures."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; name the one that holds Annotations and ImageSets")
    for pattern in ("Annotations", "*/Annotations", "*/*/Annotations", "annotations", "*/annotations"):
        found = sorted(path.parent.resolve() for path in root.glob(pattern) if path.is_dir())
        if pattern.endswith("annotations"):  # COCO has such a folder too, of JSON files
            found = [home for home in found if any((home / "annotations").rglob("*.xml"))]
        if len(found) == 1:
            home = found[0]
            annotations = home / pattern.rpartition("/")[2]
            near = [home / name for name in ("JPEGImages", "images", "Images")]
            pictures = next((folder for folder in near if folder.is_dir()), None)
            if pictures is None and any(p.suffix.lower() in IMAGE_EXTENSIONS for p in annotations.iterdir()):
                pictures = annotations
            if pictures is None:
                raise DatasetError(f"{near[0]}: no such folder; expected the pictures there")
            return _Layout(home, annotations, pictures, home / "ImageSets" / "Main")
        if found:
            raise DatasetError(f"{root}: holds several data sets ({', '.join(map(str, found))}); name one of them")
    if any(root.glob("*.xml")) or has_annotations(root):
        home = root.resolve()
        pictures = next((home / name for name in ("JPEGImages", "images", "Images") if (home / name).is_dir()), home)
        return _Layout(home, home, pictures, home / "ImageSets" / "Main")
    raise DatasetError(
        f"{root}: neither it nor a folder up to two levels below holds Annotations; expected the VOC layout "
        "(Annotations/*.xml, JPEGImages/*, ImageSets/Main/*.txt)"
    )


def _read_list(layout: _Layout, split: str, stems: set[str]) -> list[str]:
    folder = layout.lists
    file = folder / f"{split}.txt"
    if not file.is_file():
        if split == "all":
            return sorted(stems)
        available = sorted(path.stem for path in folder.glob("*.txt"))
        raise DatasetError(
            f"{file}: no such list; {did_you_mean(split, available)}available: {', '.join([*available, 'all'])}"
        )
    lines = read_text(file, "one picture's name a line").splitlines()
    ids = []
    for line in filter(None, map(str.strip, lines)):
        # A name may hold a space; a list of one class has a second column (1, 0 or -1).
        ids.append(line if line in stems else line.rsplit(None, 1)[0])
    if not ids:
        raise DatasetError(f"{file}: the list is empty; expected one picture's name a line")
    for image_id, count in Counter(ids).items():
        if count > 1:
            raise DatasetError(f"{file}: lists {image_id!r} {count} times; remove the repetition")
    return ids


def _pictures(folder: Path) -> dict[str, dict[str, str]]:
    """Pictures in and below ``folder`` by path without extension, and by lower-case extension."""
    found: dict[str, dict[str, str]] = {}
    for stem, extension in _walk(folder):
        if extension.lower() in IMAGE_EXTENSIONS:
            found.setdefault(stem, {})[extension.lower()] = stem + extension
    return found


def _read(layout: _Layout, stems: Sequence[str], splits: dict[str, tuple[str, ...]]) -> RawDataset:
    pictures = _pictures(layout.pictures)
    extras: Counter[str] = Counter()
    if layout.annotations == layout.home:  # beside pictures there may be XML files of anything
        stems = [s for s in stems if s in pictures or "/" not in s or _is_annotation(layout.home / f"{s}.xml")]
    images = {stem: _read_annotation(layout, stem, pictures, extras) for stem in stems}
    for name, ids in splits.items():
        for image_id in ids:
            if image_id not in images:
                file = layout.annotations / f"{image_id}.xml"
                what = f"no such file, but {name}.txt lists it"
                problem = Problem("error", "missing annotation", str(file), what, "add it or remove it from the list")
                path = layout.pictures / f"{image_id}.jpg"
                images[image_id] = RawImage(image_id, path, file, problems=(problem,), found=False, readable=False)
    return RawDataset(
        layout.home,
        "voc",
        layout.home.name,
        images,
        _found_names(images.values()),
        splits=splits,
        rule=_RULE,
        extras=extras,
    )


# --- annotations -----------------------------------------------------------------------------------------------------


def _read_annotation(layout: _Layout, stem: str, pictures: dict[str, dict[str, str]], extras: Counter[str]) -> RawImage:
    file = layout.annotations / f"{stem}.xml"
    path = layout.pictures / f"{stem}.jpg"
    try:
        tree = fromstring(file.read_bytes())
        if tree.tag != "annotation":
            hint = " (CVAT's own format? export as PASCAL VOC, COCO or YOLO)" if tree.tag == "annotations" else ""
            raise ValueError(f"the outermost element is <{short(tree.tag)}>, expected <annotation>{hint}")
    except (ParseError, DefusedXmlException, OSError, ValueError, LookupError) as error:
        what = f"not readable as a VOC annotation ({error})"
        return RawImage(
            stem, path, file, problems=(Problem("error", "unreadable annotation", str(file), what, _MEND),),
            readable=False,
        )  # fmt: skip
    objects: list[RawObject] = []
    problems: list[Problem] = []
    for position, element in enumerate(tree.findall("object"), 1):
        name = _text(element, "name")
        title = f"object {position} ({name})" if name else f"object {position}"
        try:
            objects.append(_read_object(element, name, position))
        except ValueError as error:
            what, _, advice = str(error).partition("; ")
            problems.append(Problem("error", "malformed object", str(file), what, advice or _MEND, title))
        extras["parts"] += len(element.findall("part"))
        extras["flags truncated and occluded"] += (
            _text(element, "truncated") == "1" or _text(element, "occluded") == "1"
        )
    folder = stem.rpartition("/")[0]
    called = without_suffix(_text(tree, "filename"))
    candidates = pictures.get(stem) or pictures.get(f"{folder}/{called}" if folder else called)
    if candidates:
        path = layout.pictures / candidates.get(".jpg", next(iter(candidates.values())))
    return RawImage(
        stem, path, file, _read_size(tree), tuple(objects), tuple(problems), found=bool(candidates)
    )  # fmt: skip


def _read_object(element: Element, name: str, position: int) -> RawObject:
    if not name:
        raise ValueError("has no name; add <name>")
    corners = element.find("bndbox")
    if corners is None:
        raise ValueError("has no bndbox; add <bndbox> with xmin, ymin, xmax, ymax")
    xmin, ymin, xmax, ymax = (as_number(_text(corners, key), key) for key in ("xmin", "ymin", "xmax", "ymax"))
    flag = _text(element, "difficult").lower()
    if flag not in ("", "0", "1", "true", "false"):
        raise ValueError(f"has difficult {short(flag)}, expected 0 or 1")
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


def write_voc(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    (job.root / "Annotations").mkdir()
    (job.root / "JPEGImages").mkdir()
    thin = 0
    for name in job.dataset.class_names:
        if name != name.strip() or re.search(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]", name):
            raise DatasetError(f"class name {name!r} can't be written as XML; rename the class")
    for i in progress(range(len(job.dataset))):
        record = job.dataset[i]
        job.place(i, job.root / "JPEGImages")
        tree = Element("annotation")
        SubElement(tree, "folder").text = "JPEGImages"
        SubElement(tree, "filename").text = job.names[i]
        size = SubElement(tree, "size")
        for key, side in (("width", record.width), ("height", record.height), ("depth", 3)):
            SubElement(size, key).text = str(side)
        for label, (x0, y0, x1, y1), difficult in plain_objects(record):
            # 1-based with both ends inside: a box of at most one pixel can't be told from a stray click
            if x1 <= x0 + 1 or y1 <= y0 + 1:
                thin += 1
                continue
            item = SubElement(tree, "object")
            SubElement(item, "name").text = job.dataset.class_names[label]
            SubElement(item, "difficult").text = str(int(difficult))
            corners = SubElement(item, "bndbox")
            for key, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
                SubElement(corners, key).text = f"{round(value, 7):.12g}"
        indent(tree)
        file = job.root / "Annotations" / f"{Path(job.names[i]).stem}.xml"
        ElementTree(tree).write(file, encoding="utf-8")
    if job.split:
        lists = job.root / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        for split, items in job.splits.items():
            text = "".join(f"{Path(job.names[i]).stem}\n" for i in items)
            (lists / f"{split}.txt").write_text(text, encoding="utf-8")
    losses = order_lost(job, VOC_CLASS_NAMES)
    if thin:
        losses.append(f"{thin} objects at most one pixel wide or high are left out: VOC can't hold them")
    return losses
