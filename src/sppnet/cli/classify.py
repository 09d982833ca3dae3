"""``sppnet classify``: what is in an image, as a whole."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import FileFailures, check_outputs, collect_images, progress, say, write_json
from sppnet.cli.options import add_compute, add_images, add_model, add_on_error, add_verb, add_views, positive_int

if TYPE_CHECKING:
    from sppnet.classification.image_classifier import Guess

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

    check_outputs(arguments, json="classes.json")
    images = collect_images(arguments.images)
    classifier = ImageClassifier.load(arguments.model, device=arguments.device).with_views(
        arguments.views, arguments.scales
    )
    failures = FileFailures(arguments.on_error)
    found: dict[Path, list[Guess]] = {}
    width = max(5, *(len(str(p)) for p in images))
    say(f"{'image':<{width}}  probability  class")
    for image in progress(images, "classifying", quiet=arguments.quiet or len(images) == 1):
        with failures.catch(image):
            found[image] = classifier.classify(image, arguments.top)
            for i, guess in enumerate(found[image]):
                say(f"{str(image) if i == 0 else '':<{width}}  {guess.probability:11.3f}  {guess.class_name}")
    if arguments.json:
        document = {
            "classes": len(classifier.class_names_),
            "views": [view.to_dict() for view in classifier.views],
            "images": [
                {"image": str(image), "classes": [_plain(g) for g in guesses]} for image, guesses in found.items()
            ],
            "failed": [{"image": str(image), "error": message} for image, message in failures.failed],
        }
        write_json(arguments.json, document)
    if failures.failed:
        say(failures.summary(len(images)))
    return failures.exit_status


def _plain(guess: Guess) -> dict[str, object]:
    return {"class_name": guess.class_name, "class_id": guess.class_id, "probability": round(guess.probability, 5)}
