"""A sheet of annotated images where a detector does best, and where it does worst."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.boxes import box_iou
from sppnet.datasets.contact_sheet import Tile, contact_sheet, shrink
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.detection.detections import Detections
from sppnet.drawing import class_colours, draw_detections, encode_image
from sppnet.evaluation.failures import judge_detections
from sppnet.images import load_image
from sppnet.storage.marked import write_beside

__all__ = ["draw_examples"]

# Images of each kind, and the side of a tile
_COUNT, _TILE_PX = 4, 420


def draw_examples(
    found: Sequence[Detections],
    dataset: DetectionDataset,
    thresholds: Mapping[str, float],
    path: str | os.PathLike[str],
) -> Path:
    """Write a sheet of the images with the best and with the worst F1.

    Wrong detections are marked as such. Objects that were missed are drawn in white.

    Args:
        found: detections of each image, with threshold 0.
        dataset: the annotated images.
        thresholds: minimum confidence of each class, for what is shown and counted.
        path: the name that is wished for, ``.jpg`` or ``.png``. A file of that name that isn't ours is not replaced.

    Returns:
        Where the image is.
    """
    least = np.array([thresholds[name] for name in dataset.class_names])
    found = [item[item.confidence >= least[item.class_id]] for item in found]
    scored = []
    for i, (item, record) in enumerate(zip(found, dataset, strict=True)):
        verdict = judge_detections(item, record.boxes, record.labels, record.difficult)
        hits, wrong = int((verdict == 1).sum()), int((verdict == 0).sum())
        missed = int((~record.difficult).sum()) - hits
        if hits + wrong + missed:
            scored.append((2 * hits / (2 * hits + wrong + missed), hits, wrong + missed, i, verdict))
    count = min(_COUNT, (len(scored) + 1) // 2)
    best = sorted(scored, key=lambda s: (-s[0], -s[1], s[3]))[:count]
    worst = sorted(scored, key=lambda s: (s[0], -s[2], s[3]))[:count]
    worst = [s for s in worst if s not in best and s[2]]
    groups = [
        (heading, [_tile(found[s[3]], dataset[s[3]], dataset.class_names, s[4]) for s in chosen])
        for heading, chosen in (("best", best), ("worst", worst))
        if chosen
    ]
    sheet = contact_sheet(groups, columns=_COUNT, tile_px=_TILE_PX)
    return write_beside(path, encode_image(sheet, Path(path).suffix))


def _tile(item: Detections, record: ImageRecord, class_names: Sequence[str], verdict: NDArray[np.int8]) -> Tile:
    pixels, ratio = shrink(Image.fromarray(load_image(record.path)), _TILE_PX)
    overlap = box_iou(record.boxes, item.xyxy)
    overlap[record.labels[:, None] != item.class_id[None, :]] = 0
    missed = (overlap.max(1, initial=0) <= 0.5) & ~record.difficult
    lost = [f"missed: {class_names[label]}" for label in record.labels[missed]]
    names = [f"wrong: {name}" if v == 0 else name for name, v in zip(item.class_name.tolist(), verdict, strict=True)]
    colours = class_colours(class_names, class_names)
    colours |= {f"wrong: {name}": colour for name, colour in colours.items()} | dict.fromkeys(lost, (255, 255, 255))
    drawn = draw_detections(
        pixels,
        np.concatenate([item.xyxy, record.boxes[missed]]) * ratio,
        [*names, *lost],
        np.append(item.confidence, np.full(len(lost), np.nan)),
        colours=colours,
    )
    hits, wrong = int((verdict == 1).sum()), int((verdict == 0).sum())
    left = int((~record.difficult).sum()) - hits
    return Tile(drawn, record.path.name, f"{hits} right, {wrong} wrong, {left} missed")
