"""``sppnet cache``: what a folder of feature maps, windows and checkpoints holds, and emptying it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sppnet.cli.common import say
from sppnet.cli.options import add_verb
from sppnet.errors import ArgumentError

__all__ = ["add_parser"]

DESCRIPTION = """\
Inspect or empty a folder in which `sppnet train --cache DIR` keeps feature maps and windows.

info   print how many files there are and how large they are
clear  remove them; other files in the folder are left alone
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "cache", run, "inspect or empty a folder of feature maps", DESCRIPTION)
    parser.add_argument("action", choices=("info", "clear"), help="see above")
    parser.add_argument("folder", metavar="DIR", help="the folder of --cache")


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.storage.feature_cache import FeatureCache

    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise ArgumentError(f"{folder}: no such folder; expected one that was given to `sppnet train --cache`")
    cache = FeatureCache(folder)
    files, size = cache.size()
    if arguments.action == "info":
        say(f"{folder}: {files} files, {size / 1e6:.1f} MB")
    else:
        kept = cache.clear()
        rest = f"; {len(kept)} other entries stay in it" if kept else ""
        say(f"{folder}: removed {files} files, {size / 1e6:.1f} MB{rest}")
    return 0
