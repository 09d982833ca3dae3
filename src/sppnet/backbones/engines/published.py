"""The published weights of EfficientNet-Lite as NumPy arrays, read without torch and without unpickling anything.

The files are pickles of torch. Each is known by its sha256, so the place of every tensor in it is known too: a small
index that comes with this package lists offsets, shapes and strides (:mod:`sppnet.backbones.engines.build` writes it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sppnet.backbones.engines.lite import ConvLayer, LiteNetwork
from sppnet.errors import WeightsError

__all__ = ["Folded", "fold_layers", "published_name", "read_published"]

Folded = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Kernels ``(outputs, inputs, k, k)`` and biases ``(outputs,)`` by the name of the layer."""

_EPSILON = 1e-3  # of batch normalisation
_PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def published_name(layer: ConvLayer) -> tuple[str, str]:
    """Name the convolution and the batch normalisation of a layer as the published files do."""
    if layer.name in ("stem", "head"):
        return f"_conv_{layer.name}", "_bn0" if layer.name == "stem" else "_bn1"
    block, part = layer.name.split(".")
    conv, norm = _PARTS[part]
    return f"_blocks.{block}.{conv}", f"_blocks.{block}.{norm}"


def read_published(path: Path, sha256: str) -> dict[str, NDArray[np.float32]]:
    """Read a published file.

    Args:
        path: of the file.
        sha256: what the file's content was found to have; it chooses the index.

    Returns:
        float32 arrays by the names of the file.

    Raises:
        WeightsError: there is no index for that content.
    """
    index = json.loads((resources.files(__package__) / "data" / "published.json").read_text("utf-8"))
    if sha256 not in index:
        raise WeightsError(
            f"backbone weights {path}: sha256 is {sha256}, expected that of a published EfficientNet-Lite file"
        )
    content = path.read_bytes()
    return {
        name: np.ndarray(shape, np.dtype("<f4"), content, offset, strides)
        for name, (offset, shape, strides) in index[sha256].items()
    }


def fold_layers(network: LiteNetwork, published: Mapping[str, NDArray[np.float32]]) -> Folded:
    """Fold the batch normalisations into the convolutions, in float64, as :func:`sppnet.backbones.layers.fuse` does.

    Args:
        network: the layers that are wanted.
        published: arrays by the names of the published files.

    Returns:
        Kernels and biases in float32.
    """
    folded: Folded = {}
    for layer in network.layers:
        conv, norm = published_name(layer)
        kernel = published[f"{conv}.weight"].astype(np.float64)
        gain, shift, mean, variance = (
            published[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + _EPSILON)
        bias = shift - mean * scale
        folded[layer.name] = ((kernel * scale[:, None, None, None]).astype(np.float32), bias.astype(np.float32))
    return folded
