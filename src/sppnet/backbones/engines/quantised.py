"""Quantised layers as they are kept: integers, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.backbones.engines.lite import LiteNetwork
from sppnet.errors import ModelFileError, WeightsError
from sppnet.storage.envelope import read_envelope

__all__ = ["KIND", "VERSION", "QuantisedLayer", "QuantisedLayers", "load_shipped", "shipped_file"]

KIND, VERSION = "sppnet-int8-layers", 1
"""Kind of the files of :func:`load_shipped`, and version of their format."""


@dataclass(frozen=True)
class QuantisedLayer:
    """A convolution in integers: ``sum(kernel * (input - zero of the input)) + bias``, in int32.

    Attributes:
        kernel: int8 ``(outputs, inputs, k, k)``.
        kernel_scale: float32 ``(outputs,)``: what 1 in the kernel stands for.
        bias: int32 ``(outputs,)``, in units of the scale of the input times that of the kernel.
    """

    kernel: NDArray[np.int8]
    kernel_scale: NDArray[np.float32]
    bias: NDArray[np.int32]


@dataclass(frozen=True)
class QuantisedLayers:
    """All layers of a network, and the scale of each tensor between them.

    Attributes:
        layers: by name.
        tensors: by name: ``step`` (float32) and ``zero`` (uint8); a byte stands for ``(byte - zero) * step``.
    """

    layers: dict[str, QuantisedLayer]
    tensors: dict[str, tuple[np.float32, np.uint8]]

    def map_scale(self, network: LiteNetwork) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Find what the bytes of a map stand for: ``(byte - zero) * step``.

        Args:
            network: whose map it is.

        Returns:
            ``step`` and ``zero``, float32 ``(channels,)`` each.
        """
        parts = [(network.channels_of(name), *self.tensors[name]) for name in network.outputs]
        steps = [np.full(count, step, np.float32) for count, step, _ in parts]
        zeros = [np.full(count, zero, np.float32) for count, _, zero in parts]
        return np.concatenate(steps), np.concatenate(zeros)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give all of it as arrays by name, for a file."""
        out: dict[str, NDArray[Any]] = {}
        for name, layer in self.layers.items():
            out |= {f"{name}.kernel": layer.kernel, f"{name}.scale": layer.kernel_scale, f"{name}.bias": layer.bias}
        for name, (step, zero) in self.tensors.items():
            out |= {f"{name}:step": np.array([step], np.float32), f"{name}:zero": np.array([zero], np.uint8)}
        return out

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> QuantisedLayers:
        """Make it from what :meth:`arrays` gave.

        Raises:
            KeyError: an array is missing.
        """
        layers, tensors = {}, {}
        for key in arrays:
            if key.endswith(".kernel"):
                name = key.removesuffix(".kernel")
                layers[name] = QuantisedLayer(arrays[key], arrays[f"{name}.scale"], arrays[f"{name}.bias"])
            elif key.endswith(":step"):
                name = key.removesuffix(":step")
                tensors[name] = (np.float32(arrays[key][0]), np.uint8(arrays[f"{name}:zero"][0]))
        return QuantisedLayers(layers, tensors)


def shipped_file(variant: str) -> str:
    """Name the file of the int8 layers of ``variant`` that comes with the package."""
    return f"{variant}.int8.safetensors"


def load_shipped(variant: str) -> QuantisedLayers:
    """Load the int8 layers that come with the package.

    Args:
        variant: such as ``efficientnet-lite0``.

    Returns:
        The layers of every ending of the name, the head among them.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    with resources.as_file(resources.files(__package__) / "data" / shipped_file(variant)) as path:
        try:
            return QuantisedLayers.from_arrays(read_envelope(path, KIND, VERSION, "int8 layers of a backbone").arrays)
        except (ModelFileError, KeyError) as error:
            raise WeightsError(f"{error}. The file comes with sppnet: install it anew") from error
