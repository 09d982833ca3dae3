"""The last blocks of an EfficientNet-Lite in torch, to be trained: batch normalisation is folded in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sppnet._types import F32
from sppnet.backbones.depthwise import depthwise
from sppnet.backbones.engines.lite import ConvLayer, LiteNetwork, split_network
from sppnet.backbones.engines.published import Folded

__all__ = ["ConvTail", "has_fast_bfloat16"]

_LEAST_UNIT = 0.1  # of the median of a layer


class ConvTail(nn.Module):
    """Computes the map of a network from what its early layers give.

    What is trained is the change of each kernel and bias, in units of the kernel's channel and of the layer's biases.
    Folded kernels differ a hundred times in size from layer to layer (the root of the mean square is 0.01 where a block
    widens, 0.2 where it narrows, 0.3 depthwise), and a step of Adam has the same length for all: with the kernels
    themselves as parameters, some are lost while others don't move. Weight decay draws towards the published weights.

    Args:
        network: the whole of it.
        folded: kernels and biases, at least of the last blocks.
        blocks: how many blocks are trained.

    Attributes:
        source: name of the tensor that it reads.

    Raises:
        ArgumentError: there are not so many blocks; see :func:`~sppnet.backbones.engines.lite.split_network`.
    """

    def __init__(self, network: LiteNetwork, folded: Folded, blocks: int) -> None:
        super().__init__()
        early, self.layers = split_network(network, blocks)
        self.source, self.outputs = early.outputs[0], network.outputs
        self.kernels = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        for layer in self.layers:
            kernel, bias = (torch.from_numpy(value.copy()) for value in folded[layer.name])
            size = kernel.square().mean((1, 2, 3), keepdim=True).sqrt()
            # a channel that is always zero in the published network stays as good as silent
            fixed = {
                "kernel": kernel, "kernel_unit": size.clamp(min=_LEAST_UNIT * float(size.median())),
                "bias": bias, "bias_unit": bias.square().mean().sqrt(),
            }  # fmt: skip
            for part, value in fixed.items():
                self.register_buffer(f"{part}_{_key(layer)}", value, persistent=False)
            self.kernels[_key(layer)] = nn.Parameter(torch.zeros_like(kernel))
            self.biases[_key(layer)] = nn.Parameter(torch.zeros_like(bias))

    def forward(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Compute the map.

        Args:
            x: float32 ``(1, C, h, w)``, what the early layers give for one image.
            dtype: in which it computes: float32 or bfloat16. Sums are made in float32.

        Returns:
            float32 ``(1, channels, h', w')``, channels innermost in memory.
        """
        tensors = {self.source: x.to(dtype).contiguous(memory_format=torch.channels_last)}
        for layer in self.layers:
            kernel, bias = (value.to(dtype) for value in self._weights(layer))
            y = _convolve(layer, tensors[layer.source], kernel, bias)
            if layer.added:
                y = y + tensors[layer.added]
            tensors[layer.result] = y
        found = torch.cat([tensors[name].float() for name in self.outputs], 1)
        return found.contiguous(memory_format=torch.channels_last)

    def folded(self) -> Folded:
        """Give kernels and biases as arrays."""
        with torch.no_grad():
            return {layer.name: _arrays(*self._weights(layer)) for layer in self.layers}

    def _weights(self, layer: ConvLayer) -> tuple[Tensor, Tensor]:
        key = _key(layer)
        return (
            torch.addcmul(self.get_buffer(f"kernel_{key}"), self.kernels[key], self.get_buffer(f"kernel_unit_{key}")),
            torch.addcmul(self.get_buffer(f"bias_{key}"), self.biases[key], self.get_buffer(f"bias_unit_{key}")),
        )


def _arrays(kernel: Tensor, bias: Tensor) -> tuple[F32, F32]:
    return kernel.cpu().numpy().copy(), bias.cpu().numpy().copy()


def _key(layer: ConvLayer) -> str:
    return layer.name.replace(".", "_")


def _convolve(layer: ConvLayer, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    if layer.kernel == 1 and layer.stride == 1:  # a matrix product over all cells
        cells = x.permute(0, 2, 3, 1)
        # cut off before it is seen as a map: in place on a view, autograd would copy every gradient
        y = _activate(layer, functional.linear(cells.reshape(-1, layer.inputs), kernel.flatten(1), bias))
        return y.view(*cells.shape[:3], layer.outputs).permute(0, 3, 1, 2)
    if layer.depthwise and layer.stride == 1:
        return _activate(layer, depthwise(x, kernel, bias, layer.dilation))
    pads: list[int] = []
    for size in (int(x.shape[3]), int(x.shape[2])):  # TensorFlow's SAME
        total = max((-(-size // layer.stride) - 1) * layer.stride + layer.dilation * (layer.kernel - 1) + 1 - size, 0)
        pads += [total // 2, total - total // 2]
    groups = layer.inputs if layer.depthwise else 1
    y = functional.conv2d(functional.pad(x, pads), kernel, bias, layer.stride, 0, layer.dilation, groups)
    return _activate(layer, y)


def _activate(layer: ConvLayer, y: Tensor) -> Tensor:
    return functional.hardtanh(y, 0.0, 6.0, inplace=True) if layer.relu6 else y


def has_fast_bfloat16(device: str) -> bool:
    """Tell whether ``device`` multiplies bfloat16 faster than float32."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported())
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(tell()) for tell in asked if tell is not None)
