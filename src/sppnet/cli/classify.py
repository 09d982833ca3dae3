"""``sppnet classify``: what is in a photo, as a whole."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import FileFailures, add_quiet, collect_images, positive_int, progress, write_atomic

if TYPE_CHECKING:
    from sppnet.classification.photos import Guess

__all__ = ["add_parser"]

DESCRIPTION = """\
Tell what photos show: the most probable of the 1000 ImageNet classes, or of your own classes with --model.

Photos of any size and shape are taken as they are; nothing has to be cropped. A photo that can't be read is reported
and the others are done; the exit status is then 1.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "classify", help="tell what photos show", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("photos", nargs="+", metavar="PHOTO|DIR", help="picture files, or folders of them")
    parser.add_argument(
        "--model", metavar="FILE", help="a classifier that PhotoClassifier.save wrote (default: 1000 ImageNet classes)"
    )
    parser.add_argument("--top", type=positive_int, default=5, metavar="N", help="classes a photo (default: 5)")
    parser.add_argument(
        "--sizes", type=positive_int, nargs="+", metavar="PX",
        help="short sides at which the photo is looked at; of several the outputs are averaged",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the classes of every photo as JSON")
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from dataclasses import replace

    from sppnet.classification.photos import PhotoClassifier

    photos = collect_images(arguments.photos)
    classifier = PhotoClassifier.load(arguments.model)
    if arguments.sizes:
        # the views of the model (whole, crop, ...), each at every size
        kinds = dict.fromkeys(replace(view, side_px=224) for view in classifier.views)
        classifier.views = tuple(replace(kind, side_px=side) for side in arguments.sizes for kind in kinds)
    failures = FileFailures()
    found: dict[Path, list[Guess]] = {}
    width = max(5, *(len(str(p)) for p in photos))
    bar = progress(photos, "classifying", quiet=arguments.quiet or len(photos) == 1)
    bar.write(f"{'photo':<{width}}  probability  class")
    for photo in bar:
        with failures.catch(photo):
            found[photo] = classifier.classify(photo, arguments.top)
            bar.write(
                "\n".join(
                    f"{str(photo) if i == 0 else '':<{width}}  {guess.probability:11.3f}  {guess.class_name}"
                    for i, guess in enumerate(found[photo])
                )
            )
    if arguments.json:
        document = {
            "classes": len(classifier.class_names_),
            "views": [view.to_dict() for view in classifier.views],
            "photos": [
                {
                    "photo": str(p),
                    "classes": [
                        {"class_name": g.class_name, "index": g.index, "probability": round(g.probability, 5)}
                        for g in gs
                    ],
                }
                for p, gs in found.items()
            ],
            "failed": [{"photo": str(p), "error": message} for p, message in failures.failed],
        }
        with write_atomic(Path(arguments.json)) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"written: {arguments.json}")
    if failures.failed:
        print(failures.summary(len(photos)))
    return failures.exit_status
