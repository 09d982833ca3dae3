"""``sppnet scale``: millions of images, on one machine or a cluster of Ray."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import EXIT_FAILED, EXIT_OK, bar_for, file_for_output, say
from sppnet.cli.options import (
    add_data,
    add_device,
    add_model,
    add_on_error,
    add_output,
    add_seed,
    add_verb,
    positive_int,
)
from sppnet.cli.training import add_maps, add_splits, add_training_scales, maps_parameters, training_splits

if TYPE_CHECKING:
    from sppnet.scale.ray_maps import MapsReport

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
MAPS = """\
Compute the windows and feature maps of a training data set that is too large for one machine, into the folder that
`sppnet train --cache DIR` reads them from. Give it the options that you give to `sppnet train`: what it finds there, it
doesn't compute. The images and DIR must have the same names on all machines, as on a shared file system.

An image that can't be decoded is left out, as training leaves it out; the others are done, and the exit status is 1.
What is left out before, while the data set is read (--on-error), is listed and changes no exit status, as in training.
Run the same command again after a stop or a crash: what is there isn't computed again.

It needs Ray: pip install 'sppnet[ray]'
"""
MAPS_EXAMPLES = """\
example:
  sppnet scale maps my-data --cache /shared/maps --address auto
  sppnet train my-data --cache /shared/maps -o my.safetensors
"""
COMMON = """\
A bad
image gives a row with an error; the others are done, and the exit status is 1.

Run the same command again after a stop or a crash: rows that are there are not done again.

SOURCE is one of:
  a folder                      all images in it and below; results of an earlier run in it don't count
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
        add_cluster(action)
        if name != "classify":
            add("--proposal-actors", type=positive_int, metavar="N", help="processes that decode images and find "
                "windows for the others (default: with --device cuda one for each core; otherwise none, and each "
                "process does all of an image)")  # fmt: skip
        part = "4" if name == "features" else "64; 16 where windows are found apart" if name == "detect" else "64"
        add("--part", type=positive_int, metavar="N", help=f"images in a file of results (default: {part})")
        add("--retry-failed", action="store_true", help="try images again that failed in an earlier run")
    maps = add_verb(actions, "maps", run_maps, "windows and feature maps of a training data set", MAPS, MAPS_EXAMPLES)
    add_data(maps)
    add_splits(maps)
    maps.add_argument("--cache", metavar="DIR", required=True, help="folder for feature maps and windows, which all "
                      "machines share")  # fmt: skip
    add_training_scales(maps)
    add_seed(maps, "the images that are kept to measure on")
    add_on_error(maps, "annotations that can't be used")
    add_maps(maps.add_argument_group("as in training"))
    add_cluster(maps)


def add_cluster(parser: Any) -> None:
    """``--address``, ``--device`` and ``--actors``."""
    parser.add_argument("--address", help="of a Ray cluster, or auto (default: RAY_ADDRESS, otherwise all cores of "
                        "this machine)")  # fmt: skip
    add_device(parser)
    parser.add_argument("--actors", type=positive_int, metavar="N", help="processes (default: one for each core, or "
                        "each GPU with --device cuda)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from pathlib import Path

    from sppnet.scale.places import is_address
    from sppnet.scale.ray_run import run_on_ray
    from sppnet.scale.work import Task

    if not is_address(arguments.output):
        file_for_output(Path(arguments.output) / ".none.parquet")  # before the source is read and Ray is started
    options = {name: getattr(arguments, name) for name in ("vectors", "top", "device") if hasattr(arguments, name)}
    part = arguments.part or (4 if arguments.action == "features" else None)  # vectors of an image are 8 MB
    report = run_on_ray(
        arguments.source, arguments.output, Task(arguments.action, arguments.model, **options),
        address=arguments.address, actors=arguments.actors,
        proposal_actors=getattr(arguments, "proposal_actors", None), images_a_part=part,
        retry_failed=arguments.retry_failed, progress=bar_for(arguments),
    )  # fmt: skip
    new, failed = report.images - report.resumed, sum(report.failed.values())
    rate = f" in {report.seconds:.0f} s, {report.images_a_second:.2f} images a second" if new else ""
    say(f"{report.images} images: {report.resumed} done before, {new} now{rate}")
    if report.retried:
        say(f"{report.retried} that had failed were tried again")
    _say_failed(report.failed, report.images)
    if report.missing:
        say(f"{report.missing} images have no row; run the same command again")
    if report.twice:
        say(f"{report.twice} rows too many: two runs wrote there at a time. Those of an image are equal; use one")
    say(f"written: {arguments.output}")
    return EXIT_FAILED if failed or report.missing or report.twice else EXIT_OK


def run_maps(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from pathlib import Path

    from sppnet.detection.detector import SPPDetector
    from sppnet.scale.cluster import import_ray
    from sppnet.scale.ray_maps import maps_on_ray

    import_ray()  # before the data set is read
    file_for_output(Path(arguments.cache) / ".none.safetensors", "--cache")
    splits = training_splits(arguments)
    validation = splits.validation
    for problem in (*splits.train.problems, *(() if validation is None else validation.problems)):
        say(f"left out: {problem}")
    for note in splits.notes:
        say(note)
    report = maps_on_ray(
        SPPDetector(**maps_parameters(arguments)), splits.train, validation, cache=arguments.cache,
        device=arguments.device, address=arguments.address, actors=arguments.actors, progress=bar_for(arguments),
    )  # fmt: skip
    return _say_maps(report, arguments.cache)


def _say_maps(report: MapsReport, cache: str) -> int:
    failed = sum(report.failed.values())
    new = report.images - report.resumed - failed
    rate = f" in {report.seconds:.0f} s, {new / report.seconds:.2f} images a second" if new else ""
    say(f"{report.images} images: {report.resumed} done before, {new} now{rate}")
    for problem in report.problems[:20]:
        say(f"left out: {problem}")
    if more := len(report.problems[20:]):
        say(f"left out: {more} more")
    _say_failed(report.failed, report.images)
    if report.missing:
        say(f"{report.missing} images have no maps in {cache} on this machine; name a folder that all machines share")
    if report.images > failed:
        say(f"written: {cache}")
    return EXIT_FAILED if failed or report.missing else EXIT_OK


def _say_failed(failed: Mapping[str, int], images: int) -> None:
    count = sum(failed.values())
    say(f"{count} of {images} images failed" + (":" if count else ""))
    for reason, number in failed.items():
        say(f"  {number}  {reason}")
