"""Results of a run over many images: a folder of Parquet files, each written in one step."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sppnet.errors import ArgumentError, OutputError
from sppnet.scale.arrow import pa, pafs, pq
from sppnet.scale.batches import TOP
from sppnet.scale.places import is_address, local_or_address, locate, split_options
from sppnet.scale.sources import RESULTS
from sppnet.storage.atomic import write_atomic

__all__ = ["Done", "Parts", "reason_of"]

# In these a file appears when it is complete; elsewhere it is written under another name first
_OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss", "az", "oss")


@dataclass
class Done:
    """Images that the results have.

    Attributes:
        keys: of all of them.
        failed: how many failed for each reason.
        twice: images that have more than one row. There are none, unless another program wrote into the folder.
        relative: the name of an image that is neither an absolute path nor an address; empty where there is none.
        newest_ns: when the newest file with rows of them was written; 0 where nobody knows.
    """

    keys: set[str] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    relative: str = ""
    newest_ns: int = 0


class Parts:
    """A folder of results.

    Args:
        place: a folder, or its address, with options of the store after a question mark. It is made as needed.
        column: that holds the results.
        kind: type of that column, of Arrow; None: any.
        top: how many classes each image has, where there are classes; None: any.
    """

    def __init__(self, place: str, column: str = "detections", kind: Any = None, top: int | None = None) -> None:
        self.place = place
        self.column = column
        self.kind = kind
        self.top = top
        place = place if not is_address(place) else local_or_address(place)
        folder, options = split_options(place) if is_address(place) else (place, "")
        self._filesystem, self._path = locate(folder, options)
        self._path = self._path.rstrip("/")
        self._local = not is_address(folder)
        self._stores_whole_files = folder.partition("://")[0] in _OBJECT_STORES

    def has(self, name: str) -> bool:
        """Whether the chunk ``name`` is written already."""
        return bool(self._filesystem.get_file_info(self._file(name)).type == pafs.FileType.File)

    def write(self, name: str, table: Any, *, replace: bool = False) -> None:
        """Write the results of the chunk ``name``, so that nobody ever meets half of them.

        Several processes may write a chunk at a time: they write the same.

        Args:
            name: of the chunk.
            table: of its results.
            replace: whether what is there has other rows. Otherwise it is taken for what would be written.

        Raises:
            OutputError: it can't be written.
        """
        file = self._file(name)
        if self._local:
            with write_atomic(file) as temporary:
                pq.write_table(table, temporary, compression="zstd")
            return
        try:
            if self._stores_whole_files:
                pq.write_table(table, file, filesystem=self._filesystem, compression="zstd")
                return
            self._filesystem.create_dir(self._path, recursive=True)
            half = f"{self._path}/.{name}-{secrets.token_hex(8)}.part"
            try:
                pq.write_table(table, half, filesystem=self._filesystem, compression="zstd")
                self._move(half, file, name, replace)
            except BaseException:
                with contextlib.suppress(Exception):  # what went wrong first is told
                    self._filesystem.delete_file(half)
                raise
        except (OSError, pa.ArrowException) as error:
            raise OutputError(
                f"{self.place}: can't be written ({_first_line(error)}); check the address and the keys"
            ) from error

    def _move(self, temporary: str, file: str, name: str, replace: bool) -> None:
        """Give a written file its name. Some stores refuse that where the name is taken."""
        try:
            self._filesystem.move(temporary, file)
        except (OSError, pa.ArrowException):
            if not self.has(name):
                raise
            self._filesystem.delete_file(file if replace else temporary)
            if replace:
                self._filesystem.move(temporary, file)

    def read(self, model_sha256: str, version: str, only: Collection[str] | None = None) -> Done:
        """Look at what is there.

        Args:
            model_sha256: of the model file that the rows must be of.
            version: of sppnet that they must be of.
            only: a set of names of images; others aren't counted. None: all are.

        Raises:
            ArgumentError: it is of another model or version of sppnet, or ``place`` isn't a folder of results.
        """
        done = Done()
        for file, written_ns in self._files():
            table = self._table(file, ["path", "error", "model_sha256", "sppnet_version"])
            for path, message, model, made_by in zip(*(c.to_pylist() for c in table.columns), strict=True):
                if (model, made_by) != (model_sha256, version):
                    raise ArgumentError(
                        f"{self.place}: has results of sppnet {made_by} with the model {str(model)[:12]}, this run "
                        f"has sppnet {version} and {model_sha256[:12]}; name another folder for --output"
                    )
                if not done.relative and _is_relative(path):
                    done.relative = path
                if only is not None and path not in only:
                    continue
                done.twice += path in done.keys
                done.keys.add(path)
                done.newest_ns = max(done.newest_ns, written_ns)
                if message is not None:
                    done.failed[reason_of(message, path)] += 1
        return done

    def forget_failed(self, only: Collection[str] | None = None) -> int:
        """Remove the rows of images that failed, so that they are done again.

        A file is replaced in one step. Who is stopped here has lost nothing: what has no row is done again.

        Args:
            only: a set of names of images; the rows of others stay. None: all go that failed.

        Returns:
            How many images are forgotten.

        Raises:
            OutputError: a file can't be written.
        """
        forgotten = 0
        for file, _ in list(self._files()):
            rows = self._table(file, ["path", "error"])
            stays = [
                message is None or (only is not None and path not in only)
                for path, message in zip(rows["path"].to_pylist(), rows["error"].to_pylist(), strict=True)
            ]
            failed = len(stays) - sum(stays)
            if not failed:
                continue
            left = self._table(file, None).filter(pa.array(stays))
            if left.num_rows:
                name = file.rpartition("/")[2].removeprefix("part-").removesuffix(".parquet")
                self.write(name, left, replace=True)
            else:
                try:
                    self._filesystem.delete_file(file)
                except (OSError, pa.ArrowException) as error:
                    raise OutputError(f"{file}: can't be removed ({_first_line(error)})") from error
            forgotten += failed
        return forgotten

    def _table(self, file: str, columns: list[str] | None) -> Any:
        try:
            with self._filesystem.open_input_file(file) as source:
                parquet = pq.ParquetFile(source)
                names = set(parquet.schema_arrow.names)
                if self.column not in names:
                    raise ArgumentError(
                        f"{self.place}: has results of another action (columns {', '.join(sorted(names))}), expected "
                        f"{self.column}; name another folder for --output"
                    )
                kind = parquet.schema_arrow.field(self.column).type
                if self.kind is not None and kind != self.kind:
                    raise ArgumentError(
                        f"{self.place}: has {self.column} of the type {kind}, this run gives {self.kind}; name another "
                        "folder for --output"
                    )
                top = (parquet.schema_arrow.metadata or {}).get(TOP)
                if self.top is not None and top not in (None, str(self.top).encode()):
                    raise ArgumentError(
                        f"{self.place}: has the {int(top)} best classes of each image, this run gives {self.top} "
                        f"(--top); give --top {int(top)}, or name another folder for --output"
                    )
                return parquet.read(columns)
        except (OSError, pa.ArrowException) as error:
            raise ArgumentError(
                f"{file}: can't be read ({_first_line(error)}); remove it, and its images are done again"
            ) from error

    def _file(self, name: str) -> str:
        return f"{self._path}/part-{name}.parquet"

    def _files(self) -> Iterator[tuple[str, int]]:
        """Each file of results, and when it was written, in nanoseconds."""
        if self._local:
            yield from self._local_files()
            return
        kind = self._filesystem.get_file_info(self._path).type
        if kind == pafs.FileType.File:
            raise ArgumentError(f"--output {self.place}: is a file, expected a folder; name another")
        if kind == pafs.FileType.NotFound:
            return
        for item in self._filesystem.get_file_info(pafs.FileSelector(self._path)):
            if item.type == pafs.FileType.File and RESULTS.fullmatch(item.base_name):
                yield item.path, item.mtime_ns or 0

    def _local_files(self) -> Iterator[tuple[str, int]]:
        """The same in a folder of this machine, which may hold names that Arrow can't."""
        folder = Path(self._path)
        above = next((one for one in (folder, *folder.parents) if os.path.lexists(one)), folder)
        if above.is_symlink() and not above.exists():
            raise ArgumentError(
                f"--output {self.place}: {above} is a link to {above.readlink()}, where nothing is; make that folder, "
                "remove the link, or name another"
            )
        if above.exists() and not above.is_dir():
            what = "is a file" if above == folder else f"{above} is a file"
            raise ArgumentError(f"--output {self.place}: {what}, expected a folder; name another")
        if above != folder:
            return
        try:
            with os.scandir(folder) as entries:
                ours = [entry for entry in entries if RESULTS.fullmatch(entry.name) and entry.is_file()]
                found = sorted((f"{self._path}/{entry.name}", entry.stat().st_mtime_ns) for entry in ours)
        except OSError as error:
            raise ArgumentError(
                f"--output {self.place}: can't be read ({error.strerror}); name another, or change its permissions"
            ) from error
        yield from found


def _is_relative(path: str | None) -> bool:
    return bool(path and path[0] != "/" and not is_address(path) and not Path(path).is_absolute())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def reason_of(message: str, path: str) -> str:
    """What messages of one kind have in common: without the image, numbers, details and advice."""
    text = message.removeprefix(f"{path}: ")
    return re.sub(r"\d+", "N", re.split(r" \(|; ", text)[0])
