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
Find objects in all images of SOURCE, and write a row for each as Parquet files in the folder DEST. A bad image gives a
row with an error; the others are done, and the exit status is 1.

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
    detect = add_verb(actions, "detect", run, "find objects, a row an image", DETECT)
    detect.add_argument("source", metavar="SOURCE", help="folder, list, Parquet table, or an address of one")
    add_output(detect, "folder or address for the Parquet files", "DEST", required=True)
    add_model(detect)
    add = detect.add_argument
    add("--address", help="of a Ray cluster, or auto (default: RAY_ADDRESS, otherwise all cores of this machine)")
    add("--actors", type=positive_int, metavar="N", help="processes, one a core (default: one for each core)")
    add("--part", type=positive_int, default=64, metavar="N", help="images in a file of results (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.scale.ray_run import detect_on_ray

    report = detect_on_ray(
        arguments.source, arguments.output, model=arguments.model, address=arguments.address, actors=arguments.actors,
        images_a_part=arguments.part, progress=bar_for(arguments),
    )  # fmt: skip
    new, failed = report.images - report.resumed, sum(report.failed.values())
    rate = f" in {report.seconds:.0f} s, {report.images_a_second:.2f} images a second" if new else ""
    say(f"{report.images} images: {report.resumed} done before, {new} now{rate}")
    say(f"{failed} of {report.images} images failed" + (":" if failed else ""))
    for reason, count in report.failed.items():
        say(f"  {count}  {reason}")
    if report.missing or report.twice:
        say(f"{report.missing} images have no row, {report.twice} more than one; run the same command again")
    say(f"written: {arguments.output}")
    return EXIT_FAILED if failed or report.missing or report.twice else EXIT_OK
