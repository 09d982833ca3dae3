"""``sppnet train``: a detector of one's own."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from sppnet.cli.common import (
    add_quiet,
    file_for_output,
    log_lines,
    name_list,
    positive_int,
    progress,
    remove_own_cache,
)
from sppnet.cli.data import add_data_options, count_table, on_error, refuse_problems

if TYPE_CHECKING:
    from sppnet.cli.train_resume import DecodedPictures
    from sppnet.datasets.records import DetectionDataset, ImageRecord
    from sppnet.detection.detector import SPPDetector

__all__ = ["add_parser"]

T = TypeVar("T")

DESCRIPTION = """\
Train a detector on photos with boxes, on a CPU, in minutes. The data set may be in the layout of PASCAL VOC, COCO, YOLO
or LabelMe, or a CSV table. Where it isn't split, one picture in five is kept to measure on, every class in both parts.

The convolutions are frozen, so every photo goes through them once (and once more mirrored); what is trained is what
stands behind the pooling. Maps and windows are kept in a cache folder, and a run that was stopped goes on from there.
Ends with the average precision of each class, a picture of the best and worst detections, and the command to use it.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "train", help="train a detector on your own photos", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("data", metavar="DATA", help="folder or file of the data set; `sppnet data check` looks at it")
    parser.add_argument("--output", required=True, metavar="MODEL", help="the detector to write (.safetensors)")
    parser.add_argument(
        "--split", default=None, help="part to train on (default: train, or all that isn't measured on)"
    )
    parser.add_argument(
        "--val-split", default=None, metavar="NAME",
        help="part to calibrate scores and measure on; 'none' for none (default: val, or one picture in five)",
    )  # fmt: skip
    parser.add_argument("--classes", metavar="A,B", help="only these classes of DATA; objects of others count as "
                        "background (default: all)")  # fmt: skip
    add_data_options(parser)
    parser.add_argument("--cache", metavar="DIR", help="folder for maps and windows (default: MODEL.cache, removed "
                        "when training is done)")  # fmt: skip
    parser.add_argument("--epochs", type=positive_int, default=None, help="passes of the fully connected layer")
    parser.add_argument("--short-side", type=positive_int, default=None, metavar="PX", nargs="+",
                        help="photos are resized to this short side in pixels; with several, a window uses the one "
                        "that brings it nearest to 224x224 (small objects gain; time and disk grow with the sum of the "
                        "squares)")  # fmt: skip
    parser.add_argument("--backbone", metavar="NAME", default=None,
                        help="the convolutions; `sppnet backbones` lists them (default: efficientnet-lite0, two maps)"
                        )  # fmt: skip
    parser.add_argument("--layers", choices=("fc", "fc7", "pool"), default="fc",
                        help="fc7: two fully connected layers instead of one. pool: no fully connected layer, SVMs and "
                        "ridge regression on the pooled windows themselves (the paper's "
                        "first row; less accurate; default: %(default)s)")  # fmt: skip
    parser.add_argument("--classifier", choices=("softmax", "svm"), default="softmax",
                        help="svm: the paper's linear SVMs with hard negatives, behind the fully connected layer "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--box-regression", choices=("joint", "ridge"), default="joint",
                        help="ridge: the paper's, in closed form after the rest (default: %(default)s)")  # fmt: skip
    parser.add_argument("--features", choices=("spp", "rcnn"), default="spp",
                        help="rcnn: the convolutions run once for each window instead of once for the photo: the "
                        "baseline, about 100 times slower (default: %(default)s)")  # fmt: skip
    parser.add_argument("--precision", choices=("int8", "float16", "float32"), default="int8",
                        help="of the large matrices in the file (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random (default: %(default)s)")
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    import shlex

    from sppnet.cli.train_estimate import estimate, refuse_full_disk
    from sppnet.cli.train_resume import DecodedPictures
    from sppnet.datasets.loading import read_dataset
    from sppnet.datasets.training_splits import load_training_splits
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.options import FeatureOptions, FinetuneOptions, HeadOptions

    output = file_for_output(arguments.output)
    cache = Path(arguments.cache or f"{output}.cache")
    file_for_output(cache / "maps", "--cache")
    decoded = DecodedPictures(cache)
    raw = read_dataset(arguments.data, arguments.format)
    parts = load_training_splits(
        raw, arguments.split, arguments.val_split, class_names=name_list(arguments.classes), seed=arguments.seed,
        on_error=on_error(arguments),
    )  # fmt: skip
    problems = [*parts.train.problems, *(parts.validation.problems if parts.validation else ())]
    dataset, damaged = _decodable(parts.train, "pictures", decoded, arguments)
    validation = parts.validation
    if validation is not None:
        validation, more = _decodable(validation, "pictures to measure on", decoded, arguments)
        damaged += more
    for problem in [*problems, *damaged]:
        print(f"left out: {problem}")
    for note in parts.notes:
        print(note)
    print(_describe(dataset, validation))
    options: dict[str, Any] = {"seed": arguments.seed}
    head: dict[str, Any] = {"classifier": arguments.classifier, "box_regression": arguments.box_regression}
    features: dict[str, Any] = {"method": arguments.features}
    if arguments.layers == "pool":
        head |= {"hidden": 0, "rank": 1024, "classifier": "svm", "box_regression": "ridge"}
    if arguments.layers == "fc7":
        head["layers"] = 2
    if arguments.backbone is not None:
        options["backbone"] = arguments.backbone
    if arguments.epochs is not None:
        options["finetune"] = FinetuneOptions(epochs=arguments.epochs)
    if arguments.short_side is not None:
        # mirror images at 5/6 of them, so that each object is seen at two sizes
        features |= {
            "short_sides_px": tuple(sorted(set(arguments.short_side))),
            "flip_short_sides_px": tuple(max(16, side * 5 // 6) for side in sorted(set(arguments.short_side))),
        }
    detector = SPPDetector(features=FeatureOptions(**features), head=HeadOptions(**head), **options)
    expected = estimate(detector, dataset, validation, quiet=arguments.quiet)
    print(expected.text(cache))
    refuse_full_disk(expected, cache)
    decoded.add([*dataset, *(validation or ())])
    examples = output.with_name(f"{output.stem}-examples.jpg") if validation is not None else None
    detector = train_and_save(
        detector, dataset, validation, output, cache, arguments.precision, quiet=arguments.quiet, examples=examples
    )
    if arguments.cache is None:
        remove_own_cache(cache)
    print(f"\n{output}: {output.stat().st_size / 1e6:.1f} MB, {len(detector.class_names_)} classes. Use it with:")
    print(f"  sppnet detect PHOTO --model {shlex.quote(str(output))} --output found")
    return 0


def _decodable(
    dataset: DetectionDataset, what: str, decoded: DecodedPictures, arguments: argparse.Namespace
) -> tuple[DetectionDataset, tuple[str, ...]]:
    """The data set without pictures that can't be decoded; with ``--on-error fail`` such a picture ends it all."""
    from sppnet.datasets.training_splits import without_damaged

    def bar(records: Iterable[ImageRecord], total: int) -> Iterable[ImageRecord]:
        return progress(records, f"checking {what}", total=total, quiet=arguments.quiet)

    good, problems = without_damaged(dataset, done=decoded.__contains__, progress=bar)
    if arguments.on_error == "fail":
        refuse_problems(problems)
    return good, problems


def _describe(dataset: DetectionDataset, validation: DetectionDataset | None) -> str:
    parts = {"train": dataset} | ({"measure": validation} if validation is not None else {})
    counts = {
        name: dict(zip(part.class_names, map(int, part.count_objects()), strict=True)) for name, part in parts.items()
    }
    return count_table(dataset.class_names, counts, {name: len(part) for name, part in parts.items()})


def train_and_save(
    detector: SPPDetector,
    dataset: Any,
    validation: Any,
    output: Path,
    cache: Path,
    precision: str,
    *,
    quiet: bool,
    examples: Path | None = None,
) -> SPPDetector:
    """Fit, and save; with a validation set calibrate the scores and measure before that.

    ``output`` appears once, when everything is done. ``examples``: a picture of the best and worst detections.
    """
    started = time.perf_counter()

    def bar(items: Iterable[T], what: str, *, total: int | None = None) -> Iterable[T]:
        return progress(items, what, total=total, quiet=quiet, unit="step" if "layer" in what else "image")

    def report(line: str) -> None:
        tqdm.write(f"[{(time.perf_counter() - started) / 60:5.1f} min] {line}")

    report(f"{len(dataset)} images, {sum(map(len, dataset))} objects, {len(dataset.class_names)} classes")
    with log_lines(report):
        detector.fit(dataset, cache=cache, progress=bar)
    training = detector.metadata_["training"]
    training["data"] = dataset.name
    training["machine"] = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    stages = ", ".join(f"{stage} {seconds / 60:.1f}" for stage, seconds in detector.fit_seconds_.items())
    report(f"trained in {sum(detector.fit_seconds_.values()) / 60:.1f} minutes ({stages})")
    if validation is None:
        detector.save(output, precision)
        return detector
    return calibrate_and_measure(detector, validation, output, cache, precision, quiet=quiet, examples=examples)


def calibrate_and_measure(
    detector: SPPDetector,
    validation: Any,
    output: Path,
    cache: Path,
    precision: str,
    *,
    quiet: bool,
    examples: Path | None = None,
) -> SPPDetector:
    """Calibrate ``detector`` on a validation set, measure it there, and save it with the figures as ``output``.

    Args:
        cache: what was found in the pictures is kept there. examples: a picture of the best and worst detections.
    """
    import tempfile

    from sppnet.cli.train_examples import draw_examples
    from sppnet.cli.train_report import measured_table
    from sppnet.cli.train_resume import detect_and_keep
    from sppnet.detection.detector import SPPDetector
    from sppnet.evaluation.voc import evaluate_voc

    # What is measured is what will be saved, in its precision
    with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
        detector.save(Path(folder) / "fitted.safetensors", precision)
        saved = SPPDetector.load(Path(folder) / "fitted.safetensors")
    found = saved.calibrate(detect_and_keep(saved, validation, cache, "measuring", quiet=quiet), validation)
    results = [evaluate_voc(found, validation, protocol=protocol) for protocol in ("voc07-11pt", "voc-area")]
    saved.metadata_["metrics"] = {
        result.protocol: {
            "map": round(result.map, 4),
            "ap": {n: round(float(a), 4) for n, a in zip(result.class_names, result.ap, strict=True) if a == a},
            "data": f"{validation.name} {validation.split}",
            "images": len(validation),
            "iou": result.iou,
        }
        for result in results
    }
    print(f"\n{measured_table(results, found, validation, saved.thresholds_)}")
    if examples is not None:
        draw_examples(found, validation, saved.thresholds_, examples)
        print(f"\nthe best and the worst of these pictures: {examples}")
    saved.save(output, precision)
    return saved
