"""Detections of many images in the formats of other tools. Boxes are converted on the way out (docs/models.md)."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sppnet.datasets.annotation_file import annotations_in
from sppnet.datasets.formats.coco import coco_document, coco_image
from sppnet.datasets.formats.csv import COUNTS_COLUMNS, CSV_COLUMNS
from sppnet.datasets.formats.cvat import add_box, add_image, cvat_tree
from sppnet.datasets.formats.label_studio import label_studio_task, labelling_config
from sppnet.datasets.formats.voc import add_object, annotation_tree, whole_corners
from sppnet.datasets.formats.yolo import data_yaml, label_line
from sppnet.datasets.formats.yolo_labels import is_label_file
from sppnet.datasets.loading import detect_format
from sppnet.datasets.locating import IMAGE_FOLDERS
from sppnet.datasets.write_job import to_json, xml_text
from sppnet.detection.results import (
    FailedImage,
    ImageResult,
    image_record,
    result_names,
    results_document,
    with_class_names,
)
from sppnet.errors import ArgumentError, DatasetError, UnknownFormatError
from sppnet.storage.atomic import write_text
from sppnet.storage.marked import write_beside
from sppnet.storage.names import real_path, spreadsheet_safe, spreadsheet_safe_path, xml_problem
from sppnet.storage.output_folder import LIST_NAME, OutputFolder
from sppnet.storage.walking import walk_files

__all__ = [
    "EXPORT_FORMATS",
    "FOLDER_FORMATS",
    "check_results_folder",
    "check_results_outside",
    "format_of",
    "write_results",
]


_FRAME_COLUMNS = ("video", "time_s")  # of tables with frames of videos


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file name means.

    Raises:
        ArgumentError: it means none, or several.
    """
    suffix = Path(path).suffix.lower()
    known = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
    if suffix not in known:
        raise ArgumentError(
            f"{path}: its ending names no format; say which with --format {{{','.join(EXPORT_FORMATS)}}}"
        )
    return known[suffix]


def write_results(
    path: str | os.PathLike[str],
    results: Sequence[ImageResult],
    class_names: Sequence[str],
    *,
    format: str | None = None,
    root: str | os.PathLike[str] | None = None,
    failed: Sequence[FailedImage] = (),
    thresholds: Mapping[str, float] | None = None,
    image_url: str = "/data/local-files/?d=",
    model: str = "sppnet",
) -> list[Path]:
    """Write what was found in many images. Each file appears when it is complete.

    Args:
        path: a file; a folder for ``voc`` and ``yolo``.
        results: of :func:`sppnet.detection.run.detect_many`.
        class_names: all that the detector knows. Classes are known by name; the ids of formats that number classes
            follow this order.
        format: one of :data:`EXPORT_FORMATS`. None: by the ending of ``path``.
        root: names of images in the files are relative to this folder. None: the folder that holds them all.
        failed: images that could not be done; ``json`` lists them, and ids of COCO count them.
        thresholds: minimum confidence of each class; ``json`` holds them.
        image_url: Label Studio: put before these names.
        model: name of the detector, for ``json`` and the predictions of Label Studio.

    Returns:
        The files written.

    Raises:
        ArgumentError: an unknown format, a class of what was found that isn't among ``class_names``, one of them
            twice, or a name that XML can't hold.
        OutputError: it can't be written, or a folder has a file of that name that sppnet didn't write.
    """
    format = format_of(path) if format is None else format
    results = with_class_names(results, class_names)
    if format == "json":
        document = results_document(results, class_names, root=root, failed=failed, thresholds=thresholds, model=model)
        files = {Path(path): to_json(document)}
    elif format in _WRITERS:
        every = result_names(results, root, failed)
        names = every[: len(results)]
        more: dict[str, Any] = {"image_url": image_url, "model": model, "ids": _image_ids(every)}
        files = _WRITERS[format](Path(path), results, names, list(class_names), more)
    else:
        raise ArgumentError(f"format: got {format!r}, expected one of {', '.join(EXPORT_FORMATS)}")
    if format not in FOLDER_FORMATS:
        written = []
        for file, text in files.items():
            if file == Path(path):
                write_text(file, text, named=True)
                written.append(file)
            else:  # the user didn't choose this name
                written.append(write_beside(file, text.encode()))
        return written
    folder = OutputFolder(path)
    for file, text in files.items():
        folder.write(file.relative_to(path).as_posix(), text.encode(), sync=len(files) < 100)
    return list(files)


