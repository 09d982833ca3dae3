"""Array aliases and small protocols that several rooms use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["F32", "F64", "I32", "I64", "U8", "BoolArray", "OnError", "Progress", "no_progress"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

OnError = Literal["skip", "fail"]
"""What to do with an image or annotation that can't be used: leave it out and list it, or raise."""

T = TypeVar("T")


class Progress(Protocol):
    """Wraps an iterable to show how far it is, as ``tqdm`` does: ``progress(items, "fc layer", total=n)``."""

    def __call__(self, items: Iterable[T], what: str, *, total: int | None = None) -> Iterable[T]:
        """Give back ``items`` one by one."""
        ...


def no_progress(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Show nothing."""
    return iter(items)
