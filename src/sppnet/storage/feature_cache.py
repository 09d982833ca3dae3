"""Maps and windows of images on disk, so that no convolution is run twice and training can be stopped at any time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sppnet.errors import ModelFileError
from sppnet.storage.atomic import sweep
from sppnet.storage.envelope import Array, read_envelope, read_format, write_envelope
from sppnet.storage.reading import read_regular
from sppnet.storage.tensors import to_arrays

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CACHE_MARKS", "FeatureCache", "Layout", "check_layout"]

_KIND, _VERSION = "sppnet-cache", 1
_IMAGE_FILE_BYTES = 2 << 30
_log = logging.getLogger("sppnet")

CACHE_MARKS = ("sppnet-cache-", "sppnet-checkpoint-", "sppnet-training-")
"""How the ``format`` of files begins that may be removed from a folder for a cache."""

Layout = Mapping[str, tuple[str, tuple[int | None, ...]]]
"""Data type and shape of each array of an entry; None stands for any length. ``windows: ("float32", (None, 4))``"""


def check_layout(arrays: Mapping[str, Array], layout: Layout) -> str:
    """Say what of ``arrays`` isn't as ``layout`` has it; empty where all is well."""
    for name, (dtype, shape) in layout.items():
        value = arrays.get(name)
        if value is None:
            return f"{name} is missing"
        fits = len(value.shape) == len(shape) and all(
            b is None or a == b for a, b in zip(value.shape, shape, strict=True)
        )
        if value.dtype.name != dtype or not fits:
            return f"{name} is {value.dtype.name} {value.shape}, expected {dtype} {shape}"
    return ""


class FeatureCache:
    """A folder of small files, each found by the hash of everything that its content depends on.

    A file appears under its name only when it is complete, so the program may be killed at any moment. Each has a
    digest. A damaged file counts as absent, and is written anew. Several processes may share the folder.

    Args:
        folder: made when the first entry is written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @staticmethod
    def key(image: Path, *settings: object) -> str:
        """Give a hexadecimal name for the content (not the name) of an image file and the settings used on it.

        Raises:
            OSError: the file can't be read.
        """
        digest = hashlib.sha256(hashlib.sha256(read_regular(image, _IMAGE_FILE_BYTES)).digest())
        digest.update(repr(settings).encode())
        return digest.hexdigest()[:40]

    def path(self, key: str) -> Path:
        """Where the entry is, or would be."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str, layout: Layout | None = None) -> dict[str, Array] | None:
        """Give the arrays stored under ``key``; None where there are none, or they are damaged.

        Args:
            key: see :meth:`key`.
            layout: what the entry must hold, at least.
        """
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            entry = read_envelope(path, _KIND, _VERSION, "an entry of a feature cache")
            wrong = "it belongs to another image" if entry.metadata.get("key") != key else ""
            wrong = wrong or check_layout(entry.arrays, layout or {})
        except ModelFileError as error:
            wrong = str(error).removeprefix(f"{path}: ")
        if wrong:
            _log.warning("%s: left out of the cache and computed again (%s)", path, wrong)
            return None
        return dict(entry.arrays)

    def put(self, key: str, tensors: Mapping[str, Tensor | Array]) -> None:
        """Store tensors, of any dtype, under ``key``.

        Raises:
            OutputError: it can't be written.
        """
        write_envelope(self.path(key), to_arrays(tensors), {"key": key}, _KIND, _VERSION, sync=False)

    def size(self) -> tuple[int, int]:
        """``(files, bytes)`` of the entries and the checkpoints of trainings."""
        sizes = [path.stat().st_size for path in self._files()]
        return len(sizes), sum(sizes)

    def clear(self) -> list[Path]:
        """Remove every entry and checkpoint, and the folders inside that are empty then.

        Other files stay: what has no mark of this project in its header, what is a symbolic link, and what lies
        behind one.

        Returns:
            What stays in the folder.
        """
        for path in self._files():
            path.unlink(missing_ok=True)
        sweep(self.folder, again=True)
        for folder in self._folders():
            sweep(folder, again=True)
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                ours = path.name.startswith("training-") or (len(path.name) == 2 and path.name.isalnum())
                if ours and path.is_dir() and not path.is_symlink():
                    yield path

    def _files(self) -> Iterator[Path]:
        """Files with our mark, in the folder itself and in those that entries and checkpoints are in."""
        for folder in [self.folder, *self._folders()]:
            if folder.is_dir():
                for path in sorted(folder.glob("*.safetensors")):
                    if not path.is_symlink() and path.is_file() and read_format(path).startswith(CACHE_MARKS):
                        yield path
