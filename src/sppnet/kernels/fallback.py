"""The choice between code that uses private interfaces of Numba and llvmlite, and plain Numba.

Their versions are bounded in ``pyproject.toml``, but people install others. Then sppnet must be slower, not broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["first_that_works", "report"]

_logger = logging.getLogger("sppnet")


def report(what: str, error: object) -> None:
    """Tell the user that kernels run slower than they could, and why."""
    _logger.warning(
        "%s can't be used with this version of Numba or llvmlite (%s); kernels run slower. "
        "Install the versions that sppnet asks for: pip install --upgrade sppnet",
        what,
        error,
    )


def first_that_works(preferred: str, plain: str, works: Callable[[Any], bool]) -> Any:
    """Import ``preferred`` if ``works(module)`` is true, otherwise ``plain``.

    Args:
        preferred: name of a module that uses private interfaces. Whatever it raises means that it doesn't work.
        plain: name of a module with the same functions that uses none.
        works: a short trial of the module.
    """
    reason: object = "wrong result"
    try:
        module = import_module(preferred)
        if works(module):
            return module
    except Exception as error:  # anything can come out of interfaces that promise nothing
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    report(preferred, reason)
    return import_module(plain)
