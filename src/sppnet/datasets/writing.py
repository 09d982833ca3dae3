"""Writing data sets: records to one of the formats that hold whole data sets. Boxes are converted on the way out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sppnet.datasets.formats.coco import write_coco
from sppnet.datasets.formats.csv import write_csv
from sppnet.datasets.formats.cvat import write_cvat
from sppnet.datasets.formats.labelme import write_labelme
from sppnet.datasets.formats.voc import write_voc
from sppnet.datasets.formats.yolo import write_yolo
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.splits import check_split_name
from sppnet.datasets.write_job import Placement, Wrap, WriteJob
from sppnet.errors import ArgumentError, DatasetError, first_names
from sppnet.images import IMAGE_EXTENSIONS
from sppnet.storage.atomic import write_atomic

__all__ = ["WRITTEN_FORMATS", "Placement", "write_dataset"]

_WRITERS: dict[str, Callable[[WriteJob, Wrap], list[str]]] = {
    "voc": write_voc,
    "coco": write_coco,
    "yolo": write_yolo,
    "csv": write_csv,
    "labelme": write_labelme,
    "cvat": write_cvat,
}
WRITTEN_FORMATS = tuple(_WRITERS)
"""What :func:`write_dataset` writes."""

_NOT_IN_A_NAME = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')


def write_dataset(
    dataset: DetectionDataset,
    destination: str | os.PathLike[str],
    format: str,
    *,
    splits: Mapping[str, Sequence[str]] | None = None,
    placement: Placement = "copy",
    progress: Wrap = iter,
) -> tuple[str, ...]:
    """Write ``dataset`` with its images into a new folder. It appears when it is complete.

    Args:
        dataset: the records.
        destination: a folder that doesn't exist, or is empty. Nothing is written outside it.
        format: one of :data:`WRITTEN_FORMATS`.
        splits: ids of the images of each split. Where a format has an image in one split only, it goes to the first.
        placement: copy the images, or make links to save space.
        progress: wraps the sequence of images, to show how far it is.

    Returns:
        What the format can't hold, a sentence each; empty where nothing is lost.

    Raises:
        ArgumentError: ``destination`` isn't empty, or an unknown format.
        DatasetError: a name that the format can't hold, the name of a split that leads elsewhere, or an id in a split
            that no image has.
        OSError: it can't be written.
    """
    if format not in _WRITERS:
        raise ArgumentError(f"format: got {format!r}, expected one of {', '.join(_WRITERS)}")
    target = Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArgumentError(f"{target}: exists and isn't an empty folder; name a new one")
    for name in splits or {}:
        check_split_name(name)
    losses: list[str] = []
    indices = _indices(dataset, splits or {}, format, losses)
    names = _file_names(dataset, losses)
    with write_atomic(target, named=True) as temporary:
        temporary.mkdir()
        job = WriteJob(temporary, dataset, indices, names, placement)
        for split, i in job.order:  # every place, before a byte is written
            if Path(os.path.normpath(temporary / split / names[i])).parent != temporary / split:
                raise DatasetError(f"{names[i]!r} can't be the name of a file; rename the image")
        losses += _WRITERS[format](job, progress)
    return tuple(losses)


def _indices(
    dataset: DetectionDataset, splits: Mapping[str, Sequence[str]], format: str, losses: list[str]
) -> dict[str, list[int]]:
    """Indices of each split. Except in VOC, whose lists may overlap, an image is in one; the rest is ``other``.

    Raises:
        DatasetError: a split has an id that no image has.
    """
    index = {record.image_id: i for i, record in enumerate(dataset)}
    if not splits:
        return {"": list(range(len(dataset)))}
    for name, ids in splits.items():
        unknown = [i for i in ids if i not in index]
        if unknown:
            few = first_names(list(map(repr, unknown)))
            raise DatasetError(
                f"split {name}: {len(unknown)} of its {len(ids)} ids belong to no image of {dataset!r} ({few}); "
                "expected the image_id of its records"
            )
    listed = {name: [index[i] for i in dict.fromkeys(ids)] for name, ids in splits.items()}
    if format == "voc":
        alone = len(dataset) - len({i for items in listed.values() for i in items})
        if alone:
            losses.append(f"{alone} images are in no split; they are written, but no list in ImageSets/Main has them")
        return listed
    taken: set[int] = set()
    found: dict[str, list[int]] = {}
    for name, items in listed.items():
        own = [i for i in items if i not in taken]
        if len(own) < len(items):
            losses.append(f"split {name}: {len(items) - len(own)} of its images are in another split and stay there")
        if own:
            found[name] = own
            taken.update(own)
    rest = [i for i in range(len(dataset)) if i not in taken]
    if rest:
        name, number = "other", 2
        while name.lower() in {known.lower() for known in found}:
            name, number = f"other-{number}", number + 1
        found[name] = rest
        losses.append(f"{len(rest)} images are in no split; they are put into one called {name}")
    return found


def _file_names(dataset: DetectionDataset, losses: list[str]) -> list[str]:
    """A plain file name for each image, from its id: no folders, no two alike, also where case doesn't count."""
    names, taken, renamed = [], set(), []
    for record in dataset:
        stem = _NOT_IN_A_NAME.sub("_", record.image_id).strip(" .")[:120] or "image"
        while len(stem.encode()) > 200:  # letters of other scripts have several bytes
            stem = stem[:-1]
        suffix = record.path.suffix if record.path.suffix.lower() in IMAGE_EXTENSIONS else ".jpg"
        candidate, number = stem, 2
        while candidate.lower() in taken:
            candidate, number = f"{stem}-{number}", number + 1
        taken.add(candidate.lower())
        names.append(candidate + suffix)
        # folders become a part of the name, which shows
        if candidate != record.image_id.replace("/", "_"):
            renamed.append(f"{record.image_id!r} is {names[-1]!r} now")
    if renamed:
        losses.append(f"names that not every system can hold, of {len(renamed)} images: {first_names(renamed)}")
    return names
