"""``sppnet cache``: what a folder of maps, windows and checkpoints holds, and emptying it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]

DESCRIPTION = """\
Look at, or empty, a folder that `sppnet train --cache DIR` keeps maps and windows of photos in.

info   how many files there are and how large they are
clear  remove them; files of anything else in the folder are left alone
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "cache", help="look at or empty a folder of kept maps", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("action", choices=("info", "clear"))
    parser.add_argument("folder", metavar="DIR")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.errors import ArgumentError
    from sppnet.storage.feature_cache import FeatureCache

    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise ArgumentError(f"{folder}: no such folder; expected one that was given to `sppnet train --cache`")
    cache = FeatureCache(folder)
    files, size = cache.size()
    if arguments.action == "info":
        print(f"{folder}: {files} files, {size / 1e6:.1f} MB")
    else:
        kept = cache.clear()
        rest = f"; {len(kept)} other entries stay in it" if kept else ""
        print(f"{folder}: removed {files} files, {size / 1e6:.1f} MB{rest}")
    return 0
