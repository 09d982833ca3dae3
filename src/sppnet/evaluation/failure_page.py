"""A page that shows where a detector fails: each kind of failure counted, and the worst images of each kind drawn."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sppnet.datasets.contact_sheet import Tile, contact_sheet, shrink
from sppnet.datasets.records import DetectionDataset
from sppnet.drawing import draw_boxes, draw_detections, encode_image
from sppnet.errors import ArgumentError
from sppnet.evaluation.failures import Failure, find_failures, format_failures
from sppnet.evaluation.voc import DetectionsLike
from sppnet.images import load_image
from sppnet.storage.names import real_path
from sppnet.storage.output_folder import OutputFolder

__all__ = ["check_failure_folder", "write_failure_page"]

# Images of each kind, at most so many of one class, and the side of a tile
_COUNT, _OF_A_CLASS, _TILE_PX = 12, 3, 360
_RED, _GREEN, _WHITE = (255, 60, 60), (70, 210, 90), (255, 255, 255)
# In the page, by which one of ours is known again: only ours is replaced

_WHY = {
    "loose": ("Box too loose", "The class is right, but the box covers only a piece of the object, or several objects "
              "(IoU 0.1 to 0.5). Windows of selective search follow contours. Where objects touch or hide each other, "
              "no window may fit, and box regression moves a window only by a fraction of its size."),
    "confused": ("Another class", "An object of another class is there. The convolutions are frozen: the layers behind "
                 "them learn the difference between two classes from few examples only. More images of both classes "
                 "help, and so do images that show both together."),
    "background": ("Nothing there", "No annotated object is near. Look at these twice: some are objects that nobody "
                   "annotated. Others are things that look like the class on the feature map. Training images of "
                   "such things, without any object, help."),
    "twice": ("Found twice", "Another box found the object with a higher confidence. Two boxes of one object both "
              "stay when they overlap less than the threshold of non-maximum suppression."),
    "missed": ("Missed", "No detection above its class threshold overlaps the object with an IoU over 0.5. Small "
               "objects cover few cells of the feature map: a larger scale (sppnet train --scales) sees more of them "
               "and takes longer. Missed objects are drawn in white, the largest first."),
}  # fmt: skip

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1500px;margin:2em auto;padding:0 1em;color:#1e2024}
body{background:#fafaf8}
pre{background:#eee;padding:1em;overflow:auto}img{max-width:100%}p{max-width:46em}"""


def check_failure_folder(folder: str | os.PathLike[str], dataset: DetectionDataset) -> None:
    """Refuse the folder of a data set's images: drawn ones would be taken for more of them.

    Args:
        folder: where the page is to be written.
        dataset: what is measured on.

    Raises:
        ArgumentError: images of the data set are in it.
    """
    place = real_path(folder)
    if any(real_path(record.path).parent == place for record in dataset):
        raise ArgumentError(f"{folder}: holds images of the data set; name another folder for the page of failures")


def write_failure_page(
    folder: Path,
    found: Sequence[DetectionsLike],
    dataset: DetectionDataset,
    thresholds: Mapping[str, float],
    *,
    model: str = "the detector",
) -> str:
    """Write ``index.html`` and a sheet of images for each kind of failure into ``folder``.

    Args:
        folder: is made if it isn't there. A page of an earlier run is replaced; nothing else is.
        found: detections of each image of ``dataset``, with threshold 0.
        dataset: the ground truth.
        thresholds: confidence of each class by its name; less sure detections are left out.
        model: its name, for the heading.

    Returns:
        The counts as text, see :func:`~sppnet.evaluation.failures.format_failures`.

    Raises:
        ArgumentError: the folder holds files of the same names that aren't of such a page.
    """
    out = OutputFolder(folder)
    _refuse_foreign(out)
    failures, right = find_failures(found, dataset, thresholds)
    text = format_failures(failures, right, dataset)
    title = f"Where {model} fails on {dataset.name} {dataset.split}".strip()
    body = [f"<h1>{html.escape(title)}</h1>", f"<p>{len(dataset)} images.</p>", f"<pre>{html.escape(text)}</pre>"]
    sheets = {kind: _worst([f for f in failures if f.kind == kind]) for kind in _WHY}
    body += [
        f"<h2>{heading}</h2><p>{why}</p><img src='{kind}.jpg' alt='{heading}'>"
        for kind, (heading, why) in _WHY.items()
        if sheets[kind]
    ]
    page = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
    page += f"<style>{_STYLE}</style>" + "\n".join(body) + "</html>\n"
    out.write("index.html", page.encode())
    for kind, chosen in sheets.items():
        if not chosen:
            out.remove(f"{kind}.jpg")
            continue
        sheet = contact_sheet([("", [_tile(f, dataset) for f in chosen])], columns=4, tile_px=_TILE_PX)
        out.write(f"{kind}.jpg", encode_image(sheet, quality=90))
    return text


def _refuse_foreign(out: OutputFolder) -> None:
    """Raise where one of our files would replace one that isn't of an earlier page."""
    for name in ("index.html", *(f"{kind}.jpg" for kind in _WHY)):
        if (out.folder / name).exists() and not out.owns(name, certain=True):
            raise ArgumentError(
                f"{out.folder / name}: is there already and isn't of an earlier page of failures; it would be "
                "replaced. Name another folder"
            )


def _worst(failures: Sequence[Failure]) -> list[Failure]:
    """The mistakes with the highest confidence and the largest missed objects: one an image and few of a class."""

    def badness(f: Failure) -> tuple[float, int, tuple[float, ...]]:
        area = float((f.box[2] - f.box[0]) * (f.box[3] - f.box[1]))
        return (-area if f.kind == "missed" else -f.confidence, f.image, tuple(f.box.tolist()))

    chosen: list[Failure] = []
    for failure in sorted(failures, key=badness):
        if all(c.image != failure.image for c in chosen):
            chosen.append(failure)
    few = [f for k, f in enumerate(chosen) if sum(c.class_id == f.class_id for c in chosen[:k]) < _OF_A_CLASS]
    return (few + [f for f in chosen if f not in few])[:_COUNT]


def _tile(failure: Failure, dataset: DetectionDataset) -> Tile:
    """The image with the failure in red (white: missed) and the annotated objects in green."""
    record, names = dataset[failure.image], dataset.class_names
    image, ratio = shrink(Image.fromarray(load_image(record.path)), _TILE_PX)
    if len(record):
        image = draw_boxes(image, record.boxes * ratio, colour=_GREEN, line_px=2)
    missed = failure.kind == "missed"
    name = names[failure.class_id]
    image = draw_detections(
        image, failure.box[None] * ratio, [name], np.array([failure.confidence]),
        colours={name: _WHITE if missed else _RED},
    )  # fmt: skip
    there = ", ".join(sorted({names[label] for label in record.labels})) or "nothing"
    detail = f"on {names[failure.other]}" if failure.other >= 0 else f"IoU {failure.iou:.2f}"
    return Tile(image, record.path.name, f"{name}, {detail}; annotated: {there}")
