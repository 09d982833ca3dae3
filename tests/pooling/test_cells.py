"""Windows in pixels to cells of a map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sppnet.pooling.cells import to_cells
from sppnet.pooling.windows import pool_windows, window_to_cells

COORDINATE = st.floats(-500, 1500, allow_nan=False)


@given(box=st.tuples(*[COORDINATE] * 4), stride=st.integers(1, 40), offset=st.floats(-30, 30))
def test_corner_mapping_of_the_paper(box: tuple[float, ...], stride: int, offset: float) -> None:
    height, width = 30, 40
    x0, y0, x1, y1 = window_to_cells([box], stride, offset, height, width)[0].tolist()
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    for (low, high), (a, b), size in (((x0, x1), box[0::2], width), ((y0, y1), box[1::2], height)):
        first = max(math.floor((a - offset) / stride) + 1, 0)
        last = min(math.ceil((b - offset) / stride) - 1, size - 1)
        if first <= last:
            assert (low, high) == (first, last + 1)
        else:
            middle = math.floor(((a - offset) / stride + (b - offset) / stride) / 2 + 0.5)
            assert (low, high) == (min(max(middle, 0), size - 1), min(max(middle, 0), size - 1) + 1)


def test_strides_and_offsets_of_each_axis() -> None:
    found = window_to_cells(np.array([[10.0, 10.0, 50.0, 50.0]]), (8, 16), (2.5, 20.0), 4, 9)
    # x: units at 2.5, 10.5, 18.5, ..., 50.5: 1 to 5; y: at 20, 36, 52, 68: 0 to 1
    assert found.tolist() == [[1, 0, 6, 2]]
    assert found.dtype == np.int64


def test_large_coordinates_are_exact() -> None:
    # In float32 16777217 is 16777216.
    assert window_to_cells(np.array([[16777217.0, 0, 16777219.0, 1]]), 1, 0, 1, 2**25).tolist() == [
        [16777218, 0, 16777219, 1]
    ]


def test_pixels_and_cells_agree() -> None:
    features = torch.randn(3, 12, 16)
    windows = torch.tensor([[0.0, 0, 255, 191], [33, 20, 97, 100]])
    found = window_to_cells(windows, 16, 0.0, 12, 16)
    assert torch.equal(pool_windows(features, windows, stride=16.0), pool_windows(features, found))


def test_sizes_a_window() -> None:
    sizes = torch.tensor([[3, 4], [30, 40]])
    windows = np.array([[0, 0, 999, 999], [0, 0, 999, 999]])
    found = window_to_cells(windows, 16, 0, sizes[:, 0], sizes[:, 1])
    assert found.tolist() == [[1, 1, 4, 3], [1, 1, 40, 30]]


@given(
    boxes=st.lists(st.tuples(*[st.floats(-1e300, 1e300) | COORDINATE] * 4), max_size=5),
    stride=st.floats(0.25, 40),
    offset=st.floats(-30, 30),
)
def test_numpy_and_torch_give_the_same_cells(boxes: list[tuple[float, ...]], stride: float, offset: float) -> None:
    """The same lines run in NumPy on the CPU, in torch on a GPU and where torch traces."""
    windows = np.array(boxes, np.float64).reshape(-1, 4)
    size = torch.tensor([1, 30, 7, 2, 9])[: len(boxes)]
    for height, width in ((30, 40), (size, size + 3)):
        expected = window_to_cells(torch.from_numpy(windows), stride, offset, height, width)
        assert isinstance(expected, torch.Tensor)
        for pair in ((stride, stride), None):
            traced = to_cells(torch, torch.from_numpy(windows), pair, (offset, offset), height, width)
            ours = to_cells(np, windows, pair, (offset, offset), np.asarray(height), np.asarray(width))
            assert ours.tolist() == traced.tolist()
        assert window_to_cells(windows, stride, offset, height, width).tolist() == expected.tolist()


def test_no_index_comes_from_a_nan() -> None:
    """Where nobody looks whether windows are finite (compiled code) they still become cells of the map."""
    for xp, windows in ((torch, torch.full((1, 4), math.nan, dtype=torch.float64)), (np, np.full((1, 4), math.nan))):
        assert to_cells(xp, windows, (16.0, 16.0), (0.0, 0.0), 3, 5).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8])
def test_any_kind_of_number(kind: type) -> None:
    assert window_to_cells(np.array([[16, 16, 64, 64]], kind), 16, 0, 9, 9).tolist() == [[2, 2, 4, 4]]
