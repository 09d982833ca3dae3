"""Which photos go together, and at which size, so that every batch has one size (the paper's section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sppnet.errors import ArgumentError

__all__ = ["Batch", "aspects_of_groups", "augment", "batches_of_epoch", "size_of"]

# Width to height of photos as they are made
_WIDE = (4 / 3, 3 / 2, 16 / 9, 7 / 3, 3.0)
_ASPECTS = (*(1 / a for a in reversed(_WIDE)), 1.0, *_WIDE)


@dataclass(frozen=True)
class Batch:
    """Indices of photos, and the size to which all of them are brought.

    Attributes:
        side_px: the short side. aspect: width divided by height; None for square crops.
    """

    indices: tuple[int, ...]
    side_px: int
    aspect: float | None = None


def aspects_of_groups(aspects: ArrayLike, least: int = 1) -> NDArray[np.float64]:
    """The aspect to which each photo is brought, so that photos can be trained whole in batches of one size.

    It is the nearest of a few (1, 4:3, 3:2, 16:9, 7:3, 3:1 and those upright), which stretches a photo by a factor of
    1.16 at most, unless it is longer than 3:1. Where fewer than ``least`` photos would be brought to an aspect, they
    are brought to the next one nearer to the square, or from there to the commonest.

    Args:
        aspects: ``(n,)``, width divided by height.

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
    return np.asarray(_ASPECTS)[group]


def size_of(sizes: Sequence[int], how: Literal["alternate", "random"], epoch: int, batch: int, seed: int) -> int:
    """Side in pixels of a batch.

    Args:
        how: ``alternate``: one size for a whole epoch, then the next (the paper: 224, then 180: two networks that share
            their weights). ``random``: any whole number from the least to the greatest of ``sizes``, for each batch.
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
    aspects: NDArray[np.float64] | None = None,
) -> list[Batch]:
    """The batches of one epoch: every photo once, in an order that depends on ``seed`` and ``epoch`` only.

    Args:
        count: of photos. batch_size: over all processes together. sizes: sides in pixels.
        rank, world: of distributed training: process ``rank`` gets every ``world``-th photo of each batch, so that all
            of them have the same sizes at the same time. A last batch too small for all is left out.
        aspects: ``(count,)``, of :func:`aspects_of_groups`: the photos of a batch have one aspect, too. Those of an
            aspect are shared out evenly to as few batches as can be, and the batches come in any order.

    Raises:
        ArgumentError: numbers out of range.
    """
    if count < 1 or batch_size < 1 or not sizes or min(sizes) < 1 or how not in ("alternate", "random"):
        raise ArgumentError(f"expected positive numbers, got {count=}, {batch_size=}, {sizes=}, {how=}")
    if not 0 <= rank < world or batch_size % world:
        raise ArgumentError(f"batch_size {batch_size} can't be shared out to {world} processes (this is number {rank})")
    rng = np.random.default_rng((seed, epoch, 0))
    order = rng.permutation(count)
    batches: list[tuple[NDArray[np.int64], float | None]] = []
    if aspects is None:
        batches = [(order[start : start + batch_size], None) for start in range(0, count, batch_size)]
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


def augment(
    image: NDArray[np.uint8], side_px: int, rng: np.random.Generator, aspect: float | None = None
) -> NDArray[np.uint8]:
    """The paper's augmentation (section 3.1): ``(H, W, 3)`` to ``(side_px, side_px, 3)``.

    A square of 224/256 of the short side, in the middle or in one of the four corners of the *whole* photo, mirrored or
    not, its colours shifted along their principal components (deviation 0.1). At every ``side_px`` it is the same
    square, brought to another resolution.

    Args:
        aspect: width divided by height: instead of a square, all of the photo is brought to that aspect, with
            ``side_px`` as its short side.
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
    return np.clip(np.rint(out + shift), 0, 255).astype(np.uint8)
