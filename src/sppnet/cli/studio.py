"""``sppnet studio``: teach a detector in the browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sppnet.cli.common import EXIT_OK, say
from sppnet.cli.options import add_verb, positive_int

__all__ = ["add_parser"]

DESCRIPTION = """\
Open the browser on a folder of images and teach a detector by drawing a few boxes.

It learns after each image that you finish, and suggests the rest. Labels are kept in labels.coco.json in the folder,
so `sppnet train FOLDER` works at any time.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "studio", run, "teach a detector in the browser by drawing a few boxes", DESCRIPTION)
    parser.add_argument("folder", metavar="FOLDER", help="folder of images, in sub-folders too")
    parser.add_argument("--model", default="default", metavar="FILE", help="detector to start from (default: default)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=positive_int, help="port to listen on (default: the first free one from 8787)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, do not open the browser")


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.studio.serving import run_studio

    def show(line: str) -> None:
        say(line)

    run_studio(
        Path(arguments.folder),
        model=None if arguments.model == "default" else arguments.model,
        host=arguments.host,
        port=arguments.port,
        open_browser=not arguments.no_browser,
        threads=getattr(arguments, "threads", None),
        say=show,
    )
    return EXIT_OK
