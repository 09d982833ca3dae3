"""The labels as a data set in one of the project's formats, zipped."""

from __future__ import annotations

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from sppnet.datasets.loading import load_dataset
from sppnet.datasets.writing import write_dataset
from sppnet.errors import ArgumentError
from sppnet.storage.atomic import write_atomic
from sppnet.studio.project import Project

__all__ = ["export_dataset"]

FORMATS = ("coco", "voc", "yolo", "csv", "labelme")


def export_dataset(project: Project, format: str, folder: Path) -> Path:
    """Write images and labels of all finished images.

    Args:
        project: the images and labels.
        format: one of coco, voc, yolo, csv, labelme.
        folder: where the file is written.

    Returns:
        Path of the zip file.

    Raises:
        ArgumentError: an unknown format, or no image is finished.
    """
    if format not in FORMATS:
        raise ArgumentError(f"format: got {format!r:.40}, expected one of {', '.join(FORMATS)}")
    if not any(labels.touched for labels in project.all_labels().values()):
        raise ArgumentError("there are no labels yet; finish an image first")
    target = folder / f"{project.folder.name}-{format}.zip"
    with TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary) / "dataset"
        write_dataset(load_dataset(project.folder), place, format)
        with write_atomic(target) as name, zipfile.ZipFile(name, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(place.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(place).as_posix())
    return target
