"""Vectors of the windows of many images in one safetensors file, written image by image."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sppnet._types import F32, OnError, Progress, no_progress
from sppnet.detection.identity import identity_of_detector
from sppnet.detection.results import journal_key
from sppnet.detection.vectors import VectorKind, vector_length, window_vectors
from sppnet.errors import ArgumentError
from sppnet.image_files import check_name
from sppnet.image_runs import FailedImage, Failures, ImageRun
from sppnet.images import find_images, unique_names
from sppnet.proposals.stored import StoredProposals
from sppnet.storage.envelope import EnvelopeStream, Place, stream_envelope
from sppnet.storage.journal import Journal
from sppnet.storage.reading import FileState, file_state

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["VectorPlan", "plan_vectors", "write_vectors"]

_log = logging.getLogger(__name__)
_PARTS = ("windows", "vectors")


@dataclass(frozen=True)
class VectorPlan:
    """What :func:`write_vectors` will write.

    Attributes:
        windows: of each image; None where the detector proposes them.
        failed: images without windows.
        length: numbers in a vector.
        float16: whether a number takes two bytes instead of four.
        kind: of the vectors.
        max_windows: of an image, where the detector proposes them.
    """

    windows: dict[Path, F32 | None]
    failed: tuple[FailedImage, ...]
    length: int
    float16: bool
    kind: VectorKind
    max_windows: int

    @property
    def exact(self) -> bool:
        """Whether the number of windows is known; otherwise it is the largest possible."""
        return all(boxes is not None for boxes in self.windows.values())

    @property
    def window_count(self) -> int:
        """Windows of all images together, at most."""
        return sum(self.max_windows if boxes is None else len(boxes) for boxes in self.windows.values())

    @property
    def size_bytes(self) -> int:
        """Size of the file, at most."""
        return self.window_count * (self.length * (2 if self.float16 else 4) + 16)


def plan_vectors(
    detector: SPPDetector,
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    stored: StoredProposals | None = None,
    kind: VectorKind = "fc",
    float16: bool = False,
    on_error: OnError = "skip",
) -> VectorPlan:
    """Find out which windows there are, before anything is computed.

    Args:
        detector: gives the vectors, and the windows where ``stored`` is None.
        images: files, and folders of them.
        stored: windows of each image by name, as :func:`sppnet.load_proposals` reads them.
        kind: ``pooled`` or ``fc``, see :func:`sppnet.detection.vectors.window_vectors`.
        float16: write half the size, about three digits.
        on_error: ``skip`` notes images that ``stored`` lacks in ``failed``; ``fail`` raises.

    Raises:
        ImageError: there are no images.
        ProposalError: there are no windows of an image, with ``on_error="fail"``.
    """
    windows: dict[Path, F32 | None] = {}
    failures = Failures(on_error)
    for path in find_images(images):
        with failures.catch(path):
            windows[path] = None if stored is None else stored.proposer(path).boxes
    length = vector_length(detector, kind)
    most = int(getattr(detector.proposer, "max_windows", 2000))
    return VectorPlan(windows, tuple(failures.failed), length, float16, kind, most)


def write_vectors(
    detector: SPPDetector,
    plan: VectorPlan,
    path: str | os.PathLike[str],
    *,
    model: str = "default",
    journal: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    on_error: OnError = "skip",
    progress: Progress = no_progress,
) -> list[FailedImage]:
    """Write the windows and vectors of every image to one safetensors file.

    The file holds ``NAME/windows`` float32 ``(K, 4)`` in pixels and ``NAME/vectors`` ``(K, D)`` of each image, where
    NAME is its file name, or its path where several images have that name.

    Args:
        detector: gives the vectors.
        plan: of :func:`plan_vectors`.
        path: the file; it appears when it is complete.
        model: name of the detector, for the file's metadata.
        journal: file that notes each finished image. A run that was stopped goes on from there and gives the same file.
            Until the end the vectors are beside it, in JOURNAL.body; both are removed when the file is complete. A
            journal of another model or other settings is begun anew.
        fresh: begin the journal anew in any case.
        on_error: ``skip`` leaves out images that can't be read; ``fail`` raises.
        progress: shows how far it is.

    Returns:
        Images that could not be done, those of the plan included.

    Raises:
        ArgumentError: the file would not fit on its disk; another process writes the journal, or something else is in
            its place. ImageError: an image can't be read.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    names = unique_names([*plan.windows, *(item.path for item in plan.failed)])
    with contextlib.ExitStack() as stack:
        saved: _Saved | None = None
        if journal is not None:
            saved = stack.enter_context(_Saved(Path(journal), _identity(detector, plan), fresh=fresh))
        _check_room(path, target.parent, plan, saved)
        with stream_envelope(target, "sppnet-vectors", 1, body=None if saved is None else saved.body) as stream:
            stream.metadata = {"kind": plan.kind, "model": model, "length": plan.length}
            known = set() if saved is None else saved.restore(stream, plan, names)
            if known:
                _log.info(f"{len(known)} of {len(plan.windows)} images were done before: {journal}")

            def work(image: Path) -> tuple[Path, FileState, F32, F32]:
                check_name(image)
                state = file_state(image)
                return image, state, *window_vectors(detector, image, plan.windows[image], kind=plan.kind)

            todo = [image for image in plan.windows if image not in known]
            run = ImageRun(todo, work, "vectors", on_error=on_error, progress=progress)
            for image, state, boxes, vectors in run:
                stored = vectors.astype(np.float16 if plan.float16 else np.float32)
                places = [
                    stream.add(f"{names[image]}/{part}", array)
                    for part, array in zip(_PARTS, (boxes, stored), strict=True)
                ]
                if saved is not None:
                    saved.note(image, state, plan.windows[image], places)
        if saved is not None:
            saved.remove()
    return [*plan.failed, *run.failed]


