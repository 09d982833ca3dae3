"""EfficientNet-Lite 0, 1 and 2 (Tan and Le, 2019; the "Lite" variants without squeeze-excitation, with ReLU6).

The network as published ends at stride 32. For detection its last stride can be removed and the layers behind it
dilated instead (``dilate_last_stride``): the map then has stride 16 and holds, at every second cell, exactly the values
of the published network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sppnet.backbones.engines.lite import STAGES, VARIANTS, round_channels
from sppnet.backbones.layers import ConvBN

__all__ = ["EfficientNetLite", "convert_state_dict"]


class _Block(nn.Module):
    """Inverted residual: 1x1 expand, depthwise, 1x1 project (linear); identity added where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.channels = outputs
        self.expand = ConvBN(inputs, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvBN(width, width, kernel, stride=stride, depthwise=True)
        self.project = ConvBN(width, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return y + x if self.residual else y


class EfficientNetLite(nn.Module):
    """The whole classification network; :meth:`features` computes the map before its head.

    Input: float ``(N, 3, H, W)``, RGB, ``(pixel - 127) / 128``. Padding is computed for each input size; with sides
    that are multiples of 32 (16 when dilated) it is the same at all of them, and so is the position of the cells.

    Args:
        variant: ``efficientnet-lite0`` or ``efficientnet-lite2``.
        num_classes: outputs of the classifier.
        head: False leaves out the 1280-channel head and the classifier (for detection).
    """

    def __init__(self, variant: str = "efficientnet-lite0", num_classes: int = 1000, head: bool = True) -> None:
        super().__init__()
        width, depth, self.native_side_px = VARIANTS[variant]
        self.stem = ConvBN(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        inputs = 32
        self.last_strided_block = 0
        for i, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
            # Lite: the first and the last stage are not deepened, stem and head are not widened
            repeats = repeats if i in (0, len(STAGES) - 1) else math.ceil(depth * repeats)
            outputs = round_channels(channels * width)
            if stride == 2:
                self.last_strided_block = len(blocks)
            for r in range(repeats):
                blocks.append(_Block(inputs, outputs, kernel, stride if r == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.channels = inputs
        self.stride = 32
        self.head = ConvBN(inputs, 1280, 1) if head else None
        self.classifier = nn.Linear(1280, num_classes) if head else None

    def dilate_last_stride(self) -> EfficientNetLite:
        """Remove the last stride of 2 and dilate every depthwise layer behind it by 2, in place. Stride becomes 16.

        Returns:
            The network itself.
        """
        if self.stride != 32:
            return self
        dilate = False
        strided = [b for b in self.blocks if isinstance(b, _Block) and b.depthwise.conv.stride == (2, 2)]
        for block in self.blocks:
            if not isinstance(block, _Block):
                continue
            conv = block.depthwise.conv
            if dilate:
                conv.dilation = (2, 2)
            if block is strided[-1]:
                conv.stride = (1, 1)
                dilate = True
        self.stride = 16
        return self

    def features(self, x: Tensor) -> Tensor:
        """Compute the map before the head.

        Args:
            x: ``(N, 3, H, W)``.

        Returns:
            ``(N, channels, ceil(H / stride), ceil(W / stride))``, linear (signed).
        """
        maps: Tensor = self.blocks(self.stem(x))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Compute class logits ``(N, num_classes)`` of images ``(N, 3, H, W)``."""
        if self.head is None or self.classifier is None:
            raise RuntimeError("this network was built without its head: call features(), or build it with head=True")
        logits: Tensor = self.classifier(self.head(self.features(x)).mean((2, 3)))
        return logits


def convert_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Change the names of the published PyTorch files (``_blocks.3._bn1.weight``) into those of this class.

    Args:
        state: tensors by name; names of this class are left as they are.

    Returns:
        The tensors as float32 (counters as they are).
    """
    parts = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.bn",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.bn",
        "_project_conv": "project.conv",
        "_bn2": "project.bn",
    }
    tops = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.bn",
        "_conv_head": "head.conv",
        "_bn1": "head.bn",
        "_fc": "classifier",
    }
    out = {}
    for name, value in state.items():
        words = name.split(".")
        if words[0] == "_blocks" and len(words) == 4 and words[2] in parts:
            new = f"blocks.{words[1]}.{parts[words[2]]}.{words[3]}"
        elif words[0] in tops:
            new = ".".join((tops[words[0]], *words[1:]))
        else:
            new = name
        out[new] = value if value.dtype == torch.int64 else value.float()
    return out
