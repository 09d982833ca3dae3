"""``sppnet rename-class``: another name for a class."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import file_for_output

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "rename-class", help="rename a class of a detector", description="Rename a class of a detector.",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a detector, or 'default' for the one that comes with sppnet")
    parser.add_argument("old", metavar="OLD", help="what the class is called")
    parser.add_argument("new", metavar="NEW", help="what it shall be called")
    parser.add_argument("--output", required=True, metavar="MODEL2", help="the detector to write (.safetensors)")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.detection.detector import SPPDetector

    output = file_for_output(arguments.output)
    detector = SPPDetector.load(None if arguments.model == "default" else arguments.model)
    result = detector.rename_class(arguments.old, arguments.new)
    result.save(output, result.metadata_.get("precision", "int8"))
    print(f"{output}: {', '.join(result.class_names_)}")
    return 0
