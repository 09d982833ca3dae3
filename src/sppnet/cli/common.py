"""What several verbs need: progress, pictures named on the command line, failures of single files."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from tqdm import tqdm

from sppnet.errors import ArgumentError, ImageError, SppnetError
from sppnet.storage.atomic import write_atomic

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_USAGE",
    "FileFailures",
    "add_quiet",
    "add_short_side",
    "collect_images",
    "file_for_output",
    "folder_for_output",
    "fraction",
    "log_lines",
    "name_list",
    "positive_int",
    "progress",
    "remove_own_cache",
    "use_short_side",
    "write_atomic",
]

T = TypeVar("T")

EXIT_OK = 0
EXIT_FAILED = 1  # some file failed; the others were done
EXIT_USAGE = 2  # nothing could be done: wrong usage or bad input
EXIT_INTERRUPTED = 130

# At 4000 px a photo takes 2.1 GB and 20 s
_LEAST_SIDE_PX, _LARGEST_SIDE_PX = 32, 4000

# How often a log file hears of the progress
SECONDS_A_LINE = 60.0


class _Handler(logging.Handler):
    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__(logging.INFO)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(record.getMessage())


@contextmanager
def log_lines(write: Callable[[str], object]) -> Iterator[None]:
    """Give each message of the library to ``write`` as a line of text."""
    logger, handler = logging.getLogger("sppnet"), _Handler(write)
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def progress(
    items: Iterable[T], what: str, *, total: int | None = None, quiet: bool = False, unit: str = "image"
) -> tqdm[T]:
    """``items`` with a progress bar on stderr that estimates the time left.

    Where stderr isn't a terminal (a log file would fill with bars), a line a minute is written instead. Nothing is
    printed when ``quiet``. The bar can also be moved by hand: ``progress((), "training", total=n)`` and ``update()``,
    ``set_postfix()``.
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
        items,
        desc=what,
        total=total,
        unit=unit,
        file=sys.stderr,
        disable=quiet,
        dynamic_ncols=True,
        smoothing=0.1,
    )


class _Lines:
    """A stream on which every redrawing of a bar is a line of its own."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """``text`` without the characters that move a cursor; nothing, if there is nothing else in it."""
        line = text.replace("\r", "").replace("\x1b[A", "").strip()
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        """As that of a stream."""
        self._stream.flush()


def collect_images(paths: Sequence[str | Path]) -> list[Path]:
    """The pictures named, those in directories included.

    A missing file stays in the list (so that the others are done and it is reported by itself).

    Raises:
        ImageError: there are none, as in an empty directory.
    """
    from sppnet.images import IMAGE_EXTENSIONS, list_images

    found = list_images(paths)
    if not found:
        extensions = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise ImageError(f"no pictures in {', '.join(map(str, paths))}: looked for {extensions}")
    return found


class FileFailures:
    """Failures of single files: each is reported on stderr at once, remembered, and the others go on.

    >>> failures = FileFailures()
    >>> for path in []:
    ...     with failures.catch(path):
    ...         pass
    >>> failures.exit_status
    0
    """

    def __init__(self) -> None:
        self.failed: list[tuple[Path, str]] = []

    @contextmanager
    def catch(self, path: str | Path) -> Iterator[None]:
        """A block of work on one file. An SppnetError or OSError in it is reported and goes no further."""
        try:
            yield
        except BrokenPipeError:
            raise
        except (SppnetError, OSError) as error:
            message = str(error)
            if str(path) not in message:
                message = f"{path}: {message}"
            self.failed.append((Path(path), message))
            tqdm.write(f"sppnet: {message}", file=sys.stderr)

    @property
    def exit_status(self) -> int:
        """0, or 1 if a file failed."""
        return EXIT_FAILED if self.failed else EXIT_OK

    def summary(self, total: int) -> str:
        """One line on how many failed; empty if none did."""
        if not self.failed:
            return ""
        names = ", ".join(str(path) for path, _ in self.failed[:3]) + (", ..." if len(self.failed) > 3 else "")
        return f"{len(self.failed)} of {total} failed: {names}"


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """The option ``--quiet``, the same for every verb."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars; results and errors only")


def positive_int(text: str) -> int:
    """An argparse type: a whole number, at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, at least 1, got {text!r}")
    return value


def fraction(text: str) -> float:
    """An argparse type: a number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def add_short_side(parser: Any) -> None:
    """``--short-side``, for :func:`use_short_side`."""
    parser.add_argument("--short-side", type=positive_int, nargs="+", metavar="PX",
                        help="look at these scales instead of the model's own: one is faster, more (352 608 1000) find "
                        "more and smaller objects")  # fmt: skip


def use_short_side(detector: SPPDetector, sides: Sequence[int] | None) -> None:
    """Let ``detector`` look at other scales.

    Raises:
        ArgumentError: a side that nothing could be seen at, or that takes too much memory; the detector has no scales.
    """
    if sides is None:
        return
    if detector.features.method != "spp":
        raise ArgumentError(
            "--short-side: this detector cuts out every window (rcnn), so it has no scales; leave it out"
        )
    for side in sides:
        if not _LEAST_SIDE_PX <= side <= _LARGEST_SIDE_PX:
            raise ArgumentError(f"--short-side: got {side}, expected {_LEAST_SIDE_PX} to {_LARGEST_SIDE_PX} pixels")
    detector.set_params(features__short_sides_px=tuple(sorted(set(sides))))


def name_list(text: str | None) -> list[str] | None:
    """The names of an option like ``--classes "cat, dog"``; None where it wasn't given.

    Raises:
        ArgumentError: there is no name in it, or one comes twice.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"--classes: got {text!r}, expected names with commas between, each once")
    return names


def file_for_output(path: str | Path, option: str = "--output", example: str = "model.safetensors") -> Path:
    """``path`` as the name of a file to write, looked at before any work is done for it. Nothing is made.

    Args:
        option: what the user called it, for messages. example: a name of such a file.

    Raises:
        ArgumentError: it is a folder, or its folder is a file or may not be written to.
    """
    file = Path(path)
    if file.is_dir():
        raise ArgumentError(f"{option} {file}: is a folder; name a file, for instance {file / example}")
    above = next(place for place in file.absolute().parents if place.exists())
    if not above.is_dir():
        raise ArgumentError(f"{option}: {above} is a file, expected a folder; name another")
    if not os.access(above, os.W_OK):
        raise ArgumentError(f"{option}: the folder {above} may not be written to; name another")
    return file


def remove_own_cache(folder: Path) -> None:
    """Remove what sppnet wrote into ``folder``, and the folder; what else is in it stays, and is named."""
    from sppnet.storage.feature_cache import FeatureCache

    kept = FeatureCache(folder).clear()
    if not kept:
        with suppress(OSError):
            folder.rmdir()
    else:
        print(f"{folder}: {len(kept)} entries that sppnet didn't write stay in it, such as {kept[0].name!a}")


def folder_for_output(path: str | Path) -> Path:
    """``path`` as a folder that exists now.

    Raises:
        ArgumentError: there is a file of that name, or it can't be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            f"{folder}: can't be used as a folder for output ({error.strerror}); name another"
        ) from error
    return folder
