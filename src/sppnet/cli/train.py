"""``sppnet train``: a detector of one's own."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from sppnet.cli.common import add_quiet, fraction, positive_int, progress

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["add_parser", "train_and_save"]

DESCRIPTION = """\
Train a detector on photos with boxes (PASCAL VOC layout), on a CPU, in minutes.

The convolutions are frozen, so every photo goes through them once (and once more mirrored); what is trained is what
stands behind the pooling. Maps and windows are kept in a cache folder, and a run that was stopped goes on from there.
Ends with the average precision of each class on the validation split, if there is one.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "train", help="train a detector on your own photos", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("data", metavar="DATA", help="folder with Annotations, JPEGImages and ImageSets/Main")
    parser.add_argument("--output", required=True, metavar="MODEL", help="the detector to write (.safetensors)")
    parser.add_argument("--split", default="train", help="list of images to train on (default: %(default)s)")
    parser.add_argument(
        "--val-split", default="val", metavar="NAME",
        help="list of images to calibrate scores and measure on; 'none' for none (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="folder for maps and windows (default: MODEL.cache, removed "
                        "when training is done)")  # fmt: skip
    parser.add_argument("--epochs", type=positive_int, default=None, help="passes of the fully connected layer")
    parser.add_argument("--short-side", type=positive_int, default=None, metavar="PX",
                        help="photos are resized to this short side in pixels")  # fmt: skip
    parser.add_argument("--dropout", type=fraction, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=("int8", "float16", "float32"), default="int8",
                        help="of the large matrices in the file (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random (default: %(default)s)")
    parser.add_argument("--on-error", choices=("fail", "skip"), default="fail",
                        help="a faulty annotation stops the training, or is left out (%(default)s)")  # fmt: skip
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    import shutil

    from sppnet.datasets.voc import load_voc
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.finetune import FinetuneOptions
    from sppnet.errors import ArgumentError

    output = Path(arguments.output)
    if output.is_dir():
        raise ArgumentError(f"--output {output}: is a folder; name a file, for instance {output / 'model.safetensors'}")
    dataset = load_voc(arguments.data, arguments.split, on_error="raise" if arguments.on_error == "fail" else "skip")
    validation = None
    if arguments.val_split != "none":
        validation = load_voc(
            arguments.data,
            arguments.val_split,
            class_names=dataset.class_names,
            on_error="raise" if arguments.on_error == "fail" else "skip",
        )
    for problem in (*dataset.problems, *(validation.problems if validation else ())):
        print(f"left out: {problem}")
    options: dict[str, Any] = {"seed": arguments.seed}
    if arguments.epochs is not None:
        options["finetune_options"] = FinetuneOptions(epochs=arguments.epochs)
    if arguments.short_side is not None:
        # mirror images at 5/6 of it, so that each object is seen at two sizes
        options |= {
            "short_sides_px": (arguments.short_side,),
            "flip_short_sides_px": (max(16, arguments.short_side * 5 // 6),),
        }
    if arguments.dropout is not None:
        options["dropout"] = arguments.dropout
    cache = Path(arguments.cache or f"{output}.cache")
    detector = train_and_save(
        SPPDetector(**options), dataset, validation, output, cache, arguments.precision, quiet=arguments.quiet
    )
    if arguments.cache is None:
        shutil.rmtree(cache, ignore_errors=True)
    print(f"\n{output}: {output.stat().st_size / 1e6:.1f} MB, {len(detector.class_names_)} classes. Use it with:")
    print(f"  sppnet detect PHOTO --model {output}")
    return 0


def train_and_save(
    detector: SPPDetector, dataset: Any, validation: Any, output: Path, cache: Path, precision: str, *, quiet: bool
) -> SPPDetector:
    """Fit, save, and (with a validation set) calibrate the scores, measure, and save again."""
    started = time.perf_counter()

    def bar(items: Iterable[int], what: str, total: int) -> Iterator[int]:
        return iter(progress(items, what, total=total, quiet=quiet, unit="step" if "layer" in what else "image"))

    def report(line: str) -> None:
        tqdm.write(f"[{(time.perf_counter() - started) / 60:5.1f} min] {line}")

    report(f"{len(dataset)} images, {sum(map(len, dataset))} objects, {len(dataset.class_names)} classes")
    detector.fit(dataset, cache=cache, progress=bar, report=report)
    training = detector.metadata_["training"]
    training["date"] = datetime.now(UTC).date().isoformat()
    training["data"] = dataset.name
    training["machine"] = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    detector.save(output, precision)
    report(f"trained in {sum(detector.fit_seconds_.values()) / 60:.1f} minutes: {detector.fit_seconds_}")
    return detector if validation is None else calibrate_and_measure(output, validation, precision, quiet=quiet)


def calibrate_and_measure(model: Path, validation: Any, precision: str, *, quiet: bool) -> SPPDetector:
    """Calibrate the saved detector ``model`` on a validation set, measure it there, and save it with the figures."""
    from sppnet.cli.eval import detect_all
    from sppnet.detection.detector import SPPDetector
    from sppnet.evaluation.voc import evaluate_voc, format_table

    # What is measured is what was saved, in its precision
    saved = SPPDetector.load(model)
    found = detect_all(saved, validation, quiet=quiet)
    saved.calibrate(found, validation)
    metrics = {}
    for protocol in ("voc07-11pt", "voc-area"):
        result = evaluate_voc(found, validation, protocol=protocol)
        metrics[protocol] = {
            "map": round(result.map, 4),
            "ap": {n: round(float(a), 4) for n, a in zip(result.class_names, result.ap, strict=True) if a == a},
            "data": f"{validation.name} {validation.split}",
            "images": len(validation),
            "iou": result.iou,
        }
        print()
        print(format_table(result))
    saved.metadata_["metrics"] = metrics
    saved.save(model, precision)
    return saved
