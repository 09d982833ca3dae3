"""ONNX graphs of EfficientNet-Lite, from uint8 images ``(n, H, W, 3)`` to maps ``(n, h, w, channels)``.

Channels are innermost outside, as images and the pooling kernels have them. ONNX Runtime's int8 kernels work in that
order too, and drop the transpositions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sppnet.backbones.engines.lite import ConvLayer, LiteNetwork
from sppnet.backbones.engines.published import Folded
from sppnet.backbones.engines.quantised import QuantisedLayers
from sppnet.runtime.onnx_graph import OnnxGraph

__all__ = ["add_convolutions", "float_graph", "int8_graph"]

_IMAGE = ("n", "height", "width", 3)


def float_graph(
    network: LiteNetwork,
    folded: Folded,
    extra_outputs: tuple[str, ...] = (),
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Write the network in float32.

    Args:
        network: its layers.
        folded: kernels and biases.
        extra_outputs: tensors that are given too, as ``(n, channels, h, w)`` under their names.
        metadata: texts by name that the file carries along.

    Returns:
        Content of an ``.onnx`` file. Input ``image``, uint8; output ``map``, float32.
    """
    graph = OnnxGraph(network.name, metadata=metadata)
    _add_map(graph, network, folded, "float32")
    for name in extra_outputs:
        graph.output(name, "float32", ("n", network.channels_of(name), f"{name} h", f"{name} w"))
    return graph.to_bytes()


def int8_graph(network: LiteNetwork, quantised: QuantisedLayers, metadata: Mapping[str, str] | None = None) -> bytes:
    """Write the network in integers: uint8 tensors, int8 kernels, int32 sums.

    The image is the first quantised tensor as it is: its bytes stand for ``(byte - 127) / 128``.

    Args:
        network: its layers.
        quantised: their kernels, biases and scales.
        metadata: texts by name that the file carries along.

    Returns:
        Content of an ``.onnx`` file. Input ``image`` and output ``map`` are uint8; what the latter stands for is in
        :meth:`QuantisedLayers.map_scale`.
    """
    graph = OnnxGraph(network.name, metadata=metadata)
    _add_map(graph, network, quantised, "uint8")
    return graph.to_bytes()


def add_convolutions(
    graph: OnnxGraph, network: LiteNetwork, weights: Folded | QuantisedLayers, image: str, prefix: str = ""
) -> str:
    """Put the network into ``graph``. It may be there more than once, each time under another prefix.

    Args:
        graph: where it is put.
        network: its layers.
        weights: kernels and biases (float32), or quantised layers (int8). There is one copy of them in the graph.
        image: name of a tensor, uint8 ``(n, H, W, 3)``.
        prefix: of the names of all tensors.

    Returns:
        Name of the map ``(n, channels, h, w)``, float32 or uint8.
    """
    if isinstance(weights, QuantisedLayers):
        _add_int8(graph, network, weights, image, prefix)
    else:
        _add_float(graph, network, weights, image, prefix)
    parts = [prefix + name for name in network.outputs]
    return graph.node("Concat", parts, f"{prefix}map.planes", axis=1) if len(parts) > 1 else parts[0]


def _add_map(graph: OnnxGraph, network: LiteNetwork, weights: Folded | QuantisedLayers, dtype: str) -> None:
    planes = add_convolutions(graph, network, weights, graph.input("image", "uint8", _IMAGE))
    graph.node("Transpose", [planes], "map", perm=[0, 2, 3, 1])
    graph.output("map", dtype, ("n", "h", "w", network.channels))


def _add_float(graph: OnnxGraph, network: LiteNetwork, folded: Folded, image: str, prefix: str) -> None:
    x = graph.node("Cast", [image], f"{prefix}image.float", to=1)
    x = graph.node("Sub", [x, graph.constant("mean", np.float32(127))], f"{prefix}image.centred")
    x = graph.node("Div", [x, graph.constant("deviation", np.float32(128))], f"{prefix}image.scaled")
    planes = graph.node("Transpose", [x], f"{prefix}image.planes", perm=[0, 3, 1, 2])
    zero, six = graph.constant("zero", np.float32(0)), graph.constant("six", np.float32(6))
    for layer in network.layers:
        source = planes if layer.source == "image" else prefix + layer.source
        kernel, bias = folded[layer.name]
        names = [graph.constant(f"{layer.name}.kernel", kernel), graph.constant(f"{layer.name}.bias", bias)]
        name = prefix + layer.name
        linear = f"{name}.linear" if layer.relu6 else name
        graph.node("Conv", [source, *names], linear, **_geometry(layer))
        if layer.relu6:
            graph.node("Clip", [linear, zero, six], name)
        if layer.added:
            graph.node("Add", [name, prefix + layer.added], prefix + layer.result)


def _add_int8(graph: OnnxGraph, network: LiteNetwork, quantised: QuantisedLayers, image: str, prefix: str) -> None:
    planes = graph.node("Transpose", [image], f"{prefix}image.planes", perm=[0, 3, 1, 2])

    def scale(tensor: str) -> list[str]:
        step, zero = quantised.tensors[tensor]
        return [graph.constant(f"{tensor}.scale", step), graph.constant(f"{tensor}.zero", zero)]

    for layer in network.layers:
        source = planes if layer.source == "image" else prefix + layer.source
        part = quantised.layers[layer.name]
        names = [
            graph.constant(f"{layer.name}.kernel", part.kernel),
            graph.constant(f"{layer.name}.kernel.scale", part.kernel_scale),
            graph.constant(f"{layer.name}.kernel.zero", np.zeros(layer.outputs, np.int8)),
        ]
        bias = graph.constant(f"{layer.name}.bias", part.bias)
        inputs = [source, *scale(layer.source), *names, *scale(layer.name), bias]
        graph.node("QLinearConv", inputs, prefix + layer.name, **_geometry(layer))
        if layer.added:  # ONNX Runtime makes one integer operator of these four
            result = prefix + layer.result
            both = [
                graph.node("DequantizeLinear", [prefix + name, *scale(name)], f"{result} of {name}")
                for name in (layer.name, layer.added)
            ]
            graph.node("Add", both, f"{result}.float")
            graph.node("QuantizeLinear", [f"{result}.float", *scale(layer.result)], result)


def _geometry(layer: ConvLayer) -> dict[str, str | int | list[int]]:
    """Attributes of a convolution. Padding is TensorFlow's SAME, at any input size."""
    shape: dict[str, str | int | list[int]] = {
        "kernel_shape": [layer.kernel] * 2,
        "strides": [layer.stride] * 2,
        "dilations": [layer.dilation] * 2,
        "group": layer.inputs if layer.depthwise else 1,
    }
    if layer.stride == 1:  # the same at any size; ONNX Runtime refuses auto_pad with a dilation
        return shape | {"pads": [layer.dilation * (layer.kernel - 1) // 2] * 4}
    return shape | {"auto_pad": "SAME_UPPER"}
