"""Pooled vectors of many images, kept in a folder so that no convolution runs twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sppnet._types import Progress, no_progress
from sppnet.backbones.base import Backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.multiview import AnyView, view_vectors
from sppnet.devices import plain_inference
from sppnet.errors import ImageError
from sppnet.images import load_image
from sppnet.storage.feature_cache import FeatureCache, Layout

__all__ = ["pooled_vectors"]


def pooled_vectors(
    network: SPPClassifier,
    views: Sequence[AnyView],
    paths: Sequence[Path],
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> Tensor:
    """Pool images to the vectors that the fully connected layers get.

    Args:
        network: in evaluation mode.
        views: of an image; vectors are averaged over them.
        paths: of the images.
        cache: folder for the vectors; what is there isn't computed again. None keeps nothing.
        progress: shows how far it is.

    Returns:
        float32 ``(n, dims)`` on the CPU, rounded to float16 as the cache has them.

    Raises:
        ImageError: an image can't be read.
    """
    store = FeatureCache(cache) if cache is not None else None
    bone = network.backbone
    settings = (
        "classification", bone.name, _weights_id(bone) if store is not None else "", str(network.pool),
        network.normalise, [v.to_dict() for v in views],
    )  # fmt: skip
    layout: Layout = {"vector": ("float16", (network.dims,))}
    out = torch.empty(len(paths), network.dims)
    for i in progress(range(len(paths)), "pooling", total=len(paths)):
        try:
            key = store.key(paths[i], *settings) if store is not None else ""
        except OSError as error:
            raise ImageError(f"{paths[i]}: can't be read ({error.strerror})") from None
        known = store.get(key, layout) if store is not None else None
        if known is None:
            with plain_inference():
                vector = view_vectors(network, load_image(paths[i]), views).mean(0)
            known = {"vector": vector.to("cpu", torch.float16).numpy()}
            if store is not None:
                store.put(key, known)
        out[i] = torch.from_numpy(known["vector"]).float()
    return out


def _weights_id(backbone: Backbone) -> str:
    """What tells weights from others: the digest of the published file, or of the values where they aren't those."""
    if backbone.weights_sha256 and not backbone.trainable:
        return backbone.weights_sha256
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
