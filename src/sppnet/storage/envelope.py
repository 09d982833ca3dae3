"""One kind of file for everything that sppnet keeps: arrays and JSON in a safetensors file, with a digest. No pickle.

The header of the file has three texts: ``format``, the kind of the file and its version (``sppnet-detector-3``);
``sppnet``, the metadata as JSON; ``sha256``, the digest of all arrays and of the metadata. Other programs read these
files with the library safetensors. Only NumPy is needed here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from sppnet.errors import ArgumentError, ModelFileError
from sppnet.storage.atomic import Buffer, write_atomic, write_bytes
from sppnet.storage.reading import open_regular

__all__ = ["Array", "Envelope", "EnvelopeStream", "Place", "encode_envelope", "is_stream_body", "read_envelope",
           "read_format", "stream_envelope", "write_envelope"]  # fmt: skip

Array = NDArray[Any]

Place = tuple[int, str, tuple[int, ...], int]
"""Where an array is in the body of a stream: first byte, type, shape, and CRC-32 of its bytes."""

# In the order in which safetensors sorts arrays in a file: the last one first
_TYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
          "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8"}  # fmt: skip
_NAMES = {np.dtype(code).newbyteorder("<"): name for name, code in _TYPES.items()}
_RANK = {name: i for i, name in enumerate(_TYPES)}

MODEL_HEADER_BYTES = 8 << 20
"""The largest header of a model or checkpoint. JSON takes up to 40 times its size in memory."""
MODEL_FILE_BYTES = 8 << 30
"""The largest model or checkpoint that is read."""
_MAX_DEPTH = 32
_ANY_BYTES = 1 << 62
_BODY_MARK = b"sppnet-stream-1\n"


@dataclass(frozen=True)
class Envelope:
    """The content of a file.

    Attributes:
        arrays: by name, as stored.
        metadata: what JSON held.
        version: of the format.
    """

    arrays: dict[str, Array]
    metadata: dict[str, Any]
    version: int


def encode_envelope(arrays: Mapping[str, Array], metadata: Mapping[str, Any], kind: str, version: int) -> list[Buffer]:
    """Give the content of a file in pieces; the same content has the same bytes each time.

    Args:
        arrays: by name, of any shape; whole numbers, bool, or floats of 16, 32 or 64 bits.
        metadata: whatever JSON can hold.
        kind: name of the kind of file, such as ``sppnet-detector``.
        version: of its format.

    Raises:
        ArgumentError: an array of another type, or metadata that JSON can't hold, or that are too large to be read.
    """
    stored = {name: _storable(name, value) for name, value in arrays.items()}
    text = _dump(metadata)
    names = sorted(stored, key=lambda name: (-_RANK[_NAMES[stored[name].dtype]], name))
    header = {"format": f"{kind}-{version}", "sha256": _digest(stored, text), "sppnet": text}
    head = _header(header, {name: (_NAMES[stored[name].dtype], stored[name].shape) for name in names})
    if len(head) > MODEL_HEADER_BYTES:
        raise ArgumentError(f"metadata: take {len(head)} bytes in the file, at most {MODEL_HEADER_BYTES} are allowed")
    return [head, *(_bytes_of(stored[name]) for name in names)]


def write_envelope(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, Any],
    kind: str,
    version: int,
    *,
    sync: bool = True,
    named: bool = False,
) -> None:
    """Write a file in one step.

    Args:
        path: the file. Folders above it are made as needed.
        arrays: see :func:`encode_envelope`, as for ``metadata``, ``kind`` and ``version``.
        metadata: whatever JSON can hold.
        kind: name of the kind of file.
        version: of its format.
        sync: see :func:`sppnet.storage.atomic.write_atomic`.
        named: see :func:`sppnet.storage.atomic.write_atomic`.

    Raises:
        ArgumentError: an array or metadata that can't be stored. OutputError: it can't be written.
    """
    write_bytes(path, encode_envelope(arrays, metadata, kind, version), sync=sync, named=named)


def read_envelope(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    what: str,
    *,
    limit_bytes: int = MODEL_FILE_BYTES,
    digest_since: int = 1,
) -> Envelope:
    """Read a file of ``kind``, of version ``version`` or earlier.

    The header is checked before memory is taken for the arrays. Memory is at most twice the size of the file, and
    what the metadata take.

    Args:
        path: the file.
        kind: name of the kind of file.
        version: the latest version that is understood.
        what: words for messages, such as "a detector that `sppnet train` wrote".
        limit_bytes: the largest file that is read.
        digest_since: the first version that has a digest.

    Raises:
        ModelFileError: the file is missing, damaged, of another kind, or of a later version.
    """
    name = os.fspath(path)
    try:
        with open_regular(path, limit_bytes, error=ModelFileError) as file:
            found, texts = _read_header(file, name, kind, version, what)
            file.seek(0)
            data = file.read(limit_bytes)
    except FileNotFoundError:
        raise ModelFileError(f"{name}: no such file; expected {what}") from None
    except OSError as error:
        raise ModelFileError(f"{name}: can't be read ({error.strerror or error}); expected {what}") from error
    try:
        arrays = {key: _array(key, described) for key, described in deserialize(data)}  # type: ignore[no-untyped-call] # not typed there
        text = texts["sppnet"]
        metadata = _parse(text)
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{name}: damaged, or not {what} ({_short(error)})") from error
    if found >= digest_since and texts.get("sha256") != _digest(arrays, text):
        raise ModelFileError(f"{name}: its content doesn't have the SHA-256 that its header names; the file is damaged")
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{name}: metadata is a {type(metadata).__name__}, expected an object")
    return Envelope(arrays, metadata, found)


def read_format(path: str | os.PathLike[str]) -> str:
    """Give the ``format`` in a file's header; empty where it isn't such a file. Reads no more than the header.

    Of a stream with many arrays the header is long; there the beginning is enough, which has it.
    """
    try:
        with open_regular(path, _ANY_BYTES) as file:
            length, start = struct.unpack("<Q", file.read(8))[0], file.read(512)
            if MODEL_HEADER_BYTES < length <= os.fstat(file.fileno()).st_size - 8:
                match = re.match(rb'\{"__metadata__":\{"format":"([a-z0-9-]{1,100})"', start)
                return match[1].decode() if match else ""
            file.seek(0)
            return _header_texts(file).get("format", "")
    except (OSError, ValueError, RecursionError, struct.error):
        return ""


# --- streams ---------------------------------------------------------------------------------------------------------


class EnvelopeStream:
    """A file whose arrays are added one after the other, so that memory need not hold them all.

    Attributes:
        metadata: whatever JSON can hold; written at the end.
    """

    def __init__(self, body: BinaryIO) -> None:
        self.metadata: dict[str, Any] = {}
        self._body = body
        self._body.seek(0)
        self._body.write(_BODY_MARK)
        self._body.flush()
        self._end = len(_BODY_MARK)
        self._places: dict[str, Place] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes of all arrays so far."""
        return sum(_length(type_, shape) for _, type_, shape, _ in self._places.values())

    def add(self, name: str, array: Array) -> Place:
        """Add an array. It is in the file when this returns, so a killed process doesn't lose it.

        Returns:
            Where it is, for :meth:`restore`.

        Raises:
            ArgumentError: an array of a type that can't be stored, or a name that was added already.
        """
        if name in self._places:
            raise ArgumentError(f"{name!r}: was added already; give each array a name of its own")
        value = _storable(name, array)
        data = _bytes_of(value)
        place = self._end, _NAMES[value.dtype], value.shape, zlib.crc32(data)
        self._body.seek(self._end)
        self._body.write(data)
        self._body.flush()
        self._end += data.nbytes
        self._places[name] = place
        return place

    def restore(self, places: Mapping[str, Place]) -> bool:
        """Take over arrays that an earlier stream added to the same body, if all of them are there unharmed.

        What is added later comes behind them.

        Args:
            places: of each array by its name, as :meth:`add` gave them.

        Returns:
            Whether they were taken.
        """
        if not all(name not in self._places and self._is_whole(name, place) for name, place in places.items()):
            return False
        self._places.update(places)
        self._end = max(self._end, *(start + _length(type_, shape) for start, type_, shape, _ in places.values()))
        return True

    def _is_whole(self, name: str, place: Place) -> bool:
        start, type_, shape, crc = place
        if type_ not in _TYPES or start < len(_BODY_MARK) or any(side < 0 for side in shape):
            return False
        found = 0
        try:
            for piece in self._read(name, place):
                found = zlib.crc32(piece, found)
        except (OSError, ValueError):  # a ValueError: a place too large for a file
            return False
        return found == crc

    def _pieces(self, kind: str, version: int) -> Iterator[Buffer]:
        text = _dump(self.metadata)
        names = sorted(self._places)
        digest = hashlib.sha256(text.encode())
        for name in names:
            digest.update(self._title(name))
            for piece in self._read(name, self._places[name]):
                digest.update(piece)
        header = {"format": f"{kind}-{version}", "sha256": digest.hexdigest(), "sppnet": text}
        yield _header(header, {name: self._places[name][1:3] for name in names})
        for name in names:
            yield from self._read(name, self._places[name])

    def _title(self, name: str) -> bytes:
        _, type_, shape, _ = self._places[name]
        return _title(name, np.dtype(_TYPES[type_]), shape)

    def _read(self, name: str, place: Place) -> Iterator[bytes]:
        start, type_, shape, _ = place
        self._body.seek(start)
        left = _length(type_, shape)
        while left:
            piece = self._body.read(min(left, 1 << 20))
            if not piece:
                raise OSError(f"{name}: its temporary file was cut off")
            yield piece
            left -= len(piece)


