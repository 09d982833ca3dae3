"""Detection in the frames of a video: at an interval, each with its time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from sppnet._types import Progress, no_progress
from sppnet.datasets.video import Frame, count_frames, frame_name, read_frames
from sppnet.detection.results import ImageResult, journal_key, journal_record, result_of_record
from sppnet.detection.run_images import Drawings
from sppnet.drawing import draw_detections
from sppnet.image_files import check_name
from sppnet.storage.journal import Journal
from sppnet.storage.reading import file_state

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["detect_frames"]


def detect_frames(
    detector: SPPDetector,
    path: Path,
    every_s: float = 1.0,
    *,
    threshold: float | None = None,
    drawings: Drawings | None = None,
    journal: Journal | None = None,
    progress: Progress = no_progress,
) -> Iterator[ImageResult]:
    """Find objects in frames of a video. While one is looked at, another thread decodes the next.

    Args:
        detector: trained or loaded.
        path: of the video.
        every_s: of each interval of so many seconds the first frame is looked at; 0 for every frame.
        threshold: minimum confidence, in [0, 1]. None: the threshold stored for each class.
        drawings: where the frames with boxes drawn go. The names that are used are added to those that are taken.
        journal: notes each frame that is done. Those that it has are decoded, but not looked at again.
        progress: shows how far it is.

    Yields:
        A result for each frame, with ``time_s``.

    Raises:
        MissingDependencyError: PyAV isn't installed.
        ImageError: there is no such file, it is no video, or it is damaged; frames before the damage are given out.
        OutputError: a drawing or the journal can't be written.
    """
    check_name(path)
    total = count_frames(path, every_s)
    state = file_state(path)
    for frame in progress(_read_ahead(path, every_s), "detecting in video frames", total=total):
        name = ""
        if drawings is not None:
            name = drawings.folder.free_name(frame_name(path, frame.time_s), drawings.taken)
            drawings.taken.add(name.lower())
        key = journal_key(path, frame.index)
        if journal is not None and (drawings is None or drawings.has(name, journal.done.get(key))):
            known = result_of_record(journal.done.get(key), path, detector.class_names_, frame.time_s)
            if known is not None:
                yield known
                continue
        found = detector.detect(frame.pixels, threshold)
        height, width = frame.pixels.shape[:2]
        result = ImageResult(path, width, height, found, time_s=frame.time_s)
        digest = ""
        if drawings is not None:
            drawn = draw_detections(
                frame.pixels, found.xyxy, list(found.class_name), found.confidence, class_names=found.class_names
            )
            digest = drawings.write(name, drawn)
        if journal is not None:
            journal.append(key, journal_record(result, state, digest))
        yield result


def _read_ahead(path: Path, every_s: float) -> Iterator[Frame]:
    """The frames; the next one is decoded while this one is used."""
    frames = read_frames(path, every_s)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, frames, None)
        while (frame := waiting.result()) is not None:
            waiting = pool.submit(next, frames, None)
            yield frame
