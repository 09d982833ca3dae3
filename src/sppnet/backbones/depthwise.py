"""Depthwise convolutions whose gradients are quick on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sppnet.kernels.lines import DEPTHWISE_BLOCK
from sppnet.kernels.native import NativeKernel
from sppnet.kernels.run import first_run_notice, run_ranges

__all__ = ["depthwise", "kernel_gradient_reference"]

_kernel_gradient = NativeKernel("sppnet.backbones.depthwise_cpu", "kernel_gradient", ("depthwise_cpu",))


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor, dilation: int = 1) -> Tensor:
    """Convolve each channel with a kernel of its own; the result has the size of the input.

    Args:
        x: ``(1, C, H, W)``, channels innermost in memory.
        kernel: ``(C, 1, k, k)``, k odd.
        bias: ``(C,)``.
        dilation: in cells.

    Returns:
        ``(1, C, H, W)``. Its gradients are those of ``torch.nn.functional.conv2d``; sums are made in another order.
    """
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return _convolve(x, kernel, bias, dilation)
    result: Tensor = _Depthwise.apply(x, kernel, bias, dilation)  # type: ignore[no-untyped-call] # torch has no types
    return result


def kernel_gradient_reference(x: Tensor, grad: Tensor, side: int, dilation: int) -> Tensor:
    """Define the gradient of the kernels: ``(C, 1, side, side)`` of an input and a gradient ``(1, C, H, W)``."""
    pad = dilation * (side // 2)
    height, width = x.shape[2:]
    padded = functional.pad(x.double(), (pad, pad, pad, pad))
    rows = [
        [
            (padded[:, :, i : i + height, j : j + width] * grad.double()).sum((0, 2, 3))
            for j in range(0, side * dilation, dilation)
        ]
        for i in range(0, side * dilation, dilation)
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)[:, None].to(x.dtype)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    pad = dilation * (kernel.shape[-1] // 2)
    return functional.conv2d(x, kernel, bias, 1, pad, dilation, len(kernel))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.dilation = dilation
        return _convolve(x, kernel, bias, dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, kernel = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        # the same convolution with the kernel turned around, as sides are odd and nothing is strided
        back = _convolve(grad, kernel.flip(2, 3), None, ctx.dilation) if ctx.needs_input_grad[0] else None
        return back, _gradient_of_kernel(x, grad, kernel, ctx.dilation), grad.sum((0, 2, 3)), None


def _gradient_of_kernel(x: Tensor, grad: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    channels, height, width = (int(n) for n in x.shape[1:])
    side, blocks = int(kernel.shape[-1]), -(-channels // DEPTHWISE_BLOCK)
    flat = [t.permute(0, 2, 3, 1).float().reshape(-1).numpy() for t in (x.detach(), grad)]
    out = np.empty(side * side * channels, np.float32)
    with first_run_notice("depthwise kernels"):
        run_ranges(_kernel_gradient, blocks * side, *flat, out, height, width, channels, side, dilation)
    return torch.from_numpy(out).view(side, side, channels).permute(2, 0, 1)[:, None].to(kernel.dtype)
