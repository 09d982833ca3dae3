"""``sppnet classify-train``: a classifier of one's own, from images in folders."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import bar_for, file_for_output, plot_for_output, remove_own_cache, run_joined, say
from sppnet.cli.options import (
    add_compute,
    add_on_error,
    add_output,
    add_rename,
    add_scales,
    add_seed,
    add_verb,
    fraction,
    positive_int,
    positive_number,
)
from sppnet.errors import ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from sppnet._types import Progress
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.datasets.folder_splits import FolderSplits
    from sppnet.processes import Processes

__all__ = ["add_parser"]

DESCRIPTION = """\
Train a classifier on images that lie in one folder for each class (DIR/cat/1.jpg), or in such folders for each split
(DIR/train/cat/1.jpg, DIR/val/cat/2.jpg). If there is no split to measure on, one image in five of each class is kept
for that; images that look alike stay together. Images of any size and shape are taken as they are.

--method svm (default): the convolutions stay as they were trained on ImageNet, and a linear SVM for each class is
trained on the pooled vectors. Takes minutes on a CPU.
--method sgd: the whole network is trained by gradient descent, from published weights or --from-scratch. Takes hours,
or a GPU. `torchrun --nproc_per_node N -m sppnet classify-train ...` does it in N processes.

If a run is stopped, the same command goes on from there. At the end you get the accuracy on images that weren't trained
on, and the command to use the classifier.
"""

# Options of one method only, and their values where they aren't given
_SVM: dict[str, Any] = {"costs": (1.0, 10.0, 100.0), "flip": False}
_SGD: dict[str, Any] = {
    "from_scratch": False, "no_pyramid": False, "hidden": (512,), "dropout": 0.5, "size_choice": "alternate",
    "epochs": 30, "batch_size": 32, "learning_rate": 0.01, "precision": "float32",
}  # fmt: skip


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "classify-train", run, "train a classifier on images in folders", DESCRIPTION)
    add = parser.add_argument
    add("data", metavar="DIR", help="folder with one folder for each class, or with a folder for each split")
    add_output(parser, "the classifier to write (.safetensors)", required=True)
    add("--method", choices=("svm", "sgd"), default="svm", help="see above (default: %(default)s)")
    add("--split", metavar="NAME", help="split to train on (default: train, or all that isn't measured on)")
    add("--val-split", metavar="NAME", help="split to measure on; 'none' for none (default: val, "
        "otherwise one image in five)")  # fmt: skip
    add("--train-list", metavar="FILE", help="instead of splits: the images to train on, CLASS/image.jpg, one a line, "
        "relative to DIR")  # fmt: skip
    add("--val-list", metavar="FILE", help="the same for the images to measure on")
    add_rename(parser)
    add("--backbone", metavar="NAME", help="the convolutions; `sppnet backbones` lists them (default: "
        "efficientnet-lite0+stride32)")  # fmt: skip
    add("--weights", metavar="FILE", help="your own weights for the convolutions (.safetensors, or .pth for nets like "
        "vgg16 that have no published ones)")  # fmt: skip
    add("--levels", type=positive_int, nargs="+", metavar="N",
        help="of the pyramid: NxN bins each (default: 3 2 1)")  # fmt: skip
    add("--mode", choices=("avg", "max"), help="of pooling (default: avg for svm, max for sgd)")
    add_scales(parser, "short sides of the images in pixels. svm: vectors are averaged over them (default: 224). sgd: "
               "they are trained in turn (default: 224 180)")  # fmt: skip
    add("--view", choices=("full", "crop", "warp"), help="what is seen of an image: all of it at its own aspect, a "
        "square of it, or all of it made square (svm only) (default: full for svm, crop for sgd)")  # fmt: skip
    add("--cache", metavar="DIR", help="folder from which a stopped run goes on (default: OUTPUT.cache, removed at the "
        "end)")  # fmt: skip
    add("--confusion", metavar="FILE", help="draw the confusion matrix (.png, .svg, .pdf; needs matplotlib)")
    add_seed(parser)
    add_on_error(parser, "images that can't be read")
    add_compute(parser)
    svm = parser.add_argument_group("--method svm")
    svm.add_argument("--flip", action="store_true", default=None, help="look at mirror images too (twice the time)")
    svm.add_argument("--costs", type=positive_number, nargs="+", metavar="C", help="values of C of which "
                     "cross-validation takes the best (default: 1 10 100)")  # fmt: skip
    sgd = parser.add_argument_group("--method sgd")
    add = sgd.add_argument
    add("--from-scratch", action="store_true", default=None, help="begin with random weights, not with published ones")
    add("--no-pyramid", action="store_true", default=None, help="pool with a fixed window and train at one size, for "
        "comparison")  # fmt: skip
    add("--hidden", type=positive_int, nargs="*", metavar="N", help="widths of the fully connected layers before the "
        "last; without a number there are none (default: 512)")  # fmt: skip
    add("--dropout", type=fraction, metavar="P", help="before each of those (default: 0.5)")
    add("--size-choice", choices=("alternate", "random"), help="alternate: one of --scales in each epoch, in turn. "
        "random: any size between the smallest and the largest in each batch (default: alternate)")  # fmt: skip
    add("--epochs", type=positive_int, metavar="N", help=f"passes over the images (default: {_SGD['epochs']})")
    add("--batch-size", type=positive_int, metavar="N", help="images in a step, over all processes together (default: "
        f"{_SGD['batch_size']})")  # fmt: skip
    add("--learning-rate", type=positive_number, metavar="R", help=f"at the start (default: {_SGD['learning_rate']})")
    add("--precision", choices=("float32", "bf16", "fp16"), help="of convolutions and matrix products; fp16 needs CUDA "
        "(default: float32)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    _fill_in(arguments)
    return run_joined(arguments, lambda processes: _run_checked(arguments, processes))


def _run_checked(arguments: argparse.Namespace, processes: Processes) -> int:
    if arguments.method == "svm" and processes.world > 1:
        raise ArgumentError("--method svm: works in one process; start it without torchrun")
    if arguments.confusion:
        if arguments.val_split == "none":
            raise ArgumentError("--confusion: there is nothing to measure on with --val-split none")
        plot_for_output(arguments.confusion, "--confusion")
    return _run(arguments, processes)


def _fill_in(arguments: argparse.Namespace) -> None:
    """Set defaults of the method; refuse options of the other one."""
    others, mine = (_SGD, _SVM) if arguments.method == "svm" else (_SVM, _SGD)
    for name in others:
        if getattr(arguments, name) is not None:
            raise ArgumentError(f"--{name.replace('_', '-')}: isn't an option of --method {arguments.method}")
    if arguments.no_pyramid and (arguments.levels is not None or arguments.mode is not None):
        given = "--levels" if arguments.levels is not None else "--mode"
        raise ArgumentError(f"{given}: there is no pyramid with --no-pyramid, and it takes maxima; leave it out")
    for name, value in {**mine, "levels": (3, 2, 1)}.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.method == "sgd" and arguments.view == "warp":
        raise ArgumentError("--view warp: isn't an option of --method sgd; take crop or full")
    for split, listed in (("split", "train_list"), ("val_split", "val_list")):
        if getattr(arguments, split) is not None and getattr(arguments, listed) is not None:
            options = (f"--{name.replace('_', '-')}" for name in (split, listed))
            raise ArgumentError(f"{', '.join(options)}: both say which images; give one of them")


def _run(arguments: argparse.Namespace, processes: Processes) -> int:
    from sppnet.classification.recipes import measure_as_saved, readable_splits
    from sppnet.datasets.folder_splits import load_folder_splits
    from sppnet.datasets.renaming import parse_renames
    from sppnet.evaluation.classification import format_classification, plot_confusion

    output = file_for_output(arguments.output)
    cache = Path(arguments.cache or f"{output}.cache")
    file_for_output(cache / "images", "--cache")
    bar = bar_for(arguments, hidden=not processes.first)
    splits = load_folder_splits(
        arguments.data, arguments.split, arguments.val_split, train_list=arguments.train_list,
        validation_list=arguments.val_list, seed=arguments.seed, on_error=arguments.on_error,
        rename=parse_renames(arguments.rename),
    )  # fmt: skip
    splits = readable_splits(
        splits, arguments.data, cache=cache, on_error=arguments.on_error, processes=processes, progress=bar
    )
    if processes.first:
        for split in (splits.train, splits.validation):
            for problem in split.problems if split is not None else ():
                say(f"left out: {problem}")
        for note in splits.notes:
            say(note)
        say(_table(splits))
    train = _train_svms if arguments.method == "svm" else _train_network
    classifier, result = measure_as_saved(
        train(arguments, splits, cache, processes, bar), splits, processes=processes, progress=bar
    )
    if not processes.first:
        return 0
    if result is not None:
        say(f"\nmeasured on {classifier.metadata_['metrics']['data']}: {format_classification(result)}")
        if arguments.confusion:
            plot_confusion(result, arguments.confusion)
            say(f"written: {arguments.confusion}")
    classifier.save(output)
    if arguments.cache is None:
        remove_own_cache(cache)
    size = output.stat().st_size / 1e6
    say(f"\n{output}: {size:.2g} MB, {len(classifier.class_names_)} classes. Use it with:")
    say(f"  sppnet classify IMAGE --model {shlex.quote(str(output))}")
    return 0


def _table(splits: FolderSplits) -> str:
    """Images of each class in both splits."""
    from sppnet.datasets.tables import count_table

    used = {"train": splits.train} | ({"measure": splits.validation} if splits.validation is not None else {})
    counts = {title: dict(zip(data.class_names, map(int, data.counts()), strict=True)) for title, data in used.items()}
    return count_table(
        splits.train.class_names, counts, {title: len(data) for title, data in used.items()}, what="images"
    )


def _train_svms(
    arguments: argparse.Namespace, splits: FolderSplits, cache: Path, _processes: Processes, bar: Progress
) -> ImageClassifier:
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.options import FROZEN_BACKBONE
    from sppnet.classification.recipes import train_frozen
    from sppnet.classification.views import View

    flips = (False, True) if arguments.flip else (False,)
    views = [View(side, arguments.view or "full", flip) for side in arguments.scales or (224,) for flip in flips]
    classifier = ImageClassifier(
        arguments.backbone or FROZEN_BACKBONE, arguments.levels, arguments.mode or "avg", views, arguments.costs,
        seed=arguments.seed, weights=arguments.weights, device=arguments.device,
    )  # fmt: skip
    return train_frozen(splits, classifier, cache=cache, progress=bar)


def _train_network(
    arguments: argparse.Namespace, splits: FolderSplits, cache: Path, processes: Processes, bar: Progress
) -> ImageClassifier:
    from sppnet.classification.curves import plot_history
    from sppnet.classification.options import FROZEN_BACKBONE, GradientOptions, NetworkOptions
    from sppnet.classification.recipes import train_by_gradient

    network = NetworkOptions(
        backbone=arguments.backbone or FROZEN_BACKBONE, weights=arguments.weights, from_scratch=arguments.from_scratch,
        levels=tuple(arguments.levels), pyramid=not arguments.no_pyramid, mode=arguments.mode or "max",
        hidden=tuple(arguments.hidden), dropout=arguments.dropout,
    )  # fmt: skip
    options = GradientOptions(
        epochs=arguments.epochs, batch_size=arguments.batch_size,
        sizes_px=tuple(arguments.scales or ((224,) if arguments.no_pyramid else (224, 180))),
        size_choice=arguments.size_choice, how=arguments.view or "crop", learning_rate=arguments.learning_rate,
        precision=arguments.precision, seed=arguments.seed,
    )  # fmt: skip
    classifier = train_by_gradient(
        splits, network, options, checkpoint=cache / "training.safetensors", processes=processes, progress=bar
    )
    if processes.first:
        curve = Path(arguments.output).with_name(f"{Path(arguments.output).stem}-curve.png")
        try:
            curve = plot_history(classifier.metadata_["training"]["history"], curve, replace=False)
            say(f"learning curve: {curve}")
        except MissingDependencyError as error:
            say(f"no learning curve: {error}")
    return classifier
