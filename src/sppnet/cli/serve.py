"""``sppnet serve``: a detector as an HTTP service."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from sppnet.cli.common import EXIT_OK, say
from sppnet.cli.options import add_compute, add_model, add_verb, positive_int

__all__ = ["add_parser"]

DESCRIPTION = """\
Serve a detector over HTTP, for programs and for Label Studio.

POST /api/detect   an image file as the body; answers boxes, classes and confidences as JSON
GET  /api/model    what is served
/health, /setup, /predict answer Label Studio: name this address as an ML backend there

Give --images for Label Studio's local files, or --label-studio for images that it keeps itself; its key is read from
the environment variable LABEL_STUDIO_API_KEY. Images are fetched from nowhere else.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "serve", run, "serve a detector over HTTP, also for Label Studio", DESCRIPTION)
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=positive_int, default=9090, help="port to listen on (default: 9090)")
    parser.add_argument("--images", metavar="DIR", help="root of Label Studio's local files")
    parser.add_argument("--label-studio", metavar="ADDRESS", help="Label Studio server that images are fetched from")
    parser.add_argument("--token", help="what requests must send as `Authorization: Bearer TOKEN` (default: none)")
    add_compute(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.studio.serving import run_service

    run_service(
        arguments.model,
        host=arguments.host,
        port=arguments.port,
        images=Path(arguments.images) if arguments.images else None,
        label_studio=arguments.label_studio,
        api_key=os.environ.get("LABEL_STUDIO_API_KEY"),
        token=arguments.token,
        device=arguments.device,
        say=lambda line: say(line),
    )
    return EXIT_OK
