"""Options that several verbs have in common: one name and one meaning for each, and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

__all__ = [
    "DATA_FORMATS",
    "WRITTEN_FORMATS",
    "add_compute",
    "add_data",
    "add_device",
    "add_format",
    "add_general",
    "add_images",
    "add_mirror",
    "add_model",
    "add_on_error",
    "add_output",
    "add_proposals",
    "add_rename",
    "add_scales",
    "add_seed",
    "add_verb",
    "add_views",
    "fraction",
    "name_list",
    "pixels",
    "positive_int",
    "positive_number",
]

# The same as sppnet.datasets.loading.FORMATS, which would import numpy here; a test compares them
DATA_FORMATS = (
    *("voc", "coco", "yolo", "csv", "labelme", "cvat", "label-studio", "via", "makesense", "createml", "supervisely"),
    *("keras-yolo", "kitti", "vott", "fiftyone"),
)
# The same as sppnet.datasets.writing.WRITTEN_FORMATS
WRITTEN_FORMATS = ("voc", "coco", "yolo", "csv", "labelme", "cvat")
# At 4000 px an image takes 2.1 GB and 20 s
LEAST_PX, LARGEST_PX = 32, 4000
_LARGEST_SEED = 2**63 - 1


# --- types -----------------------------------------------------------------------------------------------------------


def positive_int(text: str) -> int:
    """An argparse type: a whole number, at least 1."""
    value = _number(text, int)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number, at least 1")
    return int(value)


def pixels(text: str) -> int:
    """An argparse type: the short side of an image in pixels, within what memory allows."""
    value = _number(text, int)
    if value is None or not LEAST_PX <= value <= LARGEST_PX:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {LEAST_PX} to {LARGEST_PX} pixels")
    return int(value)


def seed(text: str) -> int:
    """An argparse type: a whole number that random generators accept."""
    value = _number(text, int)
    if value is None or not 0 <= value <= _LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number, 0 or more")
    return int(value)


def fraction(text: str) -> float:
    """An argparse type: a number in [0, 1]."""
    value = _number(text, float)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 0 to 1")
    return value


def positive_number(text: str) -> float:
    """An argparse type: a finite number above 0."""
    value = _number(text, float)
    if value is None or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return value


def name_list(text: str) -> list[str]:
    """An argparse type: names with commas between them, as in ``cat,dog``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected names with commas between them, each once")
    return names


def _number(text: str, kind: type[int] | type[float]) -> float | int | None:
    try:
        return kind(text)
    except ValueError:
        return None


# --- verbs and options -----------------------------------------------------------------------------------------------


def add_verb(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    description: str | None = None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """Register a verb and give back its parser.

    Args:
        subparsers: where the verb belongs.
        name: of the verb.
        run: does the work and returns the exit status.
        help: one line in the list of verbs.
        description: the text above the options. Default: ``help`` as a sentence.
        epilog: the text below the options.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=help, description=description or f"{help[0].upper()}{help[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(func=run)
    return parser


def add_general(parser: argparse.ArgumentParser) -> None:
    """``--quiet``, ``--verbose`` and ``--debug``, which every verb has."""
    group = parser.add_argument_group("messages")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes; only results and errors")
    group.add_argument("-v", "--verbose", action="store_true", help="tell more about what is done")
    group.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def add_model(parser: argparse.ArgumentParser, what: str = "detector", default: str = "20 VOC classes") -> None:
    """``--model``."""
    verb = "train" if what == "detector" else "classify-train"
    parser.add_argument("--model", metavar="FILE", help=f"a {what} from `sppnet {verb}` (default: the one that comes "
                        f"with sppnet, {default})")  # fmt: skip


def add_output(parser: argparse.ArgumentParser, help: str, metavar: str = "FILE", *, required: bool = False) -> None:
    """``-o``, ``--output``."""
    parser.add_argument("-o", "--output", required=required, metavar=metavar, help=help)


def add_images(parser: argparse.ArgumentParser, **more: Any) -> None:
    """The positional images and folders."""
    parser.add_argument("images", **({"nargs": "+"} | more), metavar="IMAGE|DIR",
                        help="image files, and folders of them")  # fmt: skip


def add_data(parser: argparse.ArgumentParser) -> None:
    """The positional data set, and how to read it."""
    parser.add_argument("data", metavar="DATA", help="folder or file of the data set; `sppnet data check` inspects it")
    add_format(parser)


def add_rename(parser: Any) -> None:
    """``--rename``."""
    parser.add_argument("--rename", action="append", metavar="OLD=NEW", help="another name for a class, as in "
                        "couch=sofa; may be repeated")  # fmt: skip


def add_format(parser: Any) -> None:
    """``--format``, ``--images`` and ``--rename``: how to read a data set."""
    parser.add_argument("--format", metavar="FORMAT", choices=DATA_FORMATS, help="format of the data set: "
                        f"{', '.join(DATA_FORMATS)} (default: recognised)")  # fmt: skip
    parser.add_argument("--images", dest="image_folder", metavar="DIR", help="folder with the images of the data set "
                        "(default: found by their names)")  # fmt: skip
    add_rename(parser)


def add_on_error(parser: Any, what: str = "images and annotations that can't be used", help: str = "") -> None:
    """``--on-error`` and ``--strict``."""
    help = help or f"what to do with {what}: skip leaves them out and lists them, fail stops (default: %(default)s)"
    parser.add_argument("--on-error", choices=("skip", "fail"), default="skip", help=help)
    parser.add_argument("--strict", dest="on_error", action="store_const", const="fail", help="same as --on-error fail")


def add_scales(parser: Any, help: str) -> None:
    """``--scales``: short sides in pixels."""
    parser.add_argument("--scales", type=pixels, nargs="+", metavar="PX", help=help)


def add_mirror(parser: Any) -> None:
    """``--mirror``."""
    parser.add_argument("--mirror", action="store_true", help="look at the mirror image, too, and take the mean: finds "
                        "more, and takes nearly twice as long")  # fmt: skip


def add_proposals(parser: Any, default: str = "as stored in the model, usually fast") -> None:
    """``--proposals``: the mode of selective search."""
    parser.add_argument("--proposals", choices=("fast", "quality"), help="how windows are proposed. quality gives "
                        "windows that fit objects better, and takes about 1.5 times as long in all (default: "
                        f"{default})")  # fmt: skip


def add_views(parser: Any) -> None:
    """``--scales`` and ``--views`` of a classifier."""
    add_scales(parser, "short sides in pixels at which the image is looked at; the outputs are averaged")
    parser.add_argument("--views", choices=("full", "10", "96"), help="how an image is looked at, instead of the "
                        "model's way. full: all of it at once. 10: 10 windows of it. 96: 96 windows at six scales, for "
                        "small objects (about 20 times the time)")  # fmt: skip


def add_seed(parser: Any, what: str = "everything that is drawn at random") -> None:
    """``--seed``."""
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=f"of {what} (default: %(default)s)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                        help="what computes: the CPU or a GPU of NVIDIA (default: %(default)s)")  # fmt: skip


def add_compute(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    """``--threads``, and ``--device`` where the verb can use another one than the CPU."""
    if device:
        add_device(parser)
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: one for each core)")
