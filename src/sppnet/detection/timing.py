"""A table of the time that detection took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sppnet.detection.detections import Detections

__all__ = ["stage_table"]


def stage_table(found: Sequence[Detections]) -> str:
    """Format the median milliseconds of each stage of detection.

    Args:
        found: of one or more images, at least one.
    """
    names = list(found[0].seconds)
    medians = [1000 * statistics.median(d.seconds.get(name, 0) for d in found) for name in names]
    total = 1000 * statistics.median(sum(d.seconds.values()) for d in found)
    windows = statistics.median(d.window_count for d in found)
    columns = list(zip([*names, "total"], [*medians, total], strict=True))
    head = "  ".join(f"{name:>{max(len(name), 6)}}" for name, _ in columns)
    row = "  ".join(f"{value:>{max(len(name), 6)}.0f}" for name, value in columns)
    many = f"median of {len(found)} images, " if len(found) > 1 else ""
    return f"time in ms ({many}{windows:.0f} windows)\n{head}\n{row}"
