"""``sppnet rename-class``: another name for a class."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import file_for_output, load_detector, say
from sppnet.cli.options import add_model, add_output, add_verb

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    what = "Rename a class of a detector. Nothing else changes."
    parser = add_verb(subparsers, "rename-class", run, "rename a class of a detector", what)
    parser.add_argument("old", metavar="OLD", help="what the class is called")
    parser.add_argument("new", metavar="NEW", help="what it shall be called")
    add_model(parser)
    add_output(parser, "the detector to write (.safetensors)", required=True)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    output = file_for_output(arguments.output)
    result = load_detector(arguments).rename_class(arguments.old, arguments.new)
    result.save(output, result.metadata_.get("precision", "int8"))
    say(f"{output}: {', '.join(result.class_names_)}")
    return 0
