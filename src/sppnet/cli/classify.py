"""``sppnet classify``: what is in a photo, as a whole."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import FileFailures, add_quiet, collect_images, positive_int, progress, write_atomic

if TYPE_CHECKING:
    from sppnet.classification.image_classifier import Guess, ImageClassifier
    from sppnet.classification.multiview import AnyView

__all__ = ["add_parser", "add_view_options", "chosen_views"]

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
        "--model", metavar="FILE", help="a classifier from `sppnet classify-train` (default: 1000 ImageNet classes)"
    )
    parser.add_argument("--top", type=positive_int, default=5, metavar="N", help="classes a photo (default: 5)")
    add_view_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write the classes of every photo as JSON")
    add_quiet(parser)
    parser.set_defaults(func=run)


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """``--sizes`` and ``--views``, for :func:`chosen_views`."""
    parser.add_argument(
        "--sizes", type=positive_int, nargs="+", metavar="PX",
        help="short sides at which the photo is looked at; of several the outputs are averaged",
    )  # fmt: skip
    parser.add_argument(
        "--views", choices=("full", "10", "96"),
        help="how a photo is looked at, instead of the model's way: all of it at once; 10 windows of it; or 96 at six "
        "scales, for small objects (about 20 times the time). The convolutions see the whole photo in each case, once "
        "at each scale and once mirrored",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.classification.image_classifier import ImageClassifier

    photos = collect_images(arguments.photos)
    classifier = ImageClassifier.load(arguments.model)
    classifier.views = chosen_views(classifier, arguments.views, arguments.sizes)
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


def chosen_views(classifier: ImageClassifier, chosen: str | None, sizes: list[int] | None) -> tuple[AnyView, ...]:
    """What ``--views`` and ``--sizes`` say, or else the views of the model."""
    from dataclasses import replace

    from sppnet.classification.multiview import TEN_VIEWS, VIEWS_96
    from sppnet.classification.views import View
    from sppnet.errors import ArgumentError
    from sppnet.pooling.pyramid import SpatialPyramidPool

    own = tuple(classifier.views)
    side = min(view.side_px if isinstance(view, View) else view.window_px for view in own)
    if chosen in ("10", "96"):
        if not isinstance(classifier.network_.pool, SpatialPyramidPool):
            raise ArgumentError(f"--views {chosen}: this model has no pyramid, so it can't pool windows of a map")
        windows = (TEN_VIEWS if chosen == "10" else VIEWS_96).scaled(side)
        return (replace(windows, scales_px=tuple(sizes)) if sizes else windows,)
    if chosen == "full":
        own = (View(side),)
    if not sizes:
        return own
    # every kind of view (whole, crop, ...) at every size; windows of maps have scales already
    kinds = dict.fromkeys(replace(view, side_px=224) for view in own if isinstance(view, View))
    at_sizes = tuple(replace(kind, side_px=size) for size in sizes for kind in kinds)
    return (*at_sizes, *(replace(view, scales_px=tuple(sizes)) for view in own if not isinstance(view, View)))
