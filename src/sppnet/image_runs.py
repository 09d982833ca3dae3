"""Work on many images: an iterator that goes on after images that are bad, and says which they were."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

from sppnet._types import OnError, Progress, no_progress
from sppnet.checking import check_one_of
from sppnet.errors import OutputError, SppnetError
from sppnet.storage.atomic import FULL
from sppnet.storage.journal import JournalError
from sppnet.storage.names import in_utf8

__all__ = ["FailedImage", "Failures", "ImageRun"]

R = TypeVar("R")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be done, and why."""

    path: Path
    message: str


class Failures:
    """Collects images that could not be done. Each is logged as a warning at once.

    Args:
        on_error: ``skip``, or ``fail``, which raises the first error instead.

    Attributes:
        failed: the images so far.
    """

    def __init__(self, on_error: OnError = "skip") -> None:
        check_one_of("on_error", on_error, ("fail", "skip"))
        self.on_error = on_error
        self.failed: list[FailedImage] = []

    @contextmanager
    def catch(self, path: str | os.PathLike[str]) -> Iterator[None]:
        """Run a block of work on one image. Errors of sppnet and of the system in it go no further."""
        try:
            yield
        except (SppnetError, OSError, MemoryError) as error:
            self.note(path, error)

    def note(self, path: str | os.PathLike[str], error: Exception) -> None:
        """Add an image that failed.

        Raises:
            Exception: ``error`` itself, with ``on_error="fail"``, where a disk is full or progress can't be saved, or
                where nobody reads the output any more.
        """
        full = isinstance(error, JournalError) or (isinstance(error, OutputError) and error.errno in FULL)
        # with a full disk all others would fail, too, once they are computed
        if self.on_error == "fail" or full or isinstance(error, BrokenPipeError):
            raise error
        message = str(error) or "not enough memory; make the image smaller, or use smaller scales"
        if str(path) not in message and ascii(str(path)) not in message:
            message = f"{in_utf8(str(path))}: {message}"
        self.failed.append(FailedImage(Path(path), message))
        _log.warning(message)


class ImageRun(Generic[R]):
    """A run over many images: an iterator over the results, in the order of the images.

    Args:
        paths: of the images.
        work: makes the result of one image.
        what: is done, for ``progress``.
        finish: called after the last image.
        on_error: ``skip`` puts an image that can't be done into ``failed`` and goes on; ``fail`` raises.
        progress: shows how far it is.

    Attributes:
        paths: all images of the run.
        failed: images that could not be done, so far.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        work: Callable[[Path], R],
        what: str,
        *,
        finish: Callable[[], None] = lambda: None,
        on_error: OnError = "skip",
        progress: Progress = no_progress,
    ) -> None:
        self.paths = tuple(paths)
        self._failures = Failures(on_error)
        self._results = self._iterate(work, what, finish, progress)

    @property
    def failed(self) -> list[FailedImage]:
        """Images that could not be done, so far."""
        return self._failures.failed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        return next(self._results)

    def _iterate(
        self, work: Callable[[Path], R], what: str, finish: Callable[[], None], progress: Progress
    ) -> Iterator[R]:
        for path in progress(self.paths, what, total=len(self.paths)):
            before = len(self.failed)
            with self._failures.catch(path):
                result = work(path)
            if len(self.failed) == before:
                yield result
        finish()
