"""Windows from elsewhere: an array, ``.npz``, JSON, or the ``.mat`` files of the R-CNN and Fast R-CNN distributions."""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sppnet.boxes import as_boxes
from sppnet.errors import ArgumentError, MissingDependencyError, ProposalError, SppnetError
from sppnet.storage.atomic import write_bytes
from sppnet.storage.reading import open_regular, read_regular

__all__ = ["FixedProposals", "StoredProposals", "encode_proposals", "load_proposals", "save_proposals"]

F32 = NDArray[np.float32]

_NUMBER = re.compile(r"\d+")
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
_FILE_BYTES = 1 << 30  # of a file, and of what is compressed in it
_JSON_BYTES = 1 << 28  # takes about ten times its size in memory


@dataclass(frozen=True, eq=False)
class FixedProposals:
    """The windows of one image as a :class:`sppnet.proposals.Proposer`.

    Called with the image, it returns the windows clipped to it, in their order; those without an area inside are
    left out.

    Attributes:
        boxes: ``(K, 4)``, ``(x0, y0, x1, y1)`` in pixels, half-open; checked and made float32. ``ArgumentError`` if
            the shape is another or a number isn't finite.
    """

    boxes: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxes", as_boxes(self.boxes))

    def __call__(self, image: NDArray[np.uint8], /) -> F32:
        """The windows inside ``image`` (H, W, ...), of which only the size is looked at."""
        height, width = image.shape[:2]
        boxes = np.clip(self.boxes, 0, np.array([width, height, width, height], np.float32))
        inside: F32 = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
        return inside


def _agreement(stored: tuple[str, ...], asked: tuple[str, ...]) -> int | None:
    """How many folders two names share, where they agree as far as both name them: ``a/1.jpg`` isn't ``b/1.jpg``."""
    both = min(len(stored), len(asked))
    return both if not both or stored[-both:] == asked[-both:] else None


