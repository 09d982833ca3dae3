"""Pooled vectors of many images, kept in a folder so that no convolution runs twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sppnet._types import F32, Progress, no_progress
from sppnet.classification.multiview import AnyView
from sppnet.classification.networks import Network
from sppnet.errors import ImageError
from sppnet.images import load_image
from sppnet.storage.feature_cache import FeatureCache, Layout

__all__ = ["pooled_vectors"]


def pooled_vectors(
    network: Network,
    views: Sequence[AnyView],
    paths: Sequence[Path],
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> F32:
    """Pool images to the vectors that the fully connected layers get.

    Args:
        network: of the classifier.
        views: of an image; vectors are averaged over them.
        paths: of the images.
        cache: folder for the vectors; what is there isn't computed again. None keeps nothing.
        progress: shows how far it is.

    Returns:
        float32 ``(n, dims)``, rounded to float16 as the cache has them.

    Raises:
        ImageError: an image can't be read.
    """
    store = FeatureCache(cache) if cache is not None else None
    settings = () if store is None else ("classification", *network.identity(), [v.to_dict() for v in views])
    layout: Layout = {"vector": ("float16", (network.dims,))}
    out = np.empty((len(paths), network.dims), np.float32)
    for i in progress(range(len(paths)), "pooling", total=len(paths)):
        try:
            key = store.key(paths[i], *settings) if store is not None else ""
        except OSError as error:
            raise ImageError(f"{paths[i]}: can't be read ({error.strerror})") from None
        known = store.get(key, layout) if store is not None else None
        if known is None:
            vector = network.vectors(load_image(paths[i]), views).mean(0)
            known = {"vector": vector.astype(np.float16)}
            if store is not None:
                store.put(key, known)
        out[i] = known["vector"]
    return out
