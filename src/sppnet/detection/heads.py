"""What stands behind the pooling, in ONNX Runtime: pooled windows in, margins and box deltas out. Torch isn't needed.

With maps in int8 the first layer, which is nine tenths of the work, is a product of whole numbers as well: pooled bytes
times small weights. From there on everything is float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sppnet._types import F32
from sppnet.backbones.engines.rounding import PAIR_MOST, dense_steps
from sppnet.detection.maps import MapScale
from sppnet.detection.weights import BOX_BLOCK, CLASS_BLOCK, DELTA_SCALE
from sppnet.runtime.onnx_graph import OnnxGraph
from sppnet.runtime.session import OnnxSession

__all__ = ["Head", "HeadEngine", "add_head", "head_graph"]

_ROWS_AT_ONCE = 16  # they stay in the cache: this is done at each start of the program
_LONGEST_SUM = (2**31 - 1) // (255 * 127)  # products of a byte and a weight that surely fit into 32 bits


class Head(Protocol):
    """Computes the layers of a trained detector behind the pooling."""

    def fc(self, pooled: Any) -> F32:
        """Fc features ``(K, H)`` of pooled windows ``(K, D)``."""
        ...

    def scores(self, features: F32) -> tuple[F32, F32]:
        """Margins ``(K, c)`` and box deltas ``(K, c, 4)`` of fc features ``(K, H)``.

        Deltas move the centre in window sizes and change the logarithm of width and height.
        """
        ...


class HeadEngine:
    """The layers of a trained detector behind the pooling, in ONNX Runtime. Safe to use from several threads.

    Args:
        weights: the matrices by the names of :class:`sppnet.detection.weights.DetectorWeights`, float32.
        scale: of the maps, where they are quantised; None for float32 maps.
        threads: of ONNX Runtime; None: :func:`sppnet.threads.num_threads`.
    """

    def __init__(self, weights: Mapping[str, F32], scale: MapScale | None = None, threads: int | None = None) -> None:
        self.inputs = int(weights["reduce_weight"].shape[1])
        self.classes = len(weights["class_bias"])
        self.hidden = int(weights["class_weight"].shape[1])
        self.dtype = np.dtype(np.float32 if scale is None else np.uint8)
        graph = OnnxGraph("fc")
        pooled = graph.input("pooled", "float32" if scale is None else "uint8", ("k", self.inputs))
        add_fc(graph, weights, scale, pooled)
        graph.output("features", "float32", ("k", self.hidden))
        self._fc = OnnxSession(graph.to_bytes(), threads)
        graph = OnnxGraph("classes")
        graph.input("features", "float32", ("k", self.hidden))
        add_classes(graph, weights)
        graph.output("margins", "float32", ("k", self.classes))
        graph.output("deltas", "float32", ("k", self.classes, 4))
        self._classes = OnnxSession(graph.to_bytes(), threads)

    def fc(self, pooled: NDArray[Any]) -> F32:
        """Compute fc features.

        Args:
            pooled: ``(K, inputs)``, float32, or uint8 where the maps are quantised.

        Returns:
            ``(K, hidden)``.
        """
        if not len(pooled):
            return np.empty((0, self.hidden), np.float32)
        return self._fc({"pooled": pooled})[0]

    def scores(self, features: F32) -> tuple[F32, F32]:
        """Score windows.

        Args:
            features: ``(K, hidden)``.

        Returns:
            Margins ``(K, classes)`` and box deltas ``(K, classes, 4)``.
        """
        if not len(features):
            return np.empty((0, self.classes), np.float32), np.empty((0, self.classes, 4), np.float32)
        margins, deltas = self._classes({"features": features})
        return margins, deltas


def head_graph(weights: Mapping[str, F32], scale: MapScale | None = None) -> bytes:
    """Write the head as an ONNX model.

    Args:
        weights: see :class:`HeadEngine`.
        scale: see :class:`HeadEngine`.

    Returns:
        Content of an ``.onnx`` file. Input ``pooled``, outputs ``features``, ``margins`` and ``deltas``.
    """
    graph = OnnxGraph("head")
    add_head(
        graph,
        weights,
        scale,
        graph.input("pooled", "float32" if scale is None else "uint8", ("k", weights["reduce_weight"].shape[1])),
    )
    hidden, classes = int(weights["class_weight"].shape[1]), len(weights["class_bias"])
    graph.output("features", "float32", ("k", hidden))
    graph.output("margins", "float32", ("k", classes))
    graph.output("deltas", "float32", ("k", classes, 4))
    return graph.to_bytes()


def add_head(graph: OnnxGraph, weights: Mapping[str, F32], scale: MapScale | None, pooled: str) -> None:
    """Put all layers into ``graph``: from the tensor ``pooled`` to ``features``, ``margins`` and ``deltas``."""
    add_fc(graph, weights, scale, pooled)
    add_classes(graph, weights)


def add_fc(graph: OnnxGraph, weights: Mapping[str, F32], scale: MapScale | None, pooled: str) -> None:
    """Put the fully connected layers into ``graph``: from the tensor ``pooled`` to ``features``."""
    reduce, reduce_bias = weights["reduce_weight"], weights["reduce_bias"]
    layers = [part for part in ("fc6", "fc7") if len(weights.get(f"{part}_bias", ()))]
    x = "reduced" if layers else "features"
    if scale is None:
        graph.node("Gemm", [pooled, *_constants(graph, "reduce", reduce, reduce_bias)], x, transB=1)
    else:
        _add_integer_layer(graph, reduce, reduce_bias, scale, pooled, x)
    for part in layers:
        linear = graph.node(
            "Gemm",
            [x, *_constants(graph, part, weights[f"{part}_weight"], weights[f"{part}_bias"])],
            f"{part}.linear",
            transB=1,
        )
        x = graph.node("Relu", [linear], "features" if part == layers[-1] else part)


def add_classes(graph: OnnxGraph, weights: Mapping[str, F32]) -> None:
    """Put classes and box regression into ``graph``: from the tensor ``features`` to ``margins`` and ``deltas``."""
    _add_blocks(graph, "margins", weights["class_weight"], weights["class_bias"], CLASS_BLOCK, "margins")
    _add_blocks(graph, "deltas", weights["box_weight"], weights["box_bias"], 4 * BOX_BLOCK, "deltas.flat")
    units = graph.constant("deltas.units", np.array(DELTA_SCALE, np.float32))
    shape = graph.constant("deltas.shape", np.array([0, len(weights["class_bias"]), 4]))
    graph.node("Mul", [graph.node("Reshape", ["deltas.flat", shape], "deltas.by class"), units], "deltas")


def whole_weights(weight: F32, scale: MapScale) -> tuple[NDArray[np.int8], F32, NDArray[np.int32]]:
    """Round the first layer, so that it multiplies bytes of quantised maps.

    Processors without VNNI instructions add two neighbouring products in 16 bits, so neighbours are kept small
    together: results are the same on all of them.

    Args:
        weight: ``(R, D)``.
        scale: of the maps.

    Returns:
        int8 ``(R, D)``; what 1 stands for in each row, float32 ``(R,)``; and what the zeros of the maps add up to in
        each row, int32 ``(R,)``.
    """
    bins = weight.shape[1] // len(scale.step)
    step, zero = np.tile(scale.step, bins), np.tile(scale.zero, bins).astype(np.int32)
    whole = np.empty(weight.shape, np.int8)
    units = np.empty(len(weight))
    zeros = np.empty(len(weight), np.int32)
    for start in range(0, len(weight), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        scaled = weight[rows].astype(np.float64) * step
        units[rows] = np.maximum(dense_steps(scaled), 1e-30)
        rounded = np.rint(scaled / units[rows, None])
        pairs = np.abs(rounded[:, 1:] + rounded[:, :-1])
        if np.abs(rounded).max(initial=0) > 127 or pairs.max(initial=0) > PAIR_MOST:
            raise RuntimeError("weights of the first layer are out of their range")
        whole[rows] = rounded
        zeros[rows] = whole[rows].astype(np.int32) @ zero
    return whole, units.astype(np.float32), zeros


def _add_integer_layer(graph: OnnxGraph, weight: F32, bias: F32, scale: MapScale, pooled: str, result: str) -> None:
    """``weight @ ((pooled - zero) * step) + bias``, the steps moved into the weights before they are rounded."""
    if weight.shape[1] > _LONGEST_SUM:
        tiles = weight.shape[1] // len(scale.step)
        y = graph.node("Cast", [pooled], "pooled.float", to=1)
        y = graph.node("Sub", [y, graph.constant("pooled.zero", np.tile(scale.zero, tiles))], "pooled.centred")
        y = graph.node("Mul", [y, graph.constant("pooled.step", np.tile(scale.step, tiles))], "pooled.scaled")
        graph.node("Gemm", [y, *_constants(graph, "reduce", weight, bias)], result, transB=1)
        return
    whole, units, zeros = whole_weights(weight, scale)
    y = graph.node(
        "MatMulInteger", [pooled, graph.constant("reduce.weight", np.ascontiguousarray(whole.T))], "reduce.sums"
    )
    y = graph.node("Sub", [y, graph.constant("reduce.zeros", zeros)], "reduce.whole")
    y = graph.node("Cast", [y], "reduce.float", to=1)
    y = graph.node("Mul", [y, graph.constant("reduce.units", units)], "reduce.scaled")
    graph.node("Add", [y, graph.constant("reduce.bias", bias)], result)


def _add_blocks(graph: OnnxGraph, name: str, weight: F32, bias: F32, rows: int, result: str) -> None:
    """A product with ``weight`` in blocks of ``rows``, the last one filled up with zeros."""
    missing = -len(bias) % rows
    weight, bias = np.pad(weight, ((0, missing), (0, 0))), np.pad(bias, (0, missing))
    parts = [
        graph.node(
            "Gemm",
            ["features", *_constants(graph, f"{name}.{i}", weight[i : i + rows], bias[i : i + rows])],
            f"{name}.{i}",
            transB=1,
        )
        for i in range(0, len(bias), rows)
    ]
    whole = graph.node("Concat", parts, f"{name}.blocks", axis=1) if len(parts) > 1 else parts[0]
    bounds: Sequence[tuple[str, int]] = (("start", 0), ("end", len(bias) - missing), ("axis", 1))
    graph.node("Slice", [whole, *(graph.constant(f"{name}.{key}", np.array([at])) for key, at in bounds)], result)


def _constants(graph: OnnxGraph, name: str, weight: F32, bias: F32) -> list[str]:
    return [
        graph.constant(f"{name}.weight", np.ascontiguousarray(weight, np.float32)),
        graph.constant(f"{name}.bias", np.ascontiguousarray(bias, np.float32)),
    ]
