"""``sppnet classify``: what is in an image, as a whole."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import bar_for, check_outputs, failure_status, say, write_json
from sppnet.cli.options import add_compute, add_images, add_model, add_on_error, add_verb, add_views, positive_int

__all__ = ["add_parser"]

DESCRIPTION = """\
Tell what images show: the most probable of the 1000 ImageNet classes, or of your own classes with --model.

Images of any size and shape are taken as they are; nothing has to be cropped. An image that can't be read is reported
and the others are done; the exit status is then 1.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "classify", run, "tell what images show", DESCRIPTION)
    add_images(parser)
    add_model(parser, "classifier", "1000 ImageNet classes")
    parser.add_argument("--top", type=positive_int, default=5, metavar="N", help="classes to print for each image "
                        "(default: %(default)s)")  # fmt: skip
    add_views(parser)
    parser.add_argument("--json", metavar="FILE", help="write the classes of every image as JSON")
    add_on_error(parser, "images that can't be read")
    add_compute(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.run import classes_document, classify_many
    from sppnet.images import find_images

    check_outputs(arguments, json="classes.json")
    images = find_images(arguments.images)
    classifier = ImageClassifier.load(arguments.model, device=arguments.device)
    classifier = classifier.with_views(arguments.views, arguments.scales)
    bar = bar_for(arguments, hidden=len(images) == 1)
    job = classify_many(classifier, images, top=arguments.top, on_error=arguments.on_error, progress=bar)
    width = max(5, *(len(str(p)) for p in images))
    say(f"{'image':<{width}}  probability  class")
    results = []
    for result in job:
        results.append(result)
        for i, guess in enumerate(result.guesses):
            say(f"{str(result.path) if i == 0 else '':<{width}}  {guess.probability:11.3f}  {guess.class_name}")
    if arguments.json:
        write_json(arguments.json, classes_document(classifier, results, job.failed))
    return failure_status(job.failed, len(images))
