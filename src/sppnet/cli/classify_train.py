"""``sppnet classify-train``: a classifier of one's own, from photos in folders."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.classify_eval import add_folder_options, measure, plot_for_output
from sppnet.cli.common import EXIT_USAGE, add_quiet, file_for_output, fraction, positive_int, progress, remove_own_cache
from sppnet.cli.data import count_table, on_error, refuse_problems

if TYPE_CHECKING:
    from sppnet.classification.processes import Processes
    from sppnet.datasets.folder_splits import FolderSplits

__all__ = ["add_parser"]

DESCRIPTION = """\
Train a classifier on photos that lie in one folder a class (DIR/cat/1.jpg), or in such folders for each part
(DIR/train/cat/1.jpg, DIR/val/cat/2.jpg). Where there is no part to measure on, one photo in five of each class is kept
for that. Photos of any size and shape are taken as they are.

--method svm, the default: the convolutions stay as they were trained on ImageNet, and a linear SVM a class is trained
on the pooled vectors: minutes on a CPU.
--method sgd: the whole network is trained by gradient descent, from published weights or --from-scratch: hours, or a
GPU. `torchrun --nproc_per_node N -m sppnet.cli.main classify-train ...` does it in N processes.

A run that was stopped goes on where it was, by the same command. Ends with the accuracy on photos that weren't trained
on, and with the command to use it.
"""

# What belongs to one method only, and what it is where it isn't given
_SVM: dict[str, Any] = {"costs": (1.0, 10.0, 100.0), "flip": False}
_SGD: dict[str, Any] = {
    "from_scratch": False, "no_pyramid": False, "hidden": (512,), "dropout": 0.5, "size_choice": "alternate",
    "epochs": 30, "batch_size": 32, "learning_rate": 0.01, "precision": "float32", "device": None,
}  # fmt: skip


def positive_number(text: str) -> float:
    """An argparse type: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "classify-train", help="train a classifier on photos in folders", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("data", metavar="DIR", help="folder with one folder a class, or with a folder for each part")
    add("--output", required=True, metavar="MODEL", help="the classifier to write (.safetensors)")
    add("--method", choices=("svm", "sgd"), default="svm", help="see above (default: %(default)s)")
    add("--split", metavar="NAME", help="part to train on (default: train, or all that isn't measured on)")
    add("--val-split", metavar="NAME", help="part to measure on; 'none' for none (default: val, or one photo in five)")
    add("--train-list", metavar="FILE", help="instead of parts: the photos to train on, CLASS/photo.jpg, one a line, "
        "relative to DIR")  # fmt: skip
    add("--val-list", metavar="FILE", help="the same for those to measure on")
    add("--backbone", metavar="NAME", help="the convolutions; `sppnet backbones` lists them (default: "
        "efficientnet-lite0+stride32)")  # fmt: skip
    add("--levels", type=positive_int, nargs="+", default=(3, 2, 1), metavar="N",
        help="of the pyramid: NxN bins each (default: 3 2 1)")  # fmt: skip
    add("--mode", choices=("avg", "max"), help="of pooling (default: svm avg, sgd max)")
    add("--sizes", type=positive_int, nargs="+", metavar="PX",
        help="short sides of the photos. svm: each is looked at, vectors are averaged (default: 224). sgd: they are "
        "trained in turn (default: 224 180)")  # fmt: skip
    add("--view", choices=("full", "crop", "warp"),
        help="all of a photo at its own aspect, a square of it, or all of it made square (svm only) (default: svm "
        "full, sgd crop)")  # fmt: skip
    add("--cache", metavar="DIR", help="folder for what a run that is stopped goes on from (default: MODEL.cache, "
        "removed when training is done)")  # fmt: skip
    add("--seed", type=int, default=0, help="of all that is drawn at random (default: %(default)s)")
    add_folder_options(parser)
    svm = parser.add_argument_group("--method svm")
    svm.add_argument("--flip", action="store_true", default=None, help="look at mirror images too (twice the time)")
    svm.add_argument("--costs", type=positive_number, nargs="+", metavar="C", help="of which cross-validation takes "
                     "the best (default: 1 10 100)")  # fmt: skip
    sgd = parser.add_argument_group("--method sgd")
    add = sgd.add_argument
    add("--from-scratch", action="store_true", default=None, help="begin with random weights, not with published ones")
    add("--no-pyramid", action="store_true", default=None, help="pool with a fixed window, for comparison: one size")
    add("--hidden", type=positive_int, nargs="*", metavar="N", help="widths of the fully connected layers before the "
        "last; none makes it linear (default: 512)")  # fmt: skip
    add("--dropout", type=fraction, help="before each of those (default: 0.5)")
    add("--size-choice", choices=("alternate", "random"), help="random: each batch at any size between the least and "
        "the greatest of --sizes (default: alternate, one an epoch)")  # fmt: skip
    add("--epochs", type=positive_int, help=f"passes over the photos (default: {_SGD['epochs']})")
    add("--batch-size", type=positive_int, help=f"over all processes together (default: {_SGD['batch_size']})")
    add("--learning-rate", type=positive_number, help=f"at the start (default: {_SGD['learning_rate']})")
    add("--precision", choices=("float32", "bf16", "fp16"), help="of convolutions and matrix products; fp16 needs CUDA "
        "(default: float32)")  # fmt: skip
    add("--device", choices=("cpu", "cuda"), help="(default: cuda where there is one)")
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.classification.processes import join_processes
    from sppnet.errors import ArgumentError, ImageError, SppnetError

    _fill_in(arguments)
    with join_processes(arguments.device) as processes:
        try:
            if arguments.method == "svm" and processes.world > 1:
                raise ArgumentError("--method svm: works in one process; start it without torchrun")
            if arguments.confusion:
                if arguments.val_split == "none":
                    raise ArgumentError("--confusion: there is nothing to measure on with --val-split none")
                plot_for_output(arguments.confusion)
            return _run(arguments, processes)
        except ImageError:
            raise  # perhaps only this process knows
        except SppnetError:
            if processes.first:
                raise
            time.sleep(2)  # torchrun ends all of them when one fails, and the first one has still to say why
            return EXIT_USAGE


