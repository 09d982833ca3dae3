"""``sppnet backbones``: which convolutional networks there are."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import say, write_json
from sppnet.cli.options import add_verb

__all__ = ["add_parser"]

DESCRIPTION = """\
List the convolutional networks that sppnet knows: channels, stride and parameters of their feature map, where their
weights are or how to get them, and under which licence.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "backbones", run, "list the convolutional networks", DESCRIPTION)
    parser.add_argument("--json", metavar="FILE", help="write the list as JSON, too")


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.backbones.listing import list_backbones
    from sppnet.backbones.registry import DEFAULT_BACKBONE
    from sppnet.classification.options import FROZEN_BACKBONE

    rows = list_backbones()
    width = max(len(row["name"]) for row in rows)
    layer = max(len(row["layer"]) for row in rows)
    say(f"{'name':<{width}}  {'layer':<{layer}}  channels  stride  parameters  {'licence':<12}  weights")
    for row in rows:
        say(
            f"{row['name']:<{width}}  {row['layer']:<{layer}}  {row['channels']:8}  {row['stride']:6}  "
            f"{row['parameters']:10,}  {row['licence'] or '-':<12}  {row['weights']}"
        )
    say(f"\n`train` takes {DEFAULT_BACKBONE}+mid if you don't say otherwise, and `classify-train` {FROZEN_BACKBONE}.")
    say(
        "For detection take one with +mid. In Python, sppnet.backbones.adapters takes networks of torchvision, timm and"
    )
    say("transformers, and any module of your own.")
    if arguments.json:
        write_json(arguments.json, rows)
    return 0
