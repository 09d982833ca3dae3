"""Resizing with exact scales, and the listing of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sppnet.errors import ImageError
from sppnet.images import list_images, resize_short_side

BLACK = np.zeros((3, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((300, 400), 600, None, (600, 800)),
        ((400, 300), 600, None, (800, 600)),
        ((375, 500), 600, 700, (525, 700)),
        ((375, 500), 600, 800, (600, 800)),
        ((100, 100), 100, 100, (100, 100)),
        ((3, 1000), 600, 1000, (3, 1000)),
        ((1, 5000), 600, 1000, (1, 1000)),
        ((333, 500), 224, None, (224, 336)),
    ],
)
def test_resize_short_side(size: tuple[int, int], short: int, long: int | None, expected: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    before = image.copy()
    resized, scale_y, scale_x = resize_short_side(image, short, long)
    assert resized.shape == (*expected, 3)
    assert resized.dtype == np.uint8
    assert (scale_y, scale_x) == (expected[0] / size[0], expected[1] / size[1])
    assert np.array_equal(image, before)
    assert np.array_equal(resized, resize_short_side(image, short, long)[0])


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 80), st.none() | st.integers(1, 90))
def test_resize_keeps_its_promises(height: int, width: int, short: int, long: int | None) -> None:
    resized, scale_y, scale_x = resize_short_side(np.zeros((height, width, 3), np.uint8), short, long)
    sides = resized.shape[:2]
    assert sides == (round(height * scale_y), round(width * scale_x))
    assert min(sides) == short or (long is not None and max(sides) == long)
    assert long is None or max(sides) <= max(long, 1)


def test_resize_averages_when_shrinking() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing, a quarter of the size would be all black or all white
    resized, _, _ = resize_short_side(stripes, 16)
    assert np.abs(resized[:, 2:-2].astype(int) - 127).max() < 30


@pytest.mark.parametrize("arguments", [(0,), (-5,), (10, 0)])
def test_resize_rejects(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ImageError):
        resize_short_side(BLACK, *arguments)
    with pytest.raises(ImageError, match="use load_image"):
        resize_short_side(BLACK[:, :, 0], 10)
    with pytest.raises(ImageError, match="float32"):
        resize_short_side(BLACK.astype(np.float32), 10)


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c/x.jpeg", "c/.hidden.jpg", ".git/y.jpg", "notes.txt", "B/z.tif", "a.xml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    walked = [tmp_path / name for name in ("a.png", "b.JPG", "B/z.tif", "c/x.jpeg")]
    assert list_images([tmp_path]) == walked
    named = [tmp_path / "notes.txt", tmp_path / "missing.jpg", tmp_path / "c" / "x.jpeg"]
    assert list_images([*named, str(tmp_path)]) == [*named, *[path for path in walked if path not in named]]
    assert list_images([]) == []
