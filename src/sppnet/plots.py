"""Plots to files, by matplotlib where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sppnet.errors import ArgumentError, MissingDependencyError

__all__ = ["figure_for"]


def figure_for(path: str | Path, size_inches: tuple[float, float]) -> tuple[Path, Any]:
    """``path`` and an empty matplotlib figure for it, ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        MissingDependencyError: matplotlib isn't installed. ArgumentError: another extension.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ArgumentError(f"{path}: expected a plot file ending in .png, .svg or .pdf")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "plots need matplotlib, which isn't installed; pip install 'sppnet[plot]'"
        ) from None
    return path, Figure(figsize=size_inches, layout="constrained")
