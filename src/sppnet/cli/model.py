"""``sppnet model``: what a detector file says about itself."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

from sppnet.cli.common import check_outputs, say, write_json
from sppnet.cli.options import add_model, add_verb

__all__ = ["add_parser"]

INFO = """\
Print what a detector file says about itself: classes and their thresholds, backbone, scales, how it was trained, what
was measured, versions, licence. A damaged or unknown file is refused.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("model", help="what a detector file says about itself",
                                   description="Inspect detector files.")  # fmt: skip
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    info = add_verb(actions, "info", run, "classes, backbone, scales, data, metrics, versions, licence", INFO)
    add_model(info)
    info.add_argument("--json", metavar="FILE", help="write everything as JSON, too")


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.detection.model_card import describe_model
    from sppnet.detection.model_file import read_stored

    check_outputs(arguments, json="model.json")
    shipped = resources.files("sppnet") / "models" / "voc20.safetensors"
    with nullcontext(Path(arguments.model)) if arguments.model else resources.as_file(shipped) as path:
        stored, size = read_stored(path), path.stat().st_size
    stored.floats(str(path))  # refuses values that aren't numbers
    say(describe_model(stored, size))
    if arguments.json:
        write_json(arguments.json, {"format_version": stored.version, "bytes": size} | stored.metadata)
    return 0
