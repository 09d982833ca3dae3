"""Graph segmentation (Felzenszwalb and Huttenlocher, IJCV 2004)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError
from sppnet.proposals import compiled, tables

__all__ = ["as_rgb", "graph_segmentation"]

MAX_SIDE = 65534  # of an image: steps between rows are kept in 16 bits


def as_rgb(image: Any) -> NDArray[np.uint8]:
    """``image`` (path, PIL image or array) as a contiguous array (H, W, 3) uint8.

    Raises:
        ImageError: it can't be read, or is none.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        if image.size == 0:
            raise ArgumentError(f"image: expected at least one pixel, got shape {image.shape}")
        return np.ascontiguousarray(image)
    from sppnet.images import load_image

    return np.ascontiguousarray(load_image(image))


def check_scale(sigma: float, k: float, min_size: int) -> None:
    """Raise :class:`ArgumentError` unless the parameters of the segmentation are in range."""
    if not 0 <= sigma <= 50:
        raise ArgumentError(f"sigma: expected pixels in [0, 50], got {sigma!r}")
    if not 0 <= k <= 1e6:
        raise ArgumentError(f"k: expected grey levels in [0, 1000000], got {k!r}")
    if not isinstance(min_size, int | np.integer) or min_size < 0:
        raise ArgumentError(f"min_size: expected a whole number of pixels >= 0, got {min_size!r}")


def graph_segmentation(image: Any, sigma: float = 0.8, k: float = 300, min_size: int = 100) -> NDArray[np.int32]:
    """Cut an image into regions whose differences to their neighbours exceed the differences inside.

    Neighbouring pixels (8 of them) differ by the Euclidean distance of their smoothed RGB colours, in steps of 1/16
    grey level. Two regions are joined over a difference ``w`` if ``w <= Int(C) + k / |C|`` holds for both, where Int is
    the greatest difference joined so far and ``|C|`` the size in pixels; differences come lightest first, equal ones in
    reading order. All arithmetic is exact, so the result is the same on every machine.

    Args:
        image: path, PIL image or array, as :func:`sppnet.images.load_image` takes it.
        sigma: of the Gaussian smoothing, in pixels, in [0, 50]; 0 for none.
        k: scale, in grey levels times pixels, in [0, 1000000]: greater gives greater regions.
        min_size: smaller regions are joined to a neighbour, in pixels, >= 0.

    Returns:
        ``(H, W)`` int32: region numbers ``0 .. n - 1`` in reading order of their first pixels.

    Raises:
        ArgumentError: a parameter out of range, or an image wider than 65534 pixels.
        ImageError: the image can't be read.
    """
    check_scale(sigma, k, min_size)
    rgb = as_rgb(image)
    height, width = rgb.shape[:2]
    if width > MAX_SIDE:
        raise ArgumentError(f"image: expected a width of at most {MAX_SIDE} pixels, got {width}; scale it down")
    from sppnet.kernels.run import first_run_notice

    with first_run_notice("graph segmentation"):
        planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
        _, order, starts = sorted_edges(planes, sigma)
        labels = np.empty(height * width, np.int32)
        compiled.segment(order, starts, width, [round(16 * k)], int(min_size), labels)
    return labels.reshape(height, width)


def sorted_edges(
    planes: NDArray[np.uint8], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """Smooth ``planes`` (C, H, W), weigh the edges and sort them: what all segmentations of one colour space share.

    Returns:
        the smoothed planes (C, H, W) float32 in 1/8 grey level; the edges ``4 * pixel + direction`` (E,) int32,
        lightest first; where each weight starts among them.
    """
    _, height, width = planes.shape
    smoothed = np.empty(planes.shape, np.float32)
    compiled.smooth(planes, tables.gaussian_weights(float(sigma)), smoothed)
    weights = np.empty((4, height, width), np.uint16)
    compiled.edge_weights(smoothed, weights)
    order = np.empty(height * (width - 1) + (height - 1) * width + 2 * (height - 1) * (width - 1), np.int32)
    starts = np.empty(tables.BUCKETS + 1, np.int32)
    compiled.sort_edges(weights.reshape(4, height * width), order, starts)
    return smoothed, order, starts
