"""Tables that several verbs print."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sppnet.detection.detections import Detections

__all__ = ["count_table", "stage_table"]


def count_table(
    names: Sequence[str],
    counts: Mapping[str, Mapping[str, int]],
    images: Mapping[str, int],
    empty: Mapping[str, int] | None = None,
    what: str = "objects",
) -> str:
    """A table of classes and splits.

    Args:
        names: of the classes.
        counts: objects (or ``what``) of each class, by split.
        images: how many, by split.
        empty: images without objects, by split.
        what: is counted.
    """
    used = [name for name in names if any(count.get(name) for count in counts.values())]
    width = max(len(name) for name in [*used, "without objects"])
    columns = [max(8, len(split) + 1) for split in counts]

    def row(title: str, numbers: Iterable[int | str]) -> str:
        return f"{title:<{width}}" + "".join(f"{n:>{w}}" for n, w in zip(numbers, columns, strict=True))

    head = row(what, counts)
    rows = [head, "-" * len(head), *(row(name, (count.get(name, 0) for count in counts.values())) for name in used)]
    rows += ["-" * len(head), row("images", (images[split] for split in counts))]
    if empty and any(empty.values()):
        rows.append(row("without objects", (empty[split] for split in counts)))
    return "\n".join(rows)


def stage_table(found: Sequence[Detections]) -> str:
    """Median milliseconds of each stage."""
    names = list(found[0].seconds)
    medians = [1000 * statistics.median(d.seconds.get(name, 0) for d in found) for name in names]
    total = 1000 * statistics.median(sum(d.seconds.values()) for d in found)
    windows = statistics.median(d.window_count for d in found)
    columns = list(zip([*names, "total"], [*medians, total], strict=True))
    head = "  ".join(f"{name:>{max(len(name), 6)}}" for name, _ in columns)
    row = "  ".join(f"{value:>{max(len(name), 6)}.0f}" for name, value in columns)
    many = f"median of {len(found)} images, " if len(found) > 1 else ""
    return f"\ntime in ms ({many}{windows:.0f} windows)\n{head}\n{row}"
