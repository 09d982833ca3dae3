"""``sppnet detect``: find objects in images and in frames of videos."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import bar_for, check_outputs, failure_status, file_for_output, load_detector, say
from sppnet.cli.options import (
    add_compute,
    add_images,
    add_mirror,
    add_model,
    add_on_error,
    add_output,
    add_proposals,
    add_scales,
    add_verb,
    fraction,
    positive_int,
)
from sppnet.errors import ArgumentError
from sppnet.storage.output_folder import LIST_NAME

if TYPE_CHECKING:
    from sppnet.detection.results import ImageResult
    from sppnet.detection.run import DetectionRun

__all__ = ["add_parser", "journal_of"]

# The same as sppnet.detection.exports.EXPORT_FORMATS, which would import torch here; a test compares them
FORMATS = ("json", "jsonl", "csv", "counts", "coco", "coco-results", "voc", "yolo", "label-studio", "cvat")

DESCRIPTION = """\
Find objects in images, with the detector of the 20 VOC classes that comes with sppnet, or with one that you trained.

Prints what was found and the time of each stage. With -o the images are also written with the boxes drawn. An image
that can't be read is reported and the others are done; the exit status is then 1.

Of a video that you name, one frame a second is looked at (--every), and results have its time. Videos in a folder of
images are left out, and a note says so. Videos need an extra: pip install 'sppnet[video]'.

With several images, progress is saved in a journal next to the results. If the run is stopped, the same command goes
on from there and gives the same results. When all images are done the journal is removed.
"""
EXAMPLES = """\
examples:
  sppnet detect image.jpg -o found
  sppnet detect holiday/ --json found.json --threshold 0.3
  sppnet detect clip.mp4 --every 500ms -o found --results found.csv
  sppnet detect holiday/ --model my.safetensors --results labels --format yolo
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "detect", run, "find objects in images", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add_images(parser)
    add_model(parser)
    add_output(parser, "write the images with boxes drawn to this folder", "DIR")
    add("--json", metavar="FILE", help="write everything that was found as JSON; same as --results FILE --format json")
    add("--results", metavar="FILE|DIR", help="write everything that was found in the format of --format")
    add("--format", choices=FORMATS, help="format of --results (default: by its ending .json, .jsonl or .csv). counts "
        "is a table: how many objects of each class are in each image; voc and yolo write a folder; label-studio and "
        "cvat write labels to import there")  # fmt: skip
    add("--image-url", default="/data/local-files/?d=", metavar="PREFIX", help="format label-studio: what to put "
        "before the names of the images (default: %(default)s)")  # fmt: skip
    add("--threshold", type=fraction, metavar="T",
        help="minimum confidence, 0 to 1 (default: the threshold stored for each class, otherwise 0.5)")  # fmt: skip
    add("--max-windows", type=positive_int, metavar="N", help="examine at most N windows of each image (default: as "
        "stored in the model, usually 2000)")  # fmt: skip
    add_scales(parser, "look at the image at these scales (short sides in pixels) instead of the model's own. One is "
               "faster; more, such as 352 608 1000, find more and smaller objects")  # fmt: skip
    add_mirror(parser)
    add_proposals(parser)
    add("--every", type=_interval, default="1s", metavar="TIME", help="videos: look at one frame of each interval, "
        "as in 1s, 500ms or 2min (default: %(default)s)")  # fmt: skip
    add("--workers", type=positive_int, default=2, metavar="N", help="threads that read ahead and draw; results do not "
        "depend on it (default: %(default)s)")  # fmt: skip
    add("--journal", metavar="FILE", help="where to save progress; a journal that you name is kept at the end "
        "(default: next to the results)")  # fmt: skip
    add("--fresh", action="store_true", help="start again, whatever a journal says")
    add_on_error(parser, "images that can't be read")
    add_compute(parser)


