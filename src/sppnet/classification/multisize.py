"""Which photos go together, and at which size, so that every batch has one size (the paper's section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet.errors import ArgumentError

__all__ = ["Batch", "augment", "batches_of_epoch", "size_of"]


@dataclass(frozen=True)
class Batch:
    """Indices of photos, and the side in pixels to which all of them are brought."""

    indices: tuple[int, ...]
    side_px: int


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
) -> list[Batch]:
    """The batches of one epoch: every photo once, in an order that depends on ``seed`` and ``epoch`` only.

    Args:
        count: of photos. batch_size: over all processes together. sizes: sides in pixels.
        rank, world: of distributed training: process ``rank`` gets every ``world``-th photo of each batch, so that all
            of them have the same sizes at the same time. A last batch too small for all is left out.

    Raises:
        ArgumentError: numbers out of range.
    """
    if count < 1 or batch_size < 1 or not sizes or min(sizes) < 1 or how not in ("alternate", "random"):
        raise ArgumentError(f"expected positive numbers, got {count=}, {batch_size=}, {sizes=}, {how=}")
    if not 0 <= rank < world or batch_size % world:
        raise ArgumentError(f"batch_size {batch_size} can't be shared out to {world} processes (this is number {rank})")
    order = np.random.default_rng((seed, epoch, 0)).permutation(count)
    out = []
    for number, start in enumerate(range(0, count, batch_size)):
        part = order[start : start + batch_size][rank::world]
        if len(order[start : start + batch_size]) < world:
            break
        out.append(Batch(tuple(part.tolist()), size_of(sizes, how, epoch, number, seed)))
    return out


# Principal components of the colours of ImageNet (Krizhevsky et al., 2012), for pixels in [0, 255]
_COLOUR_DEVIATIONS = np.array([0.2175, 0.0188, 0.0045], np.float32) * 255
_COLOUR_VECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)


def augment(image: NDArray[np.uint8], side_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The paper's augmentation (section 3.1): ``(H, W, 3)`` to ``(side_px, side_px, 3)``.

    A square of 224/256 of the short side, in the middle or in one of the four corners of the *whole* photo, mirrored or
    not, its colours shifted along their principal components (deviation 0.1). At every ``side_px`` it is the same
    square, brought to another resolution.
    """
    height, width = image.shape[:2]
    edge = min(height, width) * 224 / 256
    place = int(rng.integers(5))
    left = (width - edge) * (0.5 if place == 4 else place % 2)
    top = (height - edge) * (0.5 if place == 4 else place // 2)
    box = (left, top, left + edge, top + edge)
    out = np.asarray(Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BILINEAR, box))
    if rng.random() < 0.5:
        out = out[:, ::-1]
    shift = _COLOUR_VECTORS @ (rng.normal(0, 0.1, 3).astype(np.float32) * _COLOUR_DEVIATIONS)
    return np.clip(np.rint(out + shift), 0, 255).astype(np.uint8)
