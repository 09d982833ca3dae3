"""Boxes: float ``(x0, y0, x1, y1)``, pixels of the original image, 0-based, half-open (``x1 - x0`` is the width)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sppnet._types import F32, F64
from sppnet.checking import check_number, check_whole
from sppnet.errors import ArgumentError

__all__ = [
    "LOG_SIZE_LIMIT",
    "as_boxes",
    "box_area",
    "box_iou",
    "clip_boxes",
    "decode_deltas",
    "encode_deltas",
    "nms",
    "soft_nms",
]

LOG_SIZE_LIMIT = 4.135
"""Box regression changes the logarithm of a side by at most this much, about log(1000 / 16)."""


def as_boxes(boxes: ArrayLike, name: str = "boxes") -> F32:
    """Check ``boxes`` and give them as a float32 array ``(K, 4)``; an empty sequence gives ``(0, 4)``.

    Args:
        boxes: numbers of shape ``(K, 4)``.
        name: of the argument, for messages.

    Raises:
        ArgumentError: another shape, or numbers that aren't finite.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # too large becomes infinite, and is refused below
            array = np.asarray(boxes, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"{name}: expected numbers of shape (K, 4), got {type(boxes).__name__}: {error}") from None
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ArgumentError(f"{name}: expected shape (K, 4) with (x0, y0, x1, y1) a row, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name}: row {int(np.flatnonzero(~np.isfinite(array).all(1))[0])} is not finite")
    return array


def _float_boxes(boxes: ArrayLike, name: str) -> NDArray[np.floating]:
    """Float32 and float64 as they are, everything else as float64; an empty sequence gives ``(0, 4)``."""
    try:
        array = np.asarray(boxes)
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"{name}: expected numbers of shape (K, 4), got {type(boxes).__name__}: {error}") from None
    if array.size == 0:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ArgumentError(f"{name}: expected shape (K, 4) with (x0, y0, x1, y1) a row, got shape {array.shape}")
    return array


def _scored_boxes(boxes: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.floating], F64]:
    """Boxes and as many scores, all of them finite."""
    array = _float_boxes(boxes, "boxes")
    try:
        values = np.asarray(scores, np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"scores: expected a number a box, got {type(scores).__name__}: {error}") from None
    if values.shape != (len(array),):
        raise ArgumentError(f"scores: got shape {values.shape}, expected ({len(array)},), one for each box")
    for name, good in (("boxes", np.isfinite(array).all(1)), ("scores", np.isfinite(values))):
        if not good.all():
            raise ArgumentError(f"{name}: row {int(np.flatnonzero(~good)[0])} is not finite")
    return array, values


