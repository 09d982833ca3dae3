"""Between a classifier file and a network of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sppnet.backbones.base import Backbone
from sppnet.backbones.registry import backbone_spec, load_backbone
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.classifier_file import check_shapes
from sppnet.errors import ModelFileError
from sppnet.storage.envelope import Array
from sppnet.storage.tensors import to_arrays, to_tensors

__all__ = ["build_network", "describe_network"]


def describe_network(network: SPPClassifier) -> tuple[dict[str, Any], dict[str, Array]]:
    """Give what a file has of a network: matrices as float16. Published convolutions are named, not copied.

    Returns:
        Metadata and matrices.

    Raises:
        ArgumentError: the backbone has a name by which it can't be loaded again (an adapter's, or your own).
    """
    bone = network.backbone
    spec = backbone_spec(bone.name)
    published = spec.source is not None and bone.weights_sha256 == spec.source.sha256
    copied = bone.trainable or not published
    tensors = {f"fc.{name}": value for name, value in network.fc.state_dict().items()}
    if copied:
        tensors |= {f"layers.{name}": value for name, value in bone.layers.state_dict().items()}
    pool: dict[str, Any]
    if isinstance(network.pool, FixedPool):
        pool = {"fixed": [network.pool.kernel, network.pool.stride, *network.pool.map_size]}
    else:
        pool = {"levels": [list(level) for level in network.pool.levels], "mode": network.pool.mode}
    metadata = {
        "backbone": {
            "name": bone.name,
            "weights_sha256": bone.weights_sha256,
            "weights_in_file": copied,
            "trainable": bone.trainable,
        },
        "pool": pool,
        "hidden": list(network.hidden),
        "dropout": network.dropout,
        "normalise": network.normalise,
    }
    return metadata, to_arrays({n: t.half() if t.ndim == 2 else t for n, t in tensors.items()})


def build_network(where: str, metadata: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[SPPClassifier, str]:
    """Make the network that a file describes.

    Args:
        where: the file, for errors.
        metadata: checked.
        arrays: matrices of the file.

    Returns:
        The network, and the digest of the weights of its convolutions.

    Raises:
        ModelFileError: the file describes no network, or its matrices don't fit, or aren't finite.
        WeightsError: the weights of its backbone are missing or other ones.
    """
    described = metadata["backbone"]
    name, copied, trainable = described["name"], described["weights_in_file"], described.get("trainable", False)
    tensors = to_tensors(arrays)
    fc, layers = _part(tensors, "fc."), _part(tensors, "layers.")
    try:
        backbone_spec(name)
        with torch.device("meta"):  # shapes only: no memory is taken
            plan = _network(load_backbone(name, pretrained=False, trainable=trainable), metadata)
        _compare(where, plan.fc, fc)
        if copied:
            _compare(where, plan.backbone.layers, layers)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{where}: describes no network ({str(error)[:200]}); the file is damaged") from None
    bone = load_backbone(name, pretrained=not copied, trainable=trainable)
    network = _network(bone, metadata)
    network.fc.load_state_dict({n: _floats(t) for n, t in fc.items()})
    if copied:
        bone.layers.load_state_dict({n: _floats(t) for n, t in layers.items()})
    for part in (network.fc, bone.layers):
        if not all(bool(torch.isfinite(p).all()) for p in part.parameters()):
            raise ModelFileError(f"{where}: has values that are not finite; the file is damaged")
    return network, bone.weights_sha256


def _network(bone: Backbone, metadata: Mapping[str, Any]) -> SPPClassifier:
    pool = metadata["pool"]
    if "fixed" in pool:
        kernel, stride, rows, columns = pool["fixed"]
        levels: Any = FixedPool(kernel, stride, (rows, columns))
    else:
        levels = tuple((r, c) for r, c in pool["levels"])
    return SPPClassifier(
        bone,
        levels,
        len(metadata["class_names"]),
        mode=pool.get("mode", "max"),
        hidden=metadata["hidden"],
        dropout=metadata["dropout"],
        normalise=metadata["normalise"],
    )


def _compare(where: str, planned: torch.nn.Module, stored: Mapping[str, Tensor]) -> None:
    expected = planned.state_dict()
    check_shapes(where, *({n: tuple(t.shape) for n, t in part.items()} for part in (expected, stored)))
    for name, value in expected.items():
        if value.is_floating_point() != stored[name].is_floating_point():
            raise ModelFileError(f"{where}: {name} is {stored[name].dtype}; the file is damaged")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _floats(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
