"""Loading weights files without running anybody's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sppnet.backbones.sources import WeightsSource, find_checked
from sppnet.errors import WeightsError
from sppnet.storage.reading import open_regular

__all__ = ["load_weights", "load_weights_file"]

_FILE_BYTES = 8 << 30


def load_weights(source: WeightsSource, path: Path | None = None) -> dict[str, Tensor]:
    """Load the tensors of a published weights file, after its sha256 was checked. Nothing in the file is executed.

    Args:
        source: the package and the file in it.
        path: the file, where it isn't in its package.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        WeightsError: the file is missing, or isn't the one that was published.
    """
    return load_weights_file(find_checked(source, path))


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a weights file. Nothing in the file is executed.

    Args:
        path: a ``.safetensors`` file, or a ``.pth`` or ``.pt`` file that holds tensors by name (a ``state_dict``), by
            itself or under the key ``state_dict``. Torch reads it with ``weights_only=True``.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        WeightsError: the file is missing, damaged, of another format, or holds something else than tensors.
    """
    try:
        open_regular(path, _FILE_BYTES, error=WeightsError).close()
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
        raise WeightsError(f"backbone weights {path}: {what}") from None
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"backbone weights {path}: damaged, or no safetensors file ({error})") from None
    if path.suffix not in (".pth", ".pt"):
        raise WeightsError(f"backbone weights {path}: expected a file .safetensors, .pth or .pt")
    try:
        state: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"backbone weights {path}: refused ({reason}). Expected a file of torch.save(model.state_dict(), ...) that "
            "holds only tensors"
        ) from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise WeightsError(f"backbone weights {path}: holds a {type(state).__name__}, expected tensors by name")
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"backbone weights {path}: {name!r} is a {type(value).__name__}, expected only tensors by name"
            )
        found[name] = value
    return found