def is_stream_body(path: Path) -> bool:
    """Whether ``path`` collects the arrays of a stream, or is an empty file: a kill came before the first byte."""
    try:
        with open_regular(path, _ANY_BYTES) as file:
            return file.read(len(_BODY_MARK)) in (_BODY_MARK, b"")
    except (OSError, ValueError):
        return False


@contextmanager
def stream_envelope(
    path: str | os.PathLike[str], kind: str, version: int, *, body: Path | None = None
) -> Iterator[EnvelopeStream]:
    """Give a stream to add arrays to; the file appears at ``path`` when the block ends well.

    For a while the disk holds the content twice.

    Args:
        path: the file, whose name the user chose. Folders above it are made as needed.
        kind: name of the kind of file.
        version: of its format.
        body: where arrays are collected; what is there can be restored. It stays, also where the block fails, and the
            caller removes it. None: a temporary file.

    Raises:
        OutputError: it can't be written.
    """
    with write_atomic(path, named=True) as temporary:
        place = body or temporary.with_suffix(".body")
        try:
            with place.open("r+b" if body is not None and body.exists() else "x+b") as file:
                stream = EnvelopeStream(file)
                yield stream
                with temporary.open("xb") as out:
                    for piece in stream._pieces(kind, version):  # noqa: SLF001 - the other half of this file's stream
                        out.write(piece)
        finally:
            if body is None:
                place.unlink(missing_ok=True)


