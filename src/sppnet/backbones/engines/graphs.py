"""ONNX graphs of EfficientNet-Lite, from uint8 images ``(n, H, W, 3)`` to maps ``(n, h, w, channels)``.

Channels are innermost outside, as images and the pooling kernels have them. ONNX Runtime's int8 kernels work in that
order too, and drop the transpositions.
"""

from __future__ import annotations

import numpy as np

from sppnet.backbones.engines.lite import ConvLayer, LiteNetwork
from sppnet.backbones.engines.published import Folded
from sppnet.backbones.engines.quantised import QuantisedLayers
from sppnet.runtime.onnx_graph import OnnxGraph

__all__ = ["float_graph", "int8_graph"]

_IMAGE = ("n", "height", "width", 3)


def float_graph(network: LiteNetwork, folded: Folded, extra_outputs: tuple[str, ...] = ()) -> bytes:
    """Write the network in float32.

    Args:
        network: its layers.
        folded: kernels and biases.
        extra_outputs: tensors that are given too, as ``(n, channels, h, w)`` under their names.

    Returns:
        Content of an ``.onnx`` file. Input ``image``, uint8; output ``map``, float32.
    """
    graph = OnnxGraph(network.name)
    image = graph.input("image", "uint8", _IMAGE)
    x = graph.node("Cast", [image], "image.float", to=1)
    x = graph.node("Sub", [x, graph.constant("mean", np.float32(127))], "image.centred")
    x = graph.node("Div", [x, graph.constant("deviation", np.float32(128))], "image.scaled")
    planes = graph.node("Transpose", [x], "image.planes", perm=[0, 3, 1, 2])
    zero, six = graph.constant("zero", np.float32(0)), graph.constant("six", np.float32(6))
    for layer in network.layers:
        source = planes if layer.source == "image" else layer.source
        kernel, bias = folded[layer.name]
        names = [graph.constant(f"{layer.name}.kernel", kernel), graph.constant(f"{layer.name}.bias", bias)]
        linear = f"{layer.name}.linear" if layer.relu6 else layer.name
        graph.node("Conv", [source, *names], linear, **_geometry(layer))
        if layer.relu6:
            graph.node("Clip", [linear, zero, six], layer.name)
        if layer.added:
            graph.node("Add", [layer.name, layer.added], layer.result)
    _finish(graph, network, "float32")
    for name in extra_outputs:
        graph.output(name, "float32", ("n", network.channels_of(name), f"{name} h", f"{name} w"))
    return graph.to_bytes()


def int8_graph(network: LiteNetwork, quantised: QuantisedLayers) -> bytes:
    """Write the network in integers: uint8 tensors, int8 kernels, int32 sums.

    The image is the first quantised tensor as it is: its bytes stand for ``(byte - 127) / 128``.

    Args:
        network: its layers.
        quantised: their kernels, biases and scales.

    Returns:
        Content of an ``.onnx`` file. Input ``image`` and output ``map`` are uint8; what the latter stands for is in
        :meth:`QuantisedLayers.map_scale`.
    """
    graph = OnnxGraph(network.name)
    planes = graph.node("Transpose", [graph.input("image", "uint8", _IMAGE)], "image.planes", perm=[0, 3, 1, 2])

    def scale(tensor: str) -> list[str]:
        step, zero = quantised.tensors[tensor]
        return [graph.constant(f"{tensor}.scale", step), graph.constant(f"{tensor}.zero", zero)]

    for layer in network.layers:
        source = planes if layer.source == "image" else layer.source
        part = quantised.layers[layer.name]
        names = [
            graph.constant(f"{layer.name}.kernel", part.kernel),
            graph.constant(f"{layer.name}.kernel.scale", part.kernel_scale),
            graph.constant(f"{layer.name}.kernel.zero", np.zeros(layer.outputs, np.int8)),
        ]
        bias = graph.constant(f"{layer.name}.bias", part.bias)
        inputs = [source, *scale(layer.source), *names, *scale(layer.name), bias]
        graph.node("QLinearConv", inputs, layer.name, **_geometry(layer))
        if layer.added:  # ONNX Runtime makes one integer operator of these four
            both = [
                graph.node("DequantizeLinear", [name, *scale(name)], f"{layer.result} of {name}")
                for name in (layer.name, layer.added)
            ]
            graph.node("Add", both, f"{layer.result}.float")
            graph.node("QuantizeLinear", [f"{layer.result}.float", *scale(layer.result)], layer.result)
    _finish(graph, network, "uint8")
    return graph.to_bytes()


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


def _finish(graph: OnnxGraph, network: LiteNetwork, dtype: str) -> None:
    parts = list(network.outputs)
    whole = graph.node("Concat", parts, "map.planes", axis=1) if len(parts) > 1 else parts[0]
    graph.node("Transpose", [whole], "map", perm=[0, 2, 3, 1])
    graph.output("map", dtype, ("n", "h", "w", network.channels))
