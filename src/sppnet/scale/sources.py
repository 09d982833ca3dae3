"""What a user names as the source of images, in chunks that are done and written one at a time."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppnet.errors import ArgumentError, ImageError, InputFileError
from sppnet.images import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, list_images
from sppnet.scale.arrow import pa, pafs, pq
from sppnet.scale.batches import check_columns
from sppnet.scale.places import is_address, local_or_address, locate, split_options, text_of_path
from sppnet.storage.names import path_key
from sppnet.storage.reading import read_regular
from sppnet.storage.walking import walk_files

__all__ = ["RESULTS", "Chunk", "changed_tables", "chunk_table", "key_of", "plan_chunks"]

_log = logging.getLogger("sppnet")
_MAX_LIST_BYTES = 1 << 30
_ROWS_AT_ONCE = 64
RESULTS = re.compile(r"part-[0-9a-f]{32}\.parquet")
"""Names of files of results."""


@dataclass(frozen=True)
class Chunk:
    """Images that are done together, and become one file of results.

    Attributes:
        keys: what each image is called in the results: its absolute path, or its address.
        table: the Parquet file that holds their bytes; empty where the keys say where the files are.
        group: the row group of it.
        rows: of each image, in the row group.
    """

    keys: tuple[str, ...]
    table: str = ""
    group: int = 0
    rows: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The same for the same images, in every run: a chunk that is done twice overwrites itself."""
        return hashlib.sha256("\0".join(self.keys).encode()).hexdigest()[:32]

    def without(self, done: frozenset[str] | set[str]) -> Chunk | None:
        """What is left of it when the images ``done`` are taken away; None where nothing is left."""
        left = [i for i, key in enumerate(self.keys) if key not in done]
        if not left:
            return None
        rows = tuple(self.rows[i] for i in left) if self.table else ()
        return Chunk(tuple(self.keys[i] for i in left), self.table, self.group, rows)


@dataclass
class _Seen:
    """Images that a source has named so far, how often it named one again, and how many rows name none."""

    keys: set[str]
    again: int = 0
    nameless: int = 0


def plan_chunks(source: str, images: int) -> list[Chunk]:
    """Divide a source into chunks, each image once.

    The division depends on the source alone, so that a run that goes on after another one makes the same chunks.

    Args:
        source: a folder, in which results of an earlier run, videos and hidden files don't count; a Parquet table
            with a column ``path`` or ``bytes``, or a folder of such tables; a text file with a path or address in each
            line; or an address of any of these, with options of the store after a question mark. Paths in lists and
            tables are relative to the folder that the list or table is in (:func:`key_of`).
        images: in a chunk, at most.

    Raises:
        ImageError: there are no images.
        ArgumentError: there is no such source, or a table of other columns.
    """
    place = local_or_address(source)
    place, options = split_options(place) if is_address(place) else (place, "")
    keys, tables = _look(place, options)
    seen = _Seen(set())
    chunks = list(_chunks(_once(((key, -1) for key in keys), seen), images))
    for table in tables:
        chunks += _table_chunks(table, options, images, seen)
    if seen.nameless:
        _log.warning(f"{source}: {seen.nameless} rows have no path, and are left out; fill in the column 'path'")
    if not chunks:
        raise ImageError(f"{source}: no images in it; expected files such as .jpg or .png, or tables or lists of them")
    if seen.again:
        _log.warning(
            f"{source}: {seen.again} rows or lines name an image again, and are left out: a path names one image"
        )
    return chunks


def chunk_table(chunk: Chunk, options: str) -> Any:
    """The table of a chunk for :func:`sppnet.scale.detect_batch`, with the bytes where the source holds them."""
    if not chunk.table:
        return pa.table({"path": pa.array(chunk.keys, pa.string())})
    rows, found, first = list(chunk.rows), [], 0
    with _open(chunk.table, options) as file:  # a row group may be larger than memory
        parquet = pq.ParquetFile(file)
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=[chunk.group], columns=["bytes"]):
            end = first + batch.num_rows
            if here := [row - first for row in rows if first <= row < end]:
                found.append(batch.column(0).take(here))
            first = end
            if end > rows[-1]:
                break
    return pa.table({"path": pa.array(chunk.keys, pa.string()), "bytes": pa.chunked_array(found)})


def changed_tables(chunks: Sequence[Chunk], options: str, done: Set[str], since_ns: int) -> list[str]:
    """Tables of bytes that were written after results were, and have rows among these.

    Args:
        chunks: of the source.
        options: of its store.
        done: images that the results have.
        since_ns: when the newest of these were written; 0: nobody knows.
    """
    tables = dict.fromkeys(c.table for c in chunks if c.table and since_ns and not done.isdisjoint(c.keys))
    return [table for table in tables if _written_ns(table, options) > since_ns]


def _written_ns(table: str, options: str) -> int:
    filesystem, path = locate(table, options)
    try:
        return filesystem.get_file_info(path).mtime_ns or 0
    except (OSError, pa.ArrowException):  # reading it gives the error
        return 0


# --- sources ---------------------------------------------------------------------------------------------------------