def check_results_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder with a data set in it: results would be taken for its annotations.

    Args:
        path: of the folder, for one of :data:`FOLDER_FORMATS`. It may be missing, or hold earlier results.

    Raises:
        ArgumentError: there is a data set that wasn't written here.
    """
    folder = Path(path)
    if not folder.is_dir() or (folder / LIST_NAME).is_file():
        return
    if kind := _format_in(folder):
        raise ArgumentError(
            f"{folder}: holds a data set ({kind}), and results would be taken for its annotations; name another folder"
        )


def check_results_outside(path: str | os.PathLike[str], format: str, images: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse results in a format of labels inside an annotated folder of images: both would be read as its labels.

    For folders of results the one above a folder ``images`` counts, too: its labels lie there.

    Args:
        path: of the results. It may be missing, or hold earlier results.
        format: one of :data:`EXPORT_FORMATS`.
        images: what is looked at; its folders count.

    Raises:
        ArgumentError: one of the folders holds ``path``, and annotations that ``sppnet detect`` didn't write.
    """
    if format not in _LABELS:
        return
    place = real_path(path)
    for folder in map(Path, images):
        if format in FOLDER_FORMATS:  # many small files, which nobody tells from labels
            folder = _home_of_images(folder)
        if not folder.is_dir() or not place.is_relative_to(real_path(folder)):
            continue
        kind = _format_in(folder)
        if kind and _has_labels_of_others(folder):
            raise ArgumentError(
                f"--results {path}: lies in {folder}, which holds annotations ({kind}), and results would be taken for "
                f"more of them; name a {'folder' if format in FOLDER_FORMATS else 'file'} outside"
            )


def _home_of_images(folder: Path) -> Path:
    """The folder of the data set whose images are in ``folder``: that above ``images`` or ``images/train``."""
    for place in (folder, folder.parent):
        if place.name in IMAGE_FOLDERS and folder.is_dir():
            return place.parent
    return folder


def _format_in(folder: Path) -> str:
    """The format of the data set in a folder; empty where there is none."""
    try:
        return detect_format(folder)
    except UnknownFormatError:
        return ""
    except DatasetError:
        return "of several formats"


def _has_labels_of_others(folder: Path) -> bool:
    """Whether a folder holds annotations beside those that ``sppnet detect`` wrote, by its lists and by their looks."""
    lists: dict[Path, OutputFolder | None] = {}
    for file in walk_files(folder):
        # a label file of YOLO says too little to be known as annotations by its looks alone
        if not annotations_in(file) and not (file.suffix.lower() == ".txt" and is_label_file(file)):
            continue
        if not any(_lists(above, file, lists) for above in file.parents if above.is_relative_to(folder)):
            return True
    return False


def _lists(folder: Path, file: Path, lists: dict[Path, OutputFolder | None]) -> bool:
    """Whether the list of a folder names a file below it as ours."""
    if folder not in lists:
        lists[folder] = OutputFolder(folder) if (folder / LIST_NAME).is_file() else None
    known = lists[folder]
    return known is not None and known.owns(file.relative_to(folder).as_posix())


Files = dict[Path, str]
Writer = Callable[[Path, Sequence[ImageResult], list[str], list[str], dict[str, str]], Files]


def _check_xml(*names: str) -> None:
    """Refuse names that XML can't hold.

    Raises:
        ArgumentError: there is one.
    """
    for name in names:
        problem = xml_problem(name)
        if problem:
            raise ArgumentError(problem)


def _jsonl(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    lines = [json.dumps(image_record(f, n), ensure_ascii=False) + "\n" for f, n in zip(found, names, strict=True)]
    return {path: "".join(lines)}


def _table(titles: Sequence[str], rows: Iterable[tuple[ImageResult, list[object]]]) -> str:
    """CSV; where there are frames of videos, two more columns tell of which each row is."""
    known = list(rows)
    frames = any(f.time_s is not None for f, _ in known)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*titles, *(_FRAME_COLUMNS if frames else ())])
    writer.writerows([*cells, *(_frame_cells(f) if frames else ())] for f, cells in known)
    return text.getvalue()