def _check_room(path: str | os.PathLike[str], folder: Path, plan: VectorPlan, saved: _Saved | None) -> None:
    """Refuse what its disk has no room for: the vectors one by one, and then the file."""
    free = shutil.disk_usage(folder).free + (0 if saved is None else saved.size())
    if plan.exact and 2 * plan.size_bytes > free:
        raise ArgumentError(
            f"{path}: needs {2 * plan.size_bytes / 1e6:.0f} MB while it is written, twice its size, but "
            f"{free / 1e6:.0f} MB are free; write float16, or take fewer images"
        )


def _identity(detector: SPPDetector, plan: VectorPlan) -> str:
    return identity_of_detector(detector, "vectors", plan.kind, plan.float16, plan.length)


class _Saved:
    """Vectors of images that are done, and the journal that tells where they are.

    Attributes:
        body: the file that holds them.
    """

    def __init__(self, journal: Path, identity: str, *, fresh: bool) -> None:
        self.body = journal.with_name(f"{journal.name}.body")
        if self.body.is_symlink() or (self.body.exists() and not (self.body.is_file() and journal.is_file())):
            raise ArgumentError(f"{self.body}: is in the way, and isn't of a run that was stopped; move it away")
        self._journal = Journal(journal, identity, fresh=fresh)
        if self._journal.note:
            _log.warning(self._journal.note)
        if not self._journal.done:
            self.body.unlink(missing_ok=True)

    def __enter__(self) -> _Saved:
        return self

    def __exit__(self, *error: object) -> None:
        self._journal.close()

    def size(self) -> int:
        """Bytes that are there already."""
        return self.body.stat().st_size if self.body.exists() else 0

    def restore(self, stream: EnvelopeStream, plan: VectorPlan, names: dict[Path, str]) -> set[Path]:
        """Take over what is there of images that haven't changed since; returns these."""
        known = set()
        for image, boxes in plan.windows.items():
            record = self._journal.done.get(journal_key(image), {})
            with contextlib.suppress(OSError, LookupError, TypeError, ValueError):  # the last three: an odd journal
                if record.get("file") == list(file_state(image)) and record.get("given") == _digest(boxes):
                    places = {f"{names[image]}/{part}": _place(record, i) for i, part in enumerate(_PARTS)}
                    if stream.restore(places):
                        known.add(image)
        return known

    def note(self, image: Path, state: FileState, boxes: F32 | None, places: list[Place]) -> None:
        """Note that an image is done."""
        self._journal.append(
            journal_key(image), {"file": list(state), "given": _digest(boxes), "places": [list(p) for p in places]}
        )

    def remove(self) -> None:
        """Remove both files: all is done."""
        self.body.unlink(missing_ok=True)
        self._journal.close(remove=True)


def _digest(boxes: F32 | None) -> str:
    return "" if boxes is None else hashlib.sha256(np.ascontiguousarray(boxes).tobytes()).hexdigest()


def _place(record: dict[str, Any], i: int) -> Place:
    """A place as the journal has it."""
    start, type_, shape, crc = record["places"][i]
    return int(start), str(type_), tuple(int(side) for side in shape), int(crc)
