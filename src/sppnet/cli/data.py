"""``sppnet data``: inspect a data set, find its faults, convert it, make one to try things on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sppnet.cli.common import (
    EXIT_FAILED,
    EXIT_OK,
    bar_for,
    check_outputs,
    file_for_output,
    progress,
    reading,
    say,
    write_json,
)
from sppnet.cli.options import (
    WRITTEN_FORMATS,
    add_data,
    add_on_error,
    add_output,
    add_seed,
    add_verb,
    name_list,
    pixels,
    positive_int,
)
from sppnet.errors import ArgumentError

__all__ = ["add_parser"]

DESCRIPTION = """\
Data sets in fifteen formats, such as PASCAL VOC, COCO, YOLO, LabelMe, CVAT, Label Studio, or a CSV table with the
columns image,x0,y0,x1,y1,label. The format is recognised. If that fails, name it with --format.

  sppnet data check my-data                      everything that is wrong, before you train
  sppnet data show my-data -o sheet.png          a sheet of images with their boxes
  sppnet data convert my-data -o new --to coco   the same data set in another format
  sppnet data frames clip.mp4 -o frames          the frames of a video as images
  sppnet data example -o digits                  a small data set to try things on
"""
CHECK = """\
Read all annotations, decode every image, and report all problems at once: images that are missing or damaged, boxes
that are reversed, outside or without area, sizes that disagree, misspelt classes, images that are in two splits, ...

