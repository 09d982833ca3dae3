"""Maps and windows of pictures on disk, so that no convolution is run twice and training can be stopped at any time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sppnet.storage.atomic import write_atomic

__all__ = ["FeatureCache"]


class FeatureCache:
    """A folder of small safetensors files, each found by the hash of everything that its content depends on.

    A file appears under its name only when it is complete, so the cache may be killed at any moment. A damaged file
    counts as absent, and is written anew. Several processes may share the folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @staticmethod
    def key(picture: Path, *settings: object) -> str:
        """Hexadecimal name for the content (not the name) of a picture file and the settings used on it.

        Raises:
            OSError: the file can't be read.
        """
        digest = hashlib.sha256(hashlib.sha256(picture.read_bytes()).digest())
        digest.update(repr(settings).encode())
        return digest.hexdigest()[:40]

    def path(self, key: str) -> Path:
        """Where the entry is, or would be."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors stored under ``key``, or None."""
        path = self.path(key)
        try:
            return load_file(path)
        except (FileNotFoundError, SafetensorError, OSError):
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Store tensors (contiguous; any dtype) under ``key``."""
        with write_atomic(self.path(key), sync=False) as temporary:  # a damaged file counts as absent
            temporary.write_bytes(save(dict(tensors)))

    def size(self) -> tuple[int, int]:
        """``(files, bytes)``: entries, checkpoints of trainings, and what killed runs left of files not yet whole."""
        sizes = [path.stat().st_size for path in self._files()]
        return len(sizes), sum(sizes)

    def clear(self) -> None:
        """Remove every entry and checkpoint; other files in the folder are left alone."""
        for path in self._files():
            path.unlink(missing_ok=True)
        for folder in [*self.folder.glob("??"), *self.folder.glob("training-*")]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _files(self) -> list[Path]:
        return [*self.folder.glob("??/*.safetensors"), *self.folder.glob("training-*/*.safetensors")]
