"""Things that are built once from parameters and built again when those parameters change; safe to use from threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Parts"]

T = TypeVar("T")


class Parts:
    """A memory of built things by name, each with the key that it was built for.

    Copies of the owner may share what is built already, so built things must not change. A pickle holds none of it.
    """

    def __init__(self, start: dict[str, tuple[object, Any]] | None = None) -> None:
        self._lock = threading.RLock()
        self._built: dict[str, tuple[object, Any]] = dict(start or {})

    def get(self, name: str, key: object, build: Callable[[], T]) -> T:
        """Return the thing called ``name``, built by ``build()`` unless it is there for an equal ``key``.

        Of several threads that ask at once, one builds it and the others wait.
        """
        with self._lock:
            known = self._built.get(name)
            if known is not None and known[0] == key:
                built: T = known[1]
            else:
                built = build()
                self._built[name] = key, built
            return built

    def __copy__(self) -> Parts:
        with self._lock:
            return Parts(self._built)

    def __deepcopy__(self, memo: object) -> Parts:
        return Parts()

    def __reduce__(self) -> tuple[type[Parts], tuple[()]]:
        return Parts, ()
