"""``sppnet add-class``: more classes for a trained detector."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from sppnet.cli.common import (
    add_quiet,
    file_for_output,
    log_lines,
    name_list,
    positive_int,
    progress,
    remove_own_cache,
)

__all__ = ["add_parser"]

T = TypeVar("T")

DESCRIPTION = """\
Add classes to a detector: only their own SVMs and box regressors are trained, in seconds, on the frozen rest.

Weights and scores of the classes that it has already stay the same to the last bit. Scores and thresholds of the new
ones are calibrated by cross-validation over the photos of DATA.

Everything in the photos that isn't annotated as the new class counts as background, in DATA and in --background: in
photos that nobody looked through, unlabelled objects of the new class teach the detector not to find it.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "add-class", help="add classes to a detector, in seconds", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a detector, or 'default' for the one that comes with sppnet")
    parser.add_argument("data", metavar="DATA", help="photos with boxes of the new classes, in any format that "
                        "`sppnet train` reads")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="MODEL2", help="the detector to write (.safetensors)")
    parser.add_argument("--classes", metavar="A,B", help="which classes of DATA (default: all that MODEL lacks)")
    parser.add_argument("--split", metavar="NAME", help="only this part of DATA (default: all photos)")
    parser.add_argument("--background", metavar="DATA2", help="more photos, as examples of what the new classes "
                        "are not; a data set, or a folder of photos")  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="folder for maps and windows (default: MODEL2.cache, removed "
                        "when it is done)")  # fmt: skip
    parser.add_argument("--folds", type=positive_int, default=4, metavar="N",
                        help="parts of the cross-validation (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random (default: %(default)s)")
    parser.add_argument("--on-error", choices=("fail", "skip"), default="fail",
                        help="a faulty annotation stops it, or is left out (default: %(default)s)")  # fmt: skip
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    import shlex

    from sppnet.datasets.loading import load_dataset
    from sppnet.detection.detector import SPPDetector

    output = file_for_output(arguments.output)
    cache = Path(arguments.cache or f"{output}.cache")
    file_for_output(cache / "maps", "--cache")
    detector = SPPDetector.load(None if arguments.model == "default" else arguments.model)
    on_error = arguments.on_error
    dataset = load_dataset(arguments.data, arguments.split, on_error=on_error)
    background = _background(arguments.background, on_error) if arguments.background else None
    for problem in (*dataset.problems, *(background.problems if background else ())):
        print(f"left out: {problem}")
    names = name_list(arguments.classes)
    new = names or [name for name in dataset.class_names if name not in detector.class_names_]
    more = f" and {len(background)} of {arguments.background}" if background else ""
    if new:
        where = f"in {len(dataset)} photos{more}"
        print(f"{', '.join(new)}: whatever isn't annotated as such, {where}, counts as background")

    def bar(items: Iterable[T], what: str, *, total: int | None = None) -> Iterable[T]:
        unit = "fold" if what == "cross-validation" else "image"
        return progress(items, what, total=total, quiet=arguments.quiet, unit=unit)

    with log_lines(print):
        result = detector.add_classes(
            dataset, class_names=names, background=background, folds=arguments.folds, cache=cache, seed=arguments.seed,
            progress=bar,
        )  # fmt: skip
    result.save(output, result.metadata_.get("precision", "int8"))
    if arguments.cache is None:
        remove_own_cache(cache)
    print(f"{output}: {len(result.class_names_)} classes. Use it with:")
    print(f"  sppnet detect PHOTO --model {shlex.quote(str(output))}")
    return 0


def _background(path: str, on_error: Any) -> Any:
    """A data set; or the photos of a folder without annotations."""
    from sppnet.cli.common import collect_images
    from sppnet.datasets.loading import load_dataset
    from sppnet.datasets.records import DetectionDataset, ImageRecord
    from sppnet.errors import UnknownFormatError
    from sppnet.images import image_size

    try:
        return load_dataset(path, on_error=on_error)
    except UnknownFormatError:
        pass
    records = []
    for photo in collect_images([path]):
        height, width = image_size(photo)
        records.append(ImageRecord(photo, [], [], [], width, height, str(photo)))  # type: ignore[arg-type]
    return DetectionDataset(records, (), Path(path).name)
