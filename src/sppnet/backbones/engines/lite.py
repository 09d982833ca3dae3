"""Shape of the EfficientNet-Lite networks (Tan and Le, 2019): each convolution, as plain data.

The torch module and the graphs of ONNX Runtime are both made from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sppnet.errors import ArgumentError

__all__ = [
    "ENDINGS",
    "STAGES",
    "VARIANTS",
    "ConvLayer",
    "LiteNetwork",
    "lite_network",
    "round_channels",
    "split_network",
]

# repeats, kernel, stride, expansion, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# width multiplier, depth multiplier, native input side in pixels
VARIANTS = {
    "efficientnet-lite0": (1.0, 1.0, 224),
    "efficientnet-lite2": (1.1, 1.2, 260),
}
HEAD_CHANNELS = 1280  # of the layer before the classifier

ENDINGS = ("", "+mid", "+stride32", "+head", "+dilated-head")
"""Endings of a backbone's name: which map it gives. The last one has the layers of all others, for calibration."""


@dataclass(frozen=True)
class ConvLayer:
    """A convolution with SAME padding, batch normalisation folded in.

    Attributes:
        name: ``stem``, ``3.expand``, ``3.depthwise``, ``3.project`` (block 3) or ``head``.
        source: name of the tensor that it reads: ``image`` or the :attr:`result` of another layer.
        inputs, outputs: channels.
        kernel, stride, dilation: in cells, the same along both sides.
        depthwise: one kernel for each channel.
        relu6: whether the result is clipped to 0..6; otherwise it is linear.
        added: name of a tensor that is added to the result; empty for none.
    """

    name: str
    source: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False
    relu6: bool = True
    added: str = ""

    @property
    def result(self) -> str:
        """Name of the tensor that later layers read: after the addition, where there is one."""
        return f"{self.name}.sum" if self.added else self.name

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the kernels: outputs, inputs of each, rows, columns."""
        return self.outputs, 1 if self.depthwise else self.inputs, self.kernel, self.kernel


@dataclass(frozen=True)
class LiteNetwork:
    """A network up to its map.

    Attributes:
        name: of the backbone, such as ``efficientnet-lite0+mid``.
        variant: the part of it that names the weights.
        layers: in the order in which they run.
        outputs: tensors that make up the map, in the order of their channels.
        stride: pixels between neighbouring cells.
    """

    name: str
    variant: str
    layers: tuple[ConvLayer, ...]
    outputs: tuple[str, ...]
    stride: int

    def channels_of(self, tensor: str) -> int:
        """Count the channels of a tensor."""
        return next(layer.outputs for layer in self.layers if layer.result == tensor)

    @property
    def channels(self) -> int:
        """Channels of the map."""
        return sum(self.channels_of(name) for name in self.outputs)


def round_channels(value: float) -> int:
    """Find the nearest multiple of 8 that isn't more than 10 % below ``value``."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def lite_network(name: str) -> LiteNetwork:
    """Describe the backbone ``name``.

    Without an ending the last stride is removed and what stands behind it dilated, so that the map has stride 16.

    Args:
        name: ``efficientnet-lite0`` or ``efficientnet-lite2`` and one of :data:`ENDINGS`.

    Returns:
        Its layers.

    Raises:
        ArgumentError: another name.
    """
    variant, plus, ending = name.partition("+")
    ending = plus + ending
    if variant not in VARIANTS or ending not in ENDINGS:
        names = [v + e for v in VARIANTS for e in ENDINGS]
        raise ArgumentError(f"backbone: got {name!r}, expected one of {', '.join(names)}")
    width, depth, _ = VARIANTS[variant]
    dilated = ending in ("", "+mid", "+dilated-head")
    layers = [ConvLayer("stem", "image", 3, 32, kernel=3, stride=2)]
    block, dilation, mid = 0, 1, ""
    for i, (repeats, kernel, stage_stride, expansion, channels) in enumerate(STAGES):
        # Lite: the first and the last stage are not deepened, stem and head are not widened
        repeats = repeats if i in (0, len(STAGES) - 1) else math.ceil(depth * repeats)
        outputs = round_channels(channels * width)
        for r in range(repeats):
            stride = stage_stride if r == 0 else 1
            source, inputs = layers[-1].result, layers[-1].outputs
            last_stride = stride == 2 and all(s == 1 for _, _, s, _, _ in STAGES[i + 1 :])
            if last_stride:
                mid = source
            tensor, wide = source, inputs * expansion
            if expansion > 1:
                layers.append(ConvLayer(f"{block}.expand", tensor, inputs, wide))
                tensor = f"{block}.expand"
            removed = dilated and last_stride
            layers.append(
                ConvLayer(
                    f"{block}.depthwise", tensor, wide, wide, kernel=kernel, stride=1 if removed else stride,
                    dilation=dilation, depthwise=True,
                )
            )  # fmt: skip
            if removed:
                dilation = 2
            added = source if stride == 1 and inputs == outputs else ""
            layers.append(ConvLayer(f"{block}.project", f"{block}.depthwise", wide, outputs, relu6=False, added=added))
            block += 1
    if ending.endswith("head"):
        layers.append(ConvLayer("head", layers[-1].result, layers[-1].outputs, HEAD_CHANNELS))
    result = layers[-1].result
    return LiteNetwork(
        name, variant, tuple(layers), (mid, result) if ending == "+mid" else (result,), 16 if dilated else 32
    )


def split_network(network: LiteNetwork, blocks: int) -> tuple[LiteNetwork, tuple[ConvLayer, ...]]:
    """Cut a network in two: early layers that stay frozen, and its last blocks.

    Args:
        network: its layers.
        blocks: how many blocks are in the second part.

    Returns:
        A network whose map is what the second part reads, and the layers of the second part.

    Raises:
        ArgumentError: there are not so many blocks, or so few that a part of the map would come from before them.
    """
    numbers = sorted({int(layer.name.split(".")[0]) for layer in network.layers if "." in layer.name})
    late: list[tuple[ConvLayer, ...]] = [
        tuple(layer for layer in network.layers if layer.name.split(".")[0] in {str(n) for n in numbers[-count:]})
        for count in range(1, len(numbers))
    ]
    fitting = [count for count, layers in enumerate(late, 1) if _reads_one(network, layers)]
    if not fitting:
        raise ArgumentError(
            f"backbone: the last blocks of {network.name} can't be taken apart from the layer behind them; expected "
            f"{network.variant} with +mid, +stride32 or no ending"
        )
    if blocks not in fitting:
        raise ArgumentError(f"blocks: got {blocks}, expected {fitting[0]} to {fitting[-1]} with {network.name}")
    layers = late[blocks - 1]
    early = tuple(layer for layer in network.layers if layer not in layers)
    stride = math.prod(layer.stride for layer in early)
    return replace(network, layers=early, outputs=(layers[0].source,), stride=stride), layers


def _reads_one(network: LiteNetwork, layers: tuple[ConvLayer, ...]) -> bool:
    """Whether ``layers`` read one tensor only of those before them, and make up the map with it."""
    own = {layer.result for layer in layers} | {layer.name for layer in layers}
    read = {name for layer in layers for name in (layer.source, layer.added) if name} | set(network.outputs)
    return read - own == {layers[0].source}