# --- headers ---------------------------------------------------------------------------------------------------------


def _read_header(file: BinaryIO, path: str, kind: str, version: int, what: str) -> tuple[int, dict[str, str]]:
    """The version, and the texts, of a header that may be of a file of ours."""
    try:
        texts = _header_texts(file)
    except (ValueError, RecursionError):
        size = os.fstat(file.fileno()).st_size
        raise ModelFileError(f"{path}: {size} bytes that are not a safetensors file; expected {what}") from None
    latest, name = f"{kind}-{version}", texts.get("format", "")
    match = re.fullmatch(rf"{re.escape(kind)}-([1-9]\d{{0,5}})", name)
    if match is None:
        found = f"format {name[:60]!r}" if name else "a safetensors file of something else"
        raise ModelFileError(f"{path}: {found}, expected {what} (format {latest!r} or earlier)")
    if int(match[1]) > version:
        raise ModelFileError(
            f"{path}: format {name!r}, expected {latest!r} or earlier: it was written by a later sppnet; update sppnet"
        )
    return int(match[1]), texts


def _header_texts(file: BinaryIO) -> dict[str, str]:
    """``__metadata__`` of an open safetensors file. ValueError: it isn't one."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MODEL_HEADER_BYTES, size - 8):
        raise ValueError("length of the header")
    header = json.loads(file.read(length))
    texts = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
        raise ValueError("metadata")
    return texts


def _header(texts: Mapping[str, str], places: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(sorted(texts.items()))}
    offset = 0
    for name, (type_, shape) in places.items():
        end = offset + _length(type_, shape)
        header[name] = {"dtype": type_, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # arrays start at a multiple of 8
    return struct.pack("<Q", len(text)) + text


def _digest(stored: Mapping[str, Array], text: str) -> str:
    """SHA-256 of all arrays and the metadata."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(stored):
        value = stored[name]
        digest.update(_title(name, value.dtype, value.shape))
        digest.update(_bytes_of(value))
    return digest.hexdigest()


def _title(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"\0{name} torch.{dtype.name} {shape}\0".encode()


# --- values ----------------------------------------------------------------------------------------------------------


def _storable(name: str, value: Array) -> Array:
    if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ArgumentError(f"{name!a}: holds half of a character; rename it")
    array = np.asarray(value)
    array = np.require(array, array.dtype.newbyteorder("<"), "C")
    if array.dtype not in _NAMES:
        raise ArgumentError(f"{name}: got an array of {array.dtype}, expected one of {', '.join(map(str, _NAMES))}")
    return array


def _bytes_of(value: Array) -> memoryview:
    return memoryview(value.reshape(-1).view(np.uint8))  # type: ignore[arg-type] # NumPy's arrays are buffers


def _length(type_: str, shape: tuple[int, ...]) -> int:
    count = np.dtype(_TYPES[type_]).itemsize
    for side in shape:
        count *= side
    return count


def _array(name: str, described: Mapping[str, Any]) -> Array:
    code = _TYPES.get(described["dtype"])
    if code is None:
        raise ValueError(f"{name[:60]!r} has the type {described['dtype']}")
    return np.frombuffer(described["data"], np.dtype(code)).reshape(described["shape"])


def _dump(metadata: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(metadata, sort_keys=True, allow_nan=False)
        _parse(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"metadata: can't be stored as JSON ({error})") from None
    return text


def _parse(text: str) -> Any:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} in its metadata")

    value = json.loads(text, parse_constant=refuse)
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [x for item in level if isinstance(item, dict | list) for x in _inside(item)]
        if not level:
            return value
    raise ValueError(f"metadata of more than {_MAX_DEPTH} levels")


def _inside(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def _short(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 100 else text[:100] + "..."
