"""Detector files: one safetensors file whose header carries JSON metadata. No pickle, nothing is executed.

Large matrices are kept as int8 with one scale a row, or as float16; vectors and small matrices as float32 or float16.
The header names the version of the format and the SHA-256 of the content. Every version since the first can be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppnet.errors import ArgumentError, ModelFileError
from sppnet.storage.envelope import read_envelope, write_envelope
from sppnet.storage.tensors import to_arrays, to_tensors

__all__ = ["FORMAT", "FORMAT_VERSION", "PRECISIONS", "StoredModel", "read_model", "read_stored", "write_model"]

# 1: sppnet 0.1.0 before its release. 2: a checksum in the header, thresholds in the metadata. 3: there may be an
# fc7, and soft suppression.
FORMAT_VERSION = 3
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

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    version: int

    def floats(self, where: str) -> dict[str, Tensor]:
        """The tensors in float32, without the scales.

        Raises:
            ModelFileError: int8 without scales, or values that are not finite.
        """
        out: dict[str, Tensor] = {}
        for name, value in self.tensors.items():
            if name.endswith(".scale"):
                continue
            if value.dtype not in (torch.int8, torch.float16, torch.float32):
                raise ModelFileError(f"{where}: {name} is {value.dtype}, expected int8 or floats; the file is damaged")
            if value.dtype == torch.int8:
                scale = self.tensors.get(f"{name}.scale")
                if scale is None or scale.shape != value.shape[:1]:
                    raise ModelFileError(f"{where}: {name} has no row scales; the file is damaged")
                out[name] = _from_int8(value, scale)
            else:
                out[name] = value.float()
            if not bool(torch.isfinite(out[name]).all()):
                raise ModelFileError(f"{where}: {name} has values that are not finite; the file is damaged")
        return out


def write_model(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    precision: str,
    *,
    like: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a detector file in one step (a reader never meets half of it).

    Args:
        tensors: float32. Matrices of at least 65536 elements are stored in ``precision``; what is smaller as float16
            (float32 where ``precision`` is).
        metadata: whatever JSON can hold.
        like: the stored tensors of the file that the detector came from (:attr:`StoredModel.tensors`). A row that is
            still the same is written with the very bytes that it had there, in the type that its tensor had there
            (provided that ``precision`` is the same), so that classes can be added and removed without a trace on the
            others.

    Raises:
        ArgumentError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        before = (like or {}).get(name)
        if _storage(value, precision, before) == torch.int8:
            old = None if before is None or before.dtype != torch.int8 else (before, (like or {})[f"{name}.scale"])
            stored[name], stored[f"{name}.scale"] = _to_int8(value, old)
        else:
            stored[name] = value.to(_storage(value, precision, before)).contiguous()
    write_envelope(path, to_arrays(stored), metadata, _KIND, FORMAT_VERSION)


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (float32) and metadata of a detector file.

    Raises:
        ModelFileError: the file is missing, damaged, no detector, or of a later version.
    """
    stored = read_stored(path)
    return stored.floats(os.fspath(path)), stored.metadata


def read_stored(path: str | os.PathLike[str]) -> StoredModel:
    """A detector file as it is, of any version.

    Raises:
        ModelFileError: the file is missing, damaged, no detector, or of a later version.
    """
    found = read_envelope(path, _KIND, FORMAT_VERSION, "a detector that `sppnet train` wrote", digest_since=2)
    _check_metadata(Path(path), found.metadata)
    return StoredModel(to_tensors(found.arrays), found.metadata, found.version)


def _check_metadata(path: Path, metadata: dict[str, Any]) -> None:
    """What is there of the parts that decide how a detector computes must be of the right kind and range."""

    def whole(value: object, most: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most

    def wholes(value: object, most: int) -> bool:
        return isinstance(value, list) and 0 < len(value) <= 64 and all(whole(v, most) for v in value)

    def share(value: object) -> bool:
        return isinstance(value, int | float) and 0 <= value <= 1

    def names(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(v, str) for v in value) and len(set(value)) == len(value)

    def named(value: object) -> bool:
        return isinstance(value, dict) and isinstance(value.get("name", ""), str)

    rules: dict[str, tuple[Callable[[object], bool], str]] = {
        "backbone": (named, "an object with a name"),
        "class_names": (names, "a list of different names"),
        "levels": (lambda v: wholes(v, 1024), "whole numbers, at least 1"),
        "short_sides_px": (lambda v: wholes(v, 1 << 16), "whole numbers, at least 1"),
        "proposer": (lambda v: named(v) and whole(v.get("max_windows", 1), 10**7), "an object with max_windows"),  # type: ignore[attr-defined]
        "nms_iou": (share, "a number in [0, 1]"),
        "soft_sigma": (share, "a number in [0, 1]"),
        "training": (lambda v: isinstance(v, dict), "an object"),
        "thresholds": (
            lambda v: isinstance(v, dict) and all(share(t) for t in v.values()),
            "numbers in [0, 1] by class",
        ),
    }
    for key, (good, expected) in rules.items():
        if key in metadata and not good(metadata[key]):
            got = repr(metadata[key])
            shown = got if len(got) <= 60 else got[:60] + "..."
            raise ModelFileError(f"{path}: {key} in its metadata is {shown}, expected {expected}; the file is damaged")


def _storage(value: Tensor, precision: str, before: Tensor | None) -> torch.dtype:
    """Type in which a tensor is stored: that which it had ``before``, where ``precision`` allows it."""
    if precision == "float32" or value.ndim < 2:
        return torch.float32
    if before is not None and before.dtype in (
        (torch.int8, torch.float16) if precision == "int8" else (torch.float16,)
    ):
        return before.dtype
    large = value.ndim == 2 and value.numel() >= _INT8_FROM
    return torch.int8 if precision == "int8" and large else torch.float16


def _from_int8(value: Tensor, scale: Tensor) -> Tensor:
    return value.float() * scale.float()[:, None]


def _to_int8(value: Tensor, old: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Rows of ``value`` as int8, and their scales; those that are in ``old`` as they are there."""
    scale = value.abs().amax(1).clamp(min=1e-12) / 127
    rounded = torch.round(value / scale[:, None]).to(torch.int8)
    if old is not None:
        # found by content, so that rows may have moved: a class before them was removed
        known = {row.numpy().tobytes(): i for i, row in enumerate(_from_int8(*old))}
        for i, row in enumerate(value):
            at = known.get(row.contiguous().numpy().tobytes())
            if at is not None:
                rounded[i], scale[i] = old[0][at], old[1][at]
    return rounded, scale
