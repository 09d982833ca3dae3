"""Detections of many images in the formats of other tools. Boxes are converted on the way out (docs/models.md)."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from sppnet.detection.results import FailedImage, ImageResult, image_record, relative_names, results_document
from sppnet.errors import ArgumentError
from sppnet.storage.atomic import write_text
from sppnet.storage.names import spreadsheet_safe, spreadsheet_safe_path, xml_problem
from sppnet.storage.output_folder import OutputFolder

__all__ = ["EXPORT_FORMATS", "FOLDER_FORMATS", "format_of", "write_results"]


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
        class_names: all that the detector knows; the ids of formats that number classes follow their order.
        format: one of :data:`EXPORT_FORMATS`. None: by the ending of ``path``.
        root: names of images in the files are relative to this folder. None: the folder that holds them all.
        failed: images that could not be done; ``json`` lists them.
        thresholds: minimum confidence of each class; ``json`` holds them.
        image_url: Label Studio: put before these names.
        model: name of the detector, for ``json`` and the predictions of Label Studio.

    Returns:
        The files written.

    Raises:
        ArgumentError: an unknown format, or a name that XML can't hold.
        OutputError: it can't be written, or a folder has a file of that name that sppnet didn't write.
    """
    format = format_of(path) if format is None else format
    if format == "json":
        document = results_document(results, class_names, root=root, failed=failed, thresholds=thresholds, model=model)
        files = {Path(path): _dump(document)}
    elif format in _WRITERS:
        names = relative_names([result.path for result in results], root)
        files = _WRITERS[format](
            Path(path), results, names, list(class_names), {"image_url": image_url, "model": model}
        )
    else:
        raise ArgumentError(f"format: got {format!r}, expected one of {', '.join(EXPORT_FORMATS)}")
    if format not in FOLDER_FORMATS:
        for file, text in files.items():
            write_text(file, text)
        return list(files)
    folder = OutputFolder(path)
    for file, text in files.items():
        folder.write(file.relative_to(path).as_posix(), text.encode(), sync=len(files) < 100)
    return list(files)


Files = dict[Path, str]
Writer = Callable[[Path, Sequence[ImageResult], list[str], list[str], dict[str, str]], Files]


def _xml(text: str) -> str:
    """``text``, which XML can hold.

    Raises:
        ArgumentError: it can't.
    """
    problem = xml_problem(text)
    if problem:
        raise ArgumentError(problem)
    return text


def _dump(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _jsonl(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, str]
) -> Files:
    lines = [json.dumps(image_record(f, n), ensure_ascii=False) + "\n" for f, n in zip(found, names, strict=True)]
    return {path: "".join(lines)}


def _csv(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, str]
) -> Files:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "x0", "y0", "x1", "y1", "label", "confidence"])
    for f, name in zip(found, names, strict=True):
        for item in f.detections.to_dicts():
            cells = [spreadsheet_safe_path(name), *item["box"], spreadsheet_safe(item["class_name"])]
            writer.writerow([*cells, item["confidence"]])
    return {path: text.getvalue()}


def _coco(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, str]
) -> Files:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, (f, name) in enumerate(zip(found, names, strict=True), 1):
        images.append({"id": i, "file_name": name, "width": f.width, "height": f.height})
        for item in f.detections.to_coco(i):
            _, _, w, h = item["bbox"]
            # no outline: of a box given as an outline, too, labelling tools make a polygon
            more = {"id": len(annotations) + 1, "area": round(w * h, 2), "iscrowd": 0, "segmentation": []}
            annotations.append(item | more)
    categories = [{"id": c, "name": name} for c, name in enumerate(classes, 1)]
    return {path: _dump({"images": images, "annotations": annotations, "categories": categories})}


