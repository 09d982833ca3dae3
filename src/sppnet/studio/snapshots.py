"""Copies of the labels, made before a risky change, so that a person can go back."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from sppnet.errors import ArgumentError
from sppnet.storage.atomic import write_atomic

__all__ = ["Snapshots"]


class Snapshots:
    """A folder of snapshots, one file each, named by the time.

    Args:
        folder: where they lie. It is made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, document: dict[str, Any], why: str) -> str:
        """Write a snapshot.

        Args:
            document: of :func:`sppnet.studio.documents.coco_document`.
            why: reason, shown in the list.

        Returns:
            The snapshot's name.
        """
        self.folder.mkdir(exist_ok=True)
        stamp = time.strftime("%Y-%m-%d %H.%M.%S")
        names = (f"{stamp}{f' ({k})' if k else ''}" for k in range(1000))
        name = next(name for name in names if not self._file(name).exists())
        with write_atomic(self._file(name)) as temporary:
            temporary.write_text(json.dumps({"why": why, "labels": document}), encoding="utf-8")
        return name

    def list(self) -> list[dict[str, Any]]:
        """Names of the snapshots and why they were made, newest first."""
        found = []
        for path in sorted(self.folder.glob("*.json"), key=_turn, reverse=True):
            with contextlib.suppress(ValueError, OSError, KeyError, TypeError, AttributeError):
                document = json.loads(path.read_text(encoding="utf-8"))
                labels = document["labels"]
                unfinished = labels["info"]["sppnet"].get("unfinished", {"images": []})
                count = len(labels["images"]) + len(unfinished["images"])
                found.append({"name": path.stem, "why": document["why"], "images": count})
        return found

    def load(self, name: str) -> dict[str, Any]:
        """Read the document of a snapshot.

        Raises:
            ArgumentError: there is no such snapshot.
        """
        if name not in {item["name"] for item in self.list()}:
            raise ArgumentError(f"there is no snapshot {name!r:.60}")
        document: dict[str, Any] = json.loads(self._file(name).read_text(encoding="utf-8"))["labels"]
        return document

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _turn(path: Path) -> tuple[str, int]:
    """The time in a snapshot's name, and which one of that second it is."""
    stamp, _, number = path.stem.partition(" (")
    digits = number.rstrip(")")
    return stamp, int(digits) if digits.isdecimal() else 0
