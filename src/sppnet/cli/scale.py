"""``sppnet scale``: millions of images, on one machine or a cluster of Ray."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import EXIT_FAILED, EXIT_OK, bar_for, say
from sppnet.cli.options import add_model, add_output, add_verb, positive_int

__all__ = ["add_parser"]

DESCRIPTION = """\
Work on millions of images, on all cores of this machine or on a cluster of Ray.

It needs Ray: pip install 'sppnet[ray]'
"""
DETECT = """\
Find objects in all images of SOURCE, and write a row for each as Parquet files in the folder DEST. """
FEATURES = """\
Write the windows of all images of SOURCE, and a vector of each window, a row an image, as Parquet files in the folder
DEST: about 8 MB an image with 2000 windows. """
CLASSIFY = """\
Tell what each image of SOURCE shows as a whole, and write a row for each as Parquet files in the folder DEST. """
COMMON = """\
A bad
image gives a row with an error; the others are done, and the exit status is 1.

Run the same command again after a stop or a crash: rows that are there are not done again.

SOURCE is one of:
  a folder                      all images in it and below
  a text file                   a path or an address in each line
  a Parquet table (.parquet)    with a column path, or bytes (whole image files); or a folder of such tables
  an address                    of any of these, as s3://bucket/folder; keys come from the environment

It needs Ray: pip install 'sppnet[ray]'
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb, with its actions."""
    parser = subparsers.add_parser("scale", help="millions of images, on many machines", description=DESCRIPTION,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for name, text, short in (
        ("detect", DETECT, "find objects, a row an image"),
        ("features", FEATURES, "windows and their vectors, a row an image"),
        ("classify", CLASSIFY, "what each image shows, a row an image"),
    ):
        action = add_verb(actions, name, run, short, text + COMMON)
        action.add_argument("source", metavar="SOURCE", help="folder, list, Parquet table, or an address of one")
        add_output(action, "folder or address for the Parquet files", "DEST", required=True)
        add = action.add_argument
        if name == "classify":
            add_model(action, "classifier", "1000 ImageNet classes")
            add("--top", type=positive_int, default=5, metavar="N", help="classes of each image (default: %(default)s)")
        else:
            add_model(action)
        if name == "features":
            add("--vectors", choices=("fc", "pooled"), default="fc", help="fc: after the fully connected layers. "
                "pooled: by the pyramid from the feature map (default: %(default)s)")  # fmt: skip
        add("--address", help="of a Ray cluster, or auto (default: RAY_ADDRESS, otherwise all cores of this machine)")
        add("--actors", type=positive_int, metavar="N", help="processes, one a core (default: one for each core)")
        part = 4 if name == "features" else 64  # vectors of an image are 8 MB
        add("--part", type=positive_int, default=part, metavar="N", help="images in a file of results (default: "
            "%(default)s)")  # fmt: skip
        add("--retry-failed", action="store_true", help="try images again that failed in an earlier run")


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.scale.ray_run import run_on_ray
    from sppnet.scale.work import Task

    options = {name: getattr(arguments, name) for name in ("vectors", "top") if hasattr(arguments, name)}
    report = run_on_ray(
        arguments.source, arguments.output, Task(arguments.action, arguments.model, **options),
        address=arguments.address, actors=arguments.actors, images_a_part=arguments.part,
        retry_failed=arguments.retry_failed, progress=bar_for(arguments),
    )  # fmt: skip
    new, failed = report.images - report.resumed, sum(report.failed.values())
    rate = f" in {report.seconds:.0f} s, {report.images_a_second:.2f} images a second" if new else ""
    say(f"{report.images} images: {report.resumed} done before, {new} now{rate}")
    if report.retried:
        say(f"{report.retried} that had failed were tried again")
    say(f"{failed} of {report.images} images failed" + (":" if failed else ""))
    for reason, count in report.failed.items():
        say(f"  {count}  {reason}")
    if report.missing or report.twice:
        say(f"{report.missing} images have no row, {report.twice} more than one; run the same command again")
    say(f"written: {arguments.output}")
    return EXIT_FAILED if failed or report.missing or report.twice else EXIT_OK