def box_area(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute areas ``(K,)`` in square pixels; a reversed or thin box has area 0."""
    area: NDArray[np.floating] = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    return area


def box_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.floating]:
    """Compute the intersection over union ``(A, B)`` of every pair, in [0, 1]; 0 where both boxes have no area.

    Args:
        a: ``(A, 4)``. Float32 and float64 are computed as they are, other numbers as float64.
        b: ``(B, 4)``, likewise.

    Raises:
        ArgumentError: another shape, or no numbers.
    """
    a, b = _float_boxes(a, "a"), _float_boxes(b, "b")
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    side = np.maximum(bottom_right - top_left, 0)
    overlap = side[..., 0] * side[..., 1]
    union = box_area(a)[:, None] + box_area(b)[None, :] - overlap
    iou: NDArray[np.floating] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou


def clip_boxes(boxes: NDArray[np.floating], height: int, width: int) -> NDArray[np.floating]:
    """Copy ``boxes`` with every coordinate moved into an image of ``height`` x ``width`` pixels."""
    limit = np.array([width, height, width, height], boxes.dtype)
    clipped: NDArray[np.floating] = np.clip(boxes, 0, limit)
    return clipped


def encode_deltas(windows: NDArray[np.floating], targets: NDArray[np.floating]) -> F32:
    """Compute box regression targets ``(K, 4)`` (R-CNN, appendix C).

    A target is ``(dx, dy)`` in window sizes and ``(log dw, log dh)``.
    Both arguments are ``(K, 4)`` with positive widths and heights.
    """
    size = windows[:, 2:] - windows[:, :2]
    target_size = targets[:, 2:] - targets[:, :2]
    centre = windows[:, :2] + 0.5 * size
    target_centre = targets[:, :2] + 0.5 * target_size
    return np.concatenate([(target_centre - centre) / size, np.log(target_size / size)], 1).astype(np.float32)


def decode_deltas(windows: NDArray[np.floating], deltas: NDArray[np.floating]) -> F32:
    """Move ``windows`` by ``deltas``, the inverse of :func:`encode_deltas`.

    ``deltas`` is ``(K, 4)`` or ``(K, classes, 4)``, and so is the result.
    Log sizes are limited to log(1000/16), so that an untrained regressor can't overflow.
    """
    if deltas.ndim == 3:
        windows = windows[:, None, :]
    size = windows[..., 2:] - windows[..., :2]
    centre = windows[..., :2] + 0.5 * size + deltas[..., :2] * size
    half = 0.5 * size * np.exp(np.clip(deltas[..., 2:], -LOG_SIZE_LIMIT, LOG_SIZE_LIMIT))
    return np.concatenate([centre - half, centre + half], -1).astype(np.float32)


def nms(boxes: ArrayLike, scores: ArrayLike, iou: float = 0.3) -> NDArray[np.int64]:
    """Suppress boxes that overlap better ones (greedy non-maximum suppression); gives the rest, best first.

    A box is dropped when its IoU with a better kept one is above ``iou``. Equal scores keep their order (stable), so
    the result is deterministic.

    Args:
        boxes: ``(K, 4)``.
        scores: ``(K,)``.
        iou: overlap above which a box is dropped, in [0, 1]; the paper uses 0.3.

    Returns:
        int64 ``(kept,)``.

    Raises:
        ArgumentError: boxes or scores of another shape, or that aren't finite; ``iou`` outside [0, 1].
    """
    array, values = _scored_boxes(boxes, scores)
    check_number("iou", iou, 0, 1)
    order = np.argsort(-values, kind="stable")
    x0, y0, x1, y1 = (np.ascontiguousarray(array[order, i], dtype=np.float64) for i in range(4))
    area = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
    alive = np.arange(len(order))
    kept = []
    while alive.size:
        i, rest = alive[0], alive[1:]
        kept.append(i)
        w = np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest])
        h = np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest])
        overlap = np.maximum(w, 0) * np.maximum(h, 0)
        # overlap / union > iou, without a division by zero for boxes of no area
        alive = rest[overlap <= iou * (area[i] + area[rest] - overlap)]
    return order[np.array(kept, np.int64)]


def soft_nms(boxes: ArrayLike, scores: ArrayLike, sigma: float = 0.5, most: int = 100) -> tuple[NDArray[np.int64], F32]:
    """Lower the scores of boxes that overlap better ones (soft non-maximum suppression, Bodla et al., 2017).

    The best box is taken, the scores of the others are multiplied by ``exp(-iou ** 2 / sigma)``, and so on. Among equal
    scores the first is taken.

    Args:
        boxes: ``(K, 4)``.
        scores: ``(K,)``, positive.
        sigma: above 0; the smaller, the more score an overlapping box loses.
        most: how many boxes to take.

    Returns:
        Indices of the boxes in the order taken, and their scores then.

    Raises:
        ArgumentError: boxes or scores of another shape, or that aren't finite; ``sigma`` or ``most`` out of range.
    """
    array, left = _scored_boxes(boxes, np.array(scores, copy=True))
    check_number("sigma", sigma, 1e-12, 1e12)
    decay = np.exp(-(box_iou(array, array).astype(np.float64) ** 2) / sigma)
    taken = np.zeros(min(check_whole("most", most, 0, 1 << 40), len(left)), np.int64)
    final = np.zeros(len(taken), np.float32)
    for step in range(len(taken)):
        best = int(left.argmax())
        taken[step], final[step] = best, left[best]
        left *= decay[best]
        left[taken[: step + 1]] = -1
    return taken, final
