"""Windows of an image to cells of a map (paper, appendix A)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sppnet._types import F64, I64
from sppnet.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PerAxis", "Windows", "check_geometry", "clip_cells", "split_windows", "window_to_cells"]

PerAxis: TypeAlias = "float | np.generic | NDArray[Any] | Tensor | Sequence[float]"
Windows: TypeAlias = "Tensor | ArrayLike | Sequence[Tensor | NDArray[Any]]"


def as_window_array(windows: Any) -> F64:
    """``(K, 4)`` or ``(K, 5)`` float64 of the windows; an empty sequence gives ``(0, 4)``.

    Raises:
        ArgumentError: another shape, no numbers, or numbers that aren't finite.
    """
    try:
        array = np.asarray(windows)
        if array.dtype.kind not in "iuf":
            array = array.astype(np.float64) if array.dtype == object or array.size == 0 else array
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"windows: expected numbers of shape (K, 4), got {type(windows).__name__}: {error}"
        ) from None
    if array.ndim == 1 and array.shape[0] == 0:
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise ArgumentError(
            "windows: expected shape (K, 4) with (x0, y0, x1, y1) a row, or (K, 5) with the number of the map first, "
            f"got {array.shape}"
        )
    if array.dtype.kind not in "iuf":
        raise ArgumentError(f"windows: expected real numbers, got {array.dtype}")
    result = np.ascontiguousarray(array, np.float64)
    if not (finite := np.isfinite(result)).all():
        row = int(np.flatnonzero(~finite.all(1))[0])
        raise ArgumentError(f"windows: row {row} is not finite: {result[row].tolist()}")
    return result


def is_per_map(windows: Any) -> bool:
    """Whether these are windows of several maps: a list of arrays or tensors ``(K_i, 4)``."""
    if not isinstance(windows, list | tuple) or not windows:
        return False
    return all(getattr(w, "ndim", 0) == 2 or getattr(w, "shape", None) == (0,) for w in windows)


def check_windows_per_map(windows: Sequence[Any], maps: int, map_index: Any) -> None:
    """Raise ArgumentError unless there is one entry a map, of shape ``(K_i, 4)``, and no ``map_index``."""
    if map_index is not None:
        raise ArgumentError("map_index: expected None when windows are a list of arrays, one a map")
    if len(windows) != maps:
        raise ArgumentError(f"windows: expected an array (K, 4) for each of {maps} maps, got a list of {len(windows)}")
    for i, w in enumerate(windows):
        if tuple(w.shape) != (0,) and w.shape[1] != 4:
            raise ArgumentError(f"windows: expected shape (K, 4) in entry {i} of the list, got {tuple(w.shape)}")


def split_windows(windows: Any, maps: int, map_index: Any) -> tuple[F64, Any]:
    """Windows ``(K, 4)`` float64, and the map of each as far as it was told, of whatever form they have.

    Args:
        windows: ``(K, 4)``; ``(K, 5)``, the number of the map first; or a list of ``(K_i, 4)``, one a map.
        maps: how many there are.
        map_index: as the user gave it, or None.

    Raises:
        ArgumentError: another shape, no finite numbers, or the map told twice.
    """
    if is_per_map(windows):
        check_windows_per_map(windows, maps, map_index)
        arrays = [as_window_array(w) for w in windows]
        return np.concatenate(arrays), np.repeat(np.arange(maps), [len(a) for a in arrays])
    array = as_window_array(windows)
    if array.shape[1] == 4:
        return array, map_index
    if map_index is not None:
        raise ArgumentError("map_index: expected None when windows are (K, 5), with the number of the map first")
    index = array[:, 0].astype(np.int64)
    if (wrong := np.flatnonzero(index != array[:, 0])).size:
        raise ArgumentError(f"windows: row {wrong[0]}: expected the number of a map first, got {array[wrong[0], 0]}")
    return np.ascontiguousarray(array[:, 1:]), index


def check_geometry(stride: Any, offset: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """Stride and offset as (x, y) each.

    Raises:
        ArgumentError: no number or pair of numbers; not finite; a stride that isn't positive.
    """
    pair, start = _per_axis(stride, "stride"), _per_axis(offset, "offset")
    if not min(pair) > 0:
        raise ArgumentError(f"stride: expected > 0 pixels, got {stride!r}")
    return pair, start


def _per_axis(value: Any, name: str) -> tuple[float, float]:
    numbers = (value, value) if isinstance(value, int | float) or getattr(value, "ndim", 1) == 0 else value
    try:
        x, y = (float(n) for n in (() if isinstance(value, str | bool) else numbers))
    except (TypeError, ValueError):
        raise ArgumentError(f"{name}: expected a number or (x, y), got {value!r}") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ArgumentError(f"{name}: expected finite numbers, got {value!r}")
    return x, y


def window_to_cells(windows: Any, stride: PerAxis, offset: PerAxis, height: Any, width: Any) -> Any:
    """Cells ``(K, 4)`` int64, half-open, of windows ``(K, 4)`` in pixels of the image that the map was made from.

    Unit ``i`` of the map is centred at coordinate ``offset + stride * i`` (pixel ``p`` has its centre at ``p + 0.5``;
    see :func:`sppnet.backbones.receptive_field.receptive_field`). A window edge maps as in the paper: the first unit
    is ``floor((x0 - offset) / stride) + 1`` and the last ``ceil((x1 - offset) / stride) - 1`` (its end, exclusive, is
    ``ceil((x1 - offset) / stride)``): the units whose centres lie strictly inside the window.

    Every window gets at least one cell inside the map: edges are clipped to the map, reversed edges are not swapped,
    and a window without a unit gets the one nearest to its middle.

    Args:
        windows: ``(x0, y0, x1, y1)`` a row. Computed in float64.
        stride: pixels from unit to unit, > 0; one number or (x, y).
        offset: coordinate of unit 0's centre; one number or (x, y).
        height: of the map, in cells, >= 1; an int, or ``(K,)`` for windows on maps of several sizes.
        width: likewise.

    Returns:
        A tensor if ``windows`` is one, otherwise an array.

    Raises:
        ArgumentError: wrong shape, a stride that isn't positive, or numbers that aren't finite.

    Examples:
        >>> window_to_cells([[0, 0, 64, 48]], stride=16, offset=0, height=10, width=10).tolist()
        [[1, 1, 4, 3]]
    """
    pair, start = check_geometry(stride, offset)
    if type(windows).__module__.partition(".")[0] == "torch":
        from sppnet.pooling.tensors.cells import tensor_to_cells

        return tensor_to_cells(windows, pair, start, height, width)
    array = as_window_array(windows)
    if array.shape[1] != 4:
        raise ArgumentError(f"windows: expected shape (K, 4), got {array.shape}")
    return to_cells(np, array, pair, start, height, width)


# The same few lines serve NumPy and torch, which share these names. NumPy for what lies in memory: it starts in a
# microsecond or two a call, and torch's cat and where wake its worker threads even for 2000 windows. These then wait
# for more work, spinning, on the cores that the kernels are about to need (6 ms of a pooling that takes 8).


def to_cells(
    xp: Any,
    windows: Any,
    stride: tuple[float, float] | None,
    offset: tuple[float, float],
    height: Any,
    width: Any,
) -> Any:
    """Cells of float64 windows; see :func:`window_to_cells`.

    Args:
        xp: ``numpy`` or ``torch``.
        windows: ``(K, 4)``; in pixels, or in cells if there is no stride: fractions are then rounded outwards.
        stride: (x, y), or None.
        offset: (x, y).
        height: a number or ``(K,)``.
        width: likewise.
    """
    edges = xp.empty_like(windows)
    if stride is None:
        edges[:, :2] = xp.floor(windows[:, :2])
        edges[:, 2:] = xp.ceil(windows[:, 2:])
        return clip_cells(xp, edges, windows - 0.5, height, width)
    units = xp.empty_like(windows)
    for column in range(4):
        units[:, column] = (windows[:, column] - offset[column % 2]) / stride[column % 2]
    edges[:, :2] = xp.floor(units[:, :2]) + 1
    edges[:, 2:] = xp.ceil(units[:, 2:])
    return clip_cells(xp, edges, units, height, width)


def clip_cells(xp: Any, edges: Any, centres: Any, height: Any, width: Any) -> Any:
    """Integer edges ``(K, 4)`` moved into the map; where nothing is left, the unit nearest to the middle.

    Args:
        xp: ``numpy`` or ``torch``.
        edges: float64, whole numbers, half-open.
        centres: float64 ``(K, 4)``; the middle of a window is that of these edges, in units.
        height: a number or ``(K,)``.
        width: likewise.
    """
    result = xp.empty_like(edges, dtype=xp.int64)
    for axis, size in ((0, width), (1, height)):
        limit = np.asarray(size, np.float64) if xp is np else xp.as_tensor(size, dtype=xp.float64, device=edges.device)
        zero = limit - limit
        # fmax of NaN and 0 is 0: no index may come from a NaN.
        low, high = (xp.minimum(xp.fmax(edges[:, at], zero), limit) for at in (axis, axis + 2))
        middle = xp.floor((centres[:, axis] + centres[:, axis + 2]) / 2 + 0.5)
        middle = xp.minimum(xp.fmax(middle, zero), limit - 1)
        empty = high <= low
        result[:, axis] = xp.where(empty, middle, low)
        result[:, axis + 2] = xp.where(empty, middle + 1, high)
    return result


def map_sizes(sizes: Sequence[tuple[int, int]], map_index: I64 | None) -> tuple[Any, Any]:
    """Height and width of the map of each window: ints if all are equal, else arrays ``(K,)``.

    Args:
        sizes: (height, width) of each map.
        map_index: of each window, or None: the first.
    """
    if map_index is None or len(set(sizes)) <= 1:
        return sizes[0] if sizes else (1, 1)
    both = np.array(sizes)[map_index]
    return both[:, 0], both[:, 1]
