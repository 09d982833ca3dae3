"""Conversion of a data set from one format to another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sppnet._types import OnError
from sppnet.datasets.assembling import assemble
from sppnet.datasets.loading import read_dataset, split_names
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.write_job import Placement, Wrap
from sppnet.datasets.writing import write_dataset

__all__ = ["Conversion", "convert_dataset"]


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert_dataset` did.

    Attributes:
        dataset: what was written. Its ``problems`` say what was left out because it is wrong.
        format: that was read.
        losses: what the new format can't hold, a sentence each.
    """

    dataset: DetectionDataset
    format: str
    losses: tuple[str, ...]


def convert_dataset(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    to: str,
    *,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    rename: Mapping[str, str] | None = None,
    placement: Placement = "copy",
    on_error: OnError = "skip",
    progress: Wrap = iter,
) -> Conversion:
    """Read a data set and write it in another format, with its images and splits, into a new folder.

    Args:
        source: the data set, as for :func:`~sppnet.datasets.loading.load_dataset`.
        destination: a folder that doesn't exist, or is empty. It appears when it is complete.
        to: one of :data:`~sppnet.datasets.writing.WRITTEN_FORMATS`.
        format: of the source, see :func:`~sppnet.datasets.loading.load_dataset`; None finds out.
        images: a folder with the images, where they aren't in the data set.
        rename: new names of classes by their old ones.
        placement: copy the images, or make links to save space.
        on_error: ``skip`` leaves out what is wrong; ``fail`` raises one error that lists it.
        progress: wraps the sequence of images, to show how far it is.

    Raises:
        DatasetError: the source can't be read, more than a tenth of its images or objects is unusable, its images
            were resized after they were annotated, or it has a name that the new format can't hold.
        ArgumentError: ``destination`` isn't empty, or an unknown format.
        OSError: it can't be written.
    """
    raw = read_dataset(source, format, images=images, rename=rename)
    dataset = assemble(raw, None, on_error=on_error, limit_bad=True, allow_outside=False)
    names = list(raw.splits) if to == "voc" else split_names(raw)
    losses = [f"{what}: {count}" for what, count in raw.extras.items() if count]
    if dropped := [name for name in raw.splits if name not in names]:
        losses.append(f"lists whose images are in other splits too: {', '.join(dropped)}")
    written = {record.image_id for record in dataset}  # an image that is wrong was left out
    splits = {name: [image_id for image_id in raw.splits[name] if image_id in written] for name in names}
    losses += write_dataset(dataset, destination, to, splits=splits, placement=placement, progress=progress)
    return Conversion(dataset, raw.format, tuple(losses))
