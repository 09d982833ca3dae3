"""Detector files: one safetensors file whose header carries JSON metadata. No pickle, nothing is executed.

Large matrices are kept as int8 with one scale a row, or as float16; vectors and small matrices as float32 or float16.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sppnet.errors import ArgumentError, ModelFileError
from sppnet.files import write_atomic

__all__ = ["FORMAT", "PRECISIONS", "read_model", "write_model"]

FORMAT = "sppnet-detector-1"
PRECISIONS = ("float32", "float16", "int8")
_MAX_HEADER_BYTES = 16 << 20


def write_model(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], precision: str
) -> None:
    """Write a detector file in one step (a reader never meets half of it).

    Args:
        tensors: float32. Matrices of at least 65536 elements are stored in ``precision``; what is smaller as float16
            (float32 where ``precision`` is).
        metadata: whatever JSON can hold.

    Raises:
        ArgumentError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if precision == "int8" and value.ndim == 2 and value.numel() >= 65536:
            scale = value.abs().amax(1).clamp(min=1e-12) / 127
            stored[name] = torch.round(value / scale[:, None]).to(torch.int8)
            stored[f"{name}.scale"] = scale
        elif precision == "float32" or value.ndim < 2:
            stored[name] = value.float().contiguous()
        else:
            stored[name] = value.to(torch.float16).contiguous()
    header = {"format": FORMAT, "sppnet": json.dumps(metadata, sort_keys=True, allow_nan=False)}
    with write_atomic(path) as temporary:
        temporary.write_bytes(save(stored, metadata=header))


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (float32) and metadata of a detector file.

    Raises:
        ModelFileError: the file is missing, damaged, no detector, or of a later version.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; expected a detector that `sppnet train` wrote")
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            kind = header.get("format", "")
            if kind != FORMAT:
                found = f"format {kind!r}" if kind else "a safetensors file of something else"
                raise ModelFileError(f"{path}: {found}, expected {FORMAT!r}: was it written by a later sppnet?")
            metadata = json.loads(header["sppnet"])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except ModelFileError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: damaged, or not a detector file ({error})") from error
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path}: metadata is a {type(metadata).__name__}, expected an object")
    tensors: dict[str, Tensor] = {}
    for name, value in stored.items():
        if name.endswith(".scale"):
            continue
        if value.dtype == torch.int8:
            scale = stored.get(f"{name}.scale")
            if scale is None or scale.shape != value.shape[:1]:
                raise ModelFileError(f"{path}: {name} has no row scales; the file is damaged")
            tensors[name] = value.float() * scale.float()[:, None]
        else:
            tensors[name] = value.float()
        if not bool(torch.isfinite(tensors[name]).all()):
            raise ModelFileError(f"{path}: {name} has values that are not finite; the file is damaged")
    return tensors, metadata


def _check_header(path: Path) -> None:
    """Refuse a file whose header can't be right before anything is allocated for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
        raise ModelFileError(f"{path}: {size} bytes that are not a safetensors file; expected a detector")
