"""``sppnet eval``: how good a detector is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import (
    bar_for,
    check_outputs,
    file_for_output,
    load_detector,
    plot_for_output,
    reading,
    say,
    write_json,
)
from sppnet.cli.options import (
    add_compute,
    add_data,
    add_mirror,
    add_model,
    add_on_error,
    add_proposals,
    add_scales,
    add_verb,
    positive_int,
)
from sppnet.errors import ArgumentError, first_names

if TYPE_CHECKING:
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.detections import Detections

__all__ = ["add_parser"]

DESCRIPTION = """\
Measure a detector on annotated images: average precision of each class by the rules of PASCAL VOC (both protocols) or
of COCO, each named, and the median time of each stage. The data set may be in any format that `sppnet train` reads.
"""
_VOC = ("voc07-11pt", "voc-area")
EXAMPLES = """\
examples:
  sppnet eval VOC2007 --split val
  sppnet eval my-data --model my.safetensors --failures page
  sppnet eval my-coco --model my.safetensors --protocol coco --json figures.json
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "eval", run, "measure a detector on annotated images", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add_data(parser)
    add_model(parser)
    add("--split", metavar="NAME", help="split to measure on (default: val; without one, the images that training "
        "kept to measure on, or test)")  # fmt: skip
    add("--protocol", choices=(*_VOC, "coco"), action="append", help=f"may be given several times (default: "
        f"{' and '.join(_VOC)})")  # fmt: skip
    add("--limit", type=positive_int, metavar="N", help="only N images, spread evenly over the split")
    add("--plot", metavar="FILE", help="draw precision against recall of each class (.png, .svg; needs matplotlib)")
    add("--failures", metavar="DIR", help="write a page (index.html) that counts and shows what goes wrong, with the "
        "threshold of each class. It contains your images")  # fmt: skip
    add("--json", metavar="FILE", help="write the figures as JSON")
    add_scales(parser, "look at the image at these scales (short sides in pixels) instead of the model's own")
    add_mirror(parser)
    add_proposals(parser)
    add_on_error(parser)
    add_compute(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.datasets.loading import read_dataset
    from sppnet.datasets.training_splits import load_validation_split
    from sppnet.detection.measure import detect_dataset, doubts_about, split_seed
    from sppnet.detection.timing import stage_table
    from sppnet.errors import DatasetError
    from sppnet.evaluation.failure_page import check_failure_folder, write_failure_page
    from sppnet.evaluation.voc import evaluate_voc, plot_curves

    check_outputs(arguments, json="figures.json", plot="curves.png")
    if arguments.plot:
        plot_for_output(arguments.plot, "--plot")
    if arguments.failures:
        file_for_output(Path(arguments.failures) / "index.html", "--failures", "a folder")
    detector = load_detector(arguments)
    raw = read_dataset(arguments.data, **reading(arguments))
    if arguments.model is None and raw.class_names and not set(raw.class_names) & set(detector.class_names_):
        names = first_names(raw.class_names)
        raise ArgumentError(f"{arguments.data}: the default detector doesn't know {names}; name yours with --model")
    dataset, note = load_validation_split(
        raw, arguments.split, detector.class_names_, seed=split_seed(detector), on_error=arguments.on_error
    )
    doubts = doubts_about(detector, dataset)
    if not len(dataset):
        raise DatasetError(f"{arguments.data}: no images to measure on")
    if arguments.failures:
        check_failure_folder(arguments.failures, dataset)
    found, dataset = detect_dataset(
        detector, dataset.spread(arguments.limit), on_error=arguments.on_error, progress=bar_for(arguments)
    )
    for line in filter(None, [*(f"left out: {problem}" for problem in dataset.problems), note, *doubts]):
        say(line)
    document: dict[str, Any] = {}
    for protocol in dict.fromkeys(arguments.protocol or _VOC):
        text, document[protocol] = _measure(found, dataset, protocol)
        say(f"{text}\n")
    say("\n" + stage_table(found))
    if arguments.json:
        write_json(arguments.json, document)
    if arguments.plot:
        plot_curves(evaluate_voc(found, dataset, protocol="voc07-11pt"), arguments.plot)
        say(f"drawn: {arguments.plot}")
    if arguments.failures:
        model = Path(arguments.model).name if arguments.model else "the detector of sppnet"
        text = write_failure_page(Path(arguments.failures), found, dataset, detector.thresholds_, model=model)
        say(f"\n{text}\nshown in {Path(arguments.failures) / 'index.html'}")
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
