"""Errors of sppnet: each message says what was got, what was expected, and what to do.

The command line prints the message of any :class:`SppnetError` without a traceback. The classes also derive from the
built-in exception that a library user would expect (``ValueError``, ``RuntimeError``), so ``except ValueError`` works.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = [
    "NO_TORCH",
    "ArgumentError",
    "DatasetError",
    "ImageError",
    "InputFileError",
    "MissingDependencyError",
    "ModelFileError",
    "NotFittedError",
    "OutputError",
    "ProposalError",
    "SppnetError",
    "UnknownFormatError",
    "WeightsError",
    "did_you_mean",
    "first_names",
]


NO_TORCH = (
    "training, the studio, networks trained whole and GPUs need torch, which is not installed: pip install torch. "
    "Without an NVIDIA GPU take the CPU build, which is much smaller; the start page of pytorch.org has the command "
    "(write the release in it that sppnet's constraints.txt names)"
)
"""What is said where torch is missing. Proposals, detection, evaluation and frozen classifiers work without it."""


def did_you_mean(got: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Give ``did you mean 'cat'? `` for a message about ``cta``; empty where nothing known is like it.

    Args:
        got: what the user wrote.
        known: what there is.
        cutoff: how alike, from 0 to 1, as :func:`difflib.get_close_matches` has it.
    """
    close = get_close_matches(str(got), list(known), 1, cutoff)
    return f"did you mean {close[0]!r}? " if close else ""


def first_names(names: Sequence[str]) -> str:
    """Give the first five names for a message, and dots where there are more."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


class SppnetError(Exception):
    """Base class of every error that sppnet raises on purpose."""


class ArgumentError(SppnetError, ValueError):
    """An argument has a wrong type, shape or range."""


class ImageError(SppnetError, ValueError):
    """An image can't be decoded, or is too large. The message names the file."""


class InputFileError(SppnetError, OSError):
    """A file is not a regular file, or is larger than allowed. The message names the file."""


class OutputError(SppnetError, OSError):
    """A file can't be written, or a file of the user's is in its place. The message names the file."""


class DatasetError(SppnetError, ValueError):
    """An annotation or a list of a data set is missing or malformed. The message names the file."""


class UnknownFormatError(DatasetError):
    """A folder or file holds no annotations in a format that is known here. The message names it."""


class ProposalError(SppnetError, ValueError):
    """A file or array of windows is malformed. The message names it."""


class ModelFileError(SppnetError, ValueError):
    """A model file or checkpoint is missing, damaged, or of an unknown version. The message names it."""


class WeightsError(SppnetError, RuntimeError):
    """Backbone weights are missing or are not the file that was expected (sha256)."""


class NotFittedError(SppnetError, ValueError, AttributeError):
    """A method that needs a trained model was called before ``fit`` or ``load``."""


class MissingDependencyError(SppnetError, ImportError):
    """An optional dependency is not installed. The message gives the command that installs it."""
