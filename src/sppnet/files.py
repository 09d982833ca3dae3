"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import json
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["stable_safetensors", "write_atomic"]


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


def stable_safetensors(data: bytes) -> bytes:
    """A safetensors file as ``safetensors.torch.save`` gives it, the same each time.

    The library writes the entries of the metadata in an order that differs from call to call. Here they are sorted.
    """
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
