"""Checkpoints of long training: finished work is never done twice, and a resumed run ends with the same result."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sppnet.errors import ModelFileError
from sppnet.storage.envelope import Array, read_envelope, write_envelope
from sppnet.storage.tensors import to_arrays, to_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoints", "restore_generator", "state_of_generator"]

_KIND, _VERSION = "sppnet-checkpoint", 1
_log = logging.getLogger("sppnet")


class Checkpoints:
    """A folder of safetensors files, one a stage, that belong to one run: same settings, same data, same version.

    Args:
        folder: where a folder for the run is made. None keeps nothing, and every ``load`` finds nothing.
        identity: everything that the result of the run depends on; its ``repr`` is hashed. A run of another identity
            never sees these files.
        every_seconds: how often :meth:`due` says that it's time for the next one.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, identity: object = (), every_seconds: float = 30.0
    ) -> None:
        digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:24]
        self.folder = None if folder is None else Path(folder) / f"training-{digest}"
        self.every_seconds = every_seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether enough time has gone by since the last checkpoint."""
        return self.folder is not None and time.monotonic() - self._last >= self.every_seconds

    def save(self, stage: str, tensors: Mapping[str, Tensor | Array], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint of ``stage`` in one step. ``state`` is whatever JSON can hold.

        Raises:
            OutputError: it can't be written.
        """
        if self.folder is not None:
            metadata = {"stage": stage, "state": dict(state)}
            write_envelope(self._path(stage), to_arrays(tensors), metadata, _KIND, _VERSION)
        self._last = time.monotonic()

    def load(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state of ``stage``, or None where there is no checkpoint, or only a damaged one."""
        found = self.load_arrays(stage)
        return None if found is None else (to_tensors(found[0]), found[1])

    def load_arrays(self, stage: str) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """The same as NumPy arrays; torch isn't needed."""
        if self.folder is None or not self._path(stage).is_file():
            return None
        path = self._path(stage)
        try:
            found = read_envelope(path, _KIND, _VERSION, "a checkpoint")
            state = found.metadata.get("state")
            if found.metadata.get("stage") != stage or not isinstance(state, dict):
                raise ModelFileError(f"{path}: isn't a checkpoint of {stage}")
        except ModelFileError as error:
            _log.warning("%s; the work since the last good checkpoint is done again", error)
            return None
        return found.arrays, state

    def remove(self, *stages: str) -> None:
        """Remove the checkpoints of these stages, where there are any."""
        if self.folder is not None:
            for stage in stages:
                self._path(stage).unlink(missing_ok=True)

    def _path(self, stage: str) -> Path:
        assert self.folder is not None  # noqa: S101 - for mypy; callers have looked
        return self.folder / f"{stage}.safetensors"


def state_of_generator(rng: np.random.Generator) -> dict[str, Any]:
    """The state of ``rng`` as JSON can hold it."""
    return dict(rng.bit_generator.state)


def restore_generator(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Put ``rng`` into a state of :func:`state_of_generator`."""
    rng.bit_generator.state = dict(state)
