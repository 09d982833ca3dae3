"""A safetensors file written tensor by tensor, for more than memory holds."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError
from sppnet.storage.atomic import write_atomic

__all__ = ["TensorStream", "stream_tensors"]

_KINDS = {"f2": "F16", "f4": "F32", "f8": "F64", "i4": "I32", "i8": "I64", "u1": "U8"}


class TensorStream:
    """The open end of a file that :func:`stream_tensors` writes."""

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        self._offset = 0
        self.entries: dict[str, dict[str, Any]] = {}

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Write one array of numbers.

        Args:
            name: of the tensor, used once.
            array: of any shape; float16, float32, float64, int32, int64 or uint8.

        Raises:
            ArgumentError: the name was used before, or the type isn't one of these.
        """
        kind = _KINDS.get(array.dtype.str[1:])
        if kind is None:
            raise ArgumentError(f"{name}: got {array.dtype}, expected one of {', '.join(_KINDS)}")
        if name in self.entries:
            raise ArgumentError(f"{name}: there is a tensor of this name already")
        raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        self._body.write(raw)
        end = self._offset + len(raw)
        self.entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [self._offset, end]}
        self._offset = end


@contextmanager
def stream_tensors(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Iterator[TensorStream]:
    """Write a safetensors file while its tensors are computed. It appears when the block ends well.

    >>> with stream_tensors("vectors.safetensors", {"format": "mine"}) as stream:  # doctest: +SKIP
    ...     stream.add("a", np.zeros(3, np.float32))

    Args:
        path: of the file.
        metadata: text by name.
    """
    with write_atomic(path) as temporary:
        body = temporary.with_suffix(".body")  # the header comes first in the file, but is known last
        try:
            with body.open("wb") as file:
                stream = TensorStream(file)
                yield stream
            header = json.dumps({"__metadata__": dict(metadata)} | stream.entries, ensure_ascii=False).encode()
            header += b" " * (-len(header) % 8)
            with Path(temporary).open("wb") as target, body.open("rb") as source:
                target.write(struct.pack("<Q", len(header)) + header)
                shutil.copyfileobj(source, target, 1 << 20)
        finally:
            body.unlink(missing_ok=True)
