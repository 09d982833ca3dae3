"""Writes ONNX models: the few messages of the format that a network needs, without the ``onnx`` package.

That package takes 31 MB and a quarter of a second to import, and inference would need it for nothing but this. The
format is protocol buffers: each field is a key (number and wire type) and a varint, a length with bytes, or four
bytes. Numbers of the fields are those of ``onnx.proto``, which never change. Tests compare with the ``onnx`` package.

The same calls give the same bytes, on every machine.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError

__all__ = ["MODEL_START", "Branch", "BranchingGraph", "OnnxGraph"]

_GRAPH = 5  # the type of an attribute, as onnx.proto numbers them

Attribute = int | float | str | Sequence[int] | Sequence[float]

_IR_VERSION = 8
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


class OnnxGraph:
    """A graph that is built node by node, and then written.

    >>> graph = OnnxGraph("double")
    >>> x = graph.input("x", "float32", ("n", 3))
    >>> y = graph.output(graph.node("Mul", ["x", graph.constant("two", np.float32(2))], "y"), "float32", ("n", 3))
    >>> model = graph.to_bytes()

    Args:
        name: of the graph.
        opset: version of the standard operators. ONNX Runtime 1.16 and later know 17 and 18.
        metadata: texts by name that the file carries along.
    """

    def __init__(self, name: str, opset: int = 17, metadata: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.opset = opset
        self.metadata = dict(metadata or {})
        self._nodes: list[bytes] = []
        self._constants: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._domains: set[str] = set()

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input.

        Args:
            name: of the tensor.
            dtype: NumPy's name of the type, such as ``uint8``.
            shape: lengths; a name stands for a length that is known only when the graph is run.

        Returns:
            ``name``.
        """
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an output. Arguments and result as for :meth:`input`."""
        self._outputs.append(_value_info(name, dtype, shape))
        return name

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Put an array into the graph.

        Args:
            name: of the tensor. One that is there already must have the same content.
            value: the array or NumPy number.

        Returns:
            ``name``.

        Raises:
            ArgumentError: the name is taken by another array.
        """
        tensor = _tensor(name, np.asarray(value))
        if self._constants.setdefault(name, tensor) != tensor:
            raise ArgumentError(f"constant {name!r}: there is another of that name in the graph")
        return name

    def node(
        self, operator: str, inputs: Sequence[str], output: str, *more_outputs: str, **attributes: Attribute
    ) -> str:
        """Add an operator.

        Args:
            operator: its name, such as ``Conv``; one of another domain as ``com.microsoft:FusedConv``.
            inputs: names of tensors; an empty name leaves an optional input out.
            output: name of the result.
            more_outputs: names of further results, of an operator that has several.
            attributes: of the operator; each a number, a string, or several numbers of one type.

        Returns:
            ``output``.
        """
        domain, _, name = operator.rpartition(":")
        self._domains.add(domain)
        parts = [_text(1, each) for each in inputs] + [_text(2, each) for each in (output, *more_outputs)]
        parts += [_text(3, output), _text(4, name)]
        parts += [_message(5, _attribute(key, attributes[key])) for key in sorted(attributes)]
        self._nodes.append(b"".join(parts) + (_text(7, domain) if domain else b""))
        return output

    def to_bytes(self) -> bytes:
        """Write the model as the content of an ``.onnx`` file."""
        graph = b"".join(
            [_message(1, node) for node in self._nodes]
            + [_text(2, self.name)]
            + [_message(5, tensor) for tensor in self._constants.values()]
            + [_message(11, value) for value in self._inputs]
            + [_message(12, value) for value in self._outputs]
        )
        opsets = _message(8, _text(1, "") + _number(2, self.opset))
        for domain in sorted(self._domains - {""}):
            opsets += _message(8, _text(1, domain) + _number(2, 1))
        notes = [_message(14, _text(1, key) + _text(2, value)) for key, value in self.metadata.items()]
        return MODEL_START + _message(7, graph) + opsets + b"".join(notes)


class Branch(OnnxGraph):
    """What one branch does. It may use all tensors that were written into the graph around it before.

    Args:
        name: of the branch.
        around: the graph that has the branch; it also keeps the constants.
    """

    def __init__(self, name: str, around: OnnxGraph) -> None:
        super().__init__(name, around.opset)
        self._around = around

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        """Put an array into the graph around, which all branches see; see :meth:`OnnxGraph.constant`."""
        return self._around.constant(name, value)

    def to_message(self) -> bytes:
        """Write the branch as the ``GraphProto`` of an attribute."""
        nodes = b"".join(_message(1, node) for node in self._nodes)
        return nodes + _text(2, self.name) + b"".join(_message(12, value) for value in self._outputs)


class BranchingGraph(OnnxGraph):
    """A graph that may have branches. Arguments as for :class:`~sppnet.runtime.onnx_graph.OnnxGraph`."""

    def either(self, condition: str, yes: Branch, no: Branch, output: str) -> str:
        """Add the operator that runs one of two branches.

        Args:
            condition: name of a tensor: bool, a single one.
            yes: runs where the condition holds. It has one output.
            no: runs otherwise. It has one output, of the same type.
            output: name of the result.

        Returns:
            ``output``.
        """
        node = _text(1, condition) + _text(2, output) + _text(3, output) + _text(4, "If")
        for key, branch in (("else_branch", no), ("then_branch", yes)):
            node += _message(5, _text(1, key) + _message(6, branch.to_message()) + _number(20, _GRAPH))
        self._nodes.append(node)
        return output


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written as their two's complement
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _type_number(dtype: str) -> int:
    if dtype not in _TYPES:
        raise ArgumentError(f"dtype: got {dtype!r}, expected one of {', '.join(_TYPES)}")
    return _TYPES[dtype]


def _value_info(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_message(1, _number(1, n) if isinstance(n, int) else _text(2, n)) for n in shape)
    tensor_type = _number(1, _type_number(dtype)) + _message(2, dims)
    return _text(1, name) + _message(2, _message(1, tensor_type))


def _tensor(name: str, value: NDArray[Any]) -> bytes:
    content = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
    dims = b"".join(_number(1, n) for n in value.shape)
    return dims + _number(2, _type_number(value.dtype.name)) + _text(8, name) + _message(9, content)


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _number(20, 3)
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, 2)
    if isinstance(value, float):
        return _text(1, name) + _float(2, value) + _number(20, 1)
    if all(isinstance(v, int) for v in value):
        return _text(1, name) + b"".join(_number(8, int(v)) for v in value) + _number(20, 7)
    return _text(1, name) + b"".join(_float(7, v) for v in value) + _number(20, 6)


MODEL_START = _number(1, _IR_VERSION) + _text(2, "sppnet")
"""Bytes with which every model that is written here begins."""
