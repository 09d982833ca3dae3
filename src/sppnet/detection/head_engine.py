"""What stands behind the pooling, in ONNX Runtime: pooled windows in, margins and box deltas out. Torch isn't needed.

With maps in int8 the first layer, which is nine tenths of the work, is a product of whole numbers as well: pooled bytes
times weights of 7 bits. From there on everything is float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.runtime.onnx_graph import OnnxGraph
from sppnet.runtime.session import OnnxSession

__all__ = ["HeadEngine", "MapScale", "Scored", "head_graph"]

F32 = NDArray[np.float32]

# Classes in one matrix product. Products of another shape may be summed in another order; with a fixed one the numbers
# of a class are the same to the last bit whatever other classes there are
_CLASS_BLOCK, _BOX_BLOCK = 32, 8
_DELTA_SCALE = (0.1, 0.1, 0.2, 0.2)  # units in which box deltas are learned
# 7 bits: see sppnet.backbones.engines.quantise
_MOST = 63


@dataclass(frozen=True)
class MapScale:
    """What the bytes of a quantised map stand for: ``(byte - zero) * step``.

    Attributes:
        step, zero: float32 ``(channels,)``.
    """

    step: F32
    zero: F32


@dataclass(frozen=True)
class Scored:
    """What the head makes of K windows.

    Attributes:
        features: ``(K, H)`` of the last fully connected layer.
        margins: ``(K, classes)``.
        deltas: ``(K, classes, 4)``: moves of the centre in window sizes, and logarithms of changes of size.
    """

    features: F32
    margins: F32
    deltas: F32


class HeadEngine:
    """The layers of a trained detector behind the pooling.

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
        self._session = OnnxSession(head_graph(weights, scale), threads)

    def __call__(self, pooled: NDArray[Any]) -> Scored:
        """Score windows.

        Args:
            pooled: ``(K, inputs)``, float32, or uint8 where the maps are quantised.

        Returns:
            Features, margins and box deltas.
        """
        if not len(pooled):
            return Scored(
                np.empty((0, self.hidden), np.float32),
                np.empty((0, self.classes), np.float32),
                np.empty((0, self.classes, 4), np.float32),
            )
        return Scored(*self._session({"pooled": pooled}))


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
    """Put the layers into ``graph``: from the tensor ``pooled`` to ``features``, ``margins`` and ``deltas``."""
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
    _add_blocks(graph, "margins", weights["class_weight"], weights["class_bias"], _CLASS_BLOCK, "margins")
    _add_blocks(graph, "deltas", weights["box_weight"], weights["box_bias"], 4 * _BOX_BLOCK, "deltas.flat")
    units = graph.constant("deltas.units", np.array(_DELTA_SCALE, np.float32))
    shape = graph.constant("deltas.shape", np.array([0, len(weights["class_bias"]), 4]))
    graph.node("Mul", [graph.node("Reshape", ["deltas.flat", shape], "deltas.by class"), units], "deltas")


def _add_integer_layer(graph: OnnxGraph, weight: F32, bias: F32, scale: MapScale, pooled: str, result: str) -> None:
    """``weight @ ((pooled - zero) * step) + bias``, the steps moved into the weights before they are rounded."""
    bins = weight.shape[1] // len(scale.step)
    scaled = weight.astype(np.float64) * np.tile(scale.step, bins)
    units = np.maximum(np.abs(scaled).max(1, initial=0) / _MOST, 1e-30)
    whole = np.rint(scaled / units[:, None]).astype(np.int8)
    zeros = whole.astype(np.int64) @ np.tile(scale.zero, bins).astype(np.int64)
    y = graph.node(
        "MatMulInteger", [pooled, graph.constant("reduce.weight", np.ascontiguousarray(whole.T))], "reduce.sums"
    )
    y = graph.node("Sub", [y, graph.constant("reduce.zeros", zeros.astype(np.int32))], "reduce.whole")
    y = graph.node("Cast", [y], "reduce.float", to=1)
    y = graph.node("Mul", [y, graph.constant("reduce.units", units.astype(np.float32))], "reduce.scaled")
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
