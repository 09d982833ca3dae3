"""Bounding boxes of masks that are stored as run lengths, as COCO does: column by column, background first."""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.datasets.parsing import Box, short

__all__ = ["mask_box"]

_MAX_RUNS = 5_000_000


def mask_box(mask: dict[str, Any]) -> Box | None:
    """Bounding box of a mask ``{"size": [height, width], "counts": ...}``; None where it is empty.

    Args:
        mask: ``counts`` is a list of run lengths, or their text form.

    Raises:
        ValueError: it is malformed.
    """
    size, counts = mask.get("size"), mask.get("counts")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(isinstance(side, int) and 0 < side < 1 << 20 for side in size)
    ):
        raise ValueError(f"has a mask of size {short(size)}, expected [height, width]")
    height, width = size
    if isinstance(counts, str):
        runs = _decoded(counts)
    elif isinstance(counts, list) and len(counts) <= _MAX_RUNS and all(type(run) is int for run in counts):
        runs = counts
    else:
        raise ValueError(f"has a mask with counts {short(counts)}, expected run lengths")
    if any(run < 0 or run > height * width for run in runs) or sum(runs) > height * width:
        raise ValueError(f"has a mask whose runs don't fit {width}x{height}")
    ends = np.cumsum(np.asarray(runs, np.int64))
    starts, stops = ends[0::2][: len(ends[1::2])], ends[1::2]
    filled = stops > starts
    starts, stops = starts[filled], stops[filled]
    if not len(starts):
        return None
    x0, x1 = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    # A run that goes on in the next column touches both the upper and the lower edge
    over = starts // height != (stops - 1) // height
    if over.any():
        return float(x0), 0.0, float(x1), float(height)
    return float(x0), float((starts % height).min()), float(x1), float(((stops - 1) % height).max() + 1)


def _decoded(text: str) -> list[int]:
    """The run lengths of COCO's text form: five bits a character; from the third run on, differences to two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60 or len(runs) > _MAX_RUNS:
            raise ValueError(f"has a mask with counts {short(text)}, expected run lengths as COCO writes them")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
