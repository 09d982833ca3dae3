"""Detector files: one safetensors file whose header carries JSON metadata. No pickle, nothing is executed.

Large matrices are kept as int8 with one scale a row, or as float16; vectors and small matrices as float32 or float16.
The header names the version of the format and the SHA-256 of the content. Every version since the first can be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet._types import F32
from sppnet.detection.model_checks import TUNED, metadata_problem, tensors_problem
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.storage.envelope import Array, read_envelope, write_envelope

__all__ = ["FORMAT", "FORMAT_VERSION", "PRECISIONS", "StoredModel", "read_model", "read_stored", "write_model"]

# 1: sppnet 0.1.0 before its release. 2: a checksum in the header, thresholds in the metadata. 3: there may be an
# fc7, and soft suppression. 4: there may be tuned convolutions.
FORMAT_VERSION = 4
_KIND = "sppnet-detector"
FORMAT = f"{_KIND}-{FORMAT_VERSION}"
PRECISIONS = ("float32", "float16", "int8")
_INT8_FROM = 65536  # elements of a matrix from which on it is stored as int8


@dataclass(frozen=True)
class StoredModel:
    """A detector file as it is.

    Attributes:
        tensors: as stored: int8, float16 or float32; those of int8 have a ``NAME.scale (rows,)`` beside them.
        metadata: what JSON held.
        version: of the format.
    """

    tensors: dict[str, Array]
    metadata: dict[str, Any]
    version: int

    def floats(self, where: str) -> dict[str, F32]:
        """Give the tensors in float32, without the scales.

        Raises:
            ModelFileError: there are values that are not finite.
        """
        out: dict[str, F32] = {}
        for name, value in self.tensors.items():
            if name.endswith(".scale") or name.startswith(TUNED):
                continue
            if value.dtype == np.int8:
                out[name] = _from_int8(value, self.tensors[f"{name}.scale"])
            else:
                out[name] = np.ascontiguousarray(value, np.float32)
            if not np.isfinite(out[name]).all():
                raise ModelFileError(f"{where}: {name} has values that are not finite; the file is damaged")
        return out

    def tuned(self) -> dict[str, Array]:
        """Give the arrays of tuned convolutions, kernels in float32 or int8; empty where there are none."""
        found = {name.removeprefix(TUNED): value for name, value in self.tensors.items() if name.startswith(TUNED)}
        return {name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in found.items()}


def write_model(
    path: str | os.PathLike[str],
    tensors: Mapping[str, F32],
    metadata: Mapping[str, Any],
    precision: str,
    *,
    like: Mapping[str, Array] | None = None,
    tuned: Mapping[str, Array] | None = None,
) -> None:
    """Write a detector file in one step (a reader never meets half of it).

    Args:
        path: the file. Folders above it are made as needed.
        tensors: float32. Matrices of at least 65536 elements are stored in ``precision``; what is smaller as float16
            (float32 where ``precision`` is).
        metadata: whatever JSON can hold.
        precision: of the large matrices: one of :data:`PRECISIONS`.
        like: the stored tensors of the file that the detector came from (:attr:`StoredModel.tensors`). A row that is
            still the same is written with the very bytes that it had there, in the type that its tensor had there
            (provided that ``precision`` is the same), so that classes can be added and removed without a trace on the
            others.
        tuned: arrays of tuned convolutions. Integers stay as they are; float kernels are stored as float16 unless
            ``precision`` is float32.

    Raises:
        ArgumentError: an unknown precision, or tensors or metadata that couldn't be loaded again.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    metadata = json.loads(json.dumps(metadata, allow_nan=False, default=_plain_number))
    problem = metadata_problem(metadata)
    if problem:
        raise ArgumentError(f"{os.fspath(path)}: can't be saved: {problem}")
    stored: dict[str, Array] = {}
    for name, value in tensors.items():
        before = (like or {}).get(name)
        if _storage(value, precision, before) == "int8":
            old = None if before is None or before.dtype != np.int8 else (before, (like or {})[f"{name}.scale"])
            stored[name], stored[f"{name}.scale"] = _to_int8(value, old)
        else:
            stored[name] = np.ascontiguousarray(value, _storage(value, precision, before))
    for name, value in (tuned or {}).items():
        small = precision != "float32" and value.dtype == np.float32 and value.ndim > 1
        stored[TUNED + name] = value.astype(np.float16) if small else value
    problem = tensors_problem(
        {n: v.dtype.name for n, v in stored.items()}, {n: v.shape for n, v in stored.items()}, metadata
    )
    if problem:
        raise ArgumentError(f"{os.fspath(path)}: can't be saved: {problem}")
    write_envelope(path, stored, metadata, _KIND, FORMAT_VERSION, named=True)


def _plain_number(value: object) -> object:
    """Numbers of NumPy, of which JSON knows nothing: seeds and options may be some."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, F32], dict[str, Any]]:
    """Read the tensors (float32) and metadata of a detector file.

    Raises:
        ModelFileError: the file is missing, damaged, no detector, or of a later version.
    """
    stored = read_stored(path)
    return stored.floats(os.fspath(path)), stored.metadata


def read_stored(path: str | os.PathLike[str]) -> StoredModel:
    """Read a detector file as it is, of any version.

    Raises:
        ModelFileError: the file is missing, damaged, no detector, or of a later version.
    """
    found = read_envelope(path, _KIND, FORMAT_VERSION, "a detector that `sppnet train` wrote", digest_since=2)
    problem = metadata_problem(found.metadata) or tensors_problem(
        {name: value.dtype.name for name, value in found.arrays.items()},
        {name: value.shape for name, value in found.arrays.items()},
        found.metadata,
    )
    if problem:
        raise ModelFileError(f"{os.fspath(path)}: {problem}; the file is damaged, or somebody tampered with it")
    return StoredModel(dict(found.arrays), found.metadata, found.version)


def _storage(value: F32, precision: str, before: Array | None) -> str:
    """Type in which an array is stored: that which it had ``before``, where ``precision`` allows it."""
    if precision == "float32" or value.ndim < 2:
        return "float32"
    if before is not None and before.dtype.name in (("int8", "float16") if precision == "int8" else ("float16",)):
        return before.dtype.name
    large = value.ndim == 2 and value.size >= _INT8_FROM
    return "int8" if precision == "int8" and large else "float16"


def _from_int8(value: Array, scale: Array) -> F32:
    rows: F32 = value.astype(np.float32) * scale.astype(np.float32)[:, None]
    return rows


def _to_int8(value: F32, old: tuple[Array, Array] | None) -> tuple[NDArray[np.int8], F32]:
    """Rows of ``value`` as int8, and their scales; those that are in ``old`` as they are there."""
    scale = np.maximum(np.abs(value).max(1, initial=0), np.float32(1e-12)) / np.float32(127)
    rounded = np.rint(value / scale[:, None]).astype(np.int8)
    if old is not None:
        # found by content, so that rows may have moved: a class before them was removed
        known = {row.tobytes(): i for i, row in enumerate(_from_int8(*old))}
        for i, row in enumerate(np.ascontiguousarray(value)):
            at = known.get(row.tobytes())
            if at is not None:
                rounded[i], scale[i] = old[0][at], old[1][at]
    return rounded, scale
