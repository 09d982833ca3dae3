"""``sppnet export``: a detector as an ONNX file."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import file_for_output, load_detector, say
from sppnet.cli.options import add_model, add_output, add_verb

__all__ = ["add_parser"]

DESCRIPTION = """\
Write a detector as an ONNX file, for programs that run without sppnet.

Inputs: image, uint8 (1, H, W, 3), RGB of any size, and windows, float32 (K, 4), in pixels of that image.
Outputs: boxes, float32 (K, classes, 4), and scores, float32 (K, classes). Refinement, soft suppression and box
voting of `sppnet detect` are not in the file. Names and thresholds of the classes are in its metadata.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "export", run, "a detector as an ONNX file, to run without sppnet", DESCRIPTION)
    add_model(parser)
    add_output(parser, "the file to write (.onnx)", required=True)
    parser.add_argument("--suppression", action="store_true", help="add non-maximum suppression: outputs are boxes "
                        "(n, 4), scores (n,) and class_ids (n,), best first")  # fmt: skip
    parser.add_argument("--parts", action="store_true", help="write NAME-convolutions.onnx and NAME-head.onnx instead, "
                        "without what is pooled between them")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.export.detector import check_export, export_onnx

    path = file_for_output(arguments.output, example="detector.onnx")
    check_export(path, suppression=arguments.suppression, parts=arguments.parts)
    detector = load_detector(arguments)
    for written in export_onnx(detector, path, suppression=arguments.suppression, parts=arguments.parts):
        say(f"written: {written}: {written.stat().st_size / 1e6:.1f} MB")
    return 0
