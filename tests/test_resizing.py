"""Resizing with compiled block means: Pillow's numbers, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet._types import U8
from sppnet.errors import ArgumentError
from sppnet.resizing import in_sizes
from sppnet.threads import threads_limited


def by_pillow(image: U8, sizes: list[tuple[int, int]]) -> list[U8]:
    source = Image.fromarray(np.ascontiguousarray(image))
    return [np.asarray(source.resize((w, h), Image.Resampling.BILINEAR, reducing_gap=2.0)) for h, w in sizes]


side, small = st.integers(1, 260), st.integers(1, 60)


@settings(max_examples=60, deadline=None)
@given(side, side, st.lists(st.tuples(small, small), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_as_pillow(height: int, width: int, sizes: list[tuple[int, int]], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for ours, theirs in zip(in_sizes(image, sizes), by_pillow(image, sizes), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_one_colour_stays(value: int) -> None:
    image = np.full((241, 367, 3), value, np.uint8)
    for result in in_sizes(image, [(7, 9), (17, 50), (120, 90), (241, 367)]):
        assert (result == value).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_rows_on_any_number_of_threads(threads: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1500, 403, 3), dtype=np.uint8)
    sizes = [(120, 40), (300, 90)]
    with threads_limited(threads, torch_too=False):
        found = in_sizes(image, sizes)
    for ours, theirs in zip(found, by_pillow(image, sizes), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_blocks_of_very_many_rows() -> None:
    """More than the kernel adds up in 16 bits."""
    image = np.full((1300, 5, 3), 255, np.uint8)
    image[700:] = np.random.default_rng(2).integers(0, 256, (600, 5, 3), dtype=np.uint8)
    for sizes in ([(2, 1)], [(1, 1)], [(3, 2)]):
        np.testing.assert_array_equal(in_sizes(image, sizes)[0], by_pillow(image, sizes)[0])


def test_views_of_arrays() -> None:
    """A mirror image and every second pixel are arrays with gaps; large ones and small ones."""
    image = np.random.default_rng(3).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    for view in (image[:, ::-1], image[::2, ::2], image[::-1]):
        for ours, theirs in zip(
            in_sizes(view, [(20, 30), (150, 99)]), by_pillow(view, [(20, 30), (150, 99)]), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(40, 120, 4), (40, 30), (40, 30, 1), (0, 30, 3), (2, 40, 30, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"image: expected uint8 \(H, W, 3\), got uint8 \("):
        in_sizes(np.zeros(shape, np.uint8), [(4, 3)])
    with pytest.raises(ArgumentError, match="got float32"):
        in_sizes(np.zeros((40, 30, 3), np.float32), [(4, 3)])


def test_very_wide_images() -> None:
    image = np.random.default_rng(4).integers(0, 256, (1, 1_100_001, 3), dtype=np.uint8)
    np.testing.assert_array_equal(in_sizes(image, [(1, 900)])[0], by_pillow(image, [(1, 900)])[0])
