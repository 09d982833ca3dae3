"""What the server needs of whoever computes features, learns and suggests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

__all__ = ["Teacher"]


class Teacher(Protocol):
    """Learns from finished images in the background. No method waits for a computation, except where it says so."""

    def status(self) -> dict[str, Any]:
        """How far it is: ``{"features": {"done", "total", "seconds_left"}, "teaching": {...}, "training": {...}}``."""
        ...

    def overview(self) -> dict[str, dict[str, Any]]:
        """Of each image with suggestions: ``{"classes": [...], "best": 0.93, "uncertainty": 0.4}``, by id."""
        ...

    def suggestions(self, image_id: str) -> list[list[float]] | None:
        """``[x0, y0, x1, y1, class_id, confidence]`` of an image, best first; None while they are being computed."""
        ...

    def windows(self, image_id: str) -> dict[str, Any] | None:
        """``{"boxes": [[x0, y0, x1, y1], ...], "scores": [...]}`` for snapping; None while they are being computed."""
        ...

    def tighten(self, image_id: str, box: object, class_id: object) -> list[float] | None:
        """The best box near ``box``; None where nothing near fits better. Waits for it."""
        ...

    def bring_to_front(self, image_id: str) -> None:
        """Compute this image first."""
        ...

    def labels_changed(self, image_id: str) -> None:
        """Hear that the labels of an image changed."""
        ...

    def classes_changed(self) -> None:
        """Hear that classes were made, renamed, merged or removed."""
        ...

    def images_changed(self) -> None:
        """Hear that images came or went."""
        ...

    def quality(self) -> dict[str, Any]:
        """How good the suggestions are, a class each."""
        ...

    def detect(self, data: bytes) -> dict[str, Any]:
        """Objects in an image file. Waits for it."""
        ...

    def compare(self, image_id: str) -> dict[str, Any]:
        """Detections ``before`` and ``after`` the full training, in an image. Waits for them."""
        ...

    def start_training(self, options: dict[str, Any]) -> dict[str, Any]:
        """Start the full training."""
        ...

    def cancel_training(self) -> dict[str, Any]:
        """Stop the full training; what it has done is kept."""
        ...

    def export(self, what: dict[str, str]) -> Path:
        """Write a file to keep, and give its path. Waits for it."""
        ...

    def close(self) -> None:
        """Stop all processes."""
        ...
