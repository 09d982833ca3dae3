"""The last convolutions of a network where they were trained further, and the published ones before them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.backbones.engines.lite import ConvLayer, LiteNetwork, split_network
from sppnet.backbones.engines.published import Folded
from sppnet.backbones.engines.quantised import QuantisedLayers
from sppnet.errors import ArgumentError

__all__ = ["TunedConvolutions"]

_F32, _U8, _I8, _I32 = "float32", "uint8", "int8", "int32"


@dataclass(frozen=True, eq=False)
class TunedConvolutions:
    """The last blocks of a network with weights of their own.

    Attributes:
        network: name of the backbone that they belong to.
        blocks: how many.
        weights: kernels and biases (float32), or quantised layers (int8), of these blocks alone.
    """

    network: str
    blocks: int
    weights: Folded | QuantisedLayers

    @property
    def precision(self) -> str:
        """``int8`` or ``float32``."""
        return _I8 if isinstance(self.weights, QuantisedLayers) else _F32

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, hexadecimal."""
        found = hashlib.sha256(f"{self.network} {self.blocks} {self.precision}".encode())
        for name, value in sorted(self.arrays().items()):
            found.update(f"{name} {value.dtype.name} {value.shape}\0".encode() + np.ascontiguousarray(value).tobytes())
        return found.hexdigest()

    def folded(self, network: LiteNetwork) -> Folded:
        """Give kernels and biases of the tuned blocks in float32; of quantised layers what their integers stand for.

        Args:
            network: whose last blocks these are.

        Raises:
            ArgumentError: another network.
        """
        self._check(network)
        if not isinstance(self.weights, QuantisedLayers):
            return self.weights
        found: Folded = {}
        for layer in split_network(network, self.blocks)[1]:
            part, (step, _) = self.weights.layers[layer.name], self.weights.tensors[layer.source]
            kernel = part.kernel.astype(np.float32) * part.kernel_scale[:, None, None, None]
            bias = part.bias.astype(np.float64) * part.kernel_scale.astype(np.float64) * float(step)
            found[layer.name] = kernel, bias.astype(np.float32)
        return found

    def quantised(self, network: LiteNetwork, published: QuantisedLayers) -> QuantisedLayers:
        """Give all layers of ``network`` in integers: the published ones before the tuned blocks, then these.

        Args:
            network: whose last blocks these are.
            published: layers of the published network. What is in there of the tuned blocks is left out.

        Raises:
            ArgumentError: another network, or the tuned convolutions are float32.
        """
        self._check(network)
        if not isinstance(self.weights, QuantisedLayers):
            raise ArgumentError(
                "precision: got int8, but the tuned convolutions of this detector are float32; set the precision to "
                "float32, or train it again"
            )
        early = split_network(network, self.blocks)[0].layers
        names = {layer.name for layer in early}
        tensors = {"image"} | names | {layer.result for layer in early}
        return QuantisedLayers(
            {name: layer for name, layer in published.layers.items() if name in names} | self.weights.layers,
            {name: scale for name, scale in published.tensors.items() if name in tensors} | self.weights.tensors,
        )

    def _check(self, network: LiteNetwork) -> None:
        if network.name != self.network:
            raise ArgumentError(
                f"backbone: got {network.name!r}, but the tuned convolutions of this detector are those of "
                f"{self.network!r}; train it again"
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give all of it as arrays by name, for a file."""
        if isinstance(self.weights, QuantisedLayers):
            return self.weights.arrays()
        return {
            f"{name}.{part}": value
            for name, both in self.weights.items()
            for part, value in zip(("kernel", "bias"), both, strict=True)
        }

    @staticmethod
    def from_arrays(network: LiteNetwork, blocks: int, arrays: Mapping[str, NDArray[Any]]) -> TunedConvolutions:
        """Make it from what :meth:`arrays` gave.

        Args:
            network: whose last blocks these are.
            blocks: how many.
            arrays: may come from anywhere; every one is checked.

        Raises:
            ArgumentError: an array is missing or too much, or of another type or shape, or holds what isn't finite.
        """
        early, layers = split_network(network, blocks)
        int8 = any(name.endswith(".scale") for name in arrays)
        expected = _layout(layers, early.outputs[0]) if int8 else _float_layout(layers)
        for name in {*expected, *arrays}:
            found = None if name not in arrays else (arrays[name].dtype.name, tuple(arrays[name].shape))
            if found != expected.get(name):
                raise ArgumentError(f"tuned convolutions: {name} is {found}, expected {expected.get(name)}")
            value = arrays[name]
            if value.dtype.kind == "f":
                good = np.isfinite(value).all() and not (int8 and (value <= 0).any())
                if not good:
                    raise ArgumentError(f"tuned convolutions: {name} holds numbers that can't be")
        if int8:
            return TunedConvolutions(network.name, blocks, QuantisedLayers.from_arrays(arrays))
        names = [layer.name for layer in layers]
        return TunedConvolutions(network.name, blocks, {n: (arrays[f"{n}.kernel"], arrays[f"{n}.bias"]) for n in names})


def _layout(layers: tuple[ConvLayer, ...], source: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each array of quantised layers."""
    out: dict[str, tuple[str, tuple[int, ...]]] = {}
    for layer in layers:
        out[f"{layer.name}.kernel"] = _I8, layer.weight_shape
        out[f"{layer.name}.scale"] = _F32, (layer.outputs,)
        out[f"{layer.name}.bias"] = _I32, (layer.outputs,)
    for tensor in {source, *(layer.name for layer in layers), *(layer.result for layer in layers)}:
        out |= {f"{tensor}:step": (_F32, (1,)), f"{tensor}:zero": (_U8, (1,))}
    return out


def _float_layout(layers: tuple[ConvLayer, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {f"{layer.name}.kernel": (_F32, layer.weight_shape) for layer in layers} | {
        f"{layer.name}.bias": (_F32, (layer.outputs,)) for layer in layers
    }
