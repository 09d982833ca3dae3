"""The last blocks of an EfficientNet-Lite in torch, to be trained: batch normalisation is folded in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sppnet.backbones.depthwise import depthwise
from sppnet.backbones.engines.lite import ConvLayer, LiteNetwork, split_network
from sppnet.backbones.engines.published import Folded

__all__ = ["ConvTail", "has_fast_bfloat16"]


class ConvTail(nn.Module):
    """Computes the map of a network from what its early layers give.

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
            self.kernels[_key(layer)] = nn.Parameter(kernel)
            self.biases[_key(layer)] = nn.Parameter(bias)

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
            kernel, bias = self.kernels[_key(layer)].to(dtype), self.biases[_key(layer)].to(dtype)
            y = _convolve(layer, tensors[layer.source], kernel, bias)
            if layer.added:
                y = y + tensors[layer.added]
            tensors[layer.result] = y
        found = torch.cat([tensors[name].float() for name in self.outputs], 1)
        return found.contiguous(memory_format=torch.channels_last)

    def folded(self) -> Folded:
        """Give kernels and biases as arrays."""
        state = self.state_dict()
        return {
            layer.name: (
                state[f"kernels.{_key(layer)}"].float().cpu().numpy().copy(),
                state[f"biases.{_key(layer)}"].float().cpu().numpy().copy(),
            )
            for layer in self.layers
        }


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
