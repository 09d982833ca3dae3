"""``sppnet proposals``: the windows of images, or how good they are on a data set."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import (
    EXIT_OK,
    FileFailures,
    check_outputs,
    collect_images,
    folder_for_output,
    progress,
    reading,
    say,
    write_json,
)
from sppnet.cli.options import (
    add_compute,
    add_format,
    add_images,
    add_on_error,
    add_output,
    add_seed,
    add_verb,
    pixels,
    positive_int,
)
from sppnet.errors import ArgumentError, DatasetError

if TYPE_CHECKING:
    from sppnet._types import F32, U8

__all__ = ["add_parser"]

FILES = (".npz", ".json")
EXAMPLES = """\
examples:
  sppnet proposals image.jpg -o found --draw     windows as JSON, and an image with the first 100 drawn
  sppnet proposals holiday/ -o windows.npz       windows of all images in one file
  sppnet proposals --evaluate VOC2007 --plot recall.png
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    what = "Propose windows that may hold an object, best first; or measure them on a data set (--evaluate)."
    parser = add_verb(
        subparsers, "proposals", run, "windows that may hold an object (selective search)", what, EXAMPLES
    )
    add = parser.add_argument
    add_images(parser, nargs="*")
    add_output(parser, "FILE.npz or FILE.json for the windows of all images, or a folder: a JSON file for each image",
               "FILE|DIR")  # fmt: skip
    add("--draw", action="store_true", help="write images with the first windows drawn to the folder of --output")
    add("--draw-windows", type=positive_int, default=100, metavar="N", help="windows to draw (default: %(default)s)")
    add("--mode", choices=("single", "fast", "quality", "grid"), default="fast", help="how selective search varies its "
        "settings: more gives more and better windows and takes longer; grid is a regular grid (default: "
        "%(default)s)")  # fmt: skip
    add("--max-windows", type=positive_int, default=2000, metavar="N", help="of each image (default: %(default)s)")
    add("--min-side", type=positive_int, default=16, metavar="PX", help="minimum width and height of a window "
        "(default: %(default)s)")  # fmt: skip
    add("--working-side", type=pixels, default=500, metavar="PX", help="longest side of the image that is segmented "
        "(default: %(default)s)")  # fmt: skip
    add_seed(parser, "the ranking")
    add_on_error(parser)
    add_compute(parser, device=False)
    group = parser.add_argument_group("on a data set")
    add = group.add_argument
    add("--evaluate", metavar="DATA", help="a data set with boxes: print recall, overlap and time")
    add_format(group)
    add("--split", metavar="NAME", help="split to measure on (default: val, otherwise all images)")
    add("--limit", type=positive_int, metavar="N", help="only the first N images")
    add("--windows", metavar="FILE", help="measure the windows of this file (.npz, .json, .mat) instead")
    add("--json", metavar="FILE", help="write the figures as JSON")
    add("--plot", metavar="FILE", help="draw recall against windows (.png, .svg; needs matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    if arguments.evaluate:
        if arguments.images or arguments.output or arguments.draw:
            raise ArgumentError("--evaluate takes a data set; leave out images, --output and --draw")
        return evaluate(arguments)
    for name in ("format", "split", "limit", "windows", "json", "plot"):
        if getattr(arguments, name):
            raise ArgumentError(f"--{name} belongs to --evaluate DATA, which is missing")
    if not arguments.images:
        raise ArgumentError("no images given; name some, or a folder, or --evaluate DATA")
    return propose(arguments)


def make_proposer(arguments: argparse.Namespace) -> Callable[[U8], F32]:
    """The proposer that the options ask for."""
    from sppnet.proposals import GridProposer, SelectiveSearch

    if arguments.mode == "grid":
        return GridProposer(arguments.max_windows, arguments.min_side)
    return SelectiveSearch(
        arguments.mode, arguments.max_windows, arguments.min_side, arguments.seed, arguments.working_side
    )


def propose(arguments: argparse.Namespace) -> int:
    """Windows of every image, to a file, a folder, or as a table on the screen."""
    import numpy as np

    from sppnet.drawing import draw_boxes, encode_image
    from sppnet.images import load_image, unique_names
    from sppnet.proposals import encode_proposals, save_proposals
    from sppnet.storage.output_folder import OutputFolder

    proposer = make_proposer(arguments)
    images = collect_images(arguments.images)
    output = Path(arguments.output) if arguments.output else None
    to_file = output is not None and output.suffix.lower() in FILES
    if arguments.draw and (output is None or to_file):
        raise ArgumentError("--draw needs a folder for the images: --output DIR")
    if to_file:
        check_outputs(arguments, output="windows.npz")
    folder = OutputFolder(folder_for_output(output)) if output is not None and not to_file else None
    taken: set[str] = set()
    names = unique_names(images)
    failures = FileFailures(arguments.on_error)
    windows: dict[str, F32] = {}
    seconds = []
    for path in progress(images, "windows", quiet=arguments.quiet or len(images) == 1):
        with failures.catch(path):
            image = load_image(path)
            start = time.perf_counter()
            boxes = proposer(image)
            seconds.append(time.perf_counter() - start)
            name = names[path]
            if folder is not None:
                # images of two folders may have the same stem: the whole name stays in the file's
                file = folder.free_name(f"{name.replace('/', '_')}.json", taken)
                taken.add(file.lower())
                folder.write(file, encode_proposals({name: boxes}, ".json"))
                if arguments.draw:
                    drawn = folder.free_name(f"{file.removesuffix('.json')}.windows.jpg", taken)
                    taken.add(drawn.lower())
                    folder.write(drawn, encode_image(draw_boxes(image, boxes[: arguments.draw_windows])))
            elif to_file:
                windows[name] = boxes
            if output is None:
                rows = "".join("\n  " + " ".join(f"{v:7.1f}" for v in box) for box in boxes[:10])
                say(f"{path}: {len(boxes)} windows, the first:{rows}")
            elif not arguments.quiet:
                say(f"{path}: {len(boxes)} windows")
    if output is not None and to_file and windows:
        save_proposals(output, windows)
    if seconds:
        written = f"; written to {output}" if output is not None else ""
        say(f"{len(seconds)} images, median {1000 * np.median(seconds):.0f} ms{written}")
    if failures.failed:
        say(failures.summary(len(images)))
    return failures.exit_status


def evaluate(arguments: argparse.Namespace) -> int:
    """Recall and overlap of the windows on a data set: a table, JSON and a plot."""
    from sppnet.datasets.loading import load_dataset, read_dataset
    from sppnet.datasets.readable import without_damaged
    from sppnet.evaluation.proposals import evaluate_proposals, plot_recall
    from sppnet.proposals import load_proposals

    check_outputs(arguments, json="report.json", plot="recall.png")
    splits = read_dataset(arguments.evaluate, **reading(arguments)).splits
    split = arguments.split or ("val" if "val" in splits else None)
    dataset = load_dataset(arguments.evaluate, split, **reading(arguments), on_error=arguments.on_error)
    dataset = without_damaged(dataset.subset(range(len(dataset))[: arguments.limit]), on_error=arguments.on_error)
    for problem in dataset.problems:
        say(f"left out: {problem}")
    if not len(dataset):
        raise DatasetError(f"{arguments.evaluate}: no images to measure on")
    proposer, name = make_proposer(arguments), arguments.mode
    if arguments.windows:
        stored = load_proposals(arguments.windows)
        following = iter(dataset)  # windows are asked for in the order of the images
        proposer, name = (lambda image: stored.proposer(next(following).path)(image)), Path(arguments.windows).name
    bar = progress(list(dataset), "windows", quiet=arguments.quiet)
    report = evaluate_proposals(bar, proposer, max_windows=arguments.max_windows)
    say(report.table())
    if arguments.json:
        write_json(arguments.json, {"windows": name, "split": split, **report.to_dict()})
    if arguments.plot:
        plot_recall({name: report}, arguments.plot)
        say(f"drawn: {arguments.plot}")
    return EXIT_OK
