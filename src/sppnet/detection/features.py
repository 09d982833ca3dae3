"""Image -> convolutions once (at each scale) -> spatial pyramid pooling of every window."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sppnet.backbones.registry import Backbone
from sppnet.pooling.windows import pool_windows

__all__ = ["ImageMaps", "PooledWindows", "WindowFeatures", "input_size", "joined"]

# A window uses the scale at which its area is nearest to this (paper, section 4.2)
TARGET_AREA = 224 * 224
# Of buffers that several threads needed at once, so many stay
_KEPT_BUFFERS = 4


def input_size(height: int, width: int, short_side_px: int, max_long_side_px: int, multiple: int) -> tuple[int, int]:
    """Height and width at which an image is fed to the convolutions.

    The short side becomes ``short_side_px`` unless the long one would exceed ``max_long_side_px``; then both sides are
    rounded to multiples of ``multiple`` pixels (at least one), where strided layers see no odd sizes and so the cells
    lie at the same place for every image. Aspect changes by at most ``multiple / 2`` pixels a side.
    """
    factor = min(short_side_px / min(height, width), max_long_side_px / max(height, width))
    sides = (max(multiple, round(side * factor / multiple) * multiple) for side in (height, width))
    new_height, new_width = sides
    return new_height, new_width


@dataclass(frozen=True)
class ImageMaps:
    """The maps of one image.

    Attributes:
        maps: one a scale, ``(channels, h, w)``, float32 or float16, channels last in memory.
        scale: float32 ``(scales, 2)``: input pixels per image pixel, in x and y.
        height, width: of the image in pixels.
    """

    maps: tuple[Tensor, ...]
    scale: NDArray[np.float32]
    height: int
    width: int

    def float(self) -> ImageMaps:
        """The same in float32, for maps from a cache that are pooled more than once."""
        return replace(self, maps=tuple(m.float() for m in self.maps))


class WindowFeatures:
    """Feature vectors of windows: the part of the detector that is frozen. Safe to use from several threads.

    Args:
        backbone: see :func:`sppnet.backbones.registry.load_backbone`. Vectors are computed on the device that its
            weights are on.
        levels: of the pyramid.
        short_sides_px: the scales.
        mode: ``max`` or ``avg``.
        max_long_ratio: the long side is at most this many times the short side's target (bounds time and memory).
    """

    def __init__(
        self,
        backbone: Backbone,
        levels: Sequence[int],
        short_sides_px: Sequence[int],
        *,
        mode: str = "max",
        max_long_ratio: float = 1.7,
    ) -> None:
        self.backbone = backbone
        self.levels = tuple(levels)
        self.mode = mode
        self.short_sides_px: tuple[int, ...] = tuple(short_sides_px)
        self.max_long_ratio = max_long_ratio
        self.device = next((p.device for p in backbone.parameters()), torch.device("cpu"))

    @property
    def dims(self) -> int:
        """Length of a vector: channels times bins."""
        return int(self.backbone.channels) * sum(n * n for n in self.levels)

    def settings(self) -> tuple[object, ...]:
        """What tells these features from others."""
        return (*self.map_settings(), tuple(self.levels), self.mode)

    def map_settings(self) -> tuple[object, ...]:
        """What tells these maps from others."""
        return *self._network_identity(), self.short_sides_px, self.max_long_ratio

    def _network_identity(self) -> tuple[str, str]:
        """Name of the convolutions, and the SHA-256 of their file or, where they come from none, of their weights."""
        network = self.backbone
        if network.weights_sha256:
            return network.name, network.weights_sha256
        digest = hashlib.sha256()
        for name, value in sorted(network.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}\0".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return network.name, digest.hexdigest()

    def each_scale(self) -> list[WindowFeatures]:
        """The same features at one scale each: their maps together are the maps of these."""
        if len(self.short_sides_px) < 2:
            return [self]
        return [
            WindowFeatures(self.backbone, self.levels, (side,), mode=self.mode, max_long_ratio=self.max_long_ratio)
            for side in self.short_sides_px
        ]

    def estimated_bytes(self, height: int, width: int) -> int:
        """Size of the maps of an image, as the feature cache keeps them (float16)."""
        multiple, cells = self.backbone.size_multiple, 0
        for side in self.short_sides_px:
            h, w = input_size(height, width, side, round(side * self.max_long_ratio), multiple)
            cells += (h // multiple) * (w // multiple)
        return cells * int(self.backbone.channels) * 2

    def maps(self, image: NDArray[np.uint8], *, flip: bool = False) -> ImageMaps:
        """Run the convolutions over ``image (H, W, 3)``, once a scale; over its mirror image if ``flip``."""
        height, width = image.shape[:2]
        if flip:
            image = image[:, ::-1]
        picture = Image.fromarray(image)
        maps, scales = [], []
        for side in self.short_sides_px:
            h, w = input_size(height, width, side, round(side * self.max_long_ratio), self.backbone.size_multiple)
            pixels = np.asarray(picture.resize((w, h), Image.Resampling.BILINEAR))
            maps.append(self.backbone(self.backbone.preprocess(pixels).to(self.device))[0])
            scales.append((w / width, h / height))
        return ImageMaps(tuple(maps), np.array(scales, np.float32), height, width)

    def pool(self, maps: ImageMaps, windows: NDArray[np.float32], out: Tensor | None = None) -> Tensor:
        """Pooled vectors ``(K, dims)``, float32, of ``windows (K, 4)`` in image pixels.

        Args:
            maps: of the image; on another device they are copied.
            windows: ``(K, 4)``.
            out: buffer ``(>= K, dims)`` to use again; the result is its first K rows.
        """
        count = len(windows)
        bins = sum(n * n for n in self.levels)
        index = self._scale_of(maps, windows)
        scale = maps.scale[index]
        located = windows * np.concatenate([scale, scale], 1)
        if out is not None:
            out = out[:count].view(count, bins, int(self.backbone.channels))
        pooled = pool_windows(
            [m.to(self.device).float() for m in maps.maps],
            located,
            self.levels,
            self.mode,
            stride=self.backbone.stride,
            offset=self.backbone.offset,
            map_index=index,
            out=out,
        )
        return pooled.view(count, self.dims)

    def _scale_of(self, maps: ImageMaps, windows: NDArray[np.float32]) -> NDArray[np.int64]:
        if len(maps.maps) == 1:
            return np.zeros(len(windows), np.int64)
        area = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
        scaled = np.maximum(area[:, None] * maps.scale.prod(1)[None], 1.0)
        # nearest in ratio: 4 times too small is as far as 4 times too large
        nearest: NDArray[np.int64] = np.abs(np.log(scaled / TARGET_AREA)).argmin(1)
        return nearest


class PooledWindows:
    """Pooled vectors in buffers that are used again from image to image: new pages of memory cost more than pooling.

    Several threads may use it at once: each borrows a buffer of its own.

    Args:
        features: gives the vectors.
    """

    def __init__(self, features: WindowFeatures) -> None:
        self.features = features
        self._free: list[Tensor] = []  # append and pop are atomic

    @contextmanager
    def __call__(self, maps: ImageMaps, windows: NDArray[np.float32]) -> Iterator[Tensor]:
        """Lend the vectors ``(K, dims)`` of ``windows (K, 4)`` in image pixels; valid until the end of the block."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = None
        if buffer is None or len(buffer) < len(windows):
            buffer = torch.empty(max(len(windows), 2000), self.features.dims, device=self.features.device)
        try:
            yield self.features.pool(maps, windows, out=buffer)
        finally:
            if len(self._free) < _KEPT_BUFFERS:
                self._free.append(buffer)


def flip_boxes(boxes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Boxes ``(K, 4)`` of the mirror image."""
    flipped = boxes.copy()
    flipped[:, 0], flipped[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return flipped


def joined(parts: Sequence[ImageMaps]) -> ImageMaps:
    """Maps of one image at several scales, from those of each scale."""
    maps = tuple(m for part in parts for m in part.maps)
    return ImageMaps(maps, np.concatenate([part.scale for part in parts]), parts[0].height, parts[0].width)


def half_precision(maps: ImageMaps) -> tuple[Tensor, ...]:
    """The maps as contiguous float16 ``(h, w, channels)``, as the feature cache keeps them."""
    return tuple(m.permute(1, 2, 0).to(torch.float16).contiguous().cpu() for m in maps.maps)
