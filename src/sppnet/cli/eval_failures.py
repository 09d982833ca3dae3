"""The page of ``sppnet eval --failures``: what goes wrong, counted, and the worst of each kind drawn."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.storage.atomic import write_atomic

if TYPE_CHECKING:
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.detections import Detections
    from sppnet.evaluation.failures import Failure

__all__ = ["write_failures"]

# Pictures of each kind, of one class at most so many, and the side of a tile
_COUNT, _OF_A_CLASS, _TILE_PX = 12, 3, 360
_RED, _GREEN, _WHITE = (255, 60, 60), (70, 210, 90), (255, 255, 255)

_WHY = {
    "loose": ("Box too loose", "The right class, but a box for a part of an object or for several (IoU 0.1 to 0.5). "
              "Windows of selective search follow contours; where two objects touch, or one is cut by another, none "
              "may fit, and box regression moves a window by a part of its size only."),
    "confused": ("Another class", "An object of another class lies there. The convolutions are frozen: what they "
                 "don't tell apart, a layer behind them learns from few examples only. More photos of both classes "
                 "help, and so do photos in which both are seen together."),
    "background": ("Nothing there", "No annotated object is near. Look twice: some are objects that nobody annotated. "
                   "The others are things that look like the class in a 4 x 4 grid; photos of them, without any "
                   "object, among the training photos are what helps."),
    "twice": ("Found twice", "The object was found by a better box. Two boxes of one object that overlap less than "
              "the limit of non-maximum suppression (0.3) both stay."),
    "missed": ("Missed", "No detection above the threshold of the class has an IoU over 0.5 with it. Small objects "
               "have few cells of the map: a larger scale (sppnet train --short-side) sees more of them, and takes "
               "longer. Drawn in white; the largest come first, for small ones are no surprise."),
}  # fmt: skip

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1500px;margin:2em auto;padding:0 1em;color:#1e2024}
body{background:#fafaf8}
pre{background:#eee;padding:1em;overflow:auto}img{max-width:100%}p{max-width:46em}"""


def write_failures(
    found: Sequence[Detections], dataset: DetectionDataset, thresholds: Mapping[str, float], folder: Path, model: str
) -> str:
    """Write ``index.html`` and a sheet of pictures for each kind of failure into ``folder``; returns the counts.

    Args:
        found: of each picture, with threshold 0. thresholds: of each class. model: its name, for the heading.
    """
    from sppnet.datasets.contact_sheet import contact_sheet
    from sppnet.evaluation.failures import find_failures, format_failures

    failures, right = find_failures(found, dataset, thresholds)
    text = format_failures(failures, right, dataset)
    title = f"Where {model} fails on {dataset.name} {dataset.split}".strip()
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{len(dataset)} photos.</p>", f"<pre>{html.escape(text)}</pre>"]
    folder.mkdir(parents=True, exist_ok=True)
    for kind, (heading, why) in _WHY.items():
        chosen = _worst([f for f in failures if f.kind == kind])
        (folder / f"{kind}.jpg").unlink(missing_ok=True)
        if not chosen:
            continue
        sheet = contact_sheet([("", [_tile(f, dataset) for f in chosen])], columns=4, tile_px=_TILE_PX)
        with write_atomic(folder / f"{kind}.jpg") as temporary:
            sheet.save(temporary, format="JPEG", quality=90)
        parts.append(f"<h2>{heading}</h2><p>{why}</p><img src='{kind}.jpg' alt='{heading}'>")
    page = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
    page += f"<style>{_STYLE}</style>" + "\n".join(parts) + "</html>\n"
    with write_atomic(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return text


def _worst(failures: Sequence[Failure]) -> list[Failure]:
    """The surest mistakes and the largest of the missed objects, one a picture and few of a class."""

    def badness(f: Failure) -> tuple[float, int, tuple[float, ...]]:
        area = float((f.box[2] - f.box[0]) * (f.box[3] - f.box[1]))
        return (-area if f.kind == "missed" else -f.confidence, f.image, tuple(f.box.tolist()))

    chosen: list[Failure] = []
    for failure in sorted(failures, key=badness):
        if all(c.image != failure.image for c in chosen):
            chosen.append(failure)
    few = [f for k, f in enumerate(chosen) if sum(c.class_id == f.class_id for c in chosen[:k]) < _OF_A_CLASS]
    return (few + [f for f in chosen if f not in few])[:_COUNT]


def _tile(failure: Failure, dataset: DetectionDataset) -> Any:
    """The picture with the failure in red (white: missed) and the annotated objects in green."""
    import numpy as np
    from PIL import Image

    from sppnet.datasets.contact_sheet import Tile, shrink
    from sppnet.drawing import draw_boxes, draw_detections
    from sppnet.images import load_image

    record, names = dataset[failure.image], dataset.class_names
    picture, ratio = shrink(Image.fromarray(load_image(record.path)), _TILE_PX)
    if len(record):
        picture = draw_boxes(picture, record.boxes * ratio, colour=_GREEN, line_px=2)
    missed = failure.kind == "missed"
    name = names[failure.class_id]
    picture = draw_detections(
        picture, failure.box[None] * ratio, [name], np.array([failure.confidence]),
        colours={name: _WHITE if missed else _RED},
    )  # fmt: skip
    there = ", ".join(sorted({names[label] for label in record.labels})) or "nothing"
    detail = f"on {names[failure.other]}" if failure.other >= 0 else f"IoU {failure.iou:.2f}"
    return Tile(picture, record.path.name, f"{name}, {detail}; annotated: {there}")
