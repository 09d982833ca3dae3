"""``sppnet detect``: find objects in photos."""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import (
    FileFailures,
    add_quiet,
    add_short_side,
    collect_images,
    file_for_output,
    folder_for_output,
    fraction,
    positive_int,
    progress,
    use_short_side,
)
from sppnet.storage.atomic import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sppnet.detection.detections import Detections
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.exports import Found
    from sppnet.storage.journal import Journal

__all__ = ["add_parser", "stage_table"]

# Kept in step with sppnet.detection.exports.EXPORT_FORMATS, which would import torch here
FORMATS = ("json", "jsonl", "csv", "coco", "coco-results", "voc", "yolo", "label-studio", "cvat")

DESCRIPTION = """\
Find objects in photos, with the detector of the 20 VOC classes that comes with sppnet, or one that you trained.

Prints a table of what was found and the time of each stage. With --output the photos are also written with the boxes
drawn. A photo that can't be read is reported and the others are done; the exit status is then 1.

Of several photos a journal is kept beside the results. A run that was stopped goes on from there, and ends with the
same results; when all photos are done the journal is removed (one that you name with --journal is kept).
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "detect", help="find objects in photos", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("photos", nargs="+", metavar="PHOTO|DIR", help="picture files, or folders of them")
    parser.add_argument("--model", metavar="FILE", help="a detector from `sppnet train` (default: 20 VOC classes)")
    parser.add_argument("--output", metavar="DIR", help="write the photos with drawn boxes to this folder")
    parser.add_argument("--json", metavar="FILE", help="write everything found, with the boxes in pixels, as JSON")
    parser.add_argument("--results", metavar="FILE|DIR", help="write everything found in a format of your choice")
    parser.add_argument("--format", choices=FORMATS, help="of --results (default: by its ending .json, .jsonl, .csv); "
                        "voc and yolo are folders, label-studio and cvat are labels to import there")  # fmt: skip
    parser.add_argument("--image-url", default="/data/local-files/?d=", metavar="PREFIX",
                        help="label-studio: put before the names of photos (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--threshold", type=fraction, default=None, metavar="T",
        help="least probability of a detection, from 0 to 1 (default: that of best F1 for each class, where the model "
        "has them, else 0.5)",
    )  # fmt: skip
    parser.add_argument("--max-windows", type=int, default=None, metavar="N", help="windows examined a photo (2000)")
    add_short_side(parser)
    parser.add_argument("--workers", type=positive_int, default=2, metavar="N",
                        help="threads that read ahead and draw; results are the same (%(default)s)")  # fmt: skip
    parser.add_argument("--journal", metavar="FILE", help="where finished photos are noted; photos that it has are not "
                        "done again (default: beside the results, while it's needed)")  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever a journal says")
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.exports import FOLDER_FORMATS, format_of, write_results
    from sppnet.errors import ArgumentError

    format_ = _format(arguments, format_of, FOLDER_FORMATS)
    for option, path in (("--json", arguments.json), ("--journal", arguments.journal)):
        if path:
            file_for_output(path, option, f"found{option.replace('--', '.')}")
    photos = _not_drawn(collect_images(arguments.photos), arguments)
    detector = SPPDetector.load(arguments.model)
    output = folder_for_output(arguments.output) if arguments.output else None
    if arguments.max_windows is not None:
        if arguments.max_windows < 1:
            raise ArgumentError(f"--max-windows: got {arguments.max_windows}, expected at least 1")
        detector.set_params(proposer__max_windows=arguments.max_windows)
    use_short_side(detector, arguments.short_side)
    drawings = _drawings(photos, output)
    journal = _open_journal(arguments, detector, photos)
    failures = FileFailures()
    found: dict[Path, Found] = {}
    if journal is not None:
        found = _resume(journal, photos, drawings, detector)
        if journal.note:
            print(journal.note)
        if found:
            print(f"{len(found)} of {len(photos)} photos were done before: {journal.path}")
    work = [photo for photo in photos if photo not in found]
    started = time.perf_counter()
    if work:
        detector.warm_up()
        width = max(5, *(len(str(p)) for p in photos))
        bar = progress(work, "detecting", total=len(work), quiet=arguments.quiet or len(work) == 1)
        bar.write(f"{'photo':<{width}}  {'class':<12}  score  box (x0, y0, x1, y1)")
        for photo, result in _detect(detector, bar, arguments, drawings, failures, journal):
            found[photo] = result
            bar.write(_rows(photo, result.detections, width))
    done = [found[photo] for photo in photos if photo in found]
    if done:
        print(stage_table([f.detections for f in done]))
        if len(work) > 1:
            seconds = time.perf_counter() - started
            print(f"{len(work)} photos in {seconds:.1f} s, {len(work) / seconds:.1f} a second")
    if output is not None and done:
        print(f"drawn: {len(done)} in {output}")
    if arguments.json:
        _write_json(Path(arguments.json), detector, found, photos, failures, arguments.threshold)
        print(f"written: {arguments.json}")
    if format_ is not None:
        model = Path(arguments.model).name if arguments.model else "sppnet voc20"
        write_results(
            arguments.results, format_, done, detector.class_names_, image_url=arguments.image_url, model=model,
            root=arguments.photos[0] if len(arguments.photos) == 1 and Path(arguments.photos[0]).is_dir() else None,
        )  # fmt: skip
        print(f"written: {arguments.results} ({format_})")
    if journal is not None:
        journal.close(remove=arguments.journal is None and not failures.failed)
    if failures.failed:
        print(failures.summary(len(photos)))
        if journal is not None:
            print(f"when they are mended, run the same again: only they are done ({journal.path})")
    return failures.exit_status


def _format(arguments: argparse.Namespace, format_of: Any, folders: Sequence[str]) -> str | None:
    from sppnet.errors import ArgumentError

    if arguments.results is None:
        if arguments.format:
            raise ArgumentError(f"--format {arguments.format}: say where to write it with --results")
        return None
    format_: str = arguments.format or format_of(arguments.results)
    path = Path(arguments.results)
    if format_ in folders and path.is_file():
        raise ArgumentError(f"--results {path}: is a file; --format {format_} is a folder of files, name one")
    file_for_output(path / "labels" if format_ in folders else path, "--results", f"found.{format_}")
    return format_


def _not_drawn(photos: list[Path], arguments: argparse.Namespace) -> list[Path]:
    """``photos`` without those in the folder for drawn ones, which an earlier run left there.

    Raises:
        ArgumentError: that folder is one of those of the photos; or no photo is left.
    """
    from sppnet.errors import ArgumentError

    if not arguments.output:
        return photos
    drawn = Path(arguments.output).resolve()
    given = {Path(path).resolve() for path in arguments.photos}
    if drawn in given:
        what = "holds the photos; name another folder, for drawn photos would be taken for new ones the next time"
        raise ArgumentError(f"--output {arguments.output}: {what}")
    kept = [photo for photo in photos if drawn not in photo.resolve().parents or photo.resolve() in given]
    if not kept:
        raise ArgumentError(f"{', '.join(arguments.photos)}: all pictures are in --output {arguments.output}")
    return kept


# --- the work --------------------------------------------------------------------------------------------------------


def _detect(
    detector: SPPDetector,
    photos: Any,
    arguments: argparse.Namespace,
    drawings: dict[Path, Path],
    failures: FileFailures,
    journal: Journal | None,
) -> Iterator[tuple[Path, Found]]:
    """Every photo that can be done, in order. Other threads read the next ones and draw; this one detects."""
    from sppnet.detection.exports import Found

    todo = list(photos.iterable)
    ahead: deque[Future[tuple[NDArray[np.uint8], float]]] = deque()
    drawn: deque[tuple[Path, Found, Future[None]]] = deque()
    with ThreadPoolExecutor(arguments.workers) as pool:

        def finish(limit: int) -> Iterator[tuple[Path, Found]]:
            # a photo is noted as done only when its drawing is there, too
            while len(drawn) > limit:
                photo, result, future = drawn.popleft()
                fine = False
                with failures.catch(photo):
                    future.result()
                    if journal is not None:
                        journal.append(_key(photo), _line(photo, result))
                    fine = True
                if fine:
                    yield photo, result

        try:
            ahead.extend(pool.submit(_read, photo) for photo in todo[: 2 * arguments.workers])
            for i, photo in enumerate(photos):
                reading = ahead.popleft()
                if i + 2 * arguments.workers < len(todo):
                    ahead.append(pool.submit(_read, todo[i + 2 * arguments.workers]))
                with failures.catch(photo):
                    pixels, seconds = reading.result()
                    found = detector.detect(pixels, arguments.threshold)
                    found = replace(found, seconds=found.seconds | {"decoding": seconds})
                    result = Found(photo, pixels.shape[1], pixels.shape[0], found)
                    target = drawings.get(photo)
                    drawn.append((photo, result, pool.submit(_draw, pixels, found, target)))
                yield from finish(arguments.workers)
            yield from finish(0)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read(photo: Path) -> tuple[NDArray[np.uint8], float]:
    from sppnet.datasets.parsing import is_utf8
    from sppnet.errors import ImageError
    from sppnet.images import load_image

    if not is_utf8(str(photo)):
        raise ImageError(f"{str(photo)!a}: its name isn't UTF-8, so no results could name it; rename it")
    start = time.perf_counter()
    return load_image(photo), time.perf_counter() - start


def _draw(pixels: NDArray[np.uint8], found: Detections, target: Path | None) -> None:
    from sppnet.drawing import draw_detections

    if target is not None:
        picture = draw_detections(
            pixels, found.xyxy, found.class_name.tolist(), found.confidence, class_names=found.class_names
        )
        with write_atomic(target) as temporary:
            picture.save(temporary, quality=92)


def _drawings(photos: Sequence[Path], output: Path | None) -> dict[Path, Path]:
    """``stem.jpg`` in the folder for each photo; ``stem-2.jpg`` where another photo of this call has that name."""
    targets: dict[Path, Path] = {}
    if output is None:
        return targets
    taken = {photo.resolve() for photo in photos}  # no photo is ever overwritten
    for photo in photos:
        target, number = output / f"{photo.stem}.jpg", 2
        while target.resolve() in taken:
            target, number = output / f"{photo.stem}-{number}.jpg", number + 1
        taken.add(target.resolve())
        targets[photo] = target
    return targets


# --- the journal -----------------------------------------------------------------------------------------------------


def _open_journal(arguments: argparse.Namespace, detector: SPPDetector, photos: Sequence[Path]) -> Journal | None:
    from sppnet.detection.identity import identity_of_detector
    from sppnet.storage.journal import Journal

    if arguments.journal:
        path = Path(arguments.journal)
    elif len(photos) < 2:
        return None
    elif arguments.results or arguments.json:
        beside = Path(arguments.results or arguments.json)
        path = beside.with_name(f"{beside.name}.journal")
    elif arguments.output:
        path = Path(arguments.output) / "sppnet.journal"
    else:
        return None
    identity = identity_of_detector(detector, arguments.threshold)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Journal(path, identity, fresh=arguments.fresh)


def _key(photo: Path) -> str:
    return str(photo.absolute())


def _state(photo: Path) -> list[int]:
    """What changes when the file does."""
    status = photo.stat()
    return [status.st_size, status.st_mtime_ns]


def _line(photo: Path, result: Found) -> dict[str, Any]:
    d = result.detections
    return {
        "file": _state(photo),
        "size": [result.width, result.height],
        "xyxy": d.xyxy.tolist(),  # float32 survives JSON exactly
        "confidence": d.confidence.tolist(),
        "class_id": d.class_id.tolist(),
        "seconds": {name: round(value, 6) for name, value in d.seconds.items()},
        "window_count": d.window_count,
    }


def _resume(
    journal: Journal, photos: Sequence[Path], drawings: dict[Path, Path], detector: SPPDetector
) -> dict[Path, Found]:
    """Photos that the journal has and that haven't changed since, with their drawings in place."""
    import numpy as np

    from sppnet.detection.detections import Detections
    from sppnet.detection.exports import Found
    from sppnet.errors import ArgumentError

    found = {}
    for photo in photos:
        line = journal.done.get(_key(photo))
        if line is None or (photo in drawings and not drawings[photo].is_file()):
            continue
        try:
            if line["file"] != _state(photo):
                continue
            detections = Detections(
                np.array(line["xyxy"], np.float32).reshape(-1, 4),
                np.array(line["confidence"], np.float32),
                np.array(line["class_id"], np.int64),
                detector.class_names_,
                dict(line["seconds"]),
                int(line["window_count"]),
            )
            width, height = (int(side) for side in line["size"])
        except (OSError, KeyError, TypeError, ValueError, ArgumentError):
            continue  # gone, or not a line of ours: it is done anew
        found[photo] = Found(photo, width, height, detections)
    return found


