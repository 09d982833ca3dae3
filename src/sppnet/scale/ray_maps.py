"""Windows and feature maps of a training data set on Ray, into the cache folder that training reads them from."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sppnet._types import Progress, no_progress
from sppnet.datasets.readable import DecodedImages, damage_of
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.detection.detector import SPPDetector
from sppnet.errors import ArgumentError, ImageError, OutputError
from sppnet.scale.arrow import pa
from sppnet.scale.batches import error_message
from sppnet.scale.cluster import Stage, connected, import_ray, one_line, run_stages
from sppnet.scale.parts import reason_of
from sppnet.scale.places import text_of_path
from sppnet.scale.work import use_threads

__all__ = ["MapWorker", "MapsReport", "maps_on_ray", "record_without_objects"]

_IMAGES_A_ROW = 8  # that an actor is asked for at a time
_log = logging.getLogger("sppnet")


@dataclass(frozen=True)
class MapsReport:
    """What a run did.

    Attributes:
        images: to train on and to measure on.
        resumed: of how many of them the cache had everything.
        failed: how many failed for each reason.
        problems: what is wrong with each image that failed.
        missing: images whose entries were written by another machine and aren't in the cache folder of this one.
        seconds: of this run.
    """

    images: int
    resumed: int
    failed: dict[str, int]
    problems: tuple[str, ...]
    missing: int
    seconds: float


def maps_on_ray(
    detector: SPPDetector,
    train: DetectionDataset,
    validation: DetectionDataset | None = None,
    *,
    cache: str | os.PathLike[str],
    device: Literal["cpu", "cuda"] = "cpu",
    address: str | None = None,
    actors: int | None = None,
    progress: Progress = no_progress,
) -> MapsReport:
    """Compute windows and maps as ``detector.fit(train, cache=cache)`` would, and those for measuring it.

    What the cache has isn't computed again. An image that can't be read is left out, and the others are done; so does
    training.

    Args:
        detector: with the options of the training; it need not be trained.
        train: to train on.
        validation: to measure on; these have no mirror images.
        cache: a folder that all machines see under this name, as they see the images under theirs.
        device: of the workers. Maps of ``cuda`` are those that training on a GPU uses; they differ from the CPU's.
        address: as for :func:`sppnet.scale.ray_run.run_on_ray`.
        actors: likewise.
        progress: shows how far it is.

    Raises:
        MissingDependencyError: Ray isn't installed.
        ArgumentError: there are no images, GPUs are wanted and there are none, or ``actors`` is less than 1.
        OutputError: an entry can't be written.
        SppnetError: Ray stopped. What was written stays; the same call goes on.
    """
    if actors is not None and actors < 1:
        raise ArgumentError(f"actors: got {actors}, expected at least 1")
    sets = [(train, True), *([(validation, False)] if validation is not None else [])]
    count = sum(len(dataset) for dataset, _ in sets)
    if not count:
        raise ArgumentError("train: got no images")
    ray = import_ray()
    folder = Path(cache).absolute()
    plain = SPPDetector(**(detector.get_params(deep=False) | {"device": "cpu"}))  # of one that is trained, the options
    size = sum(plain.training_images(d, folder, mirrored=m).estimated_bytes() for d, m in sets)
    _log.info(f"maps and windows of {count} images take {size / 1e9:.2f} GB in {cache}")
    rows = [row for dataset, mirrored in sets for row in _rows(dataset, mirrored)]
    stage = Stage(MapWorker, (plain, str(folder), device), actors, 1, 1 if device == "cuda" else 0)
    cores = None if device == "cuda" else actors
    start, resumed, missing = time.perf_counter(), 0, 0
    problems: dict[str, str] = {}
    good: set[Path] = set()
    with connected(ray, address, cores, gpus=device == "cuda"), one_line():
        for path, written, entry, error in progress(_results(ray, rows, stage), "windows and maps", total=count):
            if error is not None:
                problems[path] = error
                continue
            good.add(Path(path))
            resumed += not written
            missing += not (folder / entry).is_file()
    if good and not missing:
        DecodedImages(folder).add(sorted(good))  # so that training doesn't decode all of them for a check
    reasons = Counter(reason_of(message, text_of_path(path)) for path, message in problems.items())
    texts = tuple(problems.values())
    return MapsReport(count, resumed, dict(reasons.most_common()), texts, missing, time.perf_counter() - start)


class MapWorker:
    """Puts windows and maps of images into the cache.

    Args:
        detector: with the options of the training.
        cache: the folder.
        device: ``cpu`` or ``cuda``.
        threads: of this process.

    Raises:
        ArgumentError: the device isn't there.
    """

    def __init__(self, detector: SPPDetector, cache: str, device: str = "cpu", threads: int = 1) -> None:
        use_threads(threads)
        self._detector, self._cache = detector.set_params(device=device), cache
        self._detector.window_features()
        use_threads(threads)  # the convolutions may have loaded torch

    def do(self, records: Sequence[ImageRecord], *, mirrored: bool) -> list[dict[str, Any]]:
        """Do some images.

        Returns:
            For each its ``path``, in bytes; how many entries were ``written``; the name in the cache of its first
            ``entry``; and ``error``, which is None where all went well.

        Raises:
            OutputError: an entry can't be written: the disk is full, say.
        """
        data = self._detector.training_images(DetectionDataset(records, ()), self._cache, mirrored=mirrored)
        done = []
        for i, record in enumerate(records):
            row: dict[str, Any] = {"path": os.fsencode(record.path), "written": 0, "entry": "", "error": None}
            try:
                row["written"] = data.prepare_image(i)
                row["entry"] = str(data.entry_paths(i)[0].relative_to(self._cache))
            except OutputError:
                raise
            except Exception as wrong:  # whatever it is, the other images go on
                text = damage_of(record.path) if isinstance(wrong, OSError | ImageError) else ""
                row["error"] = text_of_path(text) or error_message(str(record.path), wrong)
            done.append(row)
        return done

    def __call__(self, batch: Any) -> Any:
        """Do a batch of Ray Data, whose rows have some images each."""
        done = []
        for row in batch.to_pylist():
            sizes = zip(row["paths"], row["widths"], row["heights"], strict=True)
            records = [
                record_without_objects(Path(os.fsdecode(path)), width, height, str(i))
                for i, (path, width, height) in enumerate(sizes)
            ]
            done += self.do(records, mirrored=row["mirrored"])
        return pa.Table.from_pylist(done, _RESULT)


_RESULT = pa.schema(
    [
        pa.field("path", pa.binary()),
        pa.field("written", pa.int64()),
        pa.field("entry", pa.string()),
        pa.field("error", pa.string()),
    ]
)


def record_without_objects(path: Path, width: int, height: int, image_id: str) -> ImageRecord:
    """An image without its objects: maps don't depend on them."""
    boxes, labels, difficult = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    return ImageRecord(path, boxes, labels, difficult, width, height, image_id)


def _rows(dataset: DetectionDataset, mirrored: bool) -> Iterator[dict[str, Any]]:
    """What actors are asked for: a few images a row, by absolute paths, as they work in folders of their own."""
    records = iter(dataset)
    while some := list(islice(records, _IMAGES_A_ROW)):
        yield {
            "paths": [os.fsencode(record.path.absolute()) for record in some],  # a name need not be UTF-8
            "widths": [record.width for record in some],
            "heights": [record.height for record in some],
            "mirrored": mirrored,
        }


def _results(ray: Any, rows: list[dict[str, Any]], stage: Stage) -> Iterator[tuple[str, int, str, str | None]]:
    for batch in run_stages(ray, rows, [stage]):
        for row in batch.to_pylist():
            yield os.fsdecode(row["path"]), row["written"], row["entry"], row["error"]
