"""``sppnet remove-class``: fewer classes."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import file_for_output, load_detector, say
from sppnet.cli.options import add_model, add_output, add_verb

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    what = "Remove classes from a detector. Nothing is trained. What it finds of the other classes stays the same."
    parser = add_verb(subparsers, "remove-class", run, "remove classes from a detector", what)
    parser.add_argument("classes", nargs="+", metavar="CLASS", help="what the detector shall no longer find")
    add_model(parser)
    add_output(parser, "the detector to write (.safetensors)", required=True)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    output = file_for_output(arguments.output)
    result = load_detector(arguments).remove_classes(arguments.classes)
    result.save(output, result.metadata_.get("precision", "int8"))
    say(f"{output}: {len(result.class_names_)} classes: {', '.join(result.class_names_)}")
    return 0