def _coco_results(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, str]
) -> Files:
    return {path: _dump([item for i, f in enumerate(found, 1) for item in f.detections.to_coco(i)])}


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
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, str]
) -> Files:
    files = {}
    for f, name, stem in zip(found, names, _stems(names), strict=True):
        tree = Element("annotation")
        SubElement(tree, "filename").text = _xml(Path(name).name)
        SubElement(tree, "path").text = _xml(name)
        size = SubElement(tree, "size")
        for key, side in (("width", f.width), ("height", f.height), ("depth", 3)):
            SubElement(size, key).text = str(side)
        for box, score, label in zip(
            f.detections.xyxy, f.detections.confidence, f.detections.class_name.tolist(), strict=True
        ):
            item = SubElement(tree, "object")
            SubElement(item, "name").text = _xml(label)
            SubElement(item, "difficult").text = "0"
            SubElement(item, "score").text = f"{score:.4f}"
            corners = SubElement(item, "bndbox")
            # 1-based, both ends inside, whole pixels: some tools read nothing else
            x0, y0 = min(round(float(box[0])) + 1, f.width), min(round(float(box[1])) + 1, f.height)
            x1, y1 = max(round(float(box[2])), x0), max(round(float(box[3])), y0)
            for key, value in (("xmin", x0), ("ymin", y0), ("xmax", x1), ("ymax", y1)):
                SubElement(corners, key).text = str(value)
        indent(tree)
        files[path / f"{stem}.xml"] = tostring(tree, encoding="unicode") + "\n"
    return files


def _yolo(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, str]
) -> Files:
    import yaml

    files = {}
    for f, stem in zip(found, _stems(names), strict=True):
        lines = []
        for (x0, y0, x1, y1), label in zip(f.detections.xyxy.tolist(), f.detections.class_id, strict=True):
            values = ((x0 + x1) / 2 / f.width, (y0 + y1) / 2 / f.height, (x1 - x0) / f.width, (y1 - y0) / f.height)
            lines.append(f"{label} " + " ".join(f"{v:.6f}" for v in values) + "\n")
        files[path / "labels" / f"{stem}.txt"] = "".join(lines)
    files[path / "data.yaml"] = yaml.safe_dump(
        {"train": "images", "names": dict(enumerate(classes))}, sort_keys=False, allow_unicode=True, width=1000
    )
    return files


def _label_studio(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, str]
) -> Files:
    tasks = []
    for f, name in zip(found, names, strict=True):
        result = []
        for k, (box, score, label) in enumerate(
            zip(f.detections.xyxy.tolist(), f.detections.confidence, f.detections.class_name.tolist(), strict=True)
        ):
            x0, y0, x1, y1 = (100 * v / side for v, side in zip(box, (f.width, f.height) * 2, strict=True))
            value = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
            value = {key: round(v, 4) for key, v in value.items()}
            result.append(
                {
                    "id": f"sppnet-{k + 1}",
                    "type": "rectanglelabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": f.width,
                    "original_height": f.height,
                    "image_rotation": 0,
                    "score": round(float(score), 4),
                    "value": value | {"rotation": 0, "rectanglelabels": [label]},
                }
            )
        best = round(float(f.detections.confidence.max(initial=0)), 4)
        prediction = {"model_version": options["model"], "score": best, "result": result}
        tasks.append({"data": {"image": _url(options["image_url"], name)}, "predictions": [prediction]})
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image")
    labels = SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in classes:
        SubElement(labels, "Label", value=_xml(name))
    indent(view)
    return {path: _dump(tasks), path.with_suffix(".config.xml"): tostring(view, encoding="unicode") + "\n"}


def _url(prefix: str, name: str) -> str:
    """Where Label Studio gets an image: blanks, ``#`` and the like are escaped, but not in keys of cloud storage."""
    return prefix + (quote(name) if urlsplit(prefix).scheme in ("", "http", "https") else name)


def _cvat(
    path: Path, found: Sequence[ImageResult], names: list[str], classes: list[str], options: dict[str, str]
) -> Files:
    tree = Element("annotations")
    SubElement(tree, "version").text = "1.1"
    task = SubElement(SubElement(tree, "meta"), "task")
    SubElement(task, "size").text = str(len(found))
    SubElement(task, "mode").text = "annotation"
    labels = SubElement(task, "labels")
    for name in classes:
        item = SubElement(labels, "label")
        SubElement(item, "name").text = _xml(name)
        SubElement(item, "attributes")
    for i, (f, name) in enumerate(zip(found, names, strict=True)):
        image = SubElement(tree, "image", id=str(i), name=_xml(name), width=str(f.width), height=str(f.height))
        for box, label in zip(f.detections.xyxy, f.detections.class_name.tolist(), strict=True):
            corners = {key: f"{v:.2f}" for key, v in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)}
            SubElement(image, "box", {"label": label, "occluded": "0", "source": "auto", **corners, "z_order": "0"})
    indent(tree)
    return {path: '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(tree, encoding="unicode") + "\n"}


_WRITERS: dict[str, Writer] = {
    "jsonl": _jsonl,
    "csv": _csv,
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
