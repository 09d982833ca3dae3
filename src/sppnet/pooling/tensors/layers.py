"""Spatial pyramid pooling as layers of torch: of whole maps, and of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sppnet.pooling.bins import DEFAULT_LEVELS, Levels, check_mode, normalise_levels, num_bins
from sppnet.pooling.cells import PerAxis, Windows, check_geometry
from sppnet.pooling.tensors.pyramid import pool_tensors
from sppnet.pooling.tensors.windows import pool_tensor_windows

__all__ = ["SpatialPyramidPool", "WindowPyramidPool"]


class SpatialPyramidPool(nn.Module):
    """:func:`sppnet.spatial_pyramid_pool` as a layer, between the last convolution and the first fully connected layer.

    ``nn.Sequential(convolutions, SpatialPyramidPool(), nn.Linear(SpatialPyramidPool().out_features(256), 10))`` takes
    images of any size. It has no parameters.

    Args:
        levels: ints or (rows, columns).
        mode: ``max`` or ``avg``.
    """

    def __init__(self, levels: Levels = DEFAULT_LEVELS, mode: str = "max") -> None:
        super().__init__()
        self.levels = normalise_levels(levels)
        self.mode = check_mode(mode)

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """Vectors ``(N, bins * C)``; see :func:`sppnet.spatial_pyramid_pool`."""
        return pool_tensors(features, self.levels, self.mode)

    def out_features(self, channels: int) -> int:
        """Length of the vector of one map of ``channels`` channels."""
        return num_bins(self.levels) * channels

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"levels={self.levels}, mode={self.mode!r}"


class WindowPyramidPool(nn.Module):
    """:func:`sppnet.pool_windows` as a layer: the pyramid of every window of a map (paper, section 4.1).

    It has no parameters, and is used as torchvision's ``RoIPool`` is:
    ``WindowPyramidPool((6, 3, 2, 1), stride=16)(features, windows)``.

    Args:
        levels: ints or (rows, columns).
        mode: ``max`` or ``avg``.
        stride: pixels between the centres of neighbouring units of the map, a number or (x, y). None: windows are in
            cells of the map, not in pixels of the image.
        offset: where unit 0 is centred, counted from the image's edge; a number or (x, y).

    Raises:
        ArgumentError: an unknown mode, a level out of range, a stride that isn't positive, numbers that aren't finite.

    Examples:
        >>> import torch
        >>> layer = WindowPyramidPool((2, 1), stride=16)
        >>> layer(torch.zeros(256, 20, 30), torch.tensor([[0, 0, 200, 100]])).shape
        torch.Size([1, 5, 256])
    """

    def __init__(
        self,
        levels: Levels = DEFAULT_LEVELS,
        mode: str = "max",
        stride: PerAxis | None = None,
        offset: PerAxis = 0.0,
    ) -> None:
        super().__init__()
        self.levels = normalise_levels(levels)
        self.mode = check_mode(mode)
        pair, self.offset = check_geometry(1.0 if stride is None else stride, offset)
        self.stride = None if stride is None else pair

    def forward(self, features: Tensor | Sequence[Tensor], windows: Windows, map_index: Any = None) -> Tensor:
        """``(K, bins, C)``; see :func:`sppnet.pool_windows` for the arguments.

        Args:
            features: one map ``(C, H, W)``, a batch ``(N, C, H, W)``, or a list of maps ``(C, H_i, W_i)``.
            windows: ``(K, 4)``; ``(K, 5)`` with the number of the map first; or a list of ``(K_i, 4)``, one a map.
            map_index: ``(K,)``, the map of each of ``(K, 4)`` windows, if there are several maps.
        """
        return pool_tensor_windows(
            features,
            windows,
            self.levels,
            self.mode,
            stride=self.stride,
            offset=self.offset,
            map_index=map_index,
            out=None,
        )

    def out_features(self, channels: int) -> int:
        """Length of the flattened vector of one window of a map of ``channels`` channels."""
        return num_bins(self.levels) * channels

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"levels={self.levels}, mode={self.mode!r}, stride={self.stride}, offset={self.offset}"
