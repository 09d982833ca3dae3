"""Images that only show what classes are not: a data set, or a plain folder of images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sppnet._types import OnError
from sppnet.checking import check_one_of
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import DatasetError, ImageError, UnknownFormatError
from sppnet.images import image_size, list_images

__all__ = ["load_background"]


def load_background(path: str | os.PathLike[str], *, on_error: OnError = "skip") -> DetectionDataset:
    """Images as background for training: an annotated data set of any format, or a folder of images without boxes.

    Args:
        path: of the data set or folder.
        on_error: ``skip`` leaves out what can't be read and lists it in ``problems``; ``fail`` raises.

    Raises:
        ArgumentError: ``on_error`` is neither "skip" nor "fail".
        DatasetError: there are no images in it. ImageError: one can't be read, with ``on_error="fail"``.
    """
    check_one_of("on_error", on_error, ("fail", "skip"))
    try:
        return load_dataset(path, on_error=on_error, limit_bad=True)
    except UnknownFormatError:
        pass
    records, problems = [], []
    no_boxes, no_labels, none_difficult = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    for image in list_images([path]):
        try:
            height, width = image_size(image)
        except ImageError as error:
            if on_error == "fail":
                raise
            problems.append(str(error))
            continue
        records.append(ImageRecord(image, no_boxes, no_labels, none_difficult, width, height, str(image)))
    if not records:
        what = f"; the first problem: {problems[0]}" if problems else ""
        raise DatasetError(f"{path}: no annotations and no readable images{what}; name a folder of images")
    return DetectionDataset(records, (), Path(path).name, problems=tuple(problems))
