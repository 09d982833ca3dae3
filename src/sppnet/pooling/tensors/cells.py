"""Windows of tensors to cells: in NumPy where they lie in memory, by torch on a GPU and in compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet.errors import ArgumentError
from sppnet.pooling.arguments import as_array_index
from sppnet.pooling.cells import (
    as_window_array,
    check_geometry,
    check_windows_per_map,
    is_per_map,
    map_sizes,
    split_windows,
    to_cells,
)

__all__ = ["prepare_cells", "tensor_to_cells"]

Pair = tuple[float, float]


def tensor_to_cells(windows: Tensor, stride: Pair, offset: Pair, height: Any, width: Any) -> Tensor:
    """:func:`sppnet.pooling.cells.window_to_cells` of a tensor ``(K, 4)``, on its device."""
    if windows.ndim == 2 and windows.shape[1] != 4:
        raise ArgumentError(f"windows: expected shape (K, 4), got {tuple(windows.shape)}")
    if _in_memory(windows):
        sizes = [_as_array(size) for size in (height, width)]
        return torch.from_numpy(to_cells(np, as_window_array(_as_array(windows)), stride, offset, *sizes))
    cells: Tensor = to_cells(torch, _window_tensor(windows, windows.device), stride, offset, height, width)
    return cells


def prepare_cells(
    maps: Sequence[Tensor], windows: Any, stride: Any, offset: Any, map_index: Any
) -> tuple[Tensor, Tensor | None]:
    """Cells ``(K, 4)`` and map ``(K,)`` of each window, checked, on the device of the maps.

    Args:
        maps: each ``(N_i, C, H_i, W_i)``.
        windows: in every form that :func:`sppnet.pooling.windows.pool_windows` takes.
        stride: a number, (x, y), or None for windows in cells.
        offset: a number or (x, y).
        map_index: as the user gave it, or None.
    """
    pair, start = (None, (0.0, 0.0)) if stride is None else check_geometry(stride, offset)
    if stride is None:
        check_geometry(1.0, offset)
    number, device = sum(m.shape[0] for m in maps), maps[0].device
    if torch.compiler.is_compiling() or not (_in_memory(windows) and _in_memory(map_index)):
        return _prepare_tensors(maps, windows, pair, start, map_index, number, device)
    array, told = split_windows(_as_array(windows), number, _as_array(map_index))
    index = as_array_index(told, number, len(array))
    if len(array) and not number:
        raise ArgumentError("features: expected at least one map, got a batch of none")
    sizes = [(m.shape[2], m.shape[3]) for m in maps for _ in range(m.shape[0])]
    cells = torch.from_numpy(to_cells(np, array, pair, start, *map_sizes(sizes, index))).to(device)
    return cells, None if index is None else torch.from_numpy(index).to(device)


def _prepare_tensors(
    maps: Sequence[Tensor],
    windows: Any,
    stride: Pair | None,
    offset: Pair,
    map_index: Any,
    number: int,
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    if is_per_map(windows):
        check_windows_per_map(windows, number, map_index)
        tensor = torch.cat([_window_tensor(w, device) for w in windows])
        map_index = torch.cat([torch.full((len(w),), i, device=device) for i, w in enumerate(windows)])
    else:
        tensor = _window_tensor(windows, device)
    if tensor.shape[1] == 5:
        if map_index is not None:
            raise ArgumentError("map_index: expected None when windows are (K, 5), with the number of the map first")
        map_index, tensor = tensor[:, 0].to(torch.int64), tensor[:, 1:]
    if map_index is None:
        if number > 1 and tensor.shape[0]:
            raise ArgumentError(f"map_index: expected the map of each window, (K,), as there are {number} maps")
        height, width = _sides(maps[0])
        return to_cells(torch, tensor, stride, offset, height, width), None
    index = torch.as_tensor(map_index, device=device)
    if index.shape != tensor.shape[:1] or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ArgumentError(
            f"map_index: expected integers of shape ({tensor.shape[0]},), got {index.dtype} of shape "
            f"{tuple(index.shape)}"
        )
    if len(maps) == 1:
        height, width = _sides(maps[0])
    else:
        sizes = torch.tensor([m.shape[2:] for m in maps for _ in range(m.shape[0])], device=device)
        # An index that is out of range is reported by the operator; here it must only not fail.
        high, wide = sizes[index.clamp(0, len(sizes) - 1)].unbind(1)
        return to_cells(torch, tensor, stride, offset, high, wide), index.to(torch.int64)
    return to_cells(torch, tensor, stride, offset, height, width), index.to(torch.int64)


def _sides(one: Tensor) -> tuple[Any, Any]:
    """Height and width of a map; as tensors in compiled and exported code, where they may be dynamic."""
    height, width = one.shape[2:]
    if not torch.compiler.is_compiling():
        return height, width
    return tuple(torch.tensor([height, width], dtype=torch.int64, device=one.device).unbind())  # type: ignore[return-value]


def _window_tensor(windows: Any, device: torch.device) -> Tensor:
    """``(K, 4)`` or ``(K, 5)`` float64. Numbers that aren't finite are not looked for; NaN counts as 0."""
    tensor = windows if isinstance(windows, Tensor) else torch.as_tensor(np.asarray(windows))
    if tensor.ndim == 1 and tensor.shape[0] == 0:
        tensor = tensor.reshape(0, 4)
    if tensor.ndim != 2 or tensor.shape[1] not in (4, 5):
        raise ArgumentError(f"windows: expected shape (K, 4) or (K, 5), got {tuple(tensor.shape)}")
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise ArgumentError(f"windows: expected real numbers, got {tensor.dtype}")
    return tensor.to(device, torch.float64)


def _in_memory(value: Any) -> bool:
    """Whether NumPy may read it: no tensor, or one on the CPU that nobody is tracing."""
    if isinstance(value, list | tuple):
        return all(_in_memory(v) for v in value if isinstance(v, Tensor))
    return not isinstance(value, Tensor) or (
        value.device.type == "cpu" and type(value) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
    )


def _as_array(value: Any) -> Any:
    """Tensors, and those in a list, as arrays; the rest as it is. NumPy has no bfloat16."""
    if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
        return [_as_array(v) for v in value]
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    return (value.to(torch.float64) if value.is_floating_point() else value).numpy()
