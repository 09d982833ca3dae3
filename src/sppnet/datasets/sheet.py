"""A sheet that shows images of a data set with their boxes."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from sppnet._types import OnError, Progress, no_progress
from sppnet.checking import check_one_of
from sppnet.datasets.contact_sheet import contact_sheet, record_tile
from sppnet.datasets.records import DetectionDataset
from sppnet.errors import ArgumentError, DatasetError, did_you_mean
from sppnet.image_runs import FailedImage, Failures

__all__ = ["DatasetSheet", "draw_dataset"]


@dataclass(frozen=True)
class DatasetSheet:
    """What :func:`draw_dataset` drew.

    Attributes:
        image: the sheet.
        shown: how many images are on it.
        candidates: how many could have been.
        failed: images that can't be read.
    """

    image: Image.Image
    shown: int
    candidates: int
    failed: tuple[FailedImage, ...]


def draw_dataset(
    dataset: DetectionDataset,
    *,
    class_name: str | None = None,
    limit: int = 24,
    columns: int = 4,
    tile_px: int = 320,
    on_error: OnError = "skip",
    progress: Progress = no_progress,
) -> DatasetSheet:
    """Draw images of a data set with their boxes on one sheet.

    Args:
        dataset: the images.
        class_name: only images with an object of this class.
        limit: so many images, spread evenly over the data set.
        columns: images in a row.
        tile_px: side of an image on the sheet.
        on_error: ``skip`` leaves out images that can't be read; ``fail`` raises.
        progress: shows how far it is.

    Raises:
        ArgumentError: there is no such class, or ``on_error`` is neither "skip" nor "fail".
        DatasetError: there are no images to show.
        ImageError: an image can't be read, with ``on_error="fail"``.
    """
    check_one_of("on_error", on_error, ("fail", "skip"))
    chosen = dataset
    if class_name is not None:
        if class_name not in dataset.class_names:
            hint = did_you_mean(class_name, dataset.class_names)
            raise ArgumentError(f"class: got {class_name!r}; {hint}expected one of {', '.join(dataset.class_names)}")
        label = dataset.class_names.index(class_name)
        chosen = dataset.subset([i for i, record in enumerate(dataset) if (record.labels == label).any()])
    if not len(chosen):
        raise DatasetError(f"{dataset!r}: no images to show; `sppnet data check` tells why")
    failures = Failures(on_error)
    tiles = []
    few = chosen.spread(limit)
    for record in progress(few, "drawing", total=len(few)):
        with failures.catch(record.path):
            tiles.append(record_tile(record, dataset.class_names, tile_px))
    counts = [f"{len(dataset)} images", f"{sum(map(len, dataset))} objects", f"{len(tiles)} shown"]
    title = ", ".join(filter(None, [dataset.name, dataset.split, *counts]))
    sheet = contact_sheet([("", tiles)], columns=columns, tile_px=tile_px, title=title)
    return DatasetSheet(sheet, len(tiles), len(chosen), tuple(failures.failed))