def _look(place: str, options: str) -> tuple[Iterable[str], list[str]]:
    """Keys of the images of a source, and its Parquet tables."""
    filesystem, path = locate(place, options)
    try:
        kind = filesystem.get_file_info(path)
    except (OSError, pa.ArrowException) as error:
        raise ArgumentError(f"{place}: can't be reached ({str(error).splitlines()[0]}); check the address") from error
    if kind.type == pafs.FileType.NotFound:
        raise ArgumentError(f"{place}: no such file or folder; check the name")
    if kind.type == pafs.FileType.File:
        if path.lower().endswith(".parquet"):
            return (), [place]
        if Path(path).suffix.lower() in IMAGE_EXTENSIONS:
            return (place,), []
        if Path(path).suffix.lower() in VIDEO_EXTENSIONS:
            raise ArgumentError(f"{place}: is a video, expected images; `sppnet data frames` makes images of frames")
        return _read_list(place, options), []
    if kind.type != pafs.FileType.Directory:
        raise ArgumentError(f"{place}: is a pipe or a device; expected a folder, a Parquet table or a text file")
    if not is_address(place):
        # hidden files are those of a run that was killed, or of a system's own
        found = sorted(str(p) for p in walk_files(Path(place)) if _is_table(p.name))
        videos: list[Path] = []
        images = list_images([place], videos=videos)
        _tell_videos(place, len(set(videos)))
        return (text_of_path(str(path)) for path in images), found
    root, below = place.rstrip("/"), path.rstrip("/")
    try:
        listed = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except (OSError, pa.ArrowException) as error:
        raise ArgumentError(f"{place}: can't be listed ({str(error).splitlines()[0]}); check the address") from error
    names = sorted(item.path[len(below) :] for item in listed if item.type == pafs.FileType.File)
    names = [name for name in names if not _is_hidden(name)]
    keys = [root + name for name in names if Path(name).suffix.lower() in IMAGE_EXTENSIONS]
    _tell_videos(place, sum(Path(name).suffix.lower() in VIDEO_EXTENSIONS for name in names))
    return keys, [root + name for name in names if _is_table(name.rpartition("/")[2])]


def _is_hidden(name: str) -> bool:
    """Whether a file of a store is one of those that :func:`~sppnet.storage.walking.walk_files` leaves alone."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _tell_videos(place: str, count: int) -> None:
    if count:
        what = "1 video is left out" if count == 1 else f"{count} videos are left out"
        _log.warning(f"{place}: {what}; `sppnet data frames` makes images of frames")


def _is_table(name: str) -> bool:
    return name.lower().endswith(".parquet") and not name.startswith(".") and not RESULTS.fullmatch(name)


def _read_list(place: str, options: str) -> Iterator[str]:
    try:
        if is_address(place):
            with _open(place, options) as file:
                data = bytes(file.read())
        else:
            data = read_regular(place, _MAX_LIST_BYTES)
    except InputFileError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise ArgumentError(f"{place}: can't be read ({str(error).splitlines()[0]}); name another") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ArgumentError(
            f"{place}: expected a folder, a Parquet table or a text file with a path in each line, got bytes that "
            f"aren't UTF-8 in line {line}; save it as UTF-8, or name another"
        ) from None
    lines = (line.strip(" \t") for line in re.split("[\r\n]+", text))  # other white space may belong to a name
    return (key_of(place, line) for line in lines if line)


def key_of(place: str, path: str) -> str:
    """What results call an image: to join them with a list or table.

    >>> key_of("/data/list.txt", "deep/../a.jpg")
    '/data/a.jpg'
    >>> key_of("s3://bucket/t.parquet", "a.jpg"), key_of("list.txt", "s3://bucket/a.jpg")
    ('s3://bucket/a.jpg', 's3://bucket/a.jpg')

    Args:
        place: of the list or table: a path, or an address without options.
        path: of the image, as it stands in it.

    Returns:
        An absolute path (a relative one begins in the folder of ``place``), or an address as it stands.
    """
    if is_address(path) or path.startswith("/") or Path(path).is_absolute():
        return text_of_path(local_or_address(path))
    place = local_or_address(place)
    if is_address(place):
        return f"{place.rpartition('/')[0]}/{path}"
    return text_of_path(path_key(f"{place.rpartition(os.sep)[0]}{os.sep}{path}"))


def _open(place: str, options: str) -> Any:
    filesystem, path = locate(place, options)
    return filesystem.open_input_file(path)


def _table_chunks(table: str, options: str, images: int, seen: _Seen) -> Iterator[Chunk]:
    try:
        with _open(table, options) as file:
            parquet = pq.ParquetFile(file)
            try:
                names = check_columns(parquet.schema_arrow)
            except ArgumentError as error:
                raise ArgumentError(f"{table}: {str(error).removeprefix('table: ')}") from None
            first = 0
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                paths: Sequence[str | None] = [None] * count
                if "path" in names:
                    paths = parquet.read_row_group(group, columns=["path"])["path"].to_pylist()
                if "bytes" in names:
                    named = (
                        (key_of(table, path) if path else f"{table}#{first + i}", i) for i, path in enumerate(paths)
                    )
                    yield from _chunks(_once(named, seen), images, table, group)
                else:
                    named = ((key_of(table, path), -1) for path in paths if path)
                    seen.nameless += sum(not path for path in paths)
                    yield from _chunks(_once(named, seen), images)
                first += count
    except (pa.ArrowInvalid, OSError) as error:
        raise ArgumentError(
            f"{table}: isn't a Parquet table that can be read ({str(error).splitlines()[0]})"
        ) from error


def _once(named: Iterable[tuple[str, int]], seen: _Seen) -> Iterator[tuple[str, int]]:
    """Drop a second mention."""
    for key, row in named:
        if key in seen.keys:
            seen.again += 1
        else:
            seen.keys.add(key)
            yield key, row


def _chunks(named: Iterable[tuple[str, int]], images: int, table: str = "", group: int = 0) -> Iterator[Chunk]:
    held: list[tuple[str, int]] = []
    for one in named:
        held.append(one)
        if len(held) == images:
            yield _chunk(held, table, group)
            held = []
    if held:
        yield _chunk(held, table, group)


def _chunk(held: list[tuple[str, int]], table: str, group: int) -> Chunk:
    return Chunk(tuple(key for key, _ in held), table, group, tuple(row for _, row in held) if table else ())
