"""Writing data sets: records to PASCAL VOC, COCO, YOLO, CSV or LabelMe. Boxes are converted on the way out."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
import yaml

from sppnet.datasets.formats.voc import VOC_CLASS_NAMES
from sppnet.datasets.parsing import split_of_name
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import ArgumentError, DatasetError
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.atomic import write_atomic

__all__ = ["Placement", "write_dataset"]

Placement = Literal["copy", "hardlink", "symlink"]


@dataclass(frozen=True)
class _Job:
    """What a writer needs: records with the names of their files, and the splits (none: ``{"": ...}``)."""

    root: Path
    dataset: DetectionDataset
    splits: dict[str, list[int]]
    names: list[str]
    place: Callable[[int, Path], None]

    @property
    def split(self) -> bool:
        return list(self.splits) != [""]


def write_dataset(
    dataset: DetectionDataset,
    destination: str | os.PathLike[str],
    format: str,
    *,
    splits: Mapping[str, Sequence[str]] | None = None,
    pictures: Placement = "copy",
    progress: Callable[[Sequence[int]], Any] = iter,
) -> tuple[str, ...]:
    """Write ``dataset`` with its pictures into a new folder. It appears when it is complete.

    Args:
        destination: a folder that doesn't exist, or is empty.
        format: one of :data:`sppnet.datasets.loading.FORMATS`.
        splits: ids of the pictures of each split. Where a format has a picture in one split only, it goes to the first.
        pictures: copy them, or make links to save space.
        progress: wraps the sequence of pictures, to show how far it is.

    Returns:
        What the format can't hold, a sentence each; empty where nothing is lost.

    Raises:
        ArgumentError: ``destination`` isn't empty, or an unknown format. DatasetError: a name that the format
            can't hold.
        OSError: it can't be written.
    """
    if format not in _WRITERS:
        raise ArgumentError(f"format: got {format!r}, expected one of {', '.join(_WRITERS)}")
    target = Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArgumentError(f"{target}: exists and isn't an empty folder; name a new one")
    losses: list[str] = []
    parts = _partition(dataset, splits or {}, format, losses)
    names = _file_names(dataset)

    def place(i: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        source = dataset[i].path.resolve()
        if pictures == "copy":
            shutil.copyfile(source, folder / names[i])
        elif pictures == "hardlink":
            os.link(source, folder / names[i])
        else:
            (folder / names[i]).symlink_to(source)

    with write_atomic(target) as temporary:
        temporary.mkdir()
        losses += _WRITERS[format](_Job(temporary, dataset, parts, names, place), progress)
    return tuple(losses)


def _partition(
    dataset: DetectionDataset, splits: Mapping[str, Sequence[str]], format: str, losses: list[str]
) -> dict[str, list[int]]:
    """Indices of each split. Except in VOC, whose lists may overlap, a picture is in one; the rest is ``other``."""
    index = {record.image_id: i for i, record in enumerate(dataset)}
    if not splits:
        return {"": list(range(len(dataset)))}
    listed = {name: [index[i] for i in ids if i in index] for name, ids in splits.items()}
    if format == "voc":
        return listed
    taken: set[int] = set()
    parts = {}
    for name, items in listed.items():
        own = [i for i in items if i not in taken]
        if len(own) < len(items):
            losses.append(f"split {name}: {len(items) - len(own)} of its pictures are in another split and stay there")
        if own:
            parts[name] = own
            taken.update(own)
    rest = [i for i in range(len(dataset)) if i not in taken]
    if rest:
        parts["other"] = rest
        losses.append(f"{len(rest)} pictures are in no split; they are put into one called other")
    return parts


def _file_names(dataset: DetectionDataset) -> list[str]:
    """A plain file name for each picture, from its id: no folders, no two alike, also where case doesn't count."""
    names, taken = [], set()
    for record in dataset:
        stem = re.sub(r'[\x00-\x1f/\\:*?"<>|\ud800-\udfff]', "_", record.image_id).strip(" .")[:120] or "picture"
        suffix = record.path.suffix if record.path.suffix.lower() in IMAGE_EXTENSIONS else ".jpg"
        candidate, number = stem, 2
        while candidate.lower() in taken:
            candidate, number = f"{stem}-{number}", number + 1
        taken.add(candidate.lower())
        names.append(candidate + suffix)
    return names


def _decimal(value: float | np.floating) -> float:
    """The shortest decimal that is the same float32: 10.1, not 10.100000381."""
    return float(str(np.float32(value)))


