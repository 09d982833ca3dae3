"""``sppnet proposals``: the windows of pictures, or how good they are on a data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sppnet.cli.common import (
    EXIT_OK,
    FileFailures,
    add_quiet,
    collect_images,
    folder_for_output,
    positive_int,
    progress,
    write_atomic,
)
from sppnet.errors import ArgumentError

__all__ = ["add_parser", "run"]

FILES = (".npz", ".json")


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "proposals",
        help="windows that may hold an object (selective search)",
        description="Find windows that may hold an object, best first; or measure them on a data set (--evaluate).",
        epilog="examples:\n"
        "  sppnet proposals photo.jpg --output found --draw     windows as JSON, and a picture of the first 100\n"
        "  sppnet proposals holiday/ --output windows.npz       of all photos, in one file\n"
        "  sppnet proposals --evaluate VOC2007 --plot recall.png\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="pictures, and folders of pictures")
    parser.add_argument(
        "-o", "--output", metavar="FILE|DIR", help="FILE.npz or FILE.json for all windows, or a folder: JSON a picture"
    )
    parser.add_argument("--draw", action="store_true", help="draw the first windows to pictures in the output folder")
    parser.add_argument("--draw-windows", type=positive_int, default=100, metavar="N", help="windows drawn (100)")
    parser.add_argument("--mode", choices=("single", "fast", "quality", "grid"), default="fast", help="default: fast")
    parser.add_argument("--max-windows", type=positive_int, default=2000, metavar="N", help="a picture (2000)")
    parser.add_argument("--min-side", type=positive_int, default=16, metavar="PX", help="least width and height (16)")
    parser.add_argument("--working-side", type=positive_int, default=500, metavar="PX", help="longest side (500)")
    parser.add_argument("--seed", type=int, default=0, help="of the ranking (0)")
    group = parser.add_argument_group("on a data set")
    group.add_argument("--evaluate", metavar="DATA", help="a data set in VOC layout: recall, overlap, time")
    group.add_argument("--split", default="val", help="list of images (val)")
    group.add_argument("--limit", type=positive_int, metavar="N", help="only the first N images")
    group.add_argument(
        "--windows", metavar="FILE", help="evaluate the windows of this file (.npz, .json, .mat) instead"
    )
    group.add_argument("--json", metavar="FILE", help="write the report as JSON")
    group.add_argument("--plot", metavar="FILE", help="draw recall against windows, .png or .svg (needs matplotlib)")
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    if arguments.evaluate:
        if arguments.paths or arguments.output or arguments.draw:
            raise ArgumentError("--evaluate takes a data set; leave out pictures, --output and --draw")
        return evaluate(arguments)
    for name in ("windows", "json", "plot", "limit"):
        if getattr(arguments, name):
            raise ArgumentError(f"--{name} belongs to --evaluate DATA, which is missing")
    if not arguments.paths:
        raise ArgumentError("no pictures given; name some, or a folder, or --evaluate DATA")
    return propose(arguments)


def make_proposer(arguments: argparse.Namespace) -> Any:
    """The proposer that the options ask for."""
    from sppnet.proposals import GridProposer, SelectiveSearch

    if arguments.mode == "grid":
        return GridProposer(arguments.max_windows, arguments.min_side)
    return SelectiveSearch(
        arguments.mode, arguments.max_windows, arguments.min_side, arguments.seed, arguments.working_side
    )


def propose(arguments: argparse.Namespace) -> int:
    """Windows of every picture, to a file, a folder, or as a table on the screen."""
    import time

    import numpy as np

    from sppnet.drawing import draw_boxes
    from sppnet.images import load_image
    from sppnet.proposals import save_proposals

    proposer = make_proposer(arguments)
    photos = collect_images(arguments.paths)
    output = Path(arguments.output) if arguments.output else None
    to_file = output is not None and output.suffix.lower() in FILES
    if arguments.draw and (output is None or to_file):
        raise ArgumentError("--draw needs a folder for the pictures: --output DIR")
    folder = folder_for_output(output) if output is not None and not to_file else None
    names = unique_names(photos)
    failures = FileFailures()
    windows: dict[str, Any] = {}
    seconds = []
    bar = progress(photos, "windows", quiet=arguments.quiet or len(photos) == 1)
    for photo in bar:
        with failures.catch(photo):
            image = load_image(photo)
            start = time.perf_counter()
            boxes = proposer(image)
            seconds.append(time.perf_counter() - start)
            name = names[photo]
            if folder is not None:
                # windows of a picture elsewhere may have the same stem: the whole name stays in the file's
                save_proposals(folder / f"{name.replace('/', '_')}.json", {name: boxes})
                if arguments.draw:
                    picture = draw_boxes(image, boxes[: arguments.draw_windows])
                    with write_atomic(folder / f"{name.replace('/', '_')}.windows.jpg") as temporary:
                        picture.save(temporary, quality=92)
            elif to_file:
                windows[name] = boxes
            if not arguments.quiet or output is None:
                rows = (
                    ""
                    if output is not None
                    else "".join("\n  " + " ".join(f"{v:7.1f}" for v in box) for box in boxes[:10])
                )
                bar.write(f"{photo}: {len(boxes)} windows{', the first:' if rows else ''}{rows}")
    if output is not None and to_file and windows:
        save_proposals(output, windows)
    if seconds:
        written = f"; written to {output}" if output is not None else ""
        print(f"{len(seconds)} pictures, median {1000 * np.median(seconds):.0f} ms{written}")
    if failures.failed:
        print(failures.summary(len(photos)))
    return failures.exit_status


def unique_names(photos: list[Path]) -> dict[Path, str]:
    """A name for each picture: its file name where that is unique, else its path."""
    of_name: dict[str, int] = {}
    for photo in photos:
        of_name[photo.name] = of_name.get(photo.name, 0) + 1
    return {photo: photo.name if of_name[photo.name] == 1 else photo.as_posix().lstrip("/") for photo in photos}


def evaluate(arguments: argparse.Namespace) -> int:
    """Recall and overlap of the windows on a data set: a table, JSON and a plot."""
    from sppnet.datasets.formats.voc import load_voc
    from sppnet.evaluation.proposals import evaluate_proposals, plot_recall
    from sppnet.proposals import load_proposals

    records = list(load_voc(arguments.evaluate, arguments.split))[: arguments.limit]
    bar = progress(records, "windows", quiet=arguments.quiet)
    if arguments.windows:
        stored = load_proposals(arguments.windows)
        # the windows are asked for in the order of the records: one picture, one proposer
        following = iter(records)
        report = evaluate_proposals(
            bar,
            lambda image: stored.proposer(next(following).path)(image),
            max_windows=arguments.max_windows,
        )
        name = Path(arguments.windows).name
    else:
        report = evaluate_proposals(bar, make_proposer(arguments), max_windows=arguments.max_windows)
        name = arguments.mode
    print(report.table())
    if arguments.json:
        with write_atomic(arguments.json) as temporary:
            temporary.write_text(json.dumps({"windows": name, "split": arguments.split, **report.to_dict()}, indent=1))
        print(f"written: {arguments.json}")
    if arguments.plot:
        plot_recall({name: report}, arguments.plot)
        print(f"drawn: {arguments.plot}")
    return EXIT_OK
