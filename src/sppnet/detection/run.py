"""Detection in many images: reads ahead, draws, keeps a journal for resuming, goes on after files that are bad."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sppnet._types import OnError, Progress, no_progress
from sppnet.checking import check_number, check_whole
from sppnet.datasets.video import is_video
from sppnet.detection.frames import detect_frames
from sppnet.detection.identity import identity_of_detector
from sppnet.detection.results import ImageResult, journal_key, journal_record, result_of_record
from sppnet.detection.run_images import (
    LARGE_BYTES,
    Drawings,
    draw_image,
    drawings_for,
    in_file,
    input_images,
    read_image,
)
from sppnet.errors import ArgumentError, SppnetError
from sppnet.image_budget import MemoryBudget, give_back_memory
from sppnet.image_runs import FailedImage, Failures
from sppnet.images import LoadedImage
from sppnet.storage.journal import Journal
from sppnet.storage.reading import FileState

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["DetectionRun", "detect_many", "journal_beside"]

_log = logging.getLogger(__name__)


def detect_many(
    detector: SPPDetector,
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    threshold: float | None = None,
    draw_to: str | os.PathLike[str] | None = None,
    journal: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    keep_journal: bool = False,
    workers: int = 2,
    on_error: OnError = "skip",
    progress: Progress = no_progress,
    every_s: float = 1.0,
) -> DetectionRun:
    """Find objects in many images, and in frames of videos.

    >>> with detect_many(detector, "holiday/", journal="found.journal") as run:  # doctest: +SKIP
    ...     for result in run:
    ...         print(result.path, result.detections.class_name)
    ...     print(run.failed)

    Args:
        detector: trained or loaded.
        images: files, and folders of them; folders are searched to any depth. Videos are read where they are named
            themselves (this needs the extra ``video``); of those in folders a warning tells.
        threshold: minimum confidence, in [0, 1]. None: the threshold stored for each class.
        draw_to: folder for the images with boxes drawn, ``NAME.jpg`` each. It is made where it is missing. Images that
            lie in it are not taken as input, unless they are named themselves.
        journal: file that notes each finished image. A run that was stopped goes on from there and gives the same
            results. A journal of another model or other settings is begun anew.
        fresh: begin the journal anew in any case.
        keep_journal: leave the journal there when everything is done.
        workers: threads that read images ahead and draw. Results do not depend on it.
        on_error: ``skip`` puts an image that can't be read into ``failed`` and goes on; ``fail`` raises.
        progress: shows how far it is.
        every_s: of a video the first frame of each interval of so many seconds is looked at; 0 for every frame.

    Returns:
        An iterator over the results, in the order of the images. As a context manager it removes the journal at the
        end of the block, if all images were done and no error came: write the results inside the block.

    Raises:
        ImageError: there are no images; or one can't be read, with ``on_error="fail"``.
        ArgumentError: ``draw_to`` is a file or the folder of the images; another process writes the journal.
    """
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    workers = check_whole("workers", workers, 1, 1 << 20)
    if threshold is not None:
        check_number("threshold", threshold, 0, 1)
    if not 0 <= every_s < float("inf"):
        raise ArgumentError(f"every_s: got {every_s}, expected seconds, 0 or more")
    paths = input_images(given, None if draw_to is None else Path(draw_to))
    return DetectionRun(
        detector,
        paths,
        threshold=threshold,
        drawings=drawings_for(paths, draw_to),
        journal=journal,
        fresh=fresh,
        keep_journal=keep_journal,
        workers=workers,
        on_error=on_error,
        progress=progress,
        every_s=every_s,
    )


def journal_beside(results: str | os.PathLike[str]) -> Path:
    """The name of the journal next to a file or folder of results."""
    path = Path(results)
    return path.with_name(f"{path.name}.journal")


class DetectionRun:
    """A run of :func:`detect_many`: an iterator over :class:`ImageResult`.

    Attributes:
        paths: all images of the run.
        failed: images that could not be done, so far.
        resumed: how many images an earlier run had done.
        journal_path: of the journal, or None.
    """

    def __init__(
        self,
        detector: SPPDetector,
        paths: Sequence[Path],
        *,
        threshold: float | None,
        drawings: Drawings | None,
        journal: str | os.PathLike[str] | None,
        fresh: bool,
        keep_journal: bool,
        workers: int,
        on_error: OnError,
        progress: Progress,
        every_s: float,
    ) -> None:
        self.paths = tuple(paths)
        self._failures = Failures(on_error)
        self._detector = detector
        self._threshold = threshold
        self._drawings = drawings
        self._keep_journal = keep_journal
        self._workers = workers
        self._on_error = on_error
        self._progress = progress
        self._every_s = every_s
        self._journal: Journal | None = None
        self.journal_path: Path | None = None
        known: dict[Path, ImageResult] = {}
        if journal is not None:
            self.journal_path = Path(journal)
            self.journal_path.parent.mkdir(parents=True, exist_ok=True)
            identity = identity_of_detector(detector, threshold)
            self._journal = Journal(self.journal_path, identity, fresh=fresh)
            if self._journal.note:
                _log.warning(self._journal.note)
            known = _known(self._journal, paths, drawings, detector.class_names_)
            if known:
                _log.info(f"{len(known)} of {len(paths)} images were done before: {journal}")
        self.resumed = len(known)
        self._todo = [path for path in paths if path not in known and not is_video(path)]
        self._results = self._iterate(known)
        self._exhausted = False

    @property
    def failed(self) -> list[FailedImage]:
        """Images that could not be done, so far."""
        return self._failures.failed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ImageResult:
        try:
            return next(self._results)
        except StopIteration:
            self._exhausted = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(remove_journal=kind is None and self._exhausted and not self.failed and not self._keep_journal)

    def close(self, *, remove_journal: bool = False) -> None:
        """Stop the run and close the journal.

        Args:
            remove_journal: delete the journal, too.
        """
        self._results.close()
        if self._journal is not None:
            self._journal.close(remove=remove_journal)

    def _iterate(self, known: dict[Path, ImageResult]) -> Generator[ImageResult, None, None]:
        if self._todo:
            self._detector.warm_up()
        new = self._detect(self._progress(self._todo, "detecting", total=len(self._todo)))
        at_hand: ImageResult | None = None
        for path in self.paths:
            if path in known:
                yield known[path]
                continue
            if is_video(path):
                yield from self._frames(path)
                continue
            # the other iterator is a few images ahead, and skips those that fail
            at_hand = next(new, None) if at_hand is None else at_hand
            if at_hand is not None and at_hand.path == path:
                yield at_hand
                at_hand = None

    def _frames(self, path: Path) -> Iterator[ImageResult]:
        """Do the frames of a video; what was found before an error is kept."""
        try:
            for result in detect_frames(
                self._detector, path, self._every_s, threshold=self._threshold, drawings=self._drawings,
                journal=self._journal, progress=self._progress,
            ):  # fmt: skip
                self.resumed += result.resumed
                yield result
        except (SppnetError, OSError, MemoryError) as error:
            self._failures.note(path, error)

    def _detect(self, paths: Iterable[Path]) -> Iterator[ImageResult]:
        """Do the images that are left, in order. Other threads read the next ones and draw; this one detects."""
        todo, ahead = self._todo, 2 * self._workers
        memory = MemoryBudget()
        reading: deque[Future[tuple[LoadedImage, float]]] = deque()
        drawing: deque[tuple[ImageResult, FileState, Future[str]]] = deque()
        # drawing has threads of its own: those that read may all be waiting for memory, which drawing gives back
        with ThreadPoolExecutor(self._workers) as pool, ThreadPoolExecutor(self._workers) as artists:

            def read(index: int) -> None:
                if index < len(todo):
                    reading.append(pool.submit(read_image, todo[index], index, memory))

            def finish(left: int) -> Iterator[ImageResult]:
                # an image is noted as done only when its drawing is there, too
                while len(drawing) > left:
                    result, state, drawn = drawing.popleft()
                    try:
                        digest = drawn.result()
                        if self._journal is not None:
                            self._journal.append(journal_key(result.path), journal_record(result, state, digest))
                    except (SppnetError, OSError, MemoryError) as error:
                        self._failures.note(result.path, error)
                    else:
                        yield result

            try:
                for index in range(ahead):
                    read(index)
                for index, path in enumerate(paths):
                    try:
                        image, seconds = reading.popleft().result()
                        found = self._detector.detect(image.pixels, self._threshold)
                        if image.pixels.nbytes > LARGE_BYTES:
                            give_back_memory()
                    except (SppnetError, OSError, MemoryError) as error:
                        memory.release(index)
                        if self._on_error == "fail":
                            yield from finish(0)  # what is done is not lost
                        self._failures.note(path, error)
                    else:
                        found = replace(found, seconds=found.seconds | {"decoding": seconds})
                        result = ImageResult(path, image.width, image.height, in_file(found, image))
                        drawn = artists.submit(draw_image, [image.pixels], found, path, self._drawings, index, memory)
                        drawing.append((result, image.state, drawn))
                        del image
                    read(index + ahead)
                    yield from finish(self._workers)
                yield from finish(0)
            finally:
                memory.close()
                pool.shutdown(wait=True, cancel_futures=True)
                artists.shutdown(wait=True, cancel_futures=True)


def _known(
    journal: Journal, paths: Sequence[Path], drawings: Drawings | None, class_names: tuple[str, ...]
) -> dict[Path, ImageResult]:
    """Images that the journal has and that haven't changed since, with their drawings in place."""
    known = {}
    for path in paths:
        record = journal.done.get(journal_key(path))
        if is_video(path) or (drawings is not None and not drawings.has(drawings.names[path], record)):
            continue
        result = result_of_record(record, path, class_names)
        if result is not None:
            known[path] = result
    return known