def _objects(record: ImageRecord) -> list[tuple[int, list[float], bool]]:
    return [
        (int(label), [_decimal(v) for v in box], bool(flag))
        for box, label, flag in zip(record.boxes, record.labels, record.difficult, strict=True)
    ]


def _write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _order_lost(job: _Job, known: Sequence[str]) -> list[str]:
    """Formats without a list of classes: those read back are those found, sorted."""
    used = {job.dataset.class_names[label] for record in job.dataset for label in record.labels}
    losses = []
    unused = [name for name in job.dataset.class_names if name not in used]
    if set(job.dataset.class_names) == set(known):
        unused = []
    if unused:
        losses.append(f"classes without objects aren't kept: {', '.join(unused)}")
    read = list(known) if used <= set(known) else sorted(used)
    if [n for n in read if n in used] != [n for n in job.dataset.class_names if n in used]:
        losses.append("the order of the classes isn't kept: they will be sorted by name")
    return losses


# --- PASCAL VOC ------------------------------------------------------------------------------------------------------


def _write_voc(job: _Job, progress: Callable[[Sequence[int]], Any]) -> list[str]:
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
        for label, (x0, y0, x1, y1), difficult in _objects(record):
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
    losses = _order_lost(job, VOC_CLASS_NAMES)
    if thin:
        losses.append(f"{thin} objects at most one pixel wide or high are left out: VOC can't hold them")
    return losses


# --- COCO ------------------------------------------------------------------------------------------------------------


def _write_coco(job: _Job, progress: Callable[[Sequence[int]], Any]) -> list[str]:
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
        for label, (x0, y0, x1, y1), difficult in _objects(record):
            number += 1
            w, h = round(x1 - x0, 9), round(y1 - y0, 9)
            item = {"id": number, "image_id": i + 1, "category_id": label + 1, "bbox": [x0, y0, w, h], "area": w * h}
            item |= {"iscrowd": 0} | ({"ignore": 1} if difficult else {})
            ignored += difficult
            documents[split]["annotations"].append(item)
    for split, document in documents.items():
        _write_json(job.root / "annotations" / f"instances{'_' + split if split else ''}.json", document)
    if not ignored:
        return []
    return [f"{ignored} difficult objects have ignore = 1: sppnet reads that; other tools take them as ordinary ones"]


# --- YOLO ------------------------------------------------------------------------------------------------------------


def _write_yolo(job: _Job, progress: Callable[[Sequence[int]], Any]) -> list[str]:
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
        for label, (x0, y0, x1, y1), difficult in _objects(record):
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


# --- CSV -------------------------------------------------------------------------------------------------------------


def _write_csv(job: _Job, progress: Callable[[Sequence[int]], Any]) -> list[str]:
    flagged = any(record.difficult.any() for record in job.dataset)
    header = ["image", "x0", "y0", "x1", "y1", "label"]
    header += ["difficult"] * flagged + ["split"] * job.split
    order = [(split, i) for split, items in job.splits.items() for i in items]
    with (job.root / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for k in progress(range(len(order))):
            split, i = order[k]
            job.place(i, job.root / "images")
            picture = f"images/{job.names[i]}"
            tail = [split] * job.split
            for label, box, difficult in _objects(job.dataset[i]):
                numbers = [f"{v:.12g}" for v in box]
                name = job.dataset.class_names[label]
                writer.writerow([picture, *numbers, name, *[int(difficult)] * flagged, *tail])
            if not len(job.dataset[i]):
                writer.writerow([picture, *[""] * 5, *[""] * flagged, *tail])
    return _order_lost(job, ())


# --- LabelMe ---------------------------------------------------------------------------------------------------------


def _write_labelme(job: _Job, progress: Callable[[Sequence[int]], Any]) -> list[str]:
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
            for label, (x0, y0, x1, y1), difficult in _objects(record)
        ]
        document = {
            "version": "5.0.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": job.names[i],
            "imageData": None,
            "imageHeight": record.height,
            "imageWidth": record.width,
        }
        _write_json(folder / f"{Path(job.names[i]).stem}.json", document)
    strange = [split for split in job.splits if split and not split_of_name(split)]
    losses = _order_lost(job, ())
    if strange:
        losses.append(f"only folders called train, val and test are read as splits, not {', '.join(strange)}")
    return losses


_WRITERS: dict[str, Callable[[_Job, Callable[[Sequence[int]], Any]], list[str]]] = {
    "voc": _write_voc,
    "coco": _write_coco,
    "yolo": _write_yolo,
    "csv": _write_csv,
    "labelme": _write_labelme,
}
