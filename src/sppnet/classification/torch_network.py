"""A network of torch as a classifier computes with it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet._types import F32, U8
from sppnet.backbones.base import Backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.multiview import AnyView, MapViews
from sppnet.classification.views import View
from sppnet.devices import plain_inference
from sppnet.errors import ArgumentError
from sppnet.pooling.tensors.layers import SpatialPyramidPool

__all__ = ["TorchNetwork", "view_vectors"]


class TorchNetwork:
    """Computes what :class:`sppnet.classification.networks.Network` says.

    Args:
        network: in evaluation mode; is used itself, not copied.
    """

    def __init__(self, network: SPPClassifier) -> None:
        self.network = network
        self.name = network.backbone.name
        self.num_classes = network.num_classes
        self.linear = network.normalise and len(network.fc) == 1
        self.has_pyramid = isinstance(network.pool, SpatialPyramidPool)

    @property
    def dims(self) -> int:
        """Length of a pooled vector."""
        return self.network.dims

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.last.weight.device

    def identity(self) -> tuple[Any, ...]:
        """What tells its vectors from those of others."""
        bone = self.network.backbone
        return bone.name, _weights_id(bone), str(self.network.pool), self.network.normalise

    def vectors(self, pixels: U8, views: Sequence[AnyView]) -> F32:
        """Pool the views of one image."""
        with plain_inference():
            found: F32 = view_vectors(self.network, pixels, views).cpu().numpy()
        return found

    def outputs(self, vectors: F32) -> F32:
        """Compute the outputs of vectors."""
        with plain_inference():
            found: F32 = self.network.fc(torch.from_numpy(np.ascontiguousarray(vectors)).to(self.device)).cpu().numpy()
        return found


@torch.inference_mode()
def view_vectors(network: SPPClassifier, pixels: U8, views: Sequence[AnyView]) -> Tensor:
    """Pool the views of one image to the vectors that the fully connected layers get.

    Args:
        network: in evaluation mode.
        pixels: uint8 ``(H, W, 3)``.
        views: of the image; see :meth:`sppnet.classification.networks.Network.vectors`.

    Returns:
        Vectors ``(V, network.dims)``, in the order of the views, on the device of the network.

    Raises:
        ArgumentError: no view; or windows of feature maps are asked of a network without pyramid, or of an image that
            is smaller than the backbone takes.
    """
    whole = [view for view in views if isinstance(view, View)]
    parts: dict[int, Tensor] = {}
    if whole:
        vectors = network.pooled([_input(network, pixels, view) for view in whole])
        places = [i for i, view in enumerate(views) if isinstance(view, View)]
        parts = {i: vectors[k : k + 1] for k, i in enumerate(places)}
    for i, view in enumerate(views):
        if isinstance(view, MapViews):
            inputs = [_input(network, pixels, one) for one in view.passes()]
            parts[i] = torch.cat([network.windows(x, view.windows(*x.shape[1:])) for x in inputs])
    if not parts:
        raise ArgumentError("views: expected at least one")
    return torch.cat([parts[i] for i in range(len(views))])


def _input(network: SPPClassifier, pixels: U8, view: View) -> Tensor:
    bone, device = network.backbone, next(network.parameters()).device
    return bone.preprocess(view.apply(pixels, bone.size_multiple))[0].to(device)


def _weights_id(backbone: Backbone) -> str:
    """What tells weights from others: the digest of the published file, or of the values where they aren't those."""
    if backbone.weights_sha256 and not backbone.trainable:
        return backbone.weights_sha256
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