def _shared_head(one: tuple[str, ...], two: tuple[str, ...]) -> int:
    return next((k for k, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


class _Moved:
    """Finds names where the images were moved as a whole: the leading folders that all stored names share don't count.

    Args:
        folders: of the stored names.
    """

    def __init__(self, folders: Collection[tuple[str, ...]]) -> None:
        named = [parts for parts in folders if parts]
        # of sorted ones, these differ most
        self.shared = min(named)[: _shared_head(min(named), max(named))] if named else ()
        kept = len(self.shared)
        if any(len(parts) == kept for parts in named):
            kept -= 1  # the last one may tell ``train`` from ``val``
        # names of images in a folder that was given in full: they begin at the root of a disk, or have many folders
        first = self.shared[:1]
        whole = bool(first) and (first[0].startswith("/") or first[0].endswith(":") or ".." in self.shared)
        self.kept = max(kept, 0) if whole or len(self.shared) > 2 else 0

    def agreement(self, stored: tuple[str, ...], asked: tuple[str, ...]) -> int | None:
        """As of :func:`_agreement`; None also where ``asked`` lies beside the stored ones, not elsewhere."""
        if not self.kept or 2 * _shared_head(self.shared, asked) > self.kept:
            return None
        rest = stored[self.kept :]
        if not rest or asked[-len(rest) :] != rest:
            return None
        one, two = self.shared[self.kept - 1], asked[-len(rest) - 1] if len(asked) > len(rest) else ""
        numbered = _NUMBER.sub("#", one) == _NUMBER.sub("#", two)
        if one != two and (numbered or {one.lower(), two.lower()} <= _SPLITS):
            return None  # 2021/a isn't 2022/a, and train/a isn't val/a
        return len(rest)


class StoredProposals(Mapping[str, F32]):
    """Windows of many images, by name: ``stored["000005.jpg"]`` is float32 ``(K, 4)``.

    A name is found as it is stored, else by its file name, else by its file name without extension (the VOC ids of the
    R-CNN files), where the folders agree as far as both name them. Where none do, leading folders that all names share
    don't count, as the images may have been moved. :meth:`proposer` gives what a detector takes.
    """

    def __init__(self, windows: Mapping[str, ArrayLike], source: str = "windows") -> None:
        self._windows = {}
        for name, boxes in windows.items():
            try:
                self._windows[str(name)] = as_boxes(boxes, str(name))
            except ArgumentError as error:
                raise ProposalError(f"{source}: {error}") from None
        self._source = source
        self._folders = {name: PurePosixPath(name.replace("\\", "/")).parts[:-1] for name in self._windows}
        self._moved = _Moved(self._folders.values())
        self._by_file: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in self._windows:
            path = PurePosixPath(name.replace("\\", "/"))
            self._by_file.setdefault(path.name, []).append(name)
            self._by_stem.setdefault(path.stem, []).append(name)

    def __getitem__(self, name: str | os.PathLike[str]) -> F32:
        key = os.fspath(name)
        if key in self._windows:
            return self._windows[key]
        path = PurePosixPath(key.replace("\\", "/"))
        asked = path.parts[:-1]
        for index, part in ((self._by_file, path.name), (self._by_stem, path.stem)):
            for agreement in (_agreement, self._moved.agreement):
                fits = {name: agreement(self._folders[name], asked) for name in index.get(part, [])}
                best = max((fit for fit in fits.values() if fit is not None), default=None)
                found = [name for name, fit in fits.items() if fit == best] if best is not None else []
                if len(found) == 1:
                    return self._windows[found[0]]
                if found:
                    raise ProposalError(
                        f"{self._source}: {key!r} could be any of {', '.join(found[:4])}; name it in full"
                    )
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._windows)

    def __len__(self) -> int:
        return len(self._windows)

    def proposer(self, name: str | os.PathLike[str]) -> FixedProposals:
        """The proposer of one image.

        Raises:
            ProposalError: there are no windows of that image.
        """
        try:
            return FixedProposals(self[name])
        except KeyError:
            some = ", ".join(list(self._windows)[:3]) or "none"
            raise ProposalError(
                f"{self._source}: no windows of {os.fspath(name)!r}; it has {len(self)} images ({some}, ...)"
            ) from None


def load_proposals(path: str | os.PathLike[str]) -> StoredProposals:
    """Read the windows of one or many images.

    - ``.npz``: an array ``(K, 4)`` for each image, by name.
    - ``.npy``: one array, of the image with the file's name.
    - ``.json``: ``{"name": [[x0, y0, x1, y1], ...], ...}``, or a list of windows of the image with the file's name.
    - ``.mat`` (needs scipy): ``images`` (names) and ``boxes`` (arrays ``y0 x0 y1 x1``, 1-based, inclusive) as
      R-CNN, SPP-net and Fast R-CNN ship for VOC; or one matrix ``boxes`` (``x0 y0 x1 y1``, 0-based, inclusive) as in
      Fast R-CNN's demo. They become half-open.

    In the first three, windows are ``x0 y0 x1 y1`` in pixels, 0-based, half-open.

    Raises:
        ProposalError: the file is missing or malformed; the message names it and the image.
        MissingDependencyError: a ``.mat`` file without scipy.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Mapping[str, Any]]] = {
        ".npz": _read_npz,
        ".npy": _read_npz,
        ".json": _read_json,
        ".mat": _read_mat,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ProposalError(f"{path}: expected a file ending in {', '.join(readers)}")
    try:
        windows = reader(path)
    except OSError as error:
        raise ProposalError(f"{path}: can't be read ({error.strerror or error})") from error
    except SppnetError:
        raise
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        detail = str(error)[:200] or type(error).__name__
        raise ProposalError(f"{path}: is damaged or isn't a {path.suffix} file ({detail})") from error
    return StoredProposals(windows, str(path))


def save_proposals(path: str | os.PathLike[str], windows: Mapping[str, ArrayLike]) -> None:
    """Write windows ``{name: (K, 4)}`` to ``.npz`` or ``.json``; an existing file is replaced whole or not at all.

    Raises:
        ProposalError: another extension. OSError: it can't be written.
    """
    if Path(path).suffix.lower() not in (".npz", ".json"):
        raise ProposalError(f"{path}: expected a file ending in .npz or .json to write windows to")
    write_bytes(path, encode_proposals(windows, Path(path).suffix), named=True)


def encode_proposals(windows: Mapping[str, ArrayLike], suffix: str) -> bytes:
    """Give the content of a file of windows ``{name: (K, 4)}``.

    Args:
        windows: of each image by its name.
        suffix: extension of the file, ``.npz`` or ``.json``.

    Raises:
        ProposalError: another extension.
    """
    checked = {name: as_boxes(boxes, name) for name, boxes in windows.items()}
    if suffix.lower() == ".npz":
        # entry by entry: np.savez takes names as keyword arguments, and "file" is one of its own
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, boxes in checked.items():
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, boxes, allow_pickle=False)
        return data.getvalue()
    if suffix.lower() == ".json":
        # the shortest decimals that give the same float32
        rows = {name: [[float(str(v)) for v in box] for box in boxes] for name, boxes in checked.items()}
        text = ",\n".join(f"{json.dumps(name)}: {json.dumps(boxes)}" for name, boxes in rows.items())
        return ("{\n" + text + "\n}\n").encode()
    raise ProposalError(f"{suffix!r}: expected a file ending in .npz or .json to write windows to")


def _read_npz(path: Path) -> Mapping[str, Any]:
    with open_regular(path, _FILE_BYTES, error=ProposalError) as file:
        if file.read(2) != b"PK":
            file.seek(0)
            return {path.stem: _read_array(file, os.fstat(file.fileno()).st_size)}
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            if sum(entry.file_size for entry in entries) > _FILE_BYTES:
                raise ProposalError(f"{path}: unpacked it would have more than {_FILE_BYTES} bytes; split it")
            found = {}
            for entry in entries:
                with archive.open(entry) as stream:
                    found[entry.filename.removesuffix(".npy")] = _read_array(stream, entry.file_size)
            return found


def _read_array(stream: IO[bytes], size: int) -> NDArray[Any]:
    """An array in NumPy's format, whose header must tell the number of bytes that there are."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read_header(stream, max_header_size=10_000)
    if dtype.hasobject or dtype.itemsize * math.prod(shape) > size:
        raise ValueError(f"an array of {dtype} and shape {shape} in {size} bytes")
    data = stream.read(dtype.itemsize * math.prod(shape))
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_column else "C")


