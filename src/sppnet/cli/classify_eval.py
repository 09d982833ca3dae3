"""``sppnet classify-eval``: how good a classifier is."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import bar_for, check_outputs, plot_for_output, say, write_json
from sppnet.cli.options import add_compute, add_model, add_on_error, add_rename, add_verb, add_views
from sppnet.errors import ArgumentError

__all__ = ["add_parser"]

DESCRIPTION = """\
Measure a classifier on images that lie in one folder for each class: top-1 and top-5 accuracy, mean class accuracy, and
which classes it takes for which.

Of a folder with splits (DIR/train, DIR/val, DIR/test) val is taken, otherwise test. Of the images that a classifier was
trained on, those that training kept to measure on are taken.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "classify-eval", run, "measure a classifier on images in folders", DESCRIPTION)
    add = parser.add_argument
    add("data", metavar="DIR", help="folder with one folder for each class, or with a folder for each split")
    add_model(parser, "classifier", "1000 ImageNet classes")
    add("--split", metavar="NAME", help="split to measure on (default: val, otherwise test, otherwise all)")
    add("--list", metavar="FILE", help="only the images that this file names: CLASS/image.jpg, one a line, relative to "
        "DIR")  # fmt: skip
    add_rename(parser)
    add_views(parser)
    add("--confusion", metavar="FILE", help="draw the confusion matrix (.png, .svg, .pdf; needs matplotlib)")
    add("--json", metavar="FILE", help="write the figures and the confusion matrix as JSON")
    add_on_error(parser, "images that can't be read")
    add_compute(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.measure import load_test_images, measure_classifier
    from sppnet.datasets.renaming import parse_renames
    from sppnet.evaluation.classification import format_classification, plot_confusion

    if arguments.split is not None and arguments.list is not None:
        raise ArgumentError("--split, --list: both say which images; give one of them")
    if arguments.confusion:
        plot_for_output(arguments.confusion, "--confusion")
    check_outputs(arguments, json="figures.json")
    classifier = ImageClassifier.load(arguments.model, device=arguments.device)
    classifier = classifier.with_views(arguments.views, arguments.scales)
    data, note = load_test_images(
        classifier, arguments.data, arguments.split, list_file=arguments.list, on_error=arguments.on_error,
        rename=parse_renames(arguments.rename),
    )  # fmt: skip
    result, problems = measure_classifier(
        classifier, data, on_error=arguments.on_error, progress=bar_for(arguments)
    )  # fmt: skip
    for line in filter(None, [*(f"left out: {problem}" for problem in (*data.problems, *problems)), note]):
        say(line)
    say(format_classification(result))
    if arguments.confusion:
        plot_confusion(result, arguments.confusion)
        say(f"written: {arguments.confusion}")
    if arguments.json:
        document = result.to_dict() | {
            "data": f"{data.name} {data.split}".strip(),
            "views": [view.to_dict() for view in classifier.views],
            "confusion": result.confused(),
            "left_out": [*data.problems, *problems],
        }
        write_json(arguments.json, document)
    return 0
