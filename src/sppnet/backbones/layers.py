"""Convolution layers that the backbones share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvBN", "SamePadConv2d", "fuse"]


class SamePadConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's ``SAME``: the output's size is ``ceil(input / stride)``.

    Where the padding is odd, the extra row or column is at the bottom or right. The padding depends on the input's
    size, so it is computed each time. Arguments are those of ``nn.Conv2d``.
    """

    def same_padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Compute the padding of an input.

        Args:
            height: of the input in cells.
            width: of the input in cells.

        Returns:
            ``(left, right, top, bottom)`` in cells.
        """
        pads: list[int] = []
        for size, k, s, d in ((width, *self._axis(1)), (height, *self._axis(0))):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            pads += [total // 2, total - total // 2]
        return pads[0], pads[1], pads[2], pads[3]

    def _axis(self, i: int) -> tuple[int, int, int]:
        return self.kernel_size[i], self.stride[i], self.dilation[i]

    def symmetric(self, height: int, width: int) -> tuple[Tensor, tuple[int, int]]:
        """Find a kernel with symmetric padding that gives the same result as ``SAME``.

        Where one more row or column is needed at the end than at the start, the kernel gets a row or column of zeros at
        its start instead: padding the map itself would copy it, which takes as long as the convolution.

        Args:
            height: of the input in cells.
            width: of the input in cells.

        Returns:
            The kernel, and its padding ``(rows, columns)`` on either side.

        Raises:
            RuntimeError: odd padding of a dilated kernel, which no kernel of ours has.
        """
        left, right, top, bottom = self.same_padding(height, width)
        if (left, top) == (right, bottom):
            return self.weight, (top, left)
        if self.dilation != (1, 1):
            raise RuntimeError(f"SAME padding: dilation {self.dilation} with unequal sides isn't supported")
        return functional.pad(self.weight, (right - left, 0, bottom - top, 0)), (bottom, right)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the convolution.

        Args:
            x: the input ``(N, C, H, W)``.

        Returns:
            The map ``(N, C', ceil(H / stride), ceil(W / stride))``.
        """
        size = int(x.shape[-2]), int(x.shape[-1])
        if x.device.type != "cpu":  # on the meta device the kernel's size is looked at
            x = functional.pad(x, self.same_padding(*size))
            return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        weight, padding = self.symmetric(*size)
        return functional.conv2d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvBN(nn.Module):
    """Convolution (SAME padding, no bias), batch normalisation, then ReLU6 unless ``linear``.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: side of the kernel in cells.
        stride: in cells.
        depthwise: whether each channel has a kernel of its own.
        linear: leave the ReLU6 out.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, depthwise: bool = False, linear: bool = False
    ) -> None:
        super().__init__()
        groups = inputs if depthwise else 1
        self.conv = SamePadConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three."""
        x = self.bn(self.conv(x))
        if self.linear:
            return x
        return functional.relu6(x, inplace=not self.training)


def fuse(module: nn.Module) -> nn.Module:
    """Fold the batch normalisations of every :class:`ConvBN` in ``module`` into its convolutions, in place.

    For inference only (running statistics are frozen). Saves a pass over memory for each layer. The product is formed
    in float64, so the fused weights are correctly rounded.

    Args:
        module: is changed.

    Returns:
        The module itself.
    """
    for part in module.modules():
        if isinstance(part, ConvBN) and isinstance(part.bn, nn.BatchNorm2d):
            bn, conv = part.bn, part.conv
            if bn.running_mean is None or bn.running_var is None:
                raise RuntimeError("a batch normalisation without running statistics can't be folded in")
            with torch.no_grad():
                scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
                bias = bn.bias.double() - bn.running_mean.double() * scale
                conv.weight.copy_((conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype))
                conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
            part.bn = nn.Identity()
    return module
