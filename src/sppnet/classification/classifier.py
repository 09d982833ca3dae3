"""The network of the paper: convolutions, spatial pyramid pooling, fully connected layers, for images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sppnet.backbones.base import Backbone
from sppnet.checking import check_number, check_whole, check_wholes
from sppnet.errors import ArgumentError
from sppnet.pooling.bins import DEFAULT_LEVELS, Levels
from sppnet.pooling.cells import Windows
from sppnet.pooling.tensors.layers import SpatialPyramidPool
from sppnet.pooling.tensors.pyramid import by_channel
from sppnet.pooling.windows import pool_windows

__all__ = ["FixedPool", "SPPClassifier"]

# Images of one size go through the convolutions together, but no more pixels at once than this (bounds memory)
_BATCH_PIXELS = 64 * 256 * 256


class FixedPool(nn.Module):
    """The last pooling of a network *without* pyramid: a window that slides with a fixed stride.

    It is here for comparison. Fully connected layers behind it need a fixed number of cells, and so images of one size;
    this is the paper's reason for the pyramid.

    Args:
        kernel: side of the window in cells.
        stride: of the window in cells.
        map_size: rows and columns of the feature map that it takes.

    Raises:
        ArgumentError: numbers out of range.
    """

    def __init__(self, kernel: int, stride: int, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.kernel = check_whole("kernel", kernel, 1, 512)
        self.stride = check_whole("stride", stride, 1, 512)
        size = check_wholes("map_size", map_size, 1, 512)
        if len(size) != 2:
            raise ArgumentError(f"map_size: got {map_size!r}, expected two numbers, rows and columns")
        self.map_size = size[0], size[1]
        rows, columns = ((cells - self.kernel) // self.stride + 1 for cells in self.map_size)
        if min(rows, columns) < 1:
            raise ArgumentError(f"map_size: got {self.map_size}, expected at least {self.kernel} rows and columns")
        self.bins = rows * columns

    def forward(self, features: Tensor) -> Tensor:
        """Pool feature maps.

        Args:
            features: ``(N, C, *map_size)``.

        Returns:
            ``(N, bins * C)``.

        Raises:
            ArgumentError: a map of another size.
        """
        if tuple(features.shape[2:]) != self.map_size:
            raise ArgumentError(
                f"a network with fixed pooling takes feature maps of {self.map_size} cells only, got "
                f"{tuple(features.shape[2:])}: give images of the size it was made for, or use a pyramid"
            )
        return nn.functional.max_pool2d(features, self.kernel, self.stride).flatten(1)

    def out_features(self, channels: int) -> int:
        """Length of the pooled vector of a feature map with ``channels`` channels."""
        return self.bins * channels

    def extra_repr(self) -> str:
        """Describe the pooling for ``repr``."""
        return f"kernel={self.kernel}, stride={self.stride}, map_size={self.map_size}"


class SPPClassifier(nn.Module):
    """SPP-net for classification (He et al., 2014, sections 2 and 3).

    :class:`~sppnet.classification.image_classifier.ImageClassifier` puts it to use on images.

    Args:
        backbone: convolutions; see :func:`sppnet.backbones.registry.load_backbone` and
            :mod:`sppnet.backbones.adapters`.
        levels: of the pyramid; or a :class:`FixedPool`, for a network without one.
        num_classes: number of outputs.
        mode: ``max`` (the paper's) or ``avg`` pooling.
        hidden: widths of the fully connected layers before the last; the paper has (4096, 4096). Without any the
            classifier is linear.
        dropout: probability before each of the hidden layers, in training.
        normalise: scale every pooled vector to unit length, as linear SVMs need it.

    Raises:
        ArgumentError: a value of another kind, or out of its range.
    """

    def __init__(
        self,
        backbone: Backbone,
        levels: Levels | FixedPool = DEFAULT_LEVELS,
        num_classes: int = 1000,
        *,
        mode: str = "max",
        hidden: Sequence[int] = (4096, 4096),
        dropout: float = 0.5,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise ArgumentError(f"backbone: got {type(backbone).__name__}, expected one that load_backbone returns")
        num_classes = check_whole("num_classes", num_classes, 1, 1 << 20)
        check_number("dropout", dropout, 0, 1)
        self.backbone = backbone
        self.pool: Any = levels if isinstance(levels, FixedPool) else SpatialPyramidPool(levels, mode)
        self.normalise = bool(normalise)
        self.hidden = check_wholes("hidden", hidden, 1, 1 << 16, empty=True)
        self.dropout = float(dropout)
        self.num_classes = num_classes
        widths = [self.pool.out_features(backbone.channels), *self.hidden]
        parts: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            parts += [nn.Dropout(self.dropout), nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.fc = nn.Sequential(*parts, nn.Linear(widths[-1], num_classes))

    @property
    def last(self) -> nn.Linear:
        """The last fully connected layer."""
        layer = self.fc[-1]
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"fc: expected nn.Linear as the last layer, got {type(layer).__name__}")
        return layer

    def set_last_layer(self, weight: Tensor, bias: Tensor) -> SPPClassifier:
        """Set the weights of the last layer, in place.

        Args:
            weight: ``(num_classes, D)``.
            bias: ``(num_classes,)``.

        Returns:
            The network itself.
        """
        with torch.no_grad():
            self.last.weight.copy_(weight)
            self.last.bias.copy_(bias)
        return self

    @property
    def dims(self) -> int:
        """Length of a pooled vector."""
        return int(self.pool.out_features(self.backbone.channels))

    def forward(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Compute the outputs of images.

        Images of one size go through the convolutions together; nothing is padded. An image has the same outputs alone
        and with others, except for the last bits of float32 (a matrix product may add in another order: about 1e-5 of
        the largest output).

        Args:
            images: a batch ``(N, 3, H, W)``, or a list of images ``(3, H_i, W_i)`` of any sizes, as
                ``backbone.preprocess`` makes them.

        Returns:
            Logits ``(N, num_classes)``.

        Raises:
            ArgumentError: another shape, or no image.
        """
        logits: Tensor = self.fc(self.pooled(images))
        return logits

    def pooled(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Compute the input of the fully connected layers.

        Args:
            images: as of :meth:`forward`.

        Returns:
            Vectors ``(N, dims)``.

        Raises:
            ArgumentError: another shape, or no image.
        """
        if isinstance(images, Tensor):
            if images.ndim != 4 or images.shape[1] != 3 or not len(images):
                raise ArgumentError(f"images: expected (N, 3, H, W) with N >= 1, got {tuple(images.shape)}")
            return self._pooled_batch(images)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
                got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
                raise ArgumentError(f"images: number {i} is {got}, expected a tensor (3, H, W)")
            groups.setdefault(tuple(image.shape), []).append(i)
        if not groups:
            raise ArgumentError("images: an empty list, expected at least one image")
        parts = [self._pooled_batch(torch.stack([images[i] for i in group])) for group in groups.values()]
        order = torch.tensor([i for group in groups.values() for i in group], device=parts[0].device)
        return torch.cat(parts)[order.argsort()]

    def _pooled_batch(self, images: Tensor) -> Tensor:
        if not images.shape[2] * images.shape[3]:
            raise ArgumentError(f"images: got {tuple(images.shape)}, expected at least one pixel")
        step = max(1, _BATCH_PIXELS // (images.shape[2] * images.shape[3]))
        return torch.cat([self.from_maps(self.backbone(part)) for part in images.split(step)])

    def from_maps(self, maps: Tensor) -> Tensor:
        """Pool feature maps ``(N, C, h, w)`` to vectors ``(N, dims)``; of unit length with ``normalise``."""
        return self._scaled(self.pool(maps))

    def windows(self, image: Tensor, windows: Windows) -> Tensor:
        """Pool windows of one image, which goes through the convolutions once.

        Args:
            image: ``(3, H, W)``.
            windows: ``(K, 4)``, ``(x0, y0, x1, y1)`` in its pixels. The cells of a window are those whose centres lie
                inside it.

        Returns:
            Vectors ``(K, dims)``.

        Raises:
            ArgumentError: another shape, or the network has no pyramid.
        """
        if not isinstance(self.pool, SpatialPyramidPool):
            raise ArgumentError(
                "a network without pyramid can't pool windows of a feature map; give it images (crops) of its size"
            )
        if image.ndim != 3 or image.shape[0] != 3:
            raise ArgumentError(f"image: expected (3, H, W), got {tuple(image.shape)}")
        bone = self.backbone
        pooled = pool_windows(
            bone(image[None]), windows, self.pool.levels, self.pool.mode, stride=bone.stride, offset=bone.offset
        )
        return self._scaled(by_channel(pooled, self.pool.levels))

    def _scaled(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=1) if self.normalise else vectors
