"""Arithmetic in ONNX graphs: each call adds an operator, and names its result."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.runtime.onnx_graph import Attribute, OnnxGraph

__all__ = ["Arithmetic"]

_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "float64": 11}  # as operators' attributes have them


class Arithmetic:
    """Writes operators whose results need no name of their own.

    >>> graph = OnnxGraph("g", 18)
    >>> steps = Arithmetic(graph)
    >>> half = steps("Mul", graph.input("x", "float32", ("n",)), np.float32(0.5))

    Args:
        graph: where they are put.
        prefix: of the names that are made up.
    """

    def __init__(self, graph: OnnxGraph, prefix: str = "") -> None:
        self.graph = graph
        self._prefix = prefix
        self._count = 0

    def __call__(
        self, operator: str, *inputs: str | NDArray[Any] | np.generic, name: str = "", **attributes: Attribute
    ) -> str:
        """Add an operator with one result.

        Args:
            operator: its name.
            inputs: names of tensors; arrays and NumPy numbers become constants.
            name: of the result; by default it is made up.
            attributes: of the operator.

        Returns:
            Name of the result.
        """
        self._count += 1
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        return self.graph.node(operator, names, name or f"{self._prefix}{operator.lower()}.{self._count}", **attributes)

    def cast(self, tensor: str, dtype: str) -> str:
        """``tensor`` as ``float32``, ``float64``, ``int32``, ``int64`` or ``uint8``."""
        return self("Cast", tensor, to=_TYPES[dtype])

    def columns(self, tensor: str, which: Sequence[int]) -> str:
        """Columns of ``tensor (K, n)``, in the order of ``which``."""
        return self("Gather", tensor, np.array(which), axis=1)

    def joined(self, *tensors: str | NDArray[Any], axis: int = 0, name: str = "") -> str:
        """``tensors`` one after the other along ``axis``."""
        return self("Concat", *tensors, axis=axis, name=name) if len(tensors) > 1 or name else str(tensors[0])

    def _constant(self, value: NDArray[Any] | np.generic) -> str:
        array = np.asarray(value)
        words = "_".join(map(str, array.ravel().tolist())) if array.size <= 8 else ""
        if not 0 < len(words) <= 40:
            words = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        shape = "x".join(map(str, array.shape))
        return self.graph.constant(f"{array.dtype.name}[{shape}] {words}", array)
