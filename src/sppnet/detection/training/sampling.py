"""Which windows are examples of what: overlaps with the annotated objects, and mini-batches drawn by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sppnet.boxes import box_iou, encode_deltas

__all__ = ["Assignment", "assign_windows", "class_overlaps", "draw_windows"]


@dataclass(frozen=True)
class Assignment:
    """The object that each of K windows overlaps most.

    Attributes:
        iou: float32 ``(K,)``, with the best object that isn't difficult; 0 where there is none.
        label: int64 ``(K,)``, class of that object; -1 where there is none.
        deltas: float32 ``(K, 4)``, regression targets towards that object (0 where there is none).
        ignored: bool ``(K,)``: the window lies mostly on a difficult object, so it is no background.
    """

    iou: NDArray[np.float32]
    label: NDArray[np.int64]
    deltas: NDArray[np.float32]
    ignored: NDArray[np.bool_]


def assign_windows(
    windows: NDArray[np.float32],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    difficult: NDArray[np.bool_],
    *,
    ignore_iou: float = 0.3,
) -> Assignment:
    """Give each window ``(K, 4)`` its best object among ``boxes (n, 4)``; ties go to the first object."""
    count = len(windows)
    easy = ~difficult
    ignored = np.zeros(count, bool)
    if difficult.any():
        ignored = box_iou(windows, boxes[difficult]).max(1, initial=0) >= ignore_iou
    if not easy.any():
        return Assignment(np.zeros(count, np.float32), np.full(count, -1), np.zeros((count, 4), np.float32), ignored)
    overlap = box_iou(windows, boxes[easy])
    best = overlap.argmax(1)
    iou = overlap[np.arange(count), best].astype(np.float32)
    label = np.where(iou > 0, labels[easy][best], -1)
    deltas = encode_deltas(windows, boxes[easy][best])
    deltas[iou == 0] = 0
    return Assignment(iou, label, deltas, ignored & (iou < 0.5))


def class_overlaps(
    windows: NDArray[np.float32], boxes: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float32]:
    """Largest IoU of each window with an object of each class: float32 ``(K, num_classes)``."""
    out = np.zeros((len(windows), num_classes), np.float32)
    if len(boxes):
        overlap = box_iou(windows, boxes)
        for c in np.unique(labels):
            out[:, c] = overlap[:, labels == c].max(1)
    return out


def draw_windows(
    assignment: Assignment,
    count: int,
    rng: np.random.Generator,
    *,
    foreground_share: float = 0.25,
    foreground_iou: float = 0.5,
    background_iou: tuple[float, float] = (0.1, 0.5),
    easy_background_share: float = 0.3,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a mini-batch of windows of one image (paper, section 4.2; constants as in R-CNN fine-tuning).

    Args:
        assignment: of the windows of the image to its objects.
        count: windows to draw.
        rng: draws them.
        foreground_share: at most this share overlaps an object by ``foreground_iou`` or more.
        foreground_iou: overlap with an object from which on a window is foreground.
        background_iou: background overlaps an object by [low, high).
        easy_background_share: of the background, this share overlaps less than ``low`` (sky, grass: without any, the
            classifier never learns what nothing looks like).

    Returns:
        Indices ``(n,)`` and classes ``(n,)``, -1 for background; n is at most ``count``.
    """
    low, high = background_iou
    foreground = np.flatnonzero(assignment.iou >= foreground_iou)
    rest = ~assignment.ignored & (assignment.iou < high)
    near = np.flatnonzero(rest & (assignment.iou >= low))
    far = np.flatnonzero(rest & (assignment.iou < low))

    def pick(pool: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        return rng.permutation(pool)[: max(0, n)]

    f = pick(foreground, round(count * foreground_share))
    left = count - len(f)
    n_near = min(len(near), left - round(left * easy_background_share))
    b_far = pick(far, left - n_near)
    b_near = pick(near, left - len(b_far))
    index = np.concatenate([f, b_near, b_far])
    label = np.concatenate([assignment.label[f], np.full(len(index) - len(f), -1)])
    return index, label