def _interval(text: str) -> float:
    """An argparse type: a duration in seconds."""
    from sppnet.datasets.video import parse_seconds

    try:
        return parse_seconds(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.detection.exports import write_results
    from sppnet.detection.run import detect_many
    from sppnet.detection.timing import stage_table

    outputs = _outputs(arguments)
    check_outputs(arguments, json="found.json", journal="found.journal")
    detector = load_detector(arguments)
    started = time.perf_counter()
    with detect_many(
        detector,
        arguments.images,
        threshold=arguments.threshold,
        draw_to=arguments.output,
        journal=journal_of(arguments),
        fresh=arguments.fresh,
        keep_journal=arguments.journal is not None,
        workers=arguments.workers,
        on_error=arguments.on_error,
        progress=bar_for(arguments, hidden=_is_one_image(arguments.images)),
        every_s=arguments.every,
    ) as job:
        results = _print_all(job)
        seconds = time.perf_counter() - started
        if results:
            say("\n" + stage_table([r.detections for r in results]))
        if job.resumed:
            say(f"{job.resumed} images were done before, so they aren't listed here")
        new = len(results) - job.resumed
        if new > 1:
            say(f"{new} images in {seconds:.1f} s, {new / seconds:.1f} a second")
        if arguments.output and results:
            say(f"drawn: {len(results)} in {arguments.output}")
        for path, format_ in outputs:
            if not results and format_ != "json":  # which lists what failed; the others would be empty
                say(f"not written: {path} (no image could be done)")
                continue
            write_results(
                path, results, detector.class_names_, format=format_, root=_root(arguments), failed=job.failed,
                thresholds=detector.thresholds_ if arguments.threshold is None
                else dict.fromkeys(detector.class_names_, arguments.threshold),
                image_url=arguments.image_url,
                model=Path(arguments.model).name if arguments.model else "sppnet voc20",
            )  # fmt: skip
            say(f"written: {path} ({format_})")
    return failure_status(job.failed, len(job.paths), "; run the same command again when they are mended")


def _outputs(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Files and folders to write, with their formats, checked before any work is done.

    Raises:
        ArgumentError: one of them can't be written.
    """
    from sppnet.detection.exports import FOLDER_FORMATS, check_results_folder, check_results_outside, format_of

    outputs = [(arguments.json, "json")] if arguments.json else []
    if arguments.results is None:
        if arguments.format:
            raise ArgumentError(f"--format {arguments.format}: name the file or folder to write with --results")
        return outputs
    path = Path(arguments.results)
    format_ = arguments.format or format_of(path)
    if format_ in FOLDER_FORMATS and path.is_file():
        raise ArgumentError(f"--results {path}: is a file; --format {format_} is a folder of files, name one")
    if format_ in FOLDER_FORMATS:
        file_for_output(path / LIST_NAME, "--results")
        check_results_folder(path)
    else:
        file_for_output(path, "--results", f"found.{format_}")
    check_results_outside(path, format_, arguments.images)
    return [*outputs, (arguments.results, format_)]


def journal_of(arguments: argparse.Namespace) -> Path | None:
    """Where progress is saved: nowhere for a single image, or where nothing is written."""
    from sppnet.detection.run import journal_beside

    if arguments.journal:
        return Path(arguments.journal)
    if _is_one_image(arguments.images):
        return None
    if arguments.results or arguments.json:
        return journal_beside(arguments.results or arguments.json)
    return Path(arguments.output) / "sppnet.journal" if arguments.output else None


def _is_one_image(given: list[str]) -> bool:
    from sppnet.datasets.video import is_video

    return len(given) == 1 and not Path(given[0]).is_dir() and not is_video(given[0])


def _root(arguments: argparse.Namespace) -> str | None:
    """The folder that names in the results are relative to."""
    only = arguments.images[0] if len(arguments.images) == 1 else None
    return only if only is not None and Path(only).is_dir() else None


def _print_all(job: DetectionRun) -> list[ImageResult]:
    """Print what is found in each image as it comes."""
    from sppnet.datasets.video import is_video

    width = max(5, *(len(str(path)) + 12 * is_video(path) for path in job.paths))
    results = []
    heading = f"{'image':<{width}}  {'class':<12}  confidence  box (x0, y0, x1, y1)"
    for result in job:
        results.append(result)
        if not result.resumed:
            say("\n".join(filter(None, [heading, _rows(result, width)])))
            heading = ""
    return results


def _rows(result: ImageResult, width: int) -> str:
    name = str(result.path) if result.time_s is None else f"{result.path} {result.time_s:9.3f} s"
    if not len(result.detections):
        return f"{name:<{width}}  nothing above the threshold (--threshold)"
    return "\n".join(
        f"{name if i == 0 else '':<{width}}  {d.class_name:<12}  {d.confidence:10.3f}  "
        + " ".join(f"{v:7.1f}" for v in d.xyxy)
        for i, d in enumerate(result.detections)
    )
