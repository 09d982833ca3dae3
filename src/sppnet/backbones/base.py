"""Backbones: convolutions that end at a feature map, with the position of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from sppnet._types import U8
from sppnet.errors import ArgumentError

__all__ = ["IMAGENET", "Backbone", "Preprocess"]


@dataclass(frozen=True)
class Preprocess:
    """Conversion of bytes to the input of a network: ``(pixel - mean) / std`` for each channel.

    Attributes:
        mean: of bytes 0 to 255; one for all channels or three, in the order in which the network takes them.
        std: standard deviation of bytes 0 to 255, likewise.
        bgr: whether the network takes blue, green, red.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False

    def __call__(self, image: U8) -> Tensor:
        """Convert an image or a batch of images of one size.

        Args:
            image: uint8 ``(H, W, 3)`` or ``(N, H, W, 3)``, RGB.

        Returns:
            float32 ``(N, 3, H, W)``, channels last in memory.

        Raises:
            ArgumentError: another shape or dtype.

        >>> Preprocess(mean=(127.0,), std=(128.0,))(np.full((1, 1, 3), 255, np.uint8)).flatten().tolist()
        [1.0, 1.0, 1.0]
        """
        if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
            raise ArgumentError(f"image: expected uint8 (H, W, 3) or (N, H, W, 3), got {image.dtype} {image.shape}")
        if self.bgr:
            image = image[..., ::-1]
        pixels = torch.from_numpy(image.astype(np.float32))
        mean, std = (v[0] if len(v) == 1 else torch.tensor(v) for v in (self.mean, self.std))
        planes = ((pixels - mean) / std).movedim(-1, -3)
        return planes if planes.ndim == 4 else planes[None]


IMAGENET = Preprocess((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""The means and deviations that torchvision, timm and most published weights use (0.485 * 255, ...)."""


class Backbone(nn.Module):
    """Convolutions that end at a feature map, with what a detector or classifier must know of them.

    Unless ``trainable``, it is frozen: its parameters take no gradient, it stays in evaluation mode, and it runs
    without recording for gradients.

    Args:
        name: in the registry, or any name.
        layers: takes ``(N, 3, H, W)`` and returns ``(N, channels, h, w)``. With ``mid`` it must be an
            ``nn.Sequential``.
        channels: of the last layer's map.
        stride: pixels between neighbouring cells.
        offset: position of the centre of cell 0, in pixels from the left and top edge, for inputs whose sides are
            multiples of ``size_multiple``: what :func:`~sppnet.backbones.receptive_field.receptive_field` says.
        preprocess: conversion of bytes to the network's input.
        size_multiple: input sides should be multiples of this many pixels. Default: the stride.
        min_side_px: the smallest side that still gives a cell. Smaller inputs are padded with zeros (the mean colour)
            on the right and at the bottom.
        native_side_px: side of the images that the weights were trained on; 0 where it isn't known.
        mid: number of a layer whose map is put before the last layer's map, as further channels. Both must have one
            size.
        mid_channels: of that layer's map.
        weights_sha256: of the weights file; empty where there is none.
        licence: of the weights.
        trainable: whether the parameters take gradients.
    """

    def __init__(
        self,
        name: str,
        layers: nn.Module,
        *,
        channels: int,
        stride: int,
        offset: float,
        preprocess: Preprocess = IMAGENET,
        size_multiple: int | None = None,
        min_side_px: int = 1,
        native_side_px: int = 224,
        mid: int | None = None,
        mid_channels: int = 0,
        weights_sha256: str = "",
        licence: str = "",
        trainable: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.layers: Any = layers
        self.mid = mid
        self.channels = channels + (0 if mid is None else mid_channels)
        self.stride = stride
        self.offset = offset
        self.preprocess = preprocess
        self.size_multiple = size_multiple or stride
        self.min_side_px = min_side_px
        self.native_side_px = native_side_px
        self.weights_sha256 = weights_sha256
        self.licence = licence
        self.trainable = trainable
        self.requires_grad_(trainable)
        self.train(trainable)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, as of every module; frozen convolutions stay in evaluation mode.

        Args:
            mode: True for training mode.

        Returns:
            The backbone itself.
        """
        return super().train(mode and self.trainable)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the feature map.

        Args:
            x: float32 ``(N, 3, H, W)``, as ``preprocess`` makes it.

        Returns:
            The map ``(N, channels, H / stride, W / stride)``, channels last in memory.
        """
        if self.trainable:
            return self._map(x)
        with torch.inference_mode():
            return self._map(x)

    def _map(self, x: Tensor) -> Tensor:
        short_h, short_w = (max(0, self.min_side_px - int(side)) for side in x.shape[2:])
        if short_h or short_w:
            x = nn.functional.pad(x, (0, short_w, 0, short_h))
        x = x.contiguous(memory_format=torch.channels_last)
        if self.mid is None:
            last: Tensor = self.layers(x)
            return last.contiguous(memory_format=torch.channels_last)
        mid = self.layers[: self.mid + 1](x)
        both = torch.cat([mid, self.layers[self.mid + 1 :](mid)], 1)
        return both.contiguous(memory_format=torch.channels_last)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Find the size of a feature map without computing it.

        Args:
            height: of the input in pixels.
            width: of the input in pixels.

        Returns:
            Rows and columns of the map.
        """
        x = torch.empty(1, 3, height, width, device="meta")
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        meta = {name: torch.empty_like(t, device="meta") for name, t in state.items()}
        shape: Sequence[int] = torch.func.functional_call(self, meta, (x,)).shape
        return int(shape[-2]), int(shape[-1])

    def extra_repr(self) -> str:
        """Describe the backbone for ``repr``."""
        return f"{self.name!r}, channels={self.channels}, stride={self.stride}, offset={self.offset}"
