"""``sppnet detect``: find objects in photos."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import FileFailures, add_quiet, collect_images, folder_for_output, fraction, progress
from sppnet.files import write_atomic

if TYPE_CHECKING:
    from sppnet.detection.detections import Detections
    from sppnet.detection.detector import SPPDetector

__all__ = ["add_parser", "stage_table"]

DESCRIPTION = """\
Find objects in photos, with the detector of the 20 VOC classes that comes with sppnet, or one that you trained.

Prints a table of what was found and the time of each stage. With --output the photos are also written with the boxes
drawn. A photo that can't be read is reported and the others are done; the exit status is then 1.
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
    parser.add_argument(
        "--threshold", type=fraction, default=0.5, metavar="T",
        help="least probability of a detection, from 0 to 1 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--max-windows", type=int, default=None, metavar="N", help="windows examined a photo (2000)")
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.detection.detector import SPPDetector
    from sppnet.errors import ArgumentError

    photos = collect_images(arguments.photos)
    output = folder_for_output(arguments.output) if arguments.output else None
    detector = SPPDetector.load(arguments.model)
    if arguments.max_windows is not None:
        if arguments.max_windows < 1:
            raise ArgumentError(f"--max-windows: got {arguments.max_windows}, expected at least 1")
        detector.max_windows = arguments.max_windows
    detector.warm_up()
    failures = FileFailures()
    found: dict[Path, Detections] = {}
    drawn: set[Path] = set()
    width = max(5, *(len(str(p)) for p in photos))
    bar = progress(photos, "detecting", quiet=arguments.quiet or len(photos) == 1)
    bar.write(f"{'photo':<{width}}  {'class':<12}  score  box (x0, y0, x1, y1)")
    for photo in bar:
        with failures.catch(photo):
            found[photo] = _one(detector, photo, arguments.threshold, output, drawn)
            bar.write(_rows(photo, found[photo], width, arguments.threshold))
    if found:
        print(stage_table(list(found.values())))
    if output is not None and drawn:
        print(f"drawn: {len(drawn)} in {output}")
    if arguments.json:
        _write_json(Path(arguments.json), detector, found, failures, arguments.threshold)
        print(f"written: {arguments.json}")
    if failures.failed:
        print(failures.summary(len(photos)))
    return failures.exit_status


def _one(detector: SPPDetector, photo: Path, threshold: float, output: Path | None, drawn: set[Path]) -> Detections:
    from sppnet.drawing import draw_detections
    from sppnet.images import load_image

    pixels = load_image(photo)
    result = detector.detect(pixels, threshold)
    if output is not None:
        picture = draw_detections(
            pixels, result.xyxy, result.class_name, result.score, class_names=detector.class_names_
        )
        target = _free_name(output, photo, drawn)
        with write_atomic(target) as temporary:
            picture.save(temporary, quality=92)
    return result


def _free_name(output: Path, photo: Path, drawn: set[Path]) -> Path:
    """``stem.jpg`` in the folder; ``stem-2.jpg`` where another photo of this call has that name."""
    target, number = output / f"{photo.stem}.jpg", 2
    while target in drawn or target.resolve() == photo.resolve():
        target, number = output / f"{photo.stem}-{number}.jpg", number + 1
    drawn.add(target)
    return target


def _rows(photo: Path, found: Detections, width: int, threshold: float) -> str:
    if not len(found):
        return f"{photo!s:<{width}}  nothing with a score of {threshold:g} or more (--threshold)"
    return "\n".join(
        f"{str(photo) if i == 0 else '':<{width}}  {name:<12}  {score:5.3f}  " + " ".join(f"{v:7.1f}" for v in box)
        for i, (box, score, name) in enumerate(zip(found.xyxy, found.score, found.class_name, strict=True))
    )


def stage_table(found: list[Detections]) -> str:
    """Median milliseconds of each stage."""
    import statistics

    names = list(found[0].seconds)
    medians = [1000 * statistics.median(d.seconds[name] for d in found) for name in names]
    total = 1000 * statistics.median(sum(d.seconds.values()) for d in found)
    windows = statistics.median(d.windows for d in found)
    head = "  ".join(f"{name:>{max(len(name), 6)}}" for name in [*names, "total"])
    row = "  ".join(
        f"{value:>{max(len(name), 6)}.0f}" for name, value in zip([*names, "total"], [*medians, total], strict=True)
    )
    many = f"median of {len(found)} photos, " if len(found) > 1 else ""
    return f"\ntime in ms ({many}{windows:.0f} windows)\n{head}\n{row}"


def _write_json(
    path: Path, detector: SPPDetector, found: dict[Path, Detections], failures: FileFailures, threshold: float
) -> None:
    document = {
        "class_names": list(detector.class_names_),
        "threshold": threshold,
        "box_format": "x0, y0, x1, y1 in pixels of the upright picture, half-open",
        "photos": [{"photo": str(p), "detections": d.to_dicts()} for p, d in found.items()],
        "failed": [{"photo": str(p), "error": message} for p, message in failures.failed],
    }
    with write_atomic(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
