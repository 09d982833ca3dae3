"""Tensors and JSON in one safetensors file: models and checkpoints, without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sppnet.errors import ModelFileError
from sppnet.storage.atomic import stable_safetensors, write_atomic

__all__ = ["read_tensor_file", "write_tensor_file"]


def write_tensor_file(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], kind: str
) -> None:
    """Write ``tensors`` and ``metadata`` (whatever JSON can hold) in one step; ``kind`` names the format."""
    header = {"format": kind, "sppnet": json.dumps(metadata, sort_keys=True, allow_nan=False)}
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with write_atomic(path) as temporary:
        temporary.write_bytes(stable_safetensors(save(stored, metadata=header)))


def read_tensor_file(path: str | os.PathLike[str], kind: str, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that :func:`write_tensor_file` wrote as ``kind``.

    Args:
        what: words for messages, such as "a classifier".

    Raises:
        ModelFileError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; expected {what}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            found = header.get("format", "")
            if found != kind:
                got = f"format {found!r}" if found else "a safetensors file of something else"
                raise ModelFileError(f"{path}: {got}, expected {what} (format {kind!r})")
            metadata = json.loads(header["sppnet"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except ModelFileError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: damaged, or not {what} ({error})") from error
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path}: metadata is a {type(metadata).__name__}, expected an object")
    return tensors, metadata
