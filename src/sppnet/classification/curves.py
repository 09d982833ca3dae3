"""The learning curve of a training by gradient descent."""

from __future__ import annotations

from pathlib import Path

from sppnet.errors import ArgumentError
from sppnet.plots import figure_for, save_figure

__all__ = ["plot_history"]


def plot_history(history: list[dict[str, float]], path: str | Path, *, replace: bool = True) -> Path:
    """Draw loss and accuracies after each epoch.

    Args:
        history: what :func:`~sppnet.classification.training.train_network` returned.
        path: a file ``.png``, ``.svg`` or ``.pdf``.
        replace: see :func:`sppnet.plots.save_figure`.

    Returns:
        Where the plot is.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
        ArgumentError: another extension, or no epoch.
    """
    if not history:
        raise ArgumentError("history: is empty, expected at least one epoch")
    path, figure = figure_for(path, (9, 3.6))
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    left.plot(epochs, [entry["loss"] for entry in history], marker="o", markersize=3)
    left.set(title="loss on training images", xlabel="epoch", ylim=(0, None))
    right.plot(epochs, [entry["accuracy"] for entry in history], marker="o", markersize=3, label="training, augmented")
    for key in sorted(
        {k for entry in history for k in entry} - {"epoch", "side_px", "learning_rate", "loss", "accuracy"}
    ):
        known = [(entry["epoch"], entry[key]) for entry in history if key in entry]
        right.plot([e for e, _ in known], [v for _, v in known], marker="o", markersize=3, label=key.replace("_", " "))
    right.set(title="accuracy", xlabel="epoch", ylim=(0, 1))
    right.legend(loc="lower right")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return save_figure(figure, path, 110, replace=replace)
