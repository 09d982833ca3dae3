"""What ``sppnet train`` and ``sppnet scale maps`` have in common: which images, and how their maps are made."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import reading
from sppnet.cli.options import add_proposals, add_scales, name_list
from sppnet.errors import ArgumentError

if TYPE_CHECKING:
    from sppnet.datasets.training_splits import TrainingSplits
    from sppnet.detection.detector import SPPDetector

__all__ = ["add_maps", "add_splits", "add_training_scales", "maps_parameters", "training_splits"]


def add_splits(parser: Any) -> None:
    """``--split``, ``--val-split`` and ``--classes``."""
    add = parser.add_argument
    add("--split", metavar="NAME", help="split to train on (default: train, or all that isn't measured on)")
    add("--val-split", metavar="NAME", help="split to calibrate and measure on; 'none' for none (default: val, or one "
        "image in five)")  # fmt: skip
    add("--classes", type=name_list, metavar="A,B", help="only these classes of DATA; objects of others count as "
        "background (default: all)")  # fmt: skip


def add_training_scales(parser: Any) -> None:
    """``--scales``."""
    add_scales(parser, "short sides in pixels to which images are resized (default: 352 608). Each window uses the "
               "scale at which it is nearest to 224x224. A larger scale finds smaller objects, but time and disk grow "
               "with the sum of the squares")  # fmt: skip


def add_maps(parser: Any) -> None:
    """``--backbone``, ``--features``, ``--precision`` and ``--proposals``."""
    add = parser.add_argument
    add("--backbone", metavar="NAME", help="the convolutions; `sppnet backbones` lists them; take one with +mid "
        "(default: efficientnet-lite0+mid)")  # fmt: skip
    add("--features", choices=("spp", "rcnn"), default="spp", help="spp: the convolutions run once for each image. "
        "rcnn: once for each window, the slow baseline of the paper (default: %(default)s)")  # fmt: skip
    add("--precision", choices=("int8", "float32"), default="int8", help="of the convolutions, in training and use. "
        "int8 takes half the time; some backbones have float32 only (default: %(default)s)")  # fmt: skip
    add_proposals(parser, "fast")


def training_splits(arguments: argparse.Namespace, begun: SPPDetector | None = None) -> TrainingSplits:
    """Read the data set, and choose the images to train and to measure on.

    Args:
        arguments: of the command line.
        begun: what is trained further. Where it was trained on this data set, the same images are kept as then.
    """
    from sppnet.datasets.loading import read_dataset
    from sppnet.datasets.training_splits import load_training_splits
    from sppnet.detection.measure import split_seed, trained_on

    raw = read_dataset(arguments.data, **reading(arguments))

    def splits(seed: int) -> TrainingSplits:
        return load_training_splits(
            raw, arguments.split, arguments.val_split, class_names=arguments.classes, seed=seed,
            on_error=arguments.on_error,
        )  # fmt: skip

    if begun is None:
        return splits(arguments.seed)
    seed = split_seed(begun)
    chosen = splits(seed)
    if chosen.train.drawn is None or seed == arguments.seed or trained_on(begun, chosen.train):
        return chosen
    return splits(arguments.seed)


def maps_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """Parameters of the detector that windows and maps depend on; what isn't given is left out, but ``features``."""
    from sppnet.detection.options import FeatureOptions
    from sppnet.proposals.search import SelectiveSearch

    features: dict[str, Any] = {"method": arguments.features, "precision": arguments.precision}
    if arguments.scales is not None:
        if arguments.features == "rcnn":
            raise ArgumentError("--scales: rcnn cuts out every window, so it has no scales; leave it out")
        scales = tuple(sorted(set(arguments.scales)))
        # mirror images at 5/6 of them, so that each object is seen at two sizes
        features |= {"short_sides_px": scales, "flip_short_sides_px": tuple(max(16, s * 5 // 6) for s in scales)}
    backbone = {} if arguments.backbone is None else {"backbone": arguments.backbone}
    proposer = {} if arguments.proposals is None else {"proposer": SelectiveSearch(arguments.proposals)}
    return {"features": FeatureOptions(**features)} | backbone | proposer
