"""What several verbs need: printing, messages and progress, files to write, failures of single files, the model."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypedDict, TypeVar

from tqdm import tqdm

from sppnet.errors import ArgumentError, ImageError, SppnetError
from sppnet.storage.atomic import place_to_write, write_text
from sppnet.storage.names import printable_lines

if TYPE_CHECKING:
    from sppnet._types import Progress
    from sppnet.detection.detector import SPPDetector
    from sppnet.image_runs import FailedImage
    from sppnet.processes import Processes
    from sppnet.proposals.base import Proposer
    from sppnet.proposals.search import SelectiveSearch

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_USAGE",
    "bar_for",
    "check_outputs",
    "failure_status",
    "file_for_output",
    "load_detector",
    "messages",
    "plot_for_output",
    "progress",
    "reading",
    "remove_own_cache",
    "run_joined",
    "say",
    "warn",
    "write_json",
]

T = TypeVar("T")


class DataReading(TypedDict):
    """How to read a data set: arguments of :func:`sppnet.datasets.loading.read_dataset`."""

    format: str | None
    images: str | None
    rename: dict[str, str]


EXIT_OK = 0
EXIT_FAILED = 1  # some file failed; the others were done
EXIT_USAGE = 2  # nothing could be done: wrong usage or bad input
EXIT_INTERRUPTED = 130

# How often a log file hears of the progress. A program that shows it to people asks for more
SECONDS_A_LINE = 60.0
with suppress(KeyError, ValueError):
    SECONDS_A_LINE = max(0.1, float(os.environ["SPPNET_SECONDS_A_LINE"]))


# --- printing --------------------------------------------------------------------------------------------------------


def say(text: str = "") -> None:
    """Print a result on stdout, above any progress bar; at once, also into a file or a pipe."""
    tqdm.write(printable_lines(text), file=sys.stdout)
    sys.stdout.flush()


def warn(text: str, start: str = "") -> None:
    """Print an error on stderr, above any progress bar."""
    tqdm.write(f"{start}sppnet: {printable_lines(text)}", file=sys.stderr)


class _Messages(logging.Handler):
    """Shows what the library logs: notes on stderr as they are, warnings with the program's name."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        text = self.format(record)
        if record.levelno >= logging.WARNING:
            warn(text)
        else:
            tqdm.write(printable_lines(text), file=sys.stderr)


