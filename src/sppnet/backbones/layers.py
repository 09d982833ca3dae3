"""Convolution layers that the backbones share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvBN", "SamePadConv2d", "fuse"]


class SamePadConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's ``SAME``: output size is ``ceil(input / stride)``, and where the padding is
    odd the extra row or column is at the bottom or right. It depends on the input's size, so it is computed each time.
    """

    def same_padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Padding ``(left, right, top, bottom)`` in cells for an input of ``height`` x ``width`` cells."""
        pads: list[int] = []
        for size, k, s, d in ((width, *self._axis(1)), (height, *self._axis(0))):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            pads += [total // 2, total - total // 2]
        return pads[0], pads[1], pads[2], pads[3]

    def _axis(self, i: int) -> tuple[int, int, int]:
        return self.kernel_size[i], self.stride[i], self.dilation[i]

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.same_padding(int(x.shape[-2]), int(x.shape[-1]))
        if left == right and top == bottom:
            return functional.conv2d(x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        x = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ConvBN(nn.Module):
    """Convolution (SAME padding, no bias), batch normalisation, then ReLU6 unless ``linear``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, depthwise: bool = False, linear: bool = False
    ) -> None:
        super().__init__()
        groups = inputs if depthwise else 1
        self.conv = SamePadConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        if self.linear:
            return x
        return functional.relu6(x, inplace=not self.training)


def fuse(module: nn.Module) -> nn.Module:
    """Fold the batch normalisations of every :class:`ConvBN` in ``module`` into its convolutions, in place.

    For inference only (running statistics are frozen). Saves a pass over memory for each layer. The product is formed
    in float64, so the fused weights are the correctly rounded ones.
    """
    for part in module.modules():
        if isinstance(part, ConvBN) and isinstance(part.bn, nn.BatchNorm2d):
            bn, conv = part.bn, part.conv
            assert bn.running_mean is not None
            assert bn.running_var is not None
            with torch.no_grad():
                scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
                bias = bn.bias.double() - bn.running_mean.double() * scale
                conv.weight.copy_((conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype))
                conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
            part.bn = nn.Identity()
    return module
