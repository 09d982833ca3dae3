"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["write_atomic"]


@contextmanager
def write_atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends well, else it is removed.

    Folders above ``path`` are made as needed. The temporary name keeps the extension, so that libraries that choose a
    format by it choose the right one. What is at ``path`` already stays untouched until it is replaced, in one step.

    >>> with write_atomic("out/table.json") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("{}")

    Raises:
        OSError: the folder can't be made or written to, or the block wrote nothing.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem[:40]}-{os.getpid()}-{secrets.token_hex(4)}.part{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
