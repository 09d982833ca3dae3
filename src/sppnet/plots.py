"""Plots to files, by matplotlib where it is installed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from sppnet.errors import ArgumentError, MissingDependencyError
from sppnet.storage.atomic import write_bytes
from sppnet.storage.marked import write_beside

__all__ = ["figure_for", "save_figure"]


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


def save_figure(figure: Any, path: str | Path, dpi: int = 110, *, replace: bool = True) -> Path:
    """Write a figure of :func:`figure_for` in one step.

    Args:
        figure: of matplotlib.
        path: its extension names the format.
        dpi: dots an inch, for ``.png``.
        replace: a file of that name. If not, one that isn't ours is kept, and this one gets the next free name.

    Returns:
        Where the figure is.

    Raises:
        OutputError: it can't be written.
    """
    data = io.BytesIO()
    figure.savefig(data, format=Path(path).suffix[1:].lower(), dpi=dpi)
    if not replace:
        return write_beside(path, data.getvalue())
    write_bytes(path, data.getvalue(), named=True)
    return Path(path)
