"""Windows of selective search: the same everywhere, the best prefix, any picture, and good enough on photos."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from sppnet.boxes import box_iou
from sppnet.errors import ArgumentError, ImageError
from sppnet.kernels.native import NativeKernel
from sppnet.proposals import MODES, Mode, Proposer, SelectiveSearch, compiled, kernels_ranking, selective_search


def scene(height: int = 150, width: int = 200, seed: int = 3) -> NDArray[np.uint8]:
    """A picture with a dozen coloured things and noise, the same on every machine (integers only)."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 90, np.int64) + np.arange(width)[None, :, None] // 6
    for _ in range(12):
        y, x = rng.integers(0, height), rng.integers(0, width)
        image[y : y + rng.integers(10, 70), x : x + rng.integers(10, 70)] = rng.integers(0, 256, 3)
    noisy: NDArray[np.uint8] = np.clip(image + rng.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)
    return noisy


def digest(boxes: NDArray[Any]) -> str:
    return hashlib.sha256(boxes.astype("<f4").tobytes()).hexdigest()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("mode", list(MODES))
def test_threads_do_not_change_a_bit(mode: str, threads: Callable[[int], None]) -> None:
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(digest(selective_search(scene(), mode)))
    assert len(set(results)) == 1


@pytest.mark.slow
def test_processes_and_hash_seeds_do_not_change_a_bit() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_selective_search as t;"
        "print(t.digest(t.selective_search(t.scene())))"
    )
    expected = digest(selective_search(scene()))
    for seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == expected


def test_no_kernel_is_compiled_again_in_each_process() -> None:
    selective_search(scene(300, 400), working_side=200)
    kernels = [value for value in vars(compiled).values() if isinstance(value, NativeKernel)]
    assert len(kernels) >= 12
    for kernel in kernels:
        assert kernel.on_disk(), kernel.function
        assert None not in kernel._loaded.values(), kernel.function


def test_windows_are_the_ones_recorded() -> None:
    """The same windows on every machine and in every release.

    When a change of the windows is meant, record the new digest and say so in the release notes: stored features and
    detectors belong to the old windows.
    """
    assert digest(selective_search(scene())) == "9884ff0da642def0801f3a969d27d2be77809406b6884526af59207ed07aa3bf"


@pytest.mark.parametrize("mode", ["single", "fast"])
def test_a_prefix_is_the_result_for_fewer_windows(mode: str) -> None:
    everything = selective_search(scene(), mode, 100000)
    assert len(everything) > 30
    for count in (1, 7, 30):
        np.testing.assert_array_equal(selective_search(scene(), mode, count), everything[:count])


def test_seed_changes_the_order_and_little_else() -> None:
    a, b = (selective_search(scene(), seed=seed, max_windows=100000) for seed in (0, 1))
    assert not np.array_equal(a[: len(b)], b[: len(a)])
    # every window has a near-duplicate (which one is kept depends on the order) in the other result
    assert (box_iou(a, b).max(1) >= 0.75).all()


def test_windows_are_inside_distinct_and_of_the_least_side() -> None:
    image = scene()
    boxes = selective_search(image, min_side=12)
    assert boxes.dtype == np.float32
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (image.shape[1], image.shape[0])).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 12).all()
    overlap = box_iou(boxes, boxes)
    np.fill_diagonal(overlap, 0)
    assert overlap.max() < MODES["fast"].overlap
    assert [0, 0, image.shape[1], image.shape[0]] in boxes.tolist() or box_iou(
        boxes, np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
    ).max() > MODES["fast"].overlap


@settings(max_examples=30, deadline=None)
@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 99)] * 4), min_size=1, max_size=80),
    percent=st.sampled_from([50, 80, 92, 100]),
    limit=st.integers(1, 80),
)
def test_removal_of_duplicates_equals_the_plain_definition(
    boxes: list[tuple[int, int, int, int]], percent: int, limit: int
) -> None:
    array = np.array([[min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1] for a, b, c, d in boxes], np.int32)
    expected: list[int] = []
    for i, box in enumerate(array):
        w, h = box[2:] - box[:2]
        others = array[expected].astype(float)
        if w < 3 or h < 2 or (100 * box_iou(box[None].astype(float), others) >= percent - 1e-9).any():
            continue
        expected.append(i)
    kept = compiled.distinct(array, np.arange(len(array)), limit, percent, 100, 100, 3, 2)
    assert kept.tolist() == expected[:limit]


