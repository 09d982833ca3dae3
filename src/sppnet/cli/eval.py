"""``sppnet eval``: how good a detector is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import add_quiet, add_short_side, file_for_output, progress, use_short_side
from sppnet.cli.data import add_data_options, on_error
from sppnet.storage.atomic import write_atomic

if TYPE_CHECKING:
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.detections import Detections
    from sppnet.detection.detector import SPPDetector

__all__ = ["add_parser", "detect_all"]

DESCRIPTION = """\
Measure a detector on annotated photos: average precision of each class by the rules of PASCAL VOC (both protocols) or
of COCO, each named, and the median time of each stage. The data set may be in any format that `sppnet train` reads.
"""
_VOC = ("voc07-11pt", "voc-area")


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "eval", help="measure a detector on annotated photos", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a detector from `sppnet train`, or 'default' for the one of "
                        "the 20 VOC classes that comes with sppnet")  # fmt: skip
    parser.add_argument("data", metavar="DATA", help="folder or file of the data set")
    parser.add_argument("--split", default=None, help="part to measure on (default: val; where there is none, what "
                        "training keeps for that, or test)")  # fmt: skip
    parser.add_argument("--protocol", choices=(*_VOC, "coco"), action="append", default=None,
                        help=f"may be given several times (default: {' and '.join(_VOC)})")  # fmt: skip
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="only N images, spread over the list")
    parser.add_argument("--plot", metavar="FILE", help="draw precision against recall, a plot a class (.png, .svg)")
    parser.add_argument("--failures", metavar="DIR", help="write a page (index.html) there that counts and shows what "
                        "goes wrong, and in which way, with the threshold of each class; the photos in it are "
                        "yours")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    add_short_side(parser)
    add_data_options(parser)
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    import numpy as np

    from sppnet.cli.detect import stage_table
    from sppnet.datasets.loading import read_dataset
    from sppnet.datasets.training_splits import load_validation_split
    from sppnet.detection.detector import SPPDetector
    from sppnet.errors import ArgumentError, DatasetError

    for option, path in (("--json", arguments.json), ("--plot", arguments.plot)):
        if path:
            file_for_output(path, option, "figures.json" if option == "--json" else "curves.png")
    if arguments.failures:
        file_for_output(Path(arguments.failures) / "index.html", "--failures", "a folder")
    detector = SPPDetector.load(None if arguments.model == "default" else arguments.model)
    use_short_side(detector, arguments.short_side)
    raw = read_dataset(arguments.data, arguments.format)
    seed = int(detector.metadata_.get("training", {}).get("seed", 0))
    dataset, note = load_validation_split(
        raw, arguments.split, detector.class_names_, seed=seed, on_error=on_error(arguments)
    )  # fmt: skip
    for line in filter(None, [*(f"left out: {problem}" for problem in dataset.problems), note]):
        print(line)
    if arguments.limit is not None:
        if arguments.limit < 1:
            raise ArgumentError(f"--limit: got {arguments.limit}, expected at least 1")
        dataset = dataset.subset(np.linspace(0, len(dataset) - 1, min(arguments.limit, len(dataset))).astype(int))
    if not len(dataset):
        raise DatasetError(f"{arguments.data}: no pictures to measure on in split {dataset.split or 'all'}")
    found = detect_all(detector, dataset, quiet=arguments.quiet)
    document: dict[str, Any] = {}
    for protocol in dict.fromkeys(arguments.protocol or _VOC):
        text, document[protocol] = _measure(found, dataset, protocol)
        print(text, end="\n\n")
    print(stage_table(found))
    if arguments.plot:
        from sppnet.evaluation.voc import evaluate_voc, plot_curves

        plot_curves(evaluate_voc(found, dataset, protocol="voc07-11pt"), arguments.plot)
        print(f"drawn: {arguments.plot}")
    if arguments.failures:
        from sppnet.evaluation.failure_page import write_failure_page

        text = write_failure_page(
            Path(arguments.failures), found, dataset, detector.thresholds_, model=arguments.model
        )  # fmt: skip
        print(f"\n{text}\nshown in {Path(arguments.failures) / 'index.html'}")
    if arguments.json:
        with write_atomic(Path(arguments.json)) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"written: {arguments.json}")
    return 0


def _measure(found: list[Detections], dataset: DetectionDataset, protocol: str) -> tuple[str, dict[str, Any]]:
    """The table, and the figures for JSON (None stands where there is nothing to measure)."""
    from sppnet.evaluation.coco import evaluate_coco, format_coco_table
    from sppnet.evaluation.voc import evaluate_voc, format_table

    if protocol == "coco":
        coco = evaluate_coco(found, dataset)
        return format_coco_table(coco), coco.to_dict()
    voc = evaluate_voc(found, dataset, protocol="voc07-11pt" if protocol == "voc07-11pt" else "voc-area")
    return format_table(voc), voc.to_dict()


def detect_all(detector: SPPDetector, dataset: DetectionDataset, *, quiet: bool = False) -> list[Detections]:
    """Detections (threshold 0) of every image of ``dataset``, in its order."""
    detector.warm_up()
    return [
        detector.detect(record.path, threshold=0.0)
        for record in progress(dataset, "detecting", total=len(dataset), quiet=quiet)
    ]