@contextmanager
def messages(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Show what the library logs while the block runs.

    Args:
        quiet: only warnings and errors.
        verbose: debug messages, too.
    """
    logger = logging.getLogger("sppnet")
    before = logger.level, logger.propagate
    handler = _Messages()
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False  # this handler shows it; a program that embeds the library sets its own
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def progress(
    items: Iterable[T], what: str, *, total: int | None = None, quiet: bool = False, unit: str = "image"
) -> tqdm[T]:
    """``items`` with a progress bar on stderr that estimates the time left.

    Where stderr isn't a terminal (a log file would fill with bars), a line a minute is written instead.

    Args:
        items: what is gone through.
        what: the text in front of the bar.
        total: how many, where ``items`` doesn't tell.
        quiet: show nothing.
        unit: what an item is called.
    """
    if not quiet and not sys.stderr.isatty():
        return tqdm(
            items,
            desc=what,
            total=total,
            unit=unit,
            file=_Lines(sys.stderr),
            delay=SECONDS_A_LINE,
            mininterval=SECONDS_A_LINE,
            maxinterval=2 * SECONDS_A_LINE,
            miniters=1,
            smoothing=0.1,
            bar_format="{desc}: {n_fmt} of {total_fmt} in {elapsed}, {remaining} left{postfix}",
        )
    return tqdm(
        items, desc=what, total=total, unit=unit, file=sys.stderr, disable=quiet, dynamic_ncols=True, smoothing=0.1
    )


def bar_for(arguments: argparse.Namespace, *, hidden: bool = False) -> Progress:
    """Progress bars as the library takes them (:class:`sppnet._types.Progress`).

    Args:
        arguments: ``--quiet`` hides the bars.
        hidden: hide them anyway.
    """

    def bar(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
        unit = "step" if "layer" in what or what == "convolutions" else "fold" if "validation" in what else "image"
        return progress(items, what, total=total, quiet=arguments.quiet or hidden, unit=unit)

    return bar


def run_joined(arguments: argparse.Namespace, work: Callable[[Processes], int]) -> int:
    """Do ``work`` with the processes that ``torchrun`` started, or alone; returns the exit status.

    Of an error that all of them meet only the first process tells.
    """
    from sppnet.processes import join_processes

    with join_processes(arguments.device) as processes:
        try:
            return work(processes)
        except ImageError:
            raise  # perhaps only this process knows
        except SppnetError:
            if processes.first:
                raise
            time.sleep(2)  # torchrun ends all of them when one fails, and the first one has still to say why
            return EXIT_USAGE


class _Lines:
    """A stream on which every redrawing of a bar is a line of its own."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write ``text`` without the characters that move a cursor; nothing, if there is nothing else in it."""
        line = text.replace("\r", "").replace("\x1b[A", "").strip()
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        """As that of a stream."""
        self._stream.flush()


# --- files -----------------------------------------------------------------------------------------------------------


def failure_status(failed: Sequence[FailedImage], total: int, advice: str = "") -> int:
    """Say which images failed, if some did. Each was reported when it happened.

    Returns:
        The exit status.
    """
    if not failed:
        return EXIT_OK
    names = ", ".join(str(item.path) for item in failed[:3]) + (", ..." if len(failed) > 3 else "")
    say(f"{len(failed)} of {total} images failed: {names}{advice}")
    return EXIT_FAILED


def file_for_output(path: str | Path, option: str = "--output", example: str = "model.safetensors") -> Path:
    """``path`` as the name of a file to write, checked before any work is done for it. Nothing is made.

    Args:
        path: what the user gave.
        option: what the user calls it, for messages.
        example: a name of such a file, for messages.

    Raises:
        ArgumentError: it is a folder, or its folder is a file or may not be written to.
        OutputError: it is a link to nowhere, or write-protected.
    """
    file = Path(path)
    if file.is_dir():
        raise ArgumentError(f"{option} {file}: is a folder; name a file, for instance {file / example}")
    place = place_to_write(file)
    above = next(folder for folder in place.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ArgumentError(f"{option}: {above} is a file, expected a folder; name another")
    if not os.access(above, os.W_OK):
        raise ArgumentError(f"{option}: the folder {above} may not be written to; name another")
    return file


def check_outputs(arguments: argparse.Namespace, **examples: str) -> None:
    """Check the options that name a file to write, before any work is done.

    Args:
        arguments: of the verb.
        examples: by option (``json``), a name of such a file.

    Raises:
        ArgumentError: as :func:`file_for_output`.
    """
    for name, example in examples.items():
        if path := getattr(arguments, name):
            file_for_output(path, f"--{name.replace('_', '-')}", example)


def plot_for_output(path: str, option: str) -> None:
    """Refuse a name that no plot can be written to, before any work is done for it.

    Args:
        path: what the user gave.
        option: what the user calls it, for messages.

    Raises:
        ArgumentError: its extension is of no plot, or nothing can be written there.
        MissingDependencyError: matplotlib isn't installed.
    """
    from sppnet.plots import figure_for

    figure_for(file_for_output(path, option, "plot.png"), (1, 1))


def write_json(path: str | Path, document: object) -> None:
    """Write ``document`` as JSON and say so."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n", named=True)
    say(f"written: {path}")


def reading(arguments: argparse.Namespace) -> DataReading:
    """Return how to read a data set: ``--format``, ``--images`` and ``--rename`` as the readers take them.

    Raises:
        ArgumentError: a text of ``--rename`` isn't OLD=NEW.
    """
    from sppnet.datasets.renaming import parse_renames

    return {
        "format": arguments.format,
        "images": arguments.image_folder,
        "rename": parse_renames(arguments.rename),
    }


def remove_own_cache(folder: Path) -> None:
    """Remove what sppnet wrote into ``folder``, and the folder. What else is in it stays, and is named."""
    from sppnet.storage.feature_cache import FeatureCache

    kept = FeatureCache(folder).clear()
    if kept:
        say(f"{folder}: {len(kept)} entries that sppnet didn't write stay in it, such as {kept[0].name!a}")
    else:
        with suppress(OSError):
            folder.rmdir()


# --- the model -------------------------------------------------------------------------------------------------------


def load_detector(arguments: argparse.Namespace) -> SPPDetector:
    """Load the detector of ``--model``, with the options that say how it looks at images, where given.

    Raises:
        ModelFileError: the file is missing, damaged or no detector.
        ArgumentError: an option that this detector can't take.
    """
    from sppnet.detection.detector import SPPDetector

    detector = SPPDetector.load(arguments.model, device=getattr(arguments, "device", "cpu"))
    options: dict[str, Any] = {}
    if getattr(arguments, "proposals", None):
        options["proposer"] = _search(detector.proposer, arguments.proposals)
    if getattr(arguments, "max_windows", None):
        options["proposer__max_windows"] = arguments.max_windows
    if getattr(arguments, "scales", None):
        if detector.features.method != "spp":
            raise ArgumentError(
                "--scales: this detector cuts out every window (rcnn), so it has no scales; leave it out"
            )
        options["features__short_sides_px"] = tuple(sorted(set(arguments.scales)))
    if getattr(arguments, "mirror", False):
        options["features__mirror"] = True
    return detector.set_params(**options)


def _search(stored: Proposer, mode: str) -> SelectiveSearch:
    """Selective search in another mode, as much like the proposer of the model as it can be."""
    from sppnet.proposals.search import SelectiveSearch

    if isinstance(stored, SelectiveSearch):
        return replace(stored, mode=mode)
    return SelectiveSearch(mode, getattr(stored, "max_windows", 2000), math.ceil(getattr(stored, "min_side", 16)))
