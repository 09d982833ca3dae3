"""``sppnet train``: a detector of one's own."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import bar_for, file_for_output, remove_own_cache, run_joined, say
from sppnet.cli.data_warnings import warn_of_data
from sppnet.cli.options import add_compute, add_data, add_on_error, add_output, add_seed, add_verb, positive_int
from sppnet.cli.training import add_maps, add_splits, add_training_scales, maps_parameters, training_splits
from sppnet.errors import ArgumentError

if TYPE_CHECKING:
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.detector import SPPDetector
    from sppnet.processes import Processes

__all__ = ["add_parser"]

DESCRIPTION = """\
Train a detector on images with boxes, on a CPU, in minutes. The data set may be in any of fifteen formats, such as
PASCAL VOC, COCO, YOLO, LabelMe, or a CSV table. If it has no split to measure on, one image in five is kept for that.

The convolutions are frozen, so each image goes through them once (and once more mirrored). What is trained is what
comes after the pooling. Feature maps and windows are kept in a cache folder, and a run that was stopped goes on from
there. At the end you get the average precision of each class, an image with the best and worst detections, and the
command to use the detector.
"""

_BUILT_IN = "voc20"  # as --model: the detector that comes with the package

EXAMPLES = """\
examples:
  sppnet train my-data -o my.safetensors
  sppnet train my-data -o my.safetensors --classes cat,dog --scales 352 608 1000
  sppnet train images --format coco --split train --val-split val -o my.safetensors
  sppnet train my-data -o tuned.safetensors --tune-convolutions --model my.safetensors
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "train", run, "train a detector on your own images", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add_data(parser)
    add_output(parser, "the detector to write (.safetensors)", required=True)
    add_splits(parser)
    add("--cache", metavar="DIR", help="folder for feature maps and windows (default: OUTPUT.cache, removed at the "
        "end)")  # fmt: skip
    add_training_scales(parser)
    add_seed(parser)
    add_on_error(parser)
    add_compute(parser)
    group = parser.add_argument_group("how it is trained")
    add = group.add_argument
    add("--epochs", type=positive_int, metavar="N", help="passes over the images (default: 6)")
    add("--tune-convolutions", action="store_true", help="train the last convolutions, too, after the layers behind "
        "the pooling and together with them. It gained -1 to 5 points, depending on the data, so compare "
        "both on images that were kept aside; training then takes up to ten times as long")  # fmt: skip
    add("--model", metavar="FILE", help="with --tune-convolutions: go on from this detector of the same classes, or "
        "from voc20, which comes with sppnet. Then only the tuning takes time (default: start anew)")  # fmt: skip
    add("--tune-epochs", type=positive_int, metavar="N", help="passes over the images with --tune-convolutions "
        "(default: 4)")  # fmt: skip
    add_maps(group)
    add("--layers", choices=("fc", "fc7", "pool"), default="fc", help="fc: one fully connected layer. fc7: two. pool: "
        "none; SVMs and ridge regression on the pooled windows, which is less accurate (default: "
        "%(default)s)")  # fmt: skip
    add("--classifier", choices=("softmax", "svm"), default="softmax", help="softmax: trained with the fully connected "
        "layer. svm: the paper's linear SVMs with hard negatives, after it (default: %(default)s)")  # fmt: skip
    add("--box-regression", choices=("joint", "ridge"), default="joint", help="joint: trained with the fully connected "
        "layer. ridge: the paper's, in closed form after it (default: %(default)s)")  # fmt: skip
    add("--weights", choices=("int8", "float16", "float32"), default="int8", help="how the large matrices behind the "
        "pooling are stored in the file; convolutions that were tuned in float32 at least as float16 (default: "
        "%(default)s)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    if arguments.tune_epochs is not None and not arguments.tune_convolutions:
        raise ArgumentError("--tune-epochs: needs --tune-convolutions")
    if arguments.epochs is not None and arguments.layers == "pool":
        raise ArgumentError("--epochs: --layers pool has no layer that is trained in epochs; leave one of them out")
    if arguments.model is not None:
        _check_model_options(arguments)
    if arguments.tune_convolutions:
        from sppnet.backbones.engines.load import has_engine

        if arguments.features == "rcnn":
            raise ArgumentError("--tune-convolutions: works through the pooling; leave out --features rcnn")
        if arguments.layers == "pool":
            raise ArgumentError("--tune-convolutions: needs a fully connected layer; leave out --layers pool")
        if arguments.backbone is not None and not has_engine(arguments.backbone):
            raise ArgumentError(
                f"--tune-convolutions: got --backbone {arguments.backbone}, expected an EfficientNet-Lite"
            )
    return run_joined(arguments, lambda processes: _run(arguments, processes))


def _run(arguments: argparse.Namespace, processes: Processes) -> int:
    from sppnet.datasets.readable import DecodedImages, without_damaged
    from sppnet.detection.estimate import check_disk, estimate_training
    from sppnet.detection.measure import doubts_about

    if processes.world > 1 and not arguments.tune_convolutions:
        raise ArgumentError("torchrun: several processes work together with --tune-convolutions only; use one")
    output = file_for_output(arguments.output)
    cache = Path(arguments.cache or f"{output}.cache")
    file_for_output(cache / "maps", "--cache")
    bar, on_error = bar_for(arguments, hidden=not processes.first), arguments.on_error
    detector = _detector(arguments, processes)
    begun = arguments.model is not None
    splits = training_splits(arguments, detector if begun else None)
    if begun:
        detector.check_tunable(splits.train.class_names)
    decoded = DecodedImages(cache)
    dataset = without_damaged(splits.train, on_error=on_error, known=decoded, progress=bar)
    if not processes.first:
        _learn(detector, dataset, cache, arguments, processes)
        return 0
    validation = splits.validation
    if validation is not None:
        validation = without_damaged(validation, on_error=on_error, known=decoded, progress=bar)
    for problem in (*dataset.problems, *(validation.problems if validation is not None else ())):
        say(f"left out: {problem}")
    if validation is not None and not validation.count_objects().any():
        say("the images to measure on have no object of these classes, so nothing is measured or calibrated")
        validation = None
    for note in (*splits.notes, *(doubts_about(detector, validation) if begun and validation is not None else ())):
        say(note)
    warn_of_data(arguments, splits.raw)
    say(_describe(dataset, validation))
    expected = estimate_training(detector, dataset, validation, begun=begun, processes=processes.world, progress=bar)
    if not arguments.quiet:
        say(expected.text(cache))
    check_disk(expected, cache)
    _train(detector, dataset, validation, output, cache, arguments, processes)
    if arguments.cache is None:
        remove_own_cache(cache)
    say(f"\n{output}: {output.stat().st_size / 1e6:.1f} MB, {len(detector.class_names_)} classes. Use it with:")
    say(f"  sppnet detect IMAGE --model {shlex.quote(str(output))} -o found")
    return 0


def _check_model_options(arguments: argparse.Namespace) -> None:
    if not arguments.tune_convolutions:
        raise ArgumentError("--model: needs --tune-convolutions; to add classes to a detector, use sppnet add-class")
    defaults = {"features": "spp", "precision": "int8", "layers": "fc", "classifier": "softmax",
                "box_regression": "joint"}  # fmt: skip
    for name in ("scales", "backbone", "proposals", "epochs", *defaults):
        if getattr(arguments, name) != defaults.get(name):
            raise ArgumentError(f"--{name.replace('_', '-')}: is that of --model; leave it out")


def _detector(arguments: argparse.Namespace, processes: Processes) -> SPPDetector:
    """The detector to train."""
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.options import FinetuneOptions, HeadOptions, TuningOptions

    if arguments.model is not None:
        path = None if arguments.model == _BUILT_IN and not Path(_BUILT_IN).exists() else arguments.model
        detector = SPPDetector.load(path, device=str(processes.device))
        tuning = TuningOptions(epochs=arguments.tune_epochs or TuningOptions().epochs)
        if detector.tuned_ is not None:  # blocks that were tuned before go on being tuned
            tuning = replace(tuning, blocks=max(tuning.blocks, detector.tuned_.blocks))
        return detector.set_params(tuning=tuning)

    options = maps_parameters(arguments) | {"seed": arguments.seed, "device": str(processes.device)}
    head: dict[str, Any] = {"classifier": arguments.classifier, "box_regression": arguments.box_regression}
    if arguments.layers == "pool":
        head |= {"hidden": 0, "rank": 1024, "classifier": "svm", "box_regression": "ridge"}
    if arguments.layers == "fc7":
        head["layers"] = 2
    if arguments.epochs is not None:
        options["finetune"] = FinetuneOptions(epochs=arguments.epochs)
    if arguments.tune_convolutions:
        epochs = {} if arguments.tune_epochs is None else {"epochs": arguments.tune_epochs}
        options["tuning"] = TuningOptions(**epochs)
    return SPPDetector(head=HeadOptions(**head), **options)


def _describe(dataset: DetectionDataset, validation: DetectionDataset | None) -> str:
    from sppnet.datasets.tables import count_table

    splits = {"train": dataset} | ({"measure": validation} if validation is not None else {})
    counts = {
        name: dict(zip(split.class_names, map(int, split.count_objects()), strict=True))
        for name, split in splits.items()
    }
    return count_table(dataset.class_names, counts, {name: len(split) for name, split in splits.items()})


def _learn(
    detector: SPPDetector, dataset: DetectionDataset, cache: Path, arguments: argparse.Namespace, processes: Processes
) -> SPPDetector:
    bar = bar_for(arguments, hidden=not processes.first)
    if arguments.model is None or detector.tuning is None:
        return detector.fit(dataset, cache=cache, progress=bar, processes=processes)
    return detector.tune(
        dataset, tuning=detector.tuning, cache=cache, seed=arguments.seed, progress=bar, processes=processes
    )


def _train(
    detector: SPPDetector,
    dataset: DetectionDataset,
    validation: DetectionDataset | None,
    output: Path,
    cache: Path,
    arguments: argparse.Namespace,
    processes: Processes,
) -> None:
    """Train, calibrate, measure and save."""
    from sppnet.detection.examples import draw_examples
    from sppnet.detection.measure import calibrate_and_measure

    bar = bar_for(arguments)
    say(f"{len(dataset)} images, {sum(map(len, dataset))} objects, {len(dataset.class_names)} classes")
    detector = _learn(detector, dataset, cache, arguments, processes)
    stages = ", ".join(f"{stage} {seconds / 60:.1f}" for stage, seconds in detector.fit_seconds_.items())
    say(f"trained in {sum(detector.fit_seconds_.values()) / 60:.1f} minutes ({stages})")
    if validation is None:
        detector.save(output, arguments.weights)
        return
    measured = calibrate_and_measure(
        detector, validation, output, cache=cache, precision=arguments.weights, progress=bar
    )
    say(f"\n{measured.table()}")
    examples = output.with_name(f"{output.stem}-examples.jpg")
    examples = draw_examples(measured.found, measured.dataset, measured.detector.thresholds_, examples)
    say(f"\nthe best and the worst of these images: {examples}")
