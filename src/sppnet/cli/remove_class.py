"""``sppnet remove-class``: fewer classes."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import file_for_output

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "remove-class", help="remove classes from a detector",
        description="Remove classes from a detector. Nothing is trained; what it finds of the others stays the same.",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a detector, or 'default' for the one that comes with sppnet")
    parser.add_argument("classes", nargs="+", metavar="CLASS", help="what it shall no longer find")
    parser.add_argument("--output", required=True, metavar="MODEL2", help="the detector to write (.safetensors)")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.detection.detector import SPPDetector

    output = file_for_output(arguments.output)
    detector = SPPDetector.load(None if arguments.model == "default" else arguments.model)
    result = detector.remove_classes(arguments.classes)
    result.save(output, result.metadata_.get("precision", "int8"))
    print(f"{output}: {len(result.class_names_)} classes: {', '.join(result.class_names_)}")
    return 0
