"""Resizing in graphs, against what the detector feeds its convolutions with, and against Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from skimage import data

from sppnet._types import U8
from sppnet.export.arithmetic import Arithmetic
from sppnet.export.resizing import _add_means, add_resized
from sppnet.resizing import in_sizes
from sppnet.runtime.onnx_graph import BranchingGraph

pytestmark = pytest.mark.usefixtures("one_thread")


def run(graph: BranchingGraph, **inputs: Any) -> U8:
    content = graph.to_bytes()
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    found: U8 = onnxruntime.InferenceSession(content, options).run(None, inputs)[0]
    return found


def resized(image: U8, size: tuple[int, int]) -> U8:
    """``image`` as a graph resizes it."""
    graph = BranchingGraph("g", 18)
    steps = Arithmetic(graph)
    name = graph.input("image", "uint8", (1, "H", "W", 3))
    sides = steps.cast(steps("Shape", name, start=1, end=3), "float64")
    wanted = graph.constant("size", np.array(size, float))
    graph.output(add_resized(graph, name, sides, wanted, "a."), "uint8", (1, "h", "w", 3))
    found: U8 = run(graph, image=image[None])[0]
    return found


def photo(height: int, width: int) -> U8:
    """Large and sharp, with noise: the astronaut between grains."""
    rng = np.random.default_rng(height + width)
    wide = np.asarray(Image.fromarray(data.astronaut()).resize((width, height), Image.Resampling.BICUBIC))
    found: U8 = np.clip(wide + rng.integers(-8, 9, (height, width, 1)), 0, 255).astype(np.uint8)
    return found


# fmt: off
CASES = [
    ((1, 1), (16, 16)), ((97, 161), (96, 160)), ((383, 383), (96, 96)), ((384, 384), (96, 96)),
    ((385, 390), (96, 96)), ((577, 571), (96, 96)), ((389, 1203), (96, 288)),  # from here on: means of blocks
    ((383, 390), (96, 96)), ((390, 383), (96, 96)), ((3, 3000), (16, 160)), ((3001, 3), (160, 16)),
    ((2, 40000), (16, 64)), ((2000, 3000), (176, 256)), ((1663, 1217), (128, 96)),
]
# fmt: on


@pytest.mark.parametrize(("sides", "size"), CASES, ids=str)
def test_is_what_the_detector_sees(sides: tuple[int, int], size: tuple[int, int]) -> None:
    """At most one level off; in few bytes, where Pillow, too, makes the image narrow first and low then."""
    image = photo(*sides)
    (right,) = in_sizes(image, [size])
    found = resized(image, size)
    assert found.shape == right.shape
    wrong = np.abs(found.astype(int) - right)
    assert wrong.max() <= 1
    # what is left to Resize, down and across
    down, across = (n / max(int(n / new / 2), 1) / new for n, new in zip(sides, size, strict=True))
    assert (wrong > 0).mean() < (0.02 if down < 1.25 * across else 0.25)


def test_white_stays_white() -> None:
    """Partial blocks at the edges are divided by the pixels that they have."""
    for sides in ((389, 407), (771, 1165)):
        assert (resized(np.full((*sides, 3), 255, np.uint8), (96, 96)) == 255).all()


@pytest.mark.parametrize(
    ("sides", "block"),
    [((50, 70), (1, 2)), ((51, 70), (2, 1)), ((61, 50), (2, 3)), ((60, 63), (5, 7)), ((90, 41), (17, 20)),
     ((7, 9), (8, 9)), ((1201, 50), (300, 3))],
    ids=str,
)  # fmt: skip
def test_means_are_those_of_pillow(sides: tuple[int, int], block: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    graph = BranchingGraph("g", 18)
    steps = Arithmetic(graph)
    factors = np.array(block, float)
    names = [graph.constant(f"c{i}", value) for i, value in enumerate((np.array(sides, float), factors))]
    counts = graph.constant("counts", np.ceil(np.array(sides) / factors))
    means = _add_means(steps, graph.input("image", "uint8", (1, "H", "W", 3)), names[0], names[1], counts)
    graph.output(means, "uint8", (1, "h", "w", 3))
    right = np.asarray(Image.fromarray(image).reduce((block[1], block[0])))
    np.testing.assert_array_equal(run(graph, image=image[None])[0], right)
