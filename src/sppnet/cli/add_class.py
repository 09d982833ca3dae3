"""``sppnet add-class``: more classes for a trained detector."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sppnet.cli.common import bar_for, file_for_output, load_detector, reading, remove_own_cache, say, warn
from sppnet.cli.data_warnings import warn_of_data
from sppnet.cli.options import (
    add_compute,
    add_data,
    add_model,
    add_on_error,
    add_output,
    add_seed,
    add_verb,
    name_list,
    positive_int,
)

__all__ = ["add_parser"]

DESCRIPTION = """\
Add classes to a detector. Only their own SVMs and box regressors are trained, in seconds.

Weights and confidences of the classes that the detector has already stay the same to the last bit. Confidences and
thresholds of the new classes are calibrated by cross-validation over the images of DATA.

Everything that isn't annotated as a new class counts as background, in DATA and in --background. So look through these
images first: an object of the new class without a box teaches the detector not to find it.
"""
EXAMPLES = """\
examples:
  sppnet add-class mugs -o more.safetensors                 mugs, besides the 20 VOC classes
  sppnet add-class mugs --model my.safetensors -o more.safetensors --background holiday/
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "add-class", run, "add classes to a detector, in seconds", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add_data(parser)
    add_model(parser)
    add_output(parser, "the detector to write (.safetensors)", required=True)
    add("--classes", type=name_list, metavar="A,B", help="which classes of DATA to add (default: all that the detector "
        "lacks)")  # fmt: skip
    add("--split", metavar="NAME", help="only this split of DATA (default: all images)")
    add("--background", metavar="DATA", help="more images that show what the new classes are not: a data set, or a "
        "folder of images")  # fmt: skip
    add("--cache", metavar="DIR", help="folder for windows and feature maps (default: OUTPUT.cache, removed at the "
        "end)")  # fmt: skip
    add("--folds", type=positive_int, default=4, metavar="N", help="of the cross-validation (default: %(default)s)")
    add_seed(parser)
    add_on_error(parser)
    add_compute(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.datasets.assembling import assemble
    from sppnet.datasets.background import load_background
    from sppnet.datasets.loading import read_dataset
    from sppnet.datasets.readable import without_damaged

    output = file_for_output(arguments.output)
    cache = Path(arguments.cache or f"{output}.cache")
    file_for_output(cache / "maps", "--cache")
    detector = load_detector(arguments)
    bar = bar_for(arguments)
    on_error = arguments.on_error
    raw = read_dataset(arguments.data, **reading(arguments))
    dataset = assemble(raw, arguments.split, on_error=on_error, limit_bad=True)
    dataset = without_damaged(dataset, on_error=on_error, progress=bar)
    background = None
    if arguments.background:
        background = load_background(arguments.background, on_error=on_error)
        background = without_damaged(background, on_error=on_error, progress=bar)
    for problem in (*dataset.problems, *(background.problems if background else ())):
        say(f"left out: {problem}")
    warn_of_data(arguments, raw)
    names = arguments.classes
    new = names or [name for name in dataset.class_names if name not in detector.class_names_]
    more = f" and {len(background)} of {arguments.background}" if background else ""
    if new:
        where = f"in {len(dataset)} images{more}"
        say(f"{', '.join(new)}: whatever isn't annotated as such, {where}, counts as background")
    _warn_of_known(new, detector.class_names_)
    result = detector.add_classes(
        dataset, class_names=names, background=background, folds=arguments.folds, cache=cache, seed=arguments.seed,
        progress=bar,
    )  # fmt: skip
    result.save(output, result.metadata_.get("precision", "int8"))
    if arguments.cache is None:
        remove_own_cache(cache)
    say(f"{output}: {len(result.class_names_)} classes. Use it with:")
    say(f"  sppnet detect IMAGE --model {shlex.quote(str(output))}")
    return 0


def _warn_of_known(new: Sequence[str], known: Sequence[str]) -> None:
    """Say which new classes are perhaps among those that the detector has, in a line."""
    from sppnet.datasets.class_spelling import nearly_alike

    pairs = [(name, other) for name in new for other in known if name != other and nearly_alike(name, other)]
    if pairs:
        listed = ", ".join(f"{name!r} (the detector has {other!r})" for name, other in pairs)
        warn(f"new classes that are spelt almost like known ones: {listed}; don't add them if they are the same")