def _csv(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    rows: list[tuple[ImageResult, list[object]]] = []
    for f, name in zip(found, names, strict=True):
        objects = [[*item["box"], spreadsheet_safe(item["class_name"]), item["confidence"]]
                   for item in f.detections.to_dicts()]  # fmt: skip
        # without objects: a row with its name alone, as tables of labels have it
        rows += [(f, [spreadsheet_safe_path(name), *cells]) for cells in objects or [[""] * 6]]
    return {path: _table([*CSV_COLUMNS, "confidence"], rows)}


def _counts(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    rows: list[tuple[ImageResult, list[object]]] = []
    for f, name in zip(found, names, strict=True):
        of_class = np.bincount(f.detections.class_id, minlength=len(classes)).tolist()
        rows.append((f, [spreadsheet_safe_path(name), sum(of_class), *of_class]))
    own = (*COUNTS_COLUMNS, *_FRAME_COLUMNS)
    titles = [f"{name} (class)" if name in own else name for name in classes]
    return {path: _table([*COUNTS_COLUMNS, *map(spreadsheet_safe, titles)], rows)}


def _frame_cells(found: ImageResult) -> list[str]:
    return ["", ""] if found.time_s is None else [spreadsheet_safe_path(found.path.name), f"{found.time_s:.3f}"]


def _coco(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    document = coco_document(classes)
    for f, name in zip(found, names, strict=True):
        i = options["ids"][name]
        document["images"].append(coco_image(i, name, f.width, f.height))
        for item in f.detections.to_coco(i):
            _, _, w, h = item["bbox"]
            # no outline: of a box given as an outline, too, labelling tools make a polygon
            more = {"id": len(document["annotations"]) + 1, "area": round(w * h, 2), "iscrowd": 0, "segmentation": []}
            document["annotations"].append(item | more)
    return {path: to_json(document)}


def _coco_results(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    pairs = zip(found, names, strict=True)
    return {path: to_json([item for f, name in pairs for item in f.detections.to_coco(options["ids"][name])])}


def _image_ids(names: Sequence[str]) -> dict[str, int]:
    """Numbers from 1 in the order of the sorted names: the same whatever failed, and in whatever order they came."""
    return {name: i for i, name in enumerate(sorted(names, key=lambda name: PurePosixPath(name).parts), 1)}


def _stems(names: Sequence[str]) -> list[str]:
    """The name of each image without its ending, folders included: so that the files lie as the images do.

    Images of one folder that differ only in the ending get ``-2`` and so on: these formats can't tell them apart.
    """
    taken: set[str] = set()
    stems = []
    for name in names:
        # never outside the folder of the results
        path = PurePosixPath(PurePosixPath(name).name if name.startswith("/") else name)
        stem, number = str(path.with_suffix("")), 2
        candidate = stem
        while candidate.lower() in taken:
            candidate, number = f"{stem}-{number}", number + 1
        taken.add(candidate.lower())
        stems.append(candidate)
    return stems


def _voc(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    files = {}
    for f, name, stem in zip(found, names, _stems(names), strict=True):
        _check_xml(name, *f.detections.class_name.tolist())
        tree = annotation_tree(Path(name).name, f.width, f.height, path=name)
        for item in f.detections:
            # whole pixels: some tools read nothing else
            corners = map(str, whole_corners(item.xyxy.tolist(), f.width, f.height))
            add_object(tree, item.class_name, list(corners), score=f"{item.confidence:.4f}")
        files[path / f"{stem}.xml"] = xml_text(tree)
    return files


def _yolo(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    files = {}
    for f, stem in zip(found, _stems(names), strict=True):
        boxes = zip(f.detections.class_id.tolist(), f.detections.xyxy.tolist(), strict=True)
        files[path / "labels" / f"{stem}.txt"] = "".join(label_line(c, b, f.width, f.height, ".6f") for c, b in boxes)
    files[path / "data.yaml"] = data_yaml({"train": "images"}, classes)
    return files


def _label_studio(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    _check_xml(*classes)
    tasks = []
    for f, name in zip(found, names, strict=True):
        objects = [(d.xyxy.tolist(), d.class_name, float(d.confidence)) for d in f.detections]
        tasks.append(label_studio_task(name, f.width, f.height, objects, options["model"], options["image_url"]))
    return {path: to_json(tasks), path.with_suffix(".config.xml"): labelling_config(classes)}


def _cvat(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, Any]
) -> Files:
    _check_xml(*classes, *names)
    tree = cvat_tree(classes, len(found))
    for i, (f, name) in enumerate(zip(found, names, strict=True)):
        image = add_image(tree, i, name, f.width, f.height)
        for item in f.detections:
            add_box(image, item.class_name, [f"{v:.2f}" for v in item.xyxy], "auto")
    return {path: '<?xml version="1.0" encoding="utf-8"?>\n' + xml_text(tree)}


_WRITERS: dict[str, Writer] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "counts": _counts,
    "coco": _coco,
    "coco-results": _coco_results,
    "voc": _voc,
    "yolo": _yolo,
    "label-studio": _label_studio,
    "cvat": _cvat,
}
EXPORT_FORMATS = ("json", *_WRITERS)
"""What :func:`write_results` writes."""
FOLDER_FORMATS = ("voc", "yolo")
"""Those that are a folder."""
_LABELS = ("csv", "coco", "voc", "yolo", "label-studio", "cvat")  # those that a data set may be in