def _fill_in(arguments: argparse.Namespace) -> None:
    """Defaults of the method; options of the other one are refused."""
    from sppnet.errors import ArgumentError

    others, mine = (_SGD, _SVM) if arguments.method == "svm" else (_SVM, _SGD)
    for name in others:
        if getattr(arguments, name) is not None:
            raise ArgumentError(f"--{name.replace('_', '-')}: isn't an option of --method {arguments.method}")
    for name, value in mine.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.method == "svm":
        arguments.device = "cpu"
    elif arguments.view == "warp":
        raise ArgumentError("--view warp: isn't an option of --method sgd; take crop or full")
    for part, listed in (("split", "train_list"), ("val_split", "val_list")):
        if getattr(arguments, part) is not None and getattr(arguments, listed) is not None:
            options = (f"--{name.replace('_', '-')}" for name in (part, listed))
            raise ArgumentError(f"{', '.join(options)}: both say which photos; give one of them")


def _run(arguments: argparse.Namespace, processes: Processes) -> int:
    import shlex

    from sppnet.cli.classify_train_methods import as_saved, fit_svms, train_by_gradient
    from sppnet.datasets.folder_splits import load_folder_splits
    from sppnet.evaluation.classification import format_classification, plot_confusion

    output = file_for_output(arguments.output)
    cache = Path(arguments.cache or f"{output}.cache")
    file_for_output(cache / "photos", "--cache")
    parts = load_folder_splits(
        arguments.data, arguments.split, arguments.val_split, train_list=arguments.train_list,
        validation_list=arguments.val_list, seed=arguments.seed, on_error=on_error(arguments),
    )  # fmt: skip
    parts = _decodable(parts, cache, processes, arguments)
    if processes.first:
        for part in (parts.train, parts.validation):
            for problem in part.problems if part is not None else ():
                print(f"left out: {problem}")
        for note in parts.notes:
            print(note)
        print(_table(parts), flush=True)
    method = fit_svms if arguments.method == "svm" else train_by_gradient
    classifier = as_saved(method(arguments, parts, cache, processes), processes.device)
    if parts.validation is not None:
        result, _ = measure(classifier, parts.validation, processes, quiet=arguments.quiet)
        name = f"{parts.validation.name} {parts.validation.split}".strip()
        classifier.metadata_["metrics"] = result.to_dict() | {"data": name}
    if not processes.first:
        return 0
    if parts.validation is not None:
        print(f"\nmeasured on {name}: {format_classification(result)}")
        if arguments.confusion:
            plot_confusion(result, arguments.confusion)
            print(f"written: {arguments.confusion}")
    classifier.save(output)
    if arguments.cache is None:
        remove_own_cache(cache)
    size = output.stat().st_size / 1e6
    print(f"\n{output}: {size:.2g} MB, {len(classifier.class_names_)} classes. Use it with:")
    print(f"  sppnet classify PHOTO --model {shlex.quote(str(output))}")
    return 0


def _table(parts: FolderSplits) -> str:
    """Photos of each class in both parts."""
    used = {"train": parts.train} | ({"measure": parts.validation} if parts.validation is not None else {})
    counts = {title: dict(zip(data.class_names, map(int, data.counts()), strict=True)) for title, data in used.items()}
    return count_table(
        parts.train.class_names, counts, {title: len(data) for title, data in used.items()}, what="photos"
    )


def _decodable(parts: FolderSplits, cache: Path, processes: Processes, arguments: argparse.Namespace) -> FolderSplits:
    """Without photos that can't be decoded; with ``--on-error fail`` such a photo ends it all, now and not in the end.

    Every process decodes its share.
    """
    from dataclasses import replace
    from typing import NamedTuple

    import torch

    from sppnet.cli.train_resume import DecodedPictures
    from sppnet.datasets.folder_splits import damage, refuse_small_classes

    class Photo(NamedTuple):
        path: Path

    both = [data for data in (parts.train, parts.validation) if data is not None]
    photos = [Photo(path) for data in both for path in data.paths]
    done = DecodedPictures(cache)
    todo = [i for i in processes.share(len(photos)) if photos[i] not in done]
    bad = torch.zeros(len(photos))
    for i in progress(todo, "checking photos", quiet=arguments.quiet or not processes.first):
        bad[i] = float(bool(damage(photos[i].path)))
    good = (processes.total(bad) == 0).numpy()
    if processes.first:
        done.add(photo for photo, fine in zip(photos, good, strict=True) if fine)
    if good.all():
        return parts
    problems = [damage(photo.path) for photo, fine in zip(photos, good, strict=True) if not fine]
    if arguments.on_error == "fail":
        refuse_problems(problems)
    train = parts.train.subset(good[: len(parts.train)])
    train = replace(train, problems=(*parts.train.problems, *problems))
    refuse_small_classes(Path(arguments.data), train)
    if parts.validation is None:
        return replace(parts, train=train)
    validation = parts.validation.subset(good[len(parts.train) :])
    return replace(parts, train=train, validation=replace(validation, problems=parts.validation.problems))
