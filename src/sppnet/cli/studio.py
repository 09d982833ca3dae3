"""``sppnet studio``: teach a detector in the browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sppnet.cli.common import EXIT_OK, say
from sppnet.cli.options import add_compute, add_model, add_verb, positive_int

__all__ = ["add_parser"]

DESCRIPTION = """\
Open the browser on a folder of images and teach a detector by drawing a few boxes.

It learns after each image that you finish, and suggests the rest. Labels are kept in labels.coco.json in the folder,
so `sppnet train DIR` works at any time.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "studio", run, "teach a detector in the browser by drawing a few boxes", DESCRIPTION)
    parser.add_argument("folder", metavar="DIR", help="folder of images; folders below it are searched, too")
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=positive_int, help="port to listen on (default: the first free one from 8787)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, do not open the browser")
    add_compute(parser, device=False)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.studio.serving import run_studio

    run_studio(
        Path(arguments.folder),
        model=arguments.model,
        host=arguments.host,
        port=arguments.port,
        open_browser=not arguments.no_browser,
        threads=arguments.threads,
        say=say,
    )
    return EXIT_OK
