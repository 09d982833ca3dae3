"""The feature maps of one image, at each scale, and what their numbers stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sppnet._types import F32

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImageMaps", "MapScale", "flip_boxes", "joined"]


@dataclass(frozen=True)
class MapScale:
    """What the bytes of a quantised map stand for: ``(byte - zero) * step``.

    Attributes:
        step, zero: float32 ``(channels,)``.
    """

    step: F32
    zero: F32

    def floats(self, values: NDArray[np.uint8]) -> F32:
        """What ``values`` stand for, float32; their last axis is the channels, or several times all channels."""
        repeated = values.reshape(*values.shape[:-1], values.shape[-1] // len(self.step), len(self.step))
        found: F32 = (repeated.astype(np.float32) - self.zero) * self.step
        return found.reshape(values.shape)

    def is_same(self, other: MapScale) -> bool:
        """Tell whether the bytes of both stand for the same numbers."""
        return np.array_equal(self.step, other.step) and np.array_equal(self.zero, other.zero)


@dataclass(frozen=True)
class ImageMaps:
    """The maps of one image.

    Attributes:
        maps: one a scale, ``(channels, h, w)``, channels innermost in memory. Arrays of float32, float16 (from a
            cache) or uint8 (quantised); tensors where a CUDA device computed them.
        scale: float32 ``(scales, 2)``: input pixels per image pixel, in x and y.
        height, width: of the image in pixels.
        quantised: what the bytes of uint8 maps stand for; None of other maps.
        mirrored: the maps of the mirror image, for detectors that look at both.
    """

    maps: tuple[NDArray[Any] | Tensor, ...]
    scale: F32
    height: int
    width: int
    quantised: MapScale | None = None
    mirrored: ImageMaps | None = None

    def float(self) -> ImageMaps:
        """The same in float32."""
        if self.quantised is None:
            return self.unpacked()
        wide = (self.quantised.floats(np.asarray(m).transpose(1, 2, 0)).transpose(2, 0, 1) for m in self.maps)
        return replace(self, maps=tuple(wide), quantised=None)

    def unpacked(self) -> ImageMaps:
        """The same with float16 maps in float32, for maps from a cache that are pooled more than once."""
        wide = (m.astype(np.float32) if isinstance(m, np.ndarray) and m.dtype == np.float16 else m for m in self.maps)
        return replace(self, maps=tuple(wide))

    def stored(self) -> tuple[NDArray[Any], ...]:
        """The maps as contiguous ``(h, w, channels)``, float16 or uint8, as the feature cache keeps them."""
        arrays = (m if isinstance(m, np.ndarray) else m.cpu().numpy() for m in self.maps)
        return tuple(
            np.ascontiguousarray(m.transpose(1, 2, 0), np.uint8 if m.dtype == np.uint8 else np.float16) for m in arrays
        )


def flip_boxes(boxes: F32, width: int) -> F32:
    """Boxes ``(K, 4)`` of the mirror image."""
    flipped = boxes.copy()
    flipped[:, 0], flipped[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return flipped


def joined(parts: Sequence[ImageMaps]) -> ImageMaps:
    """Maps of one image at several scales, from those of each scale."""
    maps = tuple(m for part in parts for m in part.maps)
    return replace(parts[0], maps=maps, scale=np.concatenate([part.scale for part in parts]))
