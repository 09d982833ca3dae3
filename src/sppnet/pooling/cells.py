"""Windows of an image to cells of a map (paper, appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.errors import ArgumentError

__all__ = ["PerAxis", "Windows", "as_window_tensor", "window_to_cells"]

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
    if tensor.is_floating_point() and tensor.device.type == "cpu" and not torch.compiler.is_compiling():
        finite = tensor.isfinite().all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
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
    steps = torch.tensor([sx, sy, sx, sy], dtype=torch.float64, device=tensor.device)
    shifts = torch.tensor([ox, oy, ox, oy], dtype=torch.float64, device=tensor.device)
    scaled = (tensor.to(torch.float64) - shifts) / steps
    return clip_cells(torch.cat([scaled[:, :2].floor() + 1, scaled[:, 2:].ceil()], 1), scaled, height, width)


def clip_cells(edges: Tensor, centres: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Integer edges ``(K, 4)`` moved into the map; where nothing is left, the unit nearest to the middle.

    Args:
        edges: float64, whole numbers, half-open.
        centres: float64 ``(K, 4)``; the middle of a window is that of these edges, in units.
    """
    result = []
    edges, centres = edges.nan_to_num(nan=0.0), centres.nan_to_num(nan=0.0)  # no index may come from a NaN
    for axis, size in ((0, width), (1, height)):
        limit = torch.as_tensor(size, dtype=torch.float64, device=edges.device)
        low = edges[:, axis].clamp(min=0).minimum(limit)
        high = edges[:, axis + 2].clamp(min=0).minimum(limit)
        middle = ((centres[:, axis] + centres[:, axis + 2]) / 2 + 0.5).floor().clamp(min=0).minimum(limit - 1)
        empty = high <= low
        result.append((torch.where(empty, middle, low), torch.where(empty, middle + 1, high)))
    (x0, x1), (y0, y1) = result
    return torch.stack([x0, y0, x1, y1], 1).to(torch.int64)
