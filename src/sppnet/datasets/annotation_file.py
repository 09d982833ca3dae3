"""Whether a file holds annotations: hours of somebody's work, which no output may replace."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from sppnet.datasets.formats.csv import is_table
from sppnet.datasets.formats.cvat import is_cvat
from sppnet.datasets.formats.keras_yolo import is_box_list
from sppnet.datasets.formats.kitti import is_kitti
from sppnet.datasets.formats.makesense import is_makesense
from sppnet.datasets.formats.via import is_via_table
from sppnet.datasets.loading import json_kinds
from sppnet.datasets.parsing import read_head, read_json, read_text
from sppnet.errors import DatasetError

__all__ = ["annotations_in"]


def annotations_in(path: str | os.PathLike[str]) -> str:
    """Name the format of the annotations in a file; empty where there are none, or where `sppnet detect` wrote them.

    Args:
        path: of any file. One that can't be read has none.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    try:
        if suffix == ".json":
            return _in_json(read_json(file, "JSON"))
        if suffix == ".xml":
            return _in_xml(file)
    except DatasetError:
        return ""
    if suffix in (".yaml", ".yml"):
        return "yolo" if "names" in read_head(file) else ""
    if suffix in (".csv", ".tsv"):
        return _in_table(file)
    if suffix == ".txt":
        return "keras-yolo" if is_box_list(file) else "kitti" if is_kitti(file) else ""
    return ""


def _in_json(document: Any) -> str:
    kinds = json_kinds(document)
    if kinds == ["coco"]:
        objects = document.get("annotations") or []
        return "coco" if any(not isinstance(item, dict) or "score" not in item for item in objects) else ""
    if kinds == ["label-studio"]:
        tasks = [task for task in document if isinstance(task, dict)]
        only_found = all("predictions" in task and not task.get("annotations") for task in tasks)
        return "" if only_found else "label-studio"
    return "".join(kinds)


def _in_xml(file: Path) -> str:
    if not is_cvat(file):
        return "voc" if "<annotation" in read_head(file) else ""
    text = read_text(file, "XML")
    ours = "<dumped>" not in text and text.count("<box") == text.count('source="auto"')
    return "" if ours else "cvat"


def _in_table(file: Path) -> str:
    if is_via_table(file):
        return "via"
    if is_makesense(file):
        return "makesense"
    titles = next(csv.reader(read_head(file).splitlines()[:1]), [])
    return "csv" if is_table(file) and "confidence" not in titles else ""
