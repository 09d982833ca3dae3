"""Image -> convolutions once (at each scale) -> spatial pyramid pooling of every window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sppnet._types import F32, I64, U8
from sppnet.backbones.engines.engine import MapEngine
from sppnet.detection.maps import ImageMaps, MapScale
from sppnet.errors import ArgumentError
from sppnet.pooling.windows import pool_windows
from sppnet.resizing import in_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from sppnet.backbones.base import Backbone

Vectors: TypeAlias = "NDArray[Any] | Tensor"

__all__ = ["PooledWindows", "Vectors", "WindowFeatures", "input_size", "locate_windows"]

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


def locate_windows(windows: F32, scale: F32) -> tuple[F32, I64]:
    """Choose the scale of each window, and find it there (paper, section 4.2).

    Args:
        windows: ``(K, 4)`` in pixels of the image.
        scale: ``(scales, 2)``: input pixels per image pixel, in x and y.

    Returns:
        ``(K, 4)`` in input pixels, and the scale of each ``(K,)``.
    """
    if len(scale) == 1:
        index = np.zeros(len(windows), np.int64)
    else:
        area = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
        scaled = np.maximum(area[:, None] * scale.prod(1)[None], 1.0)
        # nearest in ratio: 4 times too small is as far as 4 times too large
        index = np.abs(np.log(scaled / TARGET_AREA)).argmin(1)
    mine = scale[index]
    return windows * np.concatenate([mine, mine], 1), index


class WindowFeatures:
    """Feature vectors of windows: the part of the detector that is frozen. Safe to use from several threads.

    Args:
        engine: runs the convolutions, see :func:`sppnet.backbones.engines.load.load_engine`; or a backbone of torch.
        levels: of the pyramid.
        short_sides_px: the scales.
        mode: ``max`` or ``avg``.
        max_long_ratio: the long side is at most this many times the short side's target (bounds time and memory).
    """

    def __init__(
        self,
        engine: MapEngine | Backbone,
        levels: Sequence[int],
        short_sides_px: Sequence[int],
        *,
        mode: str = "max",
        max_long_ratio: float = 1.7,
    ) -> None:
        self.engine = _as_engine(engine)
        self.levels = tuple(levels)
        self.mode = mode
        self.short_sides_px: tuple[int, ...] = tuple(short_sides_px)
        self.max_long_ratio = max_long_ratio
        self.device = self.engine.device
        step, zero = self.engine.step, self.engine.zero
        self.quantised = None if step is None or zero is None else MapScale(step, zero)

    @property
    def dims(self) -> int:
        """Length of a vector: channels times bins."""
        return self.engine.channels * sum(n * n for n in self.levels)

    @property
    def stored_dtype(self) -> str:
        """Type in which the feature cache keeps the maps."""
        return "float16" if self.quantised is None else "uint8"

    def settings(self) -> tuple[object, ...]:
        """What tells these features from others."""
        return (*self.map_settings(), tuple(self.levels), self.mode)

    def map_settings(self) -> tuple[object, ...]:
        """What tells these maps from others."""
        return *self.engine.identity, self.short_sides_px, self.max_long_ratio

    def each_scale(self) -> list[WindowFeatures]:
        """The same features at one scale each: their maps together are the maps of these."""
        if len(self.short_sides_px) < 2:
            return [self]
        return [
            WindowFeatures(self.engine, self.levels, (side,), mode=self.mode, max_long_ratio=self.max_long_ratio)
            for side in self.short_sides_px
        ]

    def estimated_bytes(self, height: int, width: int) -> int:
        """Size of the maps of an image, as the feature cache keeps them."""
        multiple, cells = self.engine.size_multiple, 0
        for side in self.short_sides_px:
            h, w = self._size(height, width, side)
            cells += (h // multiple) * (w // multiple)
        return cells * self.engine.channels * np.dtype(self.stored_dtype).itemsize

    def scales(self, height: int, width: int) -> F32:
        """Input pixels per pixel of an image, ``(scales, 2)``, in x and y."""
        sizes = (self._size(height, width, side) for side in self.short_sides_px)
        return np.array([(w / width, h / height) for h, w in sizes], np.float32)

    def _size(self, height: int, width: int, side: int) -> tuple[int, int]:
        return input_size(height, width, side, round(side * self.max_long_ratio), self.engine.size_multiple)

    def maps(self, image: U8, *, flip: bool = False) -> ImageMaps:
        """Run the convolutions over ``image (H, W, 3)``, once a scale; over its mirror image if ``flip``."""
        return self.maps_of_inputs(self.inputs(image, flip=flip), *image.shape[:2])

    def inputs(self, image: U8, *, flip: bool = False) -> list[U8]:
        """What the convolutions are fed with: ``image (H, W, 3)``, or its mirror image, in the size of each scale."""
        height, width = image.shape[:2]
        sizes = [self._size(height, width, side) for side in self.short_sides_px]
        return in_sizes(image[:, ::-1] if flip else image, sizes)

    def maps_of_inputs(self, inputs: Sequence[U8], height: int, width: int) -> ImageMaps:
        """Maps of an image of ``height`` and ``width`` pixels, from its :meth:`inputs`, which may come from afar."""
        maps = tuple(_channels_first(self.engine(one)) for one in inputs)
        return ImageMaps(maps, self.scales(height, width), height, width, self.quantised)

    def accepted(self, maps: ImageMaps) -> ImageMaps:
        """Give ``maps`` as these features pool them: bytes become floats where the precision is float32.

        Raises:
            ArgumentError: they aren't maps, or they are those of other convolutions.
        """
        if not isinstance(maps, ImageMaps):
            raise ArgumentError(f"maps: got {type(maps).__name__}, expected what feature_maps(image) gives")
        self._check_channels(maps)
        if maps.quantised is not None and self.quantised is None:
            return maps.float()
        if maps.quantised is not None and self.quantised is not None and not maps.quantised.is_same(self.quantised):
            raise ArgumentError(
                f"maps: their bytes stand for other numbers than those of {self.engine.name}; "
                "compute them with feature_maps(image) of this detector"
            )
        return maps.unpacked()

    def accepted_vectors(self, pooled: ArrayLike) -> F32:
        """Give pooled vectors ``(K, dims)`` as a float32 array.

        Raises:
            ArgumentError: they have another shape.
        """
        array = np.ascontiguousarray(pooled, np.float32)
        if array.ndim != 2 or array.shape[1] != self.dims:
            raise ArgumentError(f"pooled: expected vectors (K, {self.dims}), got shape {array.shape}")
        return array

    def pool(self, maps: ImageMaps, windows: F32, out: Vectors | None = None) -> Vectors:
        """Pooled vectors ``(K, dims)`` of ``windows (K, 4)`` in image pixels.

        Args:
            maps: of the image; on another device they are copied.
            windows: ``(K, 4)``.
            out: buffer ``(>= K, dims)`` to use again; the result is its first K rows.

        Returns:
            An array of float32, or of uint8 from quantised maps: what its bytes stand for is ``maps.quantised``. A
            tensor on the device, where that is a CUDA device.
        """
        count = len(windows)
        located, index = locate_windows(windows, maps.scale)
        if out is not None:
            out = out[:count].reshape(count, sum(n * n for n in self.levels), self.engine.channels)
        here: Any = [self._here(m) for m in maps.unpacked().maps]
        room: Any = out
        pooled = pool_windows(
            here,
            located,
            self.levels,
            self.mode,
            stride=self.engine.stride,
            offset=self.engine.offset,
            map_index=index,
            out=room,
        )
        vectors: Vectors = pooled.reshape(count, self.dims)
        return vectors

    def vectors(self, maps: ImageMaps, windows: F32) -> F32:
        """Pooled vectors ``(K, dims)`` as float32 on the CPU, whatever the maps are; see :meth:`pool`."""
        pooled = self.pool(maps, windows)
        array: NDArray[Any] = pooled if isinstance(pooled, np.ndarray) else pooled.cpu().numpy()
        return array if maps.quantised is None else maps.quantised.floats(array)

    def buffer(self, rows: int, dtype: str) -> Vectors:
        """Room for pooled vectors on the device."""
        if self.device == "cpu":
            return np.empty((rows, self.dims), dtype)
        import torch

        return torch.empty(rows, self.dims, dtype=getattr(torch, dtype), device=self.device)

    def _check_channels(self, maps: ImageMaps) -> None:
        found = sorted({int(m.shape[0]) for m in maps.maps})
        if found != [self.engine.channels]:
            raise ArgumentError(
                f"maps: got maps of {' and '.join(map(str, found)) or 'no'} channels, expected {self.engine.channels}, "
                f"as {self.engine.name} gives them; compute them with feature_maps(image) of this detector"
            )

    def _here(self, one: NDArray[Any] | Tensor) -> NDArray[Any] | Tensor:
        if self.device == "cpu":
            return one
        import torch

        tensor = torch.from_numpy(one) if isinstance(one, np.ndarray) else one
        return tensor.to(self.device)


class PooledWindows:
    """Pooled vectors in buffers that are used again from image to image: new pages of memory cost more than pooling.

    Several threads may use it at once: each borrows a buffer of its own.

    Args:
        features: gives the vectors.
    """

    def __init__(self, features: WindowFeatures) -> None:
        self.features = features
        self._free: list[tuple[str, Vectors]] = []  # append and pop are atomic

    @contextmanager
    def __call__(self, maps: ImageMaps, windows: F32) -> Iterator[Vectors]:
        """Lend the vectors ``(K, dims)`` of ``windows (K, 4)`` in image pixels; valid until the end of the block."""
        wanted = "float32" if maps.quantised is None else "uint8"
        try:
            dtype, buffer = self._free.pop()
        except IndexError:
            dtype, buffer = "", None
        if buffer is None or dtype != wanted or len(buffer) < len(windows):
            buffer = self.features.buffer(max(len(windows), 2000), wanted)
        try:
            yield self.features.pool(maps, windows, out=buffer)
        finally:
            if len(self._free) < _KEPT_BUFFERS:
                self._free.append((wanted, buffer))


def _as_engine(engine: MapEngine | Backbone) -> MapEngine:
    if isinstance(engine, MapEngine):
        return engine
    from sppnet.backbones.engines.torch_engine import TorchEngine

    return TorchEngine(engine)


def _channels_first(found: NDArray[Any] | Tensor) -> NDArray[Any] | Tensor:
    return found.transpose(2, 0, 1) if isinstance(found, np.ndarray) else found.permute(2, 0, 1)
