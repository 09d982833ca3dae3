"""The file of labels beside the images: other programs read it, and some write to it while the studio is open."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from sppnet.datasets.loading import STUDIO_LABELS
from sppnet.errors import DatasetError
from sppnet.storage.atomic import write_atomic
from sppnet.studio.documents import load_document
from sppnet.studio.labels import ClassTable, ImageLabels

__all__ = ["LABELS_FILE", "LabelsFile", "refuse_link"]

LABELS_FILE = STUDIO_LABELS


class LabelsFile:
    """``labels.coco.json`` in the folder of images.

    Args:
        folder: of the images.
        state: where a version that another program wrote is kept.
    """

    def __init__(self, folder: Path, state: Path) -> None:
        self.path, self._state = folder / LABELS_FILE, state
        self._known = ""  # digest of what we read or wrote

    def load(self) -> tuple[ClassTable, dict[str, ImageLabels], int] | None:
        """Read it, see :func:`sppnet.studio.documents.load_document`; None where there is none.

        Raises:
            DatasetError: it is too large, or the studio did not write it.
        """
        if not self.path.is_file():
            return None
        self._known = self._digest()
        return load_document(self.path)

    def write(self, document: dict[str, Any]) -> str:
        """Replace it in one step.

        Returns:
            Where the version of another program is kept that would have been lost, relative to the folder; an empty
            text where there was none.

        Raises:
            OSError: it can't be written, or the other version can't be kept; then it stays as it is.
        """
        kept = self._keep_foreign()
        text = json.dumps(document, separators=(",", ":")).encode()
        with write_atomic(self.path) as temporary:
            temporary.write_bytes(text)
        self._known = hashlib.sha256(text).hexdigest()
        return kept

    def _keep_foreign(self) -> str:
        if not self.path.is_file():
            return ""
        digest = self._digest()
        if digest == self._known:
            return ""
        kept = self._state / f"labels-of-others-{digest[:8]}.json"
        with write_atomic(kept) as temporary:
            shutil.copyfile(self.path, temporary)
        return kept.relative_to(self.path.parent).as_posix()

    def _digest(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_link(folder: Path) -> None:
    """Refuse a folder in which the file of labels leads elsewhere.

    Raises:
        DatasetError: it is a link.
    """
    if (folder / LABELS_FILE).is_symlink():
        raise DatasetError(
            f"{folder / LABELS_FILE}: is a link, and the studio writes its labels there; put the file itself there"
        )
