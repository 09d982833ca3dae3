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

import sppnet
from sppnet._types import F32, OnError, Progress, no_progress
from sppnet.detection.results import journal_key
from sppnet.detection.vectors import VectorKind, vector_length, window_vectors
from sppnet.errors import ArgumentError, ImageError, OutputError
from sppnet.image_files import check_name
from sppnet.image_runs import FailedImage, Failures, ImageRun
from sppnet.images import find_images, unique_names
from sppnet.proposals.stored import StoredProposals
from sppnet.storage.atomic import place_to_write
from sppnet.storage.envelope import EnvelopeStream, Place, is_stream_body, stream_envelope
from sppnet.storage.journal import Journal, identity_of
from sppnet.storage.names import real_path
from sppnet.storage.reading import FileState, file_state

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["VectorPlan", "WrittenVectors", "plan_vectors", "write_vectors"]

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
    def dtype(self) -> type[np.float16 | np.float32]:
        """Of the numbers."""
        return np.float16 if self.float16 else np.float32

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


@dataclass(frozen=True)
class WrittenVectors:
    """What :func:`write_vectors` did.

    Attributes:
        failed: images that could not be done, those of the plan included.
        resumed: how many an earlier run had done.
    """

    failed: tuple[FailedImage, ...]
    resumed: int


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
) -> WrittenVectors:
    """Write the windows and vectors of every image to one safetensors file.

    The file holds ``NAME/windows`` float32 ``(K, 4)`` in pixels and ``NAME/vectors`` ``(K, D)`` of each image, where
    NAME is its file name, or its path where several images have that name.

    Args:
        detector: gives the vectors.
        plan: of :func:`plan_vectors`.
        path: the file; it appears when it is complete.
        model: name of the detector, for the file's metadata.
        journal: file that notes each finished image. A run that was stopped goes on from there and gives the same file.
            Until the end the vectors are beside it, in JOURNAL.body. Both are removed when every image is done; where
            some failed they stay, so that the next run does only these. A proposer of your own needs a ``__repr__``
            that is the same in each process.
        fresh: begin the journal anew, whatever is in it.
        on_error: ``skip`` leaves out images that can't be read; ``fail`` raises.
        progress: shows how far it is.

    Raises:
        ArgumentError: the file would not fit on its disk; another process writes the journal, it is of another model or
            other settings, or something else is in its place. ImageError: an image can't be read, or none can.
        OutputError: it can't be written.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    names = unique_names([*plan.windows, *(item.path for item in plan.failed)])
    with contextlib.ExitStack() as stack:
        saved: _Saved | None = None
        if journal is not None:
            saved = _Saved(Path(journal), target, _identity(detector, plan), plan.windows, fresh=fresh)
            stack.enter_context(saved)
        with stream_envelope(target, "sppnet-vectors", 1, body=None if saved is None else saved.body) as stream:
            stream.metadata = {"kind": plan.kind, "model": model, "length": plan.length}
            known = set() if saved is None else saved.restore(stream, plan, names)
            _check_room(target, plan, stream.size_bytes, None if saved is None else saved.body)
            if known:
                _log.info(f"{len(known)} of {len(plan.windows)} images were done before: {journal}")

            def work(image: Path) -> tuple[Path, FileState, F32, F32]:
                check_name(image)
                state = file_state(image)
                return image, state, *window_vectors(detector, image, plan.windows[image], kind=plan.kind)

            todo = [image for image in plan.windows if image not in known]
            run = ImageRun(todo, work, "vectors", on_error=on_error, progress=progress)
            for image, state, boxes, vectors in run:
                places = [
                    stream.add(f"{names[image]}/{part}", array)
                    for part, array in zip(_PARTS, (boxes, vectors.astype(plan.dtype)), strict=True)
                ]
                if saved is not None:
                    saved.note(image, state, plan.windows[image], places)
            if len(run.failed) == len(plan.windows):
                raise ImageError(f"{path}: none of {len(plan.windows)} images could be done, so it isn't written")
        if saved is not None and not run.failed and not plan.failed:
            saved.forget()
    return WrittenVectors((*plan.failed, *run.failed), len(known))


def _check_room(target: Path, plan: VectorPlan, done: int, body: Path | None) -> None:
    """Refuse what its disk has no room for: the vectors that are still to be computed, and then the file."""
    home = place_to_write(target).parent
    collected = home if body is None else body.parent
    one = home.stat().st_dev == collected.stat().st_dev
    left = max(0, plan.size_bytes - done)
    for folder, needed in ((home, plan.size_bytes + left),) if one else ((home, plan.size_bytes), (collected, left)):
        free = shutil.disk_usage(folder).free
        if needed > free:
            most, still = ("", " more") if plan.exact else ("at most ", "")
            text = f"{target}: needs {most}{needed / 1e6:.0f} MB{still} in {folder} while it is written"
            if plan.exact:
                raise ArgumentError(f"{text}, but {free / 1e6:.0f} MB are free; free some, or name another place")
            _log.warning(f"{text}; {free / 1e6:.0f} MB are free")


def _identity(detector: SPPDetector, plan: VectorPlan) -> str:
    """Of all that vectors depend on, the image aside."""
    features = detector.window_features()
    proposer = "" if plan.exact else repr(detector.proposer)
    matrices = [np.ascontiguousarray(v).tobytes() for v in detector.weights_.arrays().values()]
    settings = (features.settings(), features.device, proposer, plan.kind, plan.float16, plan.length)
    return identity_of(sppnet.__version__, "vectors", settings, *matrices)


class _Saved:
    """Vectors of images that are done, and the journal that tells where they are.

    Attributes:
        body: the file that holds them.
    """

    def __init__(self, journal: Path, target: Path, identity: str, images: Iterable[Path], *, fresh: bool) -> None:
        self.body = journal.with_name(f"{journal.name}.body")
        if real_path(target) in (real_path(journal), real_path(self.body)):
            raise ArgumentError(f"{journal}: would be in the place of {target}; name another journal")
        known = journal.exists()
        with contextlib.suppress(OSError):  # the journal says what is wrong
            journal.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(
            journal, identity, fresh=fresh, keep_other=True, elsewhere=f"write to another name than {target}"
        )
        self._records = len(self._journal.done)
        try:  # now that no other run can be writing it
            if self.body.is_symlink() or (os.path.lexists(self.body) and not is_stream_body(self.body)):
                raise ArgumentError(f"{self.body}: is in the way, and isn't of a run that was stopped; move it away")
            if self._records and not any(journal_key(image) in self._journal.done for image in images):
                raise ArgumentError(
                    f"{journal}: holds the progress of a run over other images; begin anew (--fresh, in Python "
                    f"fresh=True), or write to another name than {target}"
                )
            if not self._records:
                self.body.unlink(missing_ok=True)
        except BaseException:
            self._journal.close(remove=not known)
            raise

    def __enter__(self) -> _Saved:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._records:  # nothing is done that could be kept
            self.body.unlink(missing_ok=True)
        self._journal.close(remove=not self._records)

    def restore(self, stream: EnvelopeStream, plan: VectorPlan, names: dict[Path, str]) -> set[Path]:
        """Take over what is there of images that haven't changed since; returns these."""
        known = set()
        for image, boxes in plan.windows.items():
            record = self._journal.done.get(journal_key(image), {})
            # all but the first: a journal that somebody changed
            with contextlib.suppress(OSError, LookupError, TypeError, ValueError, OverflowError):
                if record.get("file") == list(file_state(image)) and record.get("given") == _digest(boxes):
                    places = [_place(record, part) for part in range(len(_PARTS))]
                    (_, of_boxes, box_shape, _), (_, of_vectors, shape, _) = places
                    fitting = (of_boxes, of_vectors) == ("F32", "F16" if plan.float16 else "F32")
                    if fitting and box_shape == (shape[0], 4) and shape[1:] == (plan.length,):
                        taken = {f"{names[image]}/{part}": place for part, place in zip(_PARTS, places, strict=True)}
                        if stream.restore(taken):
                            known.add(image)
        return known

    def note(self, image: Path, state: FileState, boxes: F32 | None, places: list[Place]) -> None:
        """Note that an image is done."""
        self._journal.append(
            journal_key(image), {"file": list(state), "given": _digest(boxes), "places": [list(p) for p in places]}
        )
        self._records += 1

    def forget(self) -> None:
        """Have both files removed at the end: all is done."""
        self._records = 0


def _digest(boxes: F32 | None) -> str:
    return "" if boxes is None else hashlib.sha256(np.ascontiguousarray(boxes).tobytes()).hexdigest()


def _place(record: dict[str, Any], part: int) -> Place:
    """A place as the journal has it."""
    start, type_, shape, crc = record["places"][part]
    return int(start), str(type_), tuple(int(side) for side in shape), int(crc)