def test_rank_is_position_times_random() -> None:
    keys = np.empty(1000, np.uint64)
    compiled.rank_keys(1000, 5, keys)
    random = keys.astype(float) / np.arange(1000, 0, -1) / 2**32
    assert 0 <= random.min() < 0.02
    assert 0.98 < random.max() < 1
    assert abs(random.mean() - 0.5) < 0.04
    # SplitMix64 as published: the first numbers from seed 0
    assert kernels_ranking.scramble(np.uint64(0)) == 0xE220A8397B1DCDAF


@settings(max_examples=40, deadline=None)
@given(
    image=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40).map(lambda s: (*s, 3))),
    working_side=st.sampled_from([16, 500]),
    mode=st.sampled_from(["single", "fast"]),
)
def test_any_small_picture(image: np.ndarray, working_side: int, mode: str) -> None:
    boxes = selective_search(image, mode, working_side=working_side)
    height, width = image.shape[:2]
    assert 1 <= len(boxes) <= 2000
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= (width, height)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= np.minimum(16, (width, height))).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 4000), (4000, 1), (3, 2500), (600, 800)])
def test_tiny_elongated_and_one_colour(shape: tuple[int, int]) -> None:
    boxes = selective_search(np.full((*shape, 3), 200, np.uint8))
    np.testing.assert_array_equal(boxes, [[0, 0, shape[1], shape[0]]])


def test_kinds_of_pictures(tmp_path: Path) -> None:
    image = scene()
    expected = selective_search(image)
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    np.testing.assert_array_equal(selective_search(path), expected)
    np.testing.assert_array_equal(selective_search(str(path)), expected)
    np.testing.assert_array_equal(selective_search(Image.open(path)), expected)
    np.testing.assert_array_equal(selective_search(image[:, ::-1][:, ::-1]), expected)
    opaque = np.concatenate([image, np.full((*image.shape[:2], 1), 255, np.uint8)], 2)
    np.testing.assert_array_equal(selective_search(opaque), expected)
    gray = image[..., 0]
    np.testing.assert_array_equal(selective_search(gray), selective_search(np.stack([gray] * 3, 2)))


def test_large_pictures_are_searched_small() -> None:
    image = scene()
    large = image.repeat(10, 0).repeat(10, 1)
    small = selective_search(image)
    np.testing.assert_allclose(selective_search(large, working_side=200, min_side=160), small * 10)


def test_errors() -> None:
    image = scene(20, 20)
    with pytest.raises(ArgumentError, match="mode: expected one of single, fast, quality"):
        selective_search(image, "best")
    with pytest.raises(ArgumentError, match="max_windows"):
        selective_search(image, max_windows=0)
    with pytest.raises(ArgumentError, match="min_side"):
        selective_search(image, min_side=0.5)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ArgumentError, match="seed"):
        selective_search(image, seed=-1)
    with pytest.raises(ArgumentError, match="working_side"):
        selective_search(image, working_side=4)
    with pytest.raises(ArgumentError, match="spaces"):
        Mode(("rgb",), (100,), (15,))
    with pytest.raises(ArgumentError, match="mixes"):
        Mode(("hsv",), (100,), (16,))
    with pytest.raises(ArgumentError, match="overlap"):
        Mode(("hsv",), (100,), (15,), overlap=0.2)
    with pytest.raises(ArgumentError, match="ks"):
        Mode(("hsv",), (), (15,))
    with pytest.raises(ImageError):
        selective_search("missing.jpg")


def test_is_a_proposer_and_imports_lazily() -> None:
    assert isinstance(SelectiveSearch(), Proposer)
    code = "import sys, sppnet.proposals; print(sorted({'numba', 'cv2', 'scipy', 'torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numba" not in run.stdout
    assert "cv2" not in run.stdout


@pytest.mark.slow
def test_finds_the_objects_of_voc(shared_data: Path) -> None:
    from sppnet.datasets.formats.voc import load_voc
    from sppnet.evaluation.proposals import evaluate_proposals

    report = evaluate_proposals(list(load_voc(shared_data / "voc2007" / "VOC2007", "val"))[::60], SelectiveSearch())
    assert report.recall[0, -1] > 0.9
    assert report.overlap[-1] > 0.75
    assert (np.diff(report.recall, axis=1) >= 0).all()
