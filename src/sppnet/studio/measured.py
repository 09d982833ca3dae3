"""What the worker tells the server about heads that it measured on images that they did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sppnet.detection.held_out import HeldOut, images_for

__all__ = ["POINTS", "quality_event"]

POINTS = 0.05
"""Average precision that "about N more images" would add."""


def quality_event(result: HeldOut, classes: Sequence[int], history: Sequence[HeldOut]) -> dict[str, Any]:
    """Make the message.

    A class ``rises`` if with nine in ten of the resamples all images gave more than half of them, and is ``flat`` if
    with nine in ten a doubling gave less than 0.02; else nobody knows yet.

    Args:
        result: the newest measurement.
        classes: numbers of the classes, in the order of its arrays.
        history: all measurements of these classes, for the curve.

    Returns:
        Plain numbers, and None where there is nothing to say.
    """
    rows: dict[int, dict[str, Any]] = {}
    for i, number in enumerate(classes):
        gain, low, high = result.ap[i] - result.half_ap[i], result.gain_low[i], result.gain_high[i]
        trend = None
        if not np.isnan([gain, low, high]).any():
            trend = "rises" if low > 0 else "flat" if high < 0.02 else "unclear"
        more = images_for(POINTS, float(gain), result.learned) if trend == "rises" else None
        if more is not None and result.ap[i] + POINTS > 1:
            more = None
        rows[number] = {
            "ap": _figure(result.ap[i]), "ap_low": _figure(result.low[i]), "ap_high": _figure(result.high[i]),
            "half_ap": _figure(result.half_ap[i]), "trend": trend, "more": more,
        }  # fmt: skip
    points: dict[int, float] = {}
    for item in sorted(history, key=lambda h: h.images):
        points[round(item.learned / 2)] = _mean(item.half_ap)
        points[round(item.learned)] = _mean(item.ap)
    found = {
        image: [
            [*(round(float(v), 1) for v in box), classes[int(c)], round(float(p), 4)]
            for box, p, c in zip(*rows_, strict=True)
        ]
        for image, rows_ in result.found.items()
    }
    return {
        "folds": result.folds, "measured": result.images, "classes": rows, "found": found,
        "curve": [{"images": n, "ap": round(ap, 4)} for n, ap in sorted(points.items()) if not np.isnan(ap)],
    }  # fmt: skip


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
