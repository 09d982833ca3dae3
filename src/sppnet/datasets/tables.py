"""Tables of what is in a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["count_table"]


def count_table(
    names: Sequence[str],
    counts: Mapping[str, Mapping[str, int]],
    images: Mapping[str, int],
    empty: Mapping[str, int] | None = None,
    what: str = "objects",
) -> str:
    """Format a table of classes and splits.

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
