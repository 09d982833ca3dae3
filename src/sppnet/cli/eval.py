"""``sppnet eval``: how good a detector is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import add_quiet, progress
from sppnet.files import write_atomic

if TYPE_CHECKING:
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.detections import Detections
    from sppnet.detection.detector import SPPDetector

__all__ = ["add_parser", "detect_all"]

DESCRIPTION = """\
Measure a detector on annotated photos: average precision of each class, by the rules of PASCAL VOC (both protocols,
each named), and the median time of each stage.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "eval", help="measure a detector on annotated photos", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a detector from `sppnet train`, or 'default' for the one of "
                        "the 20 VOC classes that comes with sppnet")  # fmt: skip
    parser.add_argument("data", metavar="DATA", help="folder in PASCAL VOC layout")
    parser.add_argument("--split", default="val", help="list of images to measure on (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="only N images, spread over the list")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--on-error", choices=("fail", "skip"), default="fail",
                        help="a faulty annotation stops it, or is left out (default: %(default)s)")  # fmt: skip
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    import numpy as np

    from sppnet.cli.detect import stage_table
    from sppnet.datasets.voc import load_voc
    from sppnet.detection.detector import SPPDetector
    from sppnet.errors import ArgumentError
    from sppnet.evaluation.voc import evaluate_voc, format_table

    detector = SPPDetector.load(None if arguments.model == "default" else arguments.model)
    dataset = load_voc(
        arguments.data,
        arguments.split,
        class_names=detector.class_names_,
        on_error="raise" if arguments.on_error == "fail" else "skip",
    )
    if arguments.limit is not None:
        if arguments.limit < 1:
            raise ArgumentError(f"--limit: got {arguments.limit}, expected at least 1")
        dataset = dataset.subset(np.linspace(0, len(dataset) - 1, min(arguments.limit, len(dataset))).astype(int))
    found = detect_all(detector, dataset, quiet=arguments.quiet)
    results = [evaluate_voc(found, dataset, protocol=p) for p in ("voc07-11pt", "voc-area")]
    for result in results:
        print(format_table(result), end="\n\n")
    print(stage_table(found))
    if arguments.json:
        document = {
            r.protocol: {
                "map": r.map,
                "ap": {n: None if a != a else float(a) for n, a in zip(r.class_names, r.ap, strict=True)},
                "iou": r.iou,
                "images": r.num_images,
                "data": r.dataset,
            }
            for r in results
        }
        with write_atomic(Path(arguments.json)) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"written: {arguments.json}")
    return 0


def detect_all(detector: SPPDetector, dataset: DetectionDataset, *, quiet: bool = False) -> list[Detections]:
    """Detections (threshold 0) of every image of ``dataset``, in its order."""
    detector.warm_up()
    return [
        detector.detect(record.path, threshold=0.0)
        for record in progress(dataset, "detecting", total=len(dataset), quiet=quiet)
    ]
