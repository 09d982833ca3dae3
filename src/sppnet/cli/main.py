"""The program ``sppnet``: finds the verb, runs it, and turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from sppnet.cli.common import EXIT_INTERRUPTED, EXIT_USAGE
from sppnet.errors import SppnetError

__all__ = ["build_parser", "main"]

# Each is a module sppnet.cli.VERB with add_parser(subparsers); the parser sets func(namespace) -> exit status.
# Their heavy imports (torch, numba) are inside func, so that help and usage errors come at once.
# fmt: off
VERBS = (
    "detect", "train", "eval", "proposals", "classify", "classify-train", "classify-eval", "backbones", "data",
    "cache", "add-class", "remove-class", "rename-class", "features", "model",
)
# fmt: on

DESCRIPTION = """\
Find objects in photos, and train detectors of your own in minutes on a CPU.

sppnet is SPP-net (He, Zhang, Ren, Sun, 2014): the convolutions run once over the whole photo, about 2000 windows are
pooled from their map by a spatial pyramid, and each window is classified. One pass a photo, not one a window.
"""

EXAMPLES = """\
examples:
  sppnet detect photo.jpg --output found         what is in a photo: a table, and the photo with boxes drawn
  sppnet detect holiday/ --json found.json       all photos of a folder, as data
  sppnet train my-data --output my.safetensors   a detector of your own classes, from a folder in VOC layout
  sppnet eval my.safetensors my-data --split val how good it is: average precision of each class
  sppnet proposals photo.jpg                     only the windows that selective search finds

"sppnet VERB --help" explains a verb and its options.

exit status: 0 all done; 1 some file failed, the others were done; 2 wrong usage or bad input; 130 interrupted.
SPPNET_DEBUG=1 or --debug shows the traceback of an error.
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with a suggestion for a misspelt verb, choice or option."""

    def error(self, message: str) -> NoReturn:
        start = "unrecognized arguments: "
        if message.startswith(start):
            options = sorted(self._known_options())
            for given in message.removeprefix(start).split():
                close = get_close_matches(given.partition("=")[0], options, 1) if given.startswith("--") else []
                message += f"; did you mean {close[0]}?" if close else ""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")

    def _known_options(self) -> set[str]:
        known = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                known.update(*(sub._known_options() for sub in action.choices.values()))
        return known

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        close = get_close_matches(str(value), known, 1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"no verb {value!r}; {hint}There are: {', '.join(known)}")
        raise argparse.ArgumentError(action, f"got {value!r}; {hint}expected one of: {', '.join(known)}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole program, every verb included."""
    # A verb's parser has --debug too, so that it may stand anywhere; SUPPRESS keeps one from undoing the other.
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    parser = _Parser(
        prog="sppnet",
        usage="sppnet VERB [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.add_argument("--version", action="version", version=f"sppnet {_version()}")
    subparsers = parser.add_subparsers(
        title="verbs", prog="sppnet", metavar="VERB [options]", dest="verb", required=True, parser_class=_Parser
    )
    for verb in VERBS:
        importlib.import_module(f"sppnet.cli.{verb.replace('-', '_')}").add_parser(subparsers)
    for sub in subparsers.choices.values():
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sppnet`` with ``argv`` (by default the process's arguments). Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("SPPNET_DEBUG", "") not in ("", "0") or "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it has no letters for is spelt out
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(arguments)
        sys.stdout.flush()  # here, where a broken pipe is caught, not at exit
        return status
    except BrokenPipeError:
        # The reader of our output left (as `| head` does). Python would complain once more when it flushes at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell counts death by SIGPIPE
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print("\nsppnet: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (SppnetError, OSError) as error:
        if debug:
            traceback.print_exc()
        print(f"sppnet: {error}", file=sys.stderr)
        return EXIT_USAGE


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return EXIT_USAGE
    try:
        namespace = parser.parse_args(arguments)
    except SystemExit as stop:  # --help, --version, usage errors
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    return int(namespace.func(namespace))


def _version() -> str:
    try:
        return importlib.metadata.version("sppnet")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
