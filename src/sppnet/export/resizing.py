"""Resizing in ONNX graphs, as :func:`sppnet.resizing.in_sizes` does it.

An image that is at least four times as large as wanted is first averaged over whole blocks of pixels, and only then
resized. The means are the same to the last bit. ``Resize`` of ONNX Runtime then differs from Pillow by a level here
and there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sppnet.export.arithmetic import Arithmetic
from sppnet.runtime.onnx_graph import Branch, BranchingGraph

__all__ = ["add_resized"]

_F32, _F64 = np.float32, np.float64
_GAP = 2.0  # that many times as large as wanted, at least, are the means
_BITS = 24  # of the fraction with which Pillow divides a sum by the number of its pixels
# Nothing outside the image has a weight: nearest to Pillow's
_SMOOTH: dict[str, Any] = {"mode": "linear", "antialias": 1, "exclude_outside": 1}


def add_resized(graph: BranchingGraph, image: str, sides: str, size: str, prefix: str) -> str:
    """Resize an image.

    Args:
        graph: where it is put.
        image: uint8 ``(1, H, W, 3)``.
        sides: float64 ``(2,)``: height and width of the image.
        size: float64 ``(2,)``: height and width of the result, whole numbers.
        prefix: of the names of all tensors.

    Returns:
        uint8 ``(1, height, width, 3)``; its name is ``image`` behind the prefix.
    """
    steps = Arithmetic(graph, prefix)
    factors = steps("Floor", steps("Div", steps("Div", sides, size), _F64(_GAP)))
    factors = steps("Max", factors, _F64(1))  # height and width of a block
    is_large = steps("Greater", steps("ReduceMax", factors, keepdims=0), _F64(1))
    shape: tuple[int | str, ...] = (1, f"{prefix}height", f"{prefix}width", 3)
    small, large = Branch(f"{prefix}small", graph), Branch(f"{prefix}large", graph)
    inside = Arithmetic(small, f"{prefix}small.")
    exact = inside.joined(np.array([1]), inside.cast(size, "int64"), np.array([3]))
    small.output(inside("Resize", image, "", "", exact, **_SMOOTH), "uint8", shape)
    inside = Arithmetic(large, f"{prefix}large.")
    large.output(_add_resized_means(inside, image, sides, size, factors), "uint8", shape)
    return graph.either(is_large, large, small, f"{prefix}image")


def _add_resized_means(steps: Arithmetic, image: str, sides: str, size: str, factors: str) -> str:
    counts = steps("Ceil", steps("Div", sides, factors))  # of blocks; the last may be smaller
    means = _add_means(steps, image, sides, factors, counts)
    # The image may end inside the last block: so it is made a little larger than wanted, and cut
    scales = steps.cast(steps("Div", steps("Mul", size, factors), sides), "float32")
    reached = steps("Mul", steps.cast(scales, "float64"), counts)
    more = steps("Mul", scales, _F32(1 + 2**-22))  # two last bits: a runtime rounds the length down
    scales = steps("Where", steps("Less", reached, size), more, scales)
    scales = steps.joined(np.ones(1, _F32), scales, np.ones(1, _F32))
    return steps(
        "Slice", steps("Resize", means, "", scales, **_SMOOTH), np.array([0, 0]), steps.cast(size, "int64"),
        np.array([1, 2]),
    )  # fmt: skip


def _add_means(steps: Arithmetic, image: str, sides: str, factors: str, counts: str) -> str:
    """Means of blocks, uint8 ``(1, rows, columns, 3)``, rounded as Pillow's ``Image.reduce`` does."""
    whole = [steps.cast(tensor, "int64") for tensor in (sides, factors, counts)]
    (height, down, rows), (width, across, columns) = (
        [steps("Gather", tensor, np.array([axis]), axis=0) for tensor in whole] for axis in (0, 1)
    )
    missing = steps("Sub", steps("Mul", whole[2], whole[1]), whole[0])
    padded = steps("Pad", image, steps.joined(np.zeros(5, np.int64), missing, np.zeros(1, np.int64)))
    # a product of ones and bytes needs no copy of the image in a wider type
    ones = steps("Expand", np.ones((1, 1), np.uint8), steps.joined(np.array([1]), down))
    sums = steps("MatMulInteger", ones, steps("Reshape", padded, steps.joined(rows, down, np.array([-1]))))
    sums = steps("Reshape", sums, steps.joined(rows, columns, across, np.array([3])))
    sums = steps("ReduceSum", sums, np.array([2]), keepdims=0)
    sums = steps("Reshape", sums, steps.joined(rows, np.array([-1])))  # (rows, 3 * columns)
    first = steps("Mul", steps("Range", np.array(0), steps("Squeeze", columns), np.array(1)), across)
    wide = steps("Unsqueeze", steps("Min", steps("Sub", width, first), across), np.array([1]))
    wide = steps("Reshape", steps("Expand", wide, np.array([1, 3])), np.array([-1]))  # pixels of a block, in a row
    complete = steps("Div", height, down)
    rest = steps("Max", steps("Sub", height, steps("Mul", complete, down)), np.array([1]))
    parts = [
        _add_quotients(steps, steps("Slice", sums, start, stop, np.array([0])), steps("Mul", wide, high))
        for start, stop, high in ((np.array([0]), complete, down), (complete, rows, rest))
    ]
    return steps("Reshape", steps.joined(*parts), steps.joined(np.array([1]), rows, columns, np.array([3])))


def _add_quotients(steps: Arithmetic, sums: str, count: str) -> str:
    """``(sums + count // 2) * (2**24 // count) >> 24`` as uint8: sums int32 ``(n, m)``, count int64 ``(m,)``."""
    total = steps("Add", sums, steps.cast(steps("Div", count, np.array(2)), "int32"))
    share = steps.cast(steps("Div", np.array(1 << _BITS), count), "float64")
    share = steps("Mul", share, _F64(2.0**-_BITS))
    return steps.cast(steps("Mul", steps.cast(total, "float64"), share), "uint8")  # exact in float64; cut, not rounded
