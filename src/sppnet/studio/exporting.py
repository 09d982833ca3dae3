"""Files to keep: the detector, the labels, what is found in other images, a card of the model."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sppnet.datasets.loading import load_dataset
from sppnet.datasets.writing import WRITTEN_FORMATS, write_dataset
from sppnet.errors import ArgumentError
from sppnet.storage.atomic import write_atomic
from sppnet.studio.project import Project

__all__ = ["FORMATS", "export_dataset", "export_results", "export_text"]

FORMATS = WRITTEN_FORMATS


def export_dataset(project: Project, format: str, folder: Path) -> Path:
    """Write images and labels of all finished images.

    Args:
        project: the images and labels.
        format: one of :data:`FORMATS`.
        folder: where the file is written.

    Returns:
        Path of the zip file.

    Raises:
        ArgumentError: an unknown format, or no image is finished.
    """
    if format not in FORMATS:
        raise ArgumentError(f"format: got {format!r:.40}, expected one of {', '.join(FORMATS)}")
    if not any(labels.done for labels in project.all_labels().values()):
        raise ArgumentError("there are no labels yet; finish an image first")
    target = folder / f"{_file_name(project)}-{format}.zip"
    with TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary) / "dataset"
        write_dataset(load_dataset(project.folder), place, format)
        with write_atomic(target) as name, zipfile.ZipFile(name, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(place.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(place).as_posix())
    return target


def export_results(project: Project, suggestions: Mapping[str, Sequence[Sequence[float]]], folder: Path) -> Path:
    """Write what is suggested on the images that are not finished.

    Args:
        project: the images and labels.
        suggestions: ``[x0, y0, x1, y1, class, confidence]`` by image.
        folder: where the file is written.

    Returns:
        Path of the JSON file.
    """
    names = {c["id"]: c["name"] for c in project.class_list()}
    rows: list[dict[str, Any]] = [
        {"image": image.name, "detections": [
            {"box": list(row[:4]), "class": names.get(int(row[4]), ""), "confidence": row[5]}
            for row in suggestions.get(image.image_id, [])
        ]}
        for image in project.images
        if not project.labels(image.image_id).done
    ]  # fmt: skip
    return export_text(json.dumps({"results": rows}, indent=1), folder / f"{_file_name(project)}-results.json")


def export_text(text: str, path: Path) -> Path:
    """Write a text file, and give its path."""
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _file_name(project: Project) -> str:
    return re.sub(r"[^\w.-]+", "-", project.folder.name).strip("-.") or "images"
