"""Things that are built once from parameters and built again when those parameters change; safe to use from threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from sppnet.errors import ArgumentError

__all__ = ["Parts", "as_device", "plain_inference", "plain_precision"]

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


@contextmanager
def plain_precision() -> Iterator[None]:
    """Compute in the precision of the tensors, also inside a caller's ``torch.autocast``."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


@contextmanager
def plain_inference() -> Iterator[None]:
    """Record no gradients and compute in the precision of the tensors."""
    with torch.inference_mode(), plain_precision():
        yield


def as_device(device: str) -> torch.device:
    """Check that ``device`` can be used here.

    Raises:
        ArgumentError: it is neither ``cpu`` nor ``cuda`` (with or without a number), or there is no such device.
    """
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or device.endswith(":"):
        raise ArgumentError(f"device: got {device!r}, expected 'cpu' or 'cuda'")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise ArgumentError(f"device: got {device!r}, but torch finds no CUDA device here; use device='cpu'")
        if number and int(number) >= torch.cuda.device_count():
            raise ArgumentError(f"device: got {device!r}, but there are {torch.cuda.device_count()} CUDA devices")
    return torch.device(device)