Errors are what training leaves out (or refuses, with --strict). Warnings are likely mistakes.
exit status: 0 if training would go on without what is wrong, 1 if it would stop (where more than a tenth of the images
or objects are unusable, or the images were resized, or with --strict), 2 if the data set can't be read at all.
"""
CONVERT = """\
Write a data set in another format, with its images, into a new folder. Boxes keep their place (to less than 0.01
pixels). What the format can't hold is listed at the end. The folder appears when it is complete.
"""
# Of problems of one kind, so many warnings are printed, and errors of each file; --all prints all
_SHOWN = 20


def add_parser(subparsers: Any) -> None:
    """Register the verb, with its actions."""
    parser = subparsers.add_parser("data", help="check, show and convert data sets", description=DESCRIPTION,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)

    check = add_verb(actions, "check", run_check, "find everything that is wrong", CHECK)
    add_data(check)
    check.add_argument("--classes", type=name_list, metavar="A,B", help="the classes there should be; others are "
                       "errors")  # fmt: skip
    check.add_argument("--json", metavar="FILE", help="write the report as JSON")
    check.add_argument("--all", action="store_true", help=f"print all problems, not only {_SHOWN} of each kind "
                       "(errors: of each kind and file)")  # fmt: skip
    add_on_error(check, help="skip: say what training would leave out. fail: say whether it would stop (exit status 1) "
                 "(default: %(default)s)")  # fmt: skip

    convert = add_verb(actions, "convert", run_convert, "write it in another format", CONVERT)
    add_data(convert)
    add_output(convert, "folder to write: a new one, or an empty one", "DIR", required=True)
    convert.add_argument("--to", choices=WRITTEN_FORMATS, required=True, help="the format to write")
    convert.add_argument("--placement", choices=("copy", "hardlink", "symlink"), default="copy",
                         help="copy the images, or make links to save space (default: %(default)s)")  # fmt: skip
    add_on_error(convert)

    show = add_verb(actions, "show", run_show, "draw a sheet of images with their boxes")
    add_data(show)
    add_output(show, "the image to write (.png, .jpg)", required=True)
    show.add_argument("--split", metavar="NAME", help="only this split (default: all images)")
    show.add_argument("--limit", type=positive_int, default=24, metavar="N", help="only N images, spread evenly over "
                      "the split (default: %(default)s)")  # fmt: skip
    show.add_argument("--columns", type=positive_int, default=4, metavar="N", help="images in a row (default: "
                      "%(default)s)")  # fmt: skip
    show.add_argument("--tile", type=pixels, default=320, metavar="PX", help="side of an image on the sheet (default: "
                      "%(default)s)")  # fmt: skip
    show.add_argument("--class", dest="only", metavar="NAME", help="only images with an object of this class")
    add_on_error(show)

    frames = add_verb(actions, "frames", run_frames, "write the frames of a video as images")
    frames.add_argument("video", metavar="VIDEO", help="a video file (.mp4, .mov, .mkv, ...); needs sppnet[video]")
    add_output(frames, "folder to write", metavar="DIR", required=True)
    frames.add_argument("--every", default="1s", metavar="TIME", help="interval, as in 1s, 500ms or 2min (default: "
                        "%(default)s)")  # fmt: skip
    frames.add_argument("--limit", type=positive_int, metavar="N", help="at most N frames")

    example = add_verb(actions, "example", run_example, "make a small data set: handwritten digits in images")
    add_output(example, "folder to write: a new one, or an empty one", "DIR", required=True)
    example.add_argument(
        "--to", choices=WRITTEN_FORMATS, default="voc", help="the format to write (default: %(default)s)"
    )
    example.add_argument("--count", type=positive_int, default=48, metavar="N", help="number of images (default: "
                         "%(default)s)")  # fmt: skip
    example.add_argument("--digits", type=positive_int, default=3, metavar="N",
                         help="number of classes, 1 to 10 (default: %(default)s: zero, one, two)")  # fmt: skip
    add_seed(example)


# --- check -----------------------------------------------------------------------------------------------------------


def run_check(arguments: argparse.Namespace) -> int:
    """``sppnet data check``; returns the exit status."""
    from sppnet.datasets.check import check_dataset
    from sppnet.datasets.tables import count_table

    check_outputs(arguments, json="report.json")
    report = check_dataset(
        arguments.data, **reading(arguments), class_names=arguments.classes,
        progress=lambda images, total: bar_for(arguments)(images, "checking", total=total),
    )  # fmt: skip
    if report.problems:
        say(report.problems_text(None if arguments.all else _SHOWN))
    say(count_table(report.class_names, report.counts, report.images_by_split, report.empty))
    if report.difficult:
        say(f"{report.difficult} more objects are marked difficult: they are neither hit nor miss")
    errors, warnings = len(report.errors), len(report.warnings)
    unusable = report.images - report.usable
    say(f"\n{arguments.data} ({report.format}): {report.images} images, {errors} errors, {warnings} warnings")
    if not report.accepted:
        say(f"training stops: {report.stop.partition(chr(10))[0].removesuffix(':')}")
    elif errors:
        lost = f" ({unusable} images can't be used)" if unusable else ""
        say(f"training leaves out what is wrong{lost}; with --strict it stops")
    else:
        say("training accepts it" + ("; look at the warnings first" if warnings else ""))
    if arguments.json:
        write_json(arguments.json, report.to_dict())
    strict = arguments.on_error == "fail" and errors
    return EXIT_OK if report.accepted and not strict else EXIT_FAILED


# --- convert, example ------------------------------------------------------------------------------------------------


def run_convert(arguments: argparse.Namespace) -> int:
    """``sppnet data convert``; returns the exit status."""
    from sppnet.datasets.converting import convert_dataset

    file_for_output(Path(arguments.output) / "data")
    done = convert_dataset(
        arguments.data, arguments.output, arguments.to, **reading(arguments), placement=arguments.placement,
        on_error=arguments.on_error, progress=lambda items: bar_for(arguments)(items, "writing", total=len(items)),
    )  # fmt: skip
    for problem in done.dataset.problems:
        say(f"left out: {problem}")
    for loss in done.losses:
        say(f"not carried over: {loss}")
    counts = f"{len(done.dataset)} images, {sum(map(len, done.dataset))} objects"
    say(f"{arguments.output} ({arguments.to}): {counts}, from {done.format}")
    if done.dataset.problems:
        say(f"{len(done.dataset.problems)} problems: what is wrong was left out")
    return EXIT_FAILED if done.dataset.problems else EXIT_OK


def run_example(arguments: argparse.Namespace) -> int:
    """``sppnet data example``; returns the exit status."""
    from sppnet.datasets.example import write_example

    file_for_output(Path(arguments.output) / "data")
    dataset = write_example(
        arguments.output, arguments.to, arguments.count, arguments.digits, arguments.seed
    )  # fmt: skip
    names, objects = ", ".join(dataset.class_names), sum(map(len, dataset))
    say(f"{arguments.output} ({arguments.to}): {len(dataset)} images, {objects} objects: {names}")
    return EXIT_OK


def run_frames(arguments: argparse.Namespace) -> int:
    """``sppnet data frames``; returns the exit status."""
    from sppnet.datasets.video import parse_seconds, write_frames

    every_s = parse_seconds(arguments.every)
    file_for_output(Path(arguments.output) / "frame.jpg", "--output")
    files = write_frames(arguments.video, arguments.output, every_s, limit=arguments.limit)
    count = sum(1 for _ in progress(files, "writing frames", quiet=arguments.quiet))
    say(f"{arguments.output}: {count} frames of {arguments.video}, one each {every_s:g} s")
    return EXIT_OK


# --- show ------------------------------------------------------------------------------------------------------------


def run_show(arguments: argparse.Namespace) -> int:
    """``sppnet data show``; returns the exit status."""
    from sppnet.datasets.loading import load_dataset
    from sppnet.datasets.sheet import draw_dataset
    from sppnet.drawing import check_image_name, encode_image
    from sppnet.storage.atomic import write_bytes

    output = file_for_output(arguments.output, example="sheet.png")
    check_image_name(output)
    dataset = load_dataset(arguments.data, arguments.split, **reading(arguments), on_error=arguments.on_error)
    if output.exists() and any(record.path.exists() and output.samefile(record.path) for record in dataset):
        raise ArgumentError(f"--output {output}: is an image of the data set, which would be lost; name another file")
    sheet = draw_dataset(
        dataset, class_name=arguments.only, limit=arguments.limit, columns=arguments.columns, tile_px=arguments.tile,
        on_error=arguments.on_error, progress=bar_for(arguments),
    )  # fmt: skip
    write_bytes(output, encode_image(sheet.image, output.suffix), named=True)
    left_out = f"; {len(dataset.problems)} problems (`sppnet data check` lists them)" if dataset.problems else ""
    say(f"drawn: {sheet.shown} of {sheet.candidates} images in {output}{left_out}")
    return EXIT_FAILED if sheet.failed else EXIT_OK
