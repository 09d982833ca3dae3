"""``sppnet proposals``: the windows of images, or how good they are on a data set."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import (
    EXIT_OK,
    bar_for,
    check_outputs,
    failure_status,
    plot_for_output,
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
    from sppnet.proposals.base import Proposer

__all__ = ["add_parser"]

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
    add(
        "--max-windows",
        type=positive_int,
        default=2000,
        metavar="N",
        help="propose at most N windows for each image (default: %(default)s)",
    )
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
    add("--limit", type=positive_int, metavar="N", help="only N images, spread evenly over the split")
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


def make_proposer(arguments: argparse.Namespace) -> Proposer:
    """The proposer that the options ask for."""
    from sppnet.proposals import GridProposer, SelectiveSearch

    if arguments.mode == "grid":
        return GridProposer(arguments.max_windows, arguments.min_side)
    return SelectiveSearch(
        arguments.mode, arguments.max_windows, arguments.min_side, arguments.seed, arguments.working_side
    )


def propose(arguments: argparse.Namespace) -> int:
    """Windows of every image, to a file, a folder, or as a table on the screen."""
    from sppnet.images import find_images
    from sppnet.proposals.run import WINDOW_FILES, propose_many

    output = arguments.output
    to_file = output is not None and Path(output).suffix.lower() in WINDOW_FILES
    if arguments.draw and (output is None or to_file):
        raise ArgumentError("--draw needs a folder for the images: --output DIR")
    if to_file:
        check_outputs(arguments, output="windows.npz")
    images = find_images(arguments.images)
    job = propose_many(
        images, make_proposer(arguments), output=output, draw_windows=arguments.draw_windows if arguments.draw else 0,
        on_error=arguments.on_error, progress=bar_for(arguments, hidden=len(images) == 1),
    )  # fmt: skip
    seconds = []
    for image in job:
        seconds.append(image.seconds)
        if output is None:
            rows = "".join("\n  " + " ".join(f"{v:7.1f}" for v in box) for box in image.windows[:10])
            say(f"{image.path}: {len(image.windows)} windows, the first:{rows}")
        elif not arguments.quiet:
            say(f"{image.path}: {len(image.windows)} windows")
    if seconds:
        written = f"; written to {output}" if output is not None else ""
        say(f"{len(seconds)} images, median {1000 * statistics.median(seconds):.0f} ms{written}")
    return failure_status(job.failed, len(images))


def evaluate(arguments: argparse.Namespace) -> int:
    """Recall and overlap of the windows on a data set: a table, JSON and a plot."""
    from sppnet.datasets.loading import load_dataset, read_dataset
    from sppnet.datasets.readable import without_damaged
    from sppnet.evaluation.proposals import evaluate_proposals, plot_recall
    from sppnet.proposals import load_proposals

    check_outputs(arguments, json="report.json", plot="recall.png")
    if arguments.plot:
        plot_for_output(arguments.plot, "--plot")
    splits = read_dataset(arguments.evaluate, **reading(arguments)).splits
    split = arguments.split or ("val" if "val" in splits else None)
    dataset = load_dataset(arguments.evaluate, split, **reading(arguments), on_error=arguments.on_error)
    dataset = without_damaged(dataset.spread(arguments.limit), on_error=arguments.on_error)
    for problem in dataset.problems:
        say(f"left out: {problem}")
    if not len(dataset):
        raise DatasetError(f"{arguments.evaluate}: no images to measure on")
    windows = load_proposals(arguments.windows) if arguments.windows else make_proposer(arguments)
    name = Path(arguments.windows).name if arguments.windows else arguments.mode
    images = bar_for(arguments)(dataset, "windows", total=len(dataset))
    report = evaluate_proposals(images, windows, max_windows=arguments.max_windows)
    say(report.table())
    if arguments.json:
        write_json(arguments.json, {"windows": name, "split": split, **report.to_dict()})
    if arguments.plot:
        plot_recall({name: report}, arguments.plot)
        say(f"drawn: {arguments.plot}")
    return EXIT_OK
