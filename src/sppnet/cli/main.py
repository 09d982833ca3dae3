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
import warnings
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from sppnet.cli.common import EXIT_INTERRUPTED, EXIT_USAGE, messages, warn
from sppnet.cli.interrupted import after_interrupt
from sppnet.cli.options import add_general
from sppnet.cli.paths import expand_home, refuse_inputs_as_outputs, refuse_other_models
from sppnet.errors import NO_TORCH, SppnetError
from sppnet.storage.names import printable_lines
from sppnet.threads import threads_limited

__all__ = ["build_parser", "main"]

# Each is a module sppnet.cli.VERB with add_parser(subparsers); the parser sets func(namespace) -> exit status.
# Their heavy imports (torch, numba) are inside func, so that help and usage errors come at once.
# fmt: off
VERBS = (
    "detect", "train", "eval", "proposals", "features", "add-class", "remove-class", "rename-class", "model", "export",
    "classify", "classify-train", "classify-eval", "data", "backbones", "cache", "studio", "serve", "scale",
    "completion",
)
# fmt: on

DESCRIPTION = """\
Find objects in images, and train detectors of your own in minutes on a CPU.

sppnet is SPP-net (He, Zhang, Ren, Sun, 2014): the convolutions run once over the whole image and give a feature map.
About 2000 windows are pooled from this map by a spatial pyramid, and each window is classified.
"""

EXAMPLES = """\
examples:
  sppnet detect image.jpg -o found               print what is in an image, and write the image with boxes drawn
  sppnet detect holiday/ --json found.json       all images of a folder; results as JSON
  sppnet train my-data -o my.safetensors         train a detector of your own classes
  sppnet eval my-data --model my.safetensors     measure it: average precision of each class
  sppnet proposals image.jpg                     only the windows that selective search proposes

"sppnet VERB --help" explains a verb and its options.

exit status: 0 all done; 1 some files failed, the others were done; 2 wrong usage or bad input; 130 interrupted.
--debug (or SPPNET_DEBUG=1) shows the traceback of an error.
"""

NO_MEMORY = (
    "not enough memory; use smaller or fewer --scales, fewer --max-windows or --workers, or smaller images, and stop "
    "other programs"
)
NESTED = "data is nested too deeply to be read; the file is damaged, or was made to do harm"
_PACKAGES = {"PIL": "pillow", "yaml": "pyyaml"}  # that are called otherwise than what is imported
UNEXPECTED = "this may be a fault of sppnet: run it again with --debug and report what it prints"


class _Parser(argparse.ArgumentParser):
    """argparse, with a suggestion for a misspelt verb, choice or option, and the usage of the verb in question."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {printable_lines(message)}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown arguments here: argparse would leave it to the program, which doesn't know the verb."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            message = f"unrecognized arguments: {' '.join(unknown)}"
            for given in unknown:
                close = get_close_matches(given.partition("=")[0], self._option_string_actions, 1)
                message += f"; did you mean {close[0]}?" if close and given.startswith("--") else ""
            if unknown[0].endswith(".safetensors") and "--model" in self._option_string_actions:
                message += "; name it with --model"
            self.error(message)
        return namespace, unknown

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        close = get_close_matches(str(value), known, 1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        if isinstance(action.choices, dict):
            there = "There are" if hint else "there are"
            raise argparse.ArgumentError(None, f"no verb {value!r}; {hint}{there}: {', '.join(known)}")
        raise argparse.ArgumentError(action, f"got {value!r}; {hint}expected one of: {', '.join(known)}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole program, every verb included."""
    parser = _Parser(
        prog="sppnet",
        usage="sppnet VERB [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sppnet {_version()}")
    parser.add_argument("--debug", action="store_true", default=False, help="show the traceback of an error")
    subparsers = parser.add_subparsers(
        title="verbs", prog="sppnet", metavar="VERB [options]", dest="verb", required=True, parser_class=_Parser
    )
    for verb in VERBS:
        importlib.import_module(f"sppnet.cli.{verb.replace('-', '_')}").add_parser(subparsers)
    for below in subparsers.choices.values():
        below.usage = f"{below.prog} ACTION [options]"  # of verbs with actions; the others get theirs next
        for leaf in _leaves(below):
            leaf.usage = _usage(leaf)
            add_general(leaf)
    return parser


