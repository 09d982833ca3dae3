"""Training with several sizes (the paper's section 2.3): which images form a batch, and at which size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from sppnet._types import F64, I64, U8
from sppnet.errors import ArgumentError

__all__ = ["Batch", "aspects_of_groups", "augment", "batches_of_epoch", "size_of"]

# Aspects (width to height) of images as cameras make them
_WIDE = (4 / 3, 3 / 2, 16 / 9, 7 / 3, 3.0)
_ASPECTS = (*(1 / a for a in reversed(_WIDE)), 1.0, *_WIDE)


@dataclass(frozen=True)
class Batch:
    """Images that are trained together, and the size to which all of them are resized.

    Attributes:
        indices: of the images.
        side_px: the short side.
        aspect: width divided by height; None for square crops.
    """

    indices: tuple[int, ...]
    side_px: int
    aspect: float | None = None


def aspects_of_groups(aspects: ArrayLike, least: int = 1) -> F64:
    """Find the aspect to which each image is resized, so that whole images can be trained in batches of one size.

    It is the nearest of a few (1, 4:3, 3:2, 16:9, 7:3, 3:1 and those upright), which stretches an image by a factor of
    1.16 at most, unless it is longer than 3:1.

    Args:
        aspects: ``(n,)``, width divided by height.
        least: where fewer images than this have an aspect, they get the next one nearer to the square; square ones get
            the most frequent aspect.

    Returns:
        float64 ``(n,)``, the aspect of each image.

    Raises:
        ArgumentError: numbers that aren't positive, or none.
    """
    given = np.asarray(aspects, np.float64)
    if given.ndim != 1 or not len(given) or not np.isfinite(given).all() or given.min() <= 0:
        raise ArgumentError(f"aspects: expected positive numbers (n,), got {given.shape}")
    logs = np.log(_ASPECTS)
    group = np.abs(np.log(given)[:, None] - logs).argmin(1)
    square = len(_WIDE)
    for distance in range(square, 0, -1):  # the longest first, as those that join the next may be enough with it
        for place, inwards in ((square - distance, 1), (square + distance, -1)):
            if 0 < (group == place).sum() < least:
                group[group == place] += inwards
    if 0 < (group == square).sum() < least and (group != square).any():
        group[group == square] = np.bincount(group[group != square]).argmax()
    chosen: F64 = np.asarray(_ASPECTS)[group]
    return chosen


def size_of(sizes: Sequence[int], how: Literal["alternate", "random"], epoch: int, batch: int, seed: int) -> int:
    """Choose the side of a batch.

    Args:
        sizes: sides in pixels.
        how: ``alternate``: one size for a whole epoch, then the next (the paper: 224, then 180: two networks that share
            their weights). ``random``: any whole number from the smallest to the largest of ``sizes``, for each batch.
        epoch: number of the epoch.
        batch: number of the batch in the epoch.
        seed: of the random choice.

    Returns:
        The side in pixels.
    """
    if how == "alternate":
        return int(sizes[epoch % len(sizes)])
    rng = np.random.default_rng((seed, epoch, batch, 1))
    return int(rng.integers(min(sizes), max(sizes) + 1))


def batches_of_epoch(
    count: int,
    batch_size: int,
    sizes: Sequence[int],
    how: Literal["alternate", "random"] = "alternate",
    *,
    epoch: int = 0,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    aspects: F64 | None = None,
) -> list[Batch]:
    """Make the batches of one epoch: every image once, in an order that depends only on ``seed`` and ``epoch``.

    Args:
        count: number of images.
        batch_size: images in a batch at most, over all processes together. They are divided evenly, so that no batch
            of few is left, whose statistics would mislead batch normalisation.
        sizes: sides in pixels.
        how: as of :func:`size_of`.
        epoch: number of the epoch.
        seed: of the order.
        rank: number of this process in distributed training. It gets every ``world``-th image of each batch, so that
            all processes have the same sizes at the same time.
        world: number of processes. A last batch that is too small for all of them is left out.
        aspects: ``(count,)``, of :func:`aspects_of_groups`: the images of a batch have one aspect, too. Images of an
            aspect are divided evenly among as few batches as possible, and the batches are shuffled.

    Returns:
        The batches of this process.

    Raises:
        ArgumentError: numbers out of range.
    """
    if count < 1 or batch_size < 1 or not sizes or min(sizes) < 1 or how not in ("alternate", "random"):
        raise ArgumentError(f"expected positive numbers, got {count=}, {batch_size=}, {sizes=}, {how=}")
    if not 0 <= rank < world or batch_size % world:
        raise ArgumentError(f"batch_size {batch_size} can't be divided among {world} processes (this is number {rank})")
    rng = np.random.default_rng((seed, epoch, 0))
    order = rng.permutation(count)
    batches: list[tuple[I64, float | None]] = []
    if aspects is None:
        batches = [(part, None) for part in np.array_split(order, -(-count // batch_size))]
    else:
        for aspect in np.unique(aspects):
            group = order[aspects[order] == aspect]
            batches += [(part, float(aspect)) for part in np.array_split(group, -(-len(group) // batch_size))]
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return [
        Batch(tuple(part[rank::world].tolist()), size_of(sizes, how, epoch, number, seed), aspect)
        for number, (part, aspect) in enumerate(batches)
        if len(part) >= world
    ]


# Principal components of the colours of ImageNet (Krizhevsky et al., 2012), for pixels in [0, 255]
_COLOUR_DEVIATIONS = np.array([0.2175, 0.0188, 0.0045], np.float32) * 255
_COLOUR_VECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)


def augment(image: U8, side_px: int, rng: np.random.Generator, aspect: float | None = None) -> U8:
    """Change an image at random as the paper does (section 3.1).

    The result is a square of 224/256 of the short side, in the middle or in one of the four corners of the *whole*
    image, mirrored or not, its colours shifted along their principal components (standard deviation 0.1). At every
    ``side_px`` it is the same square at another resolution.

    Args:
        image: uint8 ``(H, W, 3)``.
        side_px: side of the square.
        rng: for the choices.
        aspect: width divided by height. Instead of a square, all of the image is resized to that aspect, with
            ``side_px`` as its short side.

    Returns:
        uint8 ``(side_px, side_px, 3)``, or of the aspect.
    """
    height, width = image.shape[:2]
    size, box = (side_px, side_px), None
    place = int(rng.integers(5))
    if aspect is None:
        edge = min(height, width) * 224 / 256
        left = (width - edge) * (0.5 if place == 4 else place % 2)
        top = (height - edge) * (0.5 if place == 4 else place // 2)
        box = (left, top, left + edge, top + edge)
    else:
        size = (round(side_px * max(1.0, aspect)), round(side_px * max(1.0, 1 / aspect)))
    out = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box))
    if rng.random() < 0.5:
        out = out[:, ::-1]
    shift = _COLOUR_VECTORS @ (rng.normal(0, 0.1, 3).astype(np.float32) * _COLOUR_DEVIATIONS)
    changed: U8 = np.clip(np.rint(out + shift), 0, 255).astype(np.uint8)
    return changed
