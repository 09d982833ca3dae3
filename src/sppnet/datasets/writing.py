"""Writing data sets: records to PASCAL VOC, COCO, YOLO, CSV or LabelMe. Boxes are converted on the way out."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from sppnet.datasets.formats.coco import write_coco
from sppnet.datasets.formats.csv import write_csv
from sppnet.datasets.formats.labelme import write_labelme
from sppnet.datasets.formats.voc import write_voc
from sppnet.datasets.formats.yolo import write_yolo
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.write_job import Wrap, WriteJob
from sppnet.errors import ArgumentError
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.atomic import write_atomic

__all__ = ["Placement", "write_dataset"]

Placement = Literal["copy", "hardlink", "symlink"]


def write_dataset(
    dataset: DetectionDataset,
    destination: str | os.PathLike[str],
    format: str,
    *,
    splits: Mapping[str, Sequence[str]] | None = None,
    placement: Placement = "copy",
    progress: Wrap = iter,
) -> tuple[str, ...]:
    """Write ``dataset`` with its pictures into a new folder. It appears when it is complete.

    Args:
        destination: a folder that doesn't exist, or is empty.
        format: one of :data:`sppnet.datasets.loading.FORMATS`.
        splits: ids of the pictures of each split. Where a format has a picture in one split only, it goes to the first.
        placement: copy the images, or make links to save space.
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
        if placement == "copy":
            shutil.copyfile(source, folder / names[i])
        elif placement == "hardlink":
            os.link(source, folder / names[i])
        else:
            (folder / names[i]).symlink_to(source)

    with write_atomic(target) as temporary:
        temporary.mkdir()
        losses += _WRITERS[format](WriteJob(temporary, dataset, parts, names, place), progress)
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


_WRITERS: dict[str, Callable[[WriteJob, Wrap], list[str]]] = {
    "voc": write_voc,
    "coco": write_coco,
    "yolo": write_yolo,
    "csv": write_csv,
    "labelme": write_labelme,
}