# --- what is printed and written -------------------------------------------------------------------------------------


def _rows(photo: Path, found: Detections, width: int) -> str:
    if not len(found):
        return f"{photo!s:<{width}}  nothing above the threshold (--threshold)"
    return "\n".join(
        f"{str(photo) if i == 0 else '':<{width}}  {name:<12}  {score:5.3f}  " + " ".join(f"{v:7.1f}" for v in box)
        for i, (box, score, name) in enumerate(zip(found.xyxy, found.confidence, found.class_name, strict=True))
    )


def stage_table(found: list[Detections]) -> str:
    """Median milliseconds of each stage."""
    import statistics

    names = list(found[0].seconds)
    medians = [1000 * statistics.median(d.seconds[name] for d in found) for name in names]
    total = 1000 * statistics.median(sum(d.seconds.values()) for d in found)
    windows = statistics.median(d.window_count for d in found)
    head = "  ".join(f"{name:>{max(len(name), 6)}}" for name in [*names, "total"])
    row = "  ".join(
        f"{value:>{max(len(name), 6)}.0f}" for name, value in zip([*names, "total"], [*medians, total], strict=True)
    )
    many = f"median of {len(found)} photos, " if len(found) > 1 else ""
    return f"\ntime in ms ({many}{windows:.0f} windows)\n{head}\n{row}"


def _write_json(
    path: Path,
    detector: SPPDetector,
    found: dict[Path, Found],
    photos: Sequence[Path],
    failures: FileFailures,
    threshold: float | None,
) -> None:
    document = {
        "class_names": list(detector.class_names_),
        "threshold": detector.thresholds_ if threshold is None else threshold,
        "box_format": "x0, y0, x1, y1 in pixels of the upright picture, half-open",
        "photos": [{"photo": str(p), "detections": found[p].detections.to_dicts()} for p in photos if p in found],
        "failed": [{"photo": str(p), "error": message} for p, message in failures.failed],
    }
    with write_atomic(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
