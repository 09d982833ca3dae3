"""Windows of an image to cells of a map (paper, appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.errors import ArgumentError

__all__ = ["PerAxis", "Windows", "as_window_tensor", "clip_windows", "window_to_cells"]

PerAxis: TypeAlias = float | Sequence[float]
Windows: TypeAlias = Tensor | NDArray[np.generic] | Sequence[Sequence[float]]


def as_window_tensor(windows: Windows, device: torch.device | None = None) -> Tensor:
    """``(K, 4)`` tensor of the windows, on ``device``; an empty sequence gives ``(0, 4)``.

    Raises:
        ArgumentError: another shape, no numbers, or numbers that aren't finite. (The last is not looked for where it
            would mean waiting for a GPU, nor in compiled code; there NaN counts as 0.)
    """
    try:
        tensor = windows if isinstance(windows, Tensor) else torch.as_tensor(np.asarray(windows))
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"windows: expected numbers of shape (K, 4), got {type(windows).__name__}: {error}"
        ) from None
    if tensor.ndim == 1 and tensor.shape[0] == 0:
        tensor = tensor.reshape(0, 4)
    if tensor.ndim != 2 or tensor.shape[1] != 4:
        raise ArgumentError(f"windows: expected shape (K, 4) with (x0, y0, x1, y1) a row, got {tuple(tensor.shape)}")
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise ArgumentError(f"windows: expected real numbers, got {tensor.dtype}")
    if tensor.is_floating_point() and _is_plain(tensor) and not (finite := np.isfinite(_as_numpy(tensor))).all():
        row = int(np.flatnonzero(~finite.all(1))[0])
        raise ArgumentError(f"windows: row {row} is not finite: {tensor[row].tolist()}")
    return tensor if device is None else tensor.to(device)


def _per_axis(value: PerAxis, name: str) -> tuple[float, float]:
    pair = (value, value) if isinstance(value, int | float) else tuple(value)
    if len(pair) != 2:
        raise ArgumentError(f"{name}: expected a number or (x, y), got {value!r}")
    return float(pair[0]), float(pair[1])


def window_to_cells(
    windows: Windows, stride: PerAxis, offset: PerAxis, height: int | Tensor, width: int | Tensor
) -> Tensor:
    """Cells ``(K, 4)`` int64, half-open, of windows ``(K, 4)`` in pixels of the image that the map was made from.

    Unit ``i`` of the map is centred at pixel coordinate ``offset + stride * i`` (pixel ``p`` has its centre at ``p``;
    see :func:`sppnet.backbones.receptive_field.receptive_field`). A window edge maps as in the paper: the first unit
    is ``floor((x0 - offset) / stride) + 1`` and the last ``ceil((x1 - offset) / stride) - 1`` (its end, exclusive, is
    ``ceil((x1 - offset) / stride)``): the units whose centres lie strictly inside the window.

    Every window gets at least one cell inside the map: edges are clipped to the map, reversed edges are not swapped,
    and a window without a unit gets the one nearest to its middle.

    Args:
        windows: ``(x0, y0, x1, y1)`` a row. Computed in float64.
        stride: pixels from unit to unit, > 0; one number or (x, y).
        offset: pixel coordinate of unit 0's centre; one number or (x, y).
        height, width: of the map, in cells, >= 1; ints, or a tensor ``(K,)`` for windows on maps of several sizes.

    Raises:
        ArgumentError: wrong shape, a stride that isn't positive, or numbers that aren't finite.
    """
    tensor = as_window_tensor(windows)
    sx, sy = _per_axis(stride, "stride")
    ox, oy = _per_axis(offset, "offset")
    if not (sx > 0 and sy > 0):
        raise ArgumentError(f"stride: expected > 0 pixels, got {stride!r}")
    if _is_plain(tensor):
        return torch.from_numpy(_window_cells(np, _as_numpy(tensor), (sx, sy), (ox, oy), height, width))
    return _window_cells(torch, tensor.to(torch.float64), (sx, sy), (ox, oy), height, width)


def clip_windows(windows: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """As :func:`window_to_cells`, for windows that are in cells already, half-open; fractions are rounded outwards."""
    if _is_plain(windows):
        return torch.from_numpy(_whole_cells(np, _as_numpy(windows), height, width))
    return _whole_cells(torch, windows.to(torch.float64), height, width)


# The same few lines serve NumPy and torch, which share these names. NumPy on the CPU: it starts in a microsecond or two
# a call, and torch's cat and where wake its worker threads even for 2000 windows, which then wait for more work,
# spinning, on the cores that the kernels are about to need (6 ms of a pooling that takes 8).


def _is_plain(tensor: Tensor) -> bool:
    """Whether NumPy may read the tensor: in memory, and nobody is tracing."""
    return tensor.device.type == "cpu" and type(tensor) is Tensor and not torch.compiler.is_compiling()


def _as_numpy(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().to(torch.float64).numpy()
    return array


def _window_cells(
    xp: Any, windows: Any, stride: tuple[float, float], offset: tuple[float, float], height: Any, width: Any
) -> Any:
    units = xp.empty_like(windows)
    for column in range(4):
        units[:, column] = (windows[:, column] - offset[column % 2]) / stride[column % 2]
    edges = xp.empty_like(windows)
    edges[:, :2] = xp.floor(units[:, :2]) + 1
    edges[:, 2:] = xp.ceil(units[:, 2:])
    return _clip_cells(xp, edges, units, height, width)


def _whole_cells(xp: Any, windows: Any, height: Any, width: Any) -> Any:
    edges = xp.empty_like(windows)
    edges[:, :2] = xp.floor(windows[:, :2])
    edges[:, 2:] = xp.ceil(windows[:, 2:])
    return _clip_cells(xp, edges, windows - 0.5, height, width)


def _clip_cells(xp: Any, edges: Any, centres: Any, height: Any, width: Any) -> Any:
    """Integer edges ``(K, 4)`` moved into the map; where nothing is left, the unit nearest to the middle.

    Args:
        edges: float64, whole numbers, half-open.
        centres: float64 ``(K, 4)``; the middle of a window is that of these edges, in units.
    """
    result = xp.empty_like(edges, dtype=xp.int64)
    for axis, size in ((0, width), (1, height)):
        limit = np.asarray(size, np.float64) if xp is np else _limit(size, edges)
        zero = limit - limit
        # fmax of NaN and 0 is 0: no index may come from a NaN.
        low, high = (xp.minimum(xp.fmax(edges[:, at], zero), limit) for at in (axis, axis + 2))
        middle = xp.floor((centres[:, axis] + centres[:, axis + 2]) / 2 + 0.5)
        middle = xp.minimum(xp.fmax(middle, zero), limit - 1)
        empty = high <= low
        result[:, axis] = xp.where(empty, middle, low)
        result[:, axis + 2] = xp.where(empty, middle + 1, high)
    return result


def _limit(size: int | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(size, dtype=torch.float64, device=like.device)
