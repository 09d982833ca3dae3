"""``sppnet features``: vectors of windows, as safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sppnet.cli.common import bar_for, failure_status, file_for_output, load_detector, say
from sppnet.cli.options import (
    add_compute,
    add_images,
    add_model,
    add_on_error,
    add_output,
    add_proposals,
    add_scales,
    add_verb,
    positive_int,
)
from sppnet.errors import ArgumentError

__all__ = ["add_parser", "journal_of"]

DESCRIPTION = """\
Write a vector for each window of each image: pooled by the pyramid, or after the fully connected layers.

One safetensors file holds NAME/windows (K, 4), in pixels, and NAME/vectors (K, D) of every image. The windows are those
of selective search, or those of --windows, in their order. The size of the file is printed first; with --estimate
nothing else is done.

With several images, progress is saved next to the file, in FILE.journal and FILE.journal.body. If the run is stopped,
the same command goes on from there and gives the same file. When every image is done both are removed; where some
could not be read they stay, so that the same command does only these.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "features", run, "vectors of windows, for programs of your own", DESCRIPTION)
    add = parser.add_argument
    add_images(parser)
    add_output(parser, "the file to write (.safetensors)")
    add_model(parser)
    add("--kind", choices=("fc", "pooled"), default="fc", help="fc: after the fully connected layers; pooled: by the "
        "pyramid, from the feature map (default: %(default)s)")  # fmt: skip
    add("--windows", metavar="FILE", help="windows of each image, by its name (.npz, .json or .mat; `sppnet proposals` "
        "writes such files)")  # fmt: skip
    add(
        "--max-windows",
        type=positive_int,
        metavar="N",
        help="examine at most N windows of each image (default: as stored in the model, usually 2000)",
    )
    add_proposals(parser)
    add_scales(parser, "look at the image at these scales (short sides in pixels) instead of the model's own")
    add("--float16", action="store_true", help="half the size, about three digits")
    add("--fresh", action="store_true", help="start again, whatever a journal says")
    add("--estimate", action="store_true", help="only print how large the file would be")
    add_on_error(parser, "images that can't be read")
    add_compute(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.detection.vector_file import plan_vectors, write_vectors
    from sppnet.images import find_images
    from sppnet.proposals import load_proposals

    if not arguments.output and not arguments.estimate:
        raise ArgumentError("name the file to write with --output FILE, or ask for the size only with --estimate")
    if arguments.windows and arguments.proposals:
        raise ArgumentError("--proposals: windows come from --windows; leave one of them out")
    if arguments.windows and arguments.max_windows:
        raise ArgumentError("--max-windows: all windows of --windows are taken; leave one of them out")
    if arguments.output:
        file_for_output(arguments.output, example="vectors.safetensors")
    images = find_images(arguments.images)
    stored = load_proposals(arguments.windows) if arguments.windows else None
    detector = load_detector(arguments)
    plan = plan_vectors(
        detector, images, stored=stored, kind=arguments.kind, float16=arguments.float16, on_error=arguments.on_error
    )
    most = "" if plan.exact else "at most "
    what = f"{most}{plan.window_count} windows of {len(plan.windows)} images, {plan.length} numbers each"
    say(f"{what}, float{16 if plan.float16 else 32}: {most}{_size(plan.size_bytes)}")
    failed = list(plan.failed)
    if plan.windows and not arguments.estimate:
        written = write_vectors(
            detector,
            plan,
            arguments.output,
            model=Path(arguments.model).name if arguments.model else "default",
            journal=journal_of(arguments),
            fresh=arguments.fresh,
            on_error=arguments.on_error,
            progress=bar_for(arguments, hidden=len(images) == 1),
        )
        failed = list(written.failed)
        size = _size(Path(arguments.output).stat().st_size)
        say(f"written: {arguments.output}: {len(images) - len(failed)} images, {size}")
    again = "; run the same command again when they are mended" if journal_of(arguments) is not None else ""
    return failure_status(failed, len(images), "" if arguments.estimate else again)


def journal_of(arguments: argparse.Namespace) -> Path | None:
    """Where progress is saved: nowhere for a single image, or where nothing is written."""
    from sppnet.detection.run import journal_beside

    one = len(arguments.images) == 1 and not Path(arguments.images[0]).is_dir()
    return None if one or arguments.estimate or not arguments.output else journal_beside(arguments.output)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