def _read_json(path: Path) -> Mapping[str, Any]:
    data = json.loads(read_regular(path, _JSON_BYTES, error=ProposalError).decode("utf-8-sig"))
    if isinstance(data, list):
        return {path.stem: data}
    if not isinstance(data, dict):
        raise ProposalError(f"{path}: expected an object of name: windows, or a list of windows, got {data!r:.60}")
    return data


def _read_mat(path: Path) -> Mapping[str, Any]:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise MissingDependencyError(
            f"{path}: reading .mat files needs scipy, which isn't installed; pip install 'sppnet[mat]'"
        ) from None
    content = read_regular(path, _FILE_BYTES, error=ProposalError)
    _refuse_bomb(path, content)
    try:
        data = loadmat(io.BytesIO(content))
    except (MatReadError, NotImplementedError) as error:
        raise ProposalError(f"{path}: isn't a MATLAB file up to version 7 ({error}); save it with -v7") from error
    if "boxes" not in data:
        raise ProposalError(f"{path}: expected a variable 'boxes', got {sorted(k for k in data if k[0] != '_')}")
    boxes = data["boxes"]
    if boxes.dtype != object:
        # one image, 0-based and inclusive
        return {path.stem: np.add(np.asarray(boxes, np.float64).reshape(-1, 4), (0, 0, 1, 1))}
    cells = boxes.ravel()
    names = [str(np.asarray(cell).item()) for cell in data["images"].ravel()] if "images" in data else []
    if len(names) != len(cells):
        raise ProposalError(f"{path}: expected as many 'images' as 'boxes', got {len(names)} and {len(cells)}")
    # y0 x0 y1 x1, 1-based and inclusive
    return {
        name: np.asarray(cell, np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]] - (1, 1, 0, 0)
        for name, cell in zip(names, cells, strict=True)
    }


def _refuse_bomb(path: Path, content: bytes) -> None:
    """Raise if what is compressed in a MATLAB file is larger than any windows are."""
    order = ">" if content[126:128] == b"MI" else "<"
    offset, left = 128, _FILE_BYTES
    while offset + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, offset)
        if kind == 15:
            unpacker, packed = zlib.decompressobj(), content[offset + 8 : offset + 8 + size]
            while packed and not unpacker.eof:
                left -= len(unpacker.decompress(packed, 1 << 20))
                packed = unpacker.unconsumed_tail
                if left < 0:
                    raise ProposalError(f"{path}: unpacked it would have more than {_FILE_BYTES} bytes; split it")
        offset += 8 + size
