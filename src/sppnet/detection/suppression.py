"""What decoding asks of boxes, by compiled kernels; :mod:`sppnet.boxes` defines the results."""

from __future__ import annotations

import numpy as np

from sppnet._types import F32, I64
from sppnet.kernels.native import NativeKernel
from sppnet.kernels.run import first_run_notice

__all__ = ["iou_of_pairs", "suppressed"]

_suppress = NativeKernel(
    "sppnet.detection.kernels", "suppress", ("kernels",), ranged=False, kinds=("float32 2", "float64 1", "int64 1")
)
_overlaps = NativeKernel("sppnet.detection.kernels", "overlaps", ("kernels",), ranged=False, kinds=("float32 2",) * 3)


def suppressed(boxes: F32, scores: F32, iou: float) -> I64:
    """Rows that :func:`sppnet.boxes.nms` keeps, best first.

    Args:
        boxes: ``(K, 4)``.
        scores: ``(K,)``.
        iou: overlap above which a box is dropped, in [0, 1].
    """
    order = np.argsort(-scores, kind="stable")
    kept = np.empty(len(order) + 1, np.int64)
    with first_run_notice("suppression kernels"):
        _suppress(np.ascontiguousarray(boxes[order]), np.array([iou], np.float64), kept)
    return order[kept[: kept[-1]]]


def iou_of_pairs(a: F32, b: F32) -> F32:
    """Numbers that :func:`sppnet.boxes.box_iou` gives: ``(A, B)`` of boxes ``(A, 4)`` and ``(B, 4)``."""
    found = np.empty((len(a), len(b)), np.float32)
    with first_run_notice("overlap kernels"):
        _overlaps(np.ascontiguousarray(a), np.ascontiguousarray(b.T), found)
    return found