def _usage(parser: argparse.ArgumentParser) -> str:
    """What must be given; ``--help`` lists the rest."""
    words = [parser.prog]
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        names = (
            action.metavar if isinstance(action.metavar, str) else "|".join(map(str, action.choices or [action.dest]))
        )
        more = f" [{names} ...]" if action.nargs in ("+", "*") else ""
        if not action.option_strings:
            words.append(f"[{names} ...]" if action.nargs == "*" else names + more)
        elif action.required:
            words.append(f"{action.option_strings[0]} {names}{more}")
    return " ".join([*words, "[options]"])


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that take options: the verb's, or those of its actions."""
    actions = [a for a in parser._actions if isinstance(a.choices, dict)]  # noqa: SLF001 - see above
    if not actions:
        yield parser
    for action in actions:
        for below in dict(action.choices or {}).values():
            yield from _leaves(below)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sppnet`` with ``argv`` (by default the process's arguments). Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("SPPNET_DEBUG", "") not in ("", "0") or "--debug" in arguments
    _open_streams()
    # torch's threads sleep while they wait. Spinning gains 3 % on an idle machine, and makes an image many times slower
    # as soon as other processes need the processors. It counts only before torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        status = _run(arguments)
        sys.stdout.flush()  # here, where an error is caught, not at exit
        return status
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        _drop_stdout()
        return 141  # as a shell counts death by SIGPIPE
    except KeyboardInterrupt as stop:
        if debug:
            traceback.print_exc()
        warn(str(stop) or "interrupted", start="\n")
        return EXIT_INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        warn(describe(error))
        try:
            sys.stdout.flush()
        except OSError:
            _drop_stdout()
        return EXIT_USAGE


def describe(error: Exception) -> str:
    """What an error means for the user, and what to do."""
    if isinstance(error, SppnetError):
        return str(error)
    if isinstance(error, OSError):
        if error.strerror is None or error.filename is None:
            return f"{error.strerror or error}; check the disk and the names of the files"
        return f"{os.fsdecode(error.filename)}: {error.strerror}; name another file, or mend that"
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return NO_TORCH
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("sppnet"):
        package = _PACKAGES.get(error.name.partition(".")[0], error.name.partition(".")[0])
        return f"{package}, which sppnet needs, is not installed: pip install {package}"
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in first.lower()):
        return NO_MEMORY
    if isinstance(error, RecursionError):
        return NESTED
    if isinstance(error, UnicodeError):
        return f"text that isn't valid Unicode ({first}); save the file as UTF-8, or rename it"
    return f"unexpected {type(error).__name__}: {first}; {UNEXPECTED}"


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return EXIT_USAGE
    if arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    try:
        namespace = parser.parse_args(arguments)
    except SystemExit as stop:  # --help, --version, usage errors
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    expand_home(namespace)
    refuse_inputs_as_outputs(namespace)
    refuse_other_models(namespace)
    # our own limit is checked before; Pillow would say it once more for TIFF
    warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit", module="PIL")
    # verbs with --device compute with torch; the others must not wait for its import
    threads = threads_limited(getattr(namespace, "threads", None), torch_too=hasattr(namespace, "device"))
    with messages(quiet=namespace.quiet, verbose=namespace.verbose), threads:
        try:
            return int(namespace.func(namespace))
        except KeyboardInterrupt as stop:
            stop.args = (after_interrupt(namespace),)
            raise


def _open_streams() -> None:
    """A closed stream swallows what is printed; characters that an encoding lacks are spelt out."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - stays open
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_stdout() -> None:
    """Python would complain once more when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version() -> str:
    try:
        return importlib.metadata.version("sppnet")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
