"""One detector used by several threads, its copies, and other processes: the same results as one after another."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sppnet import Detections, SPPDetector
from sppnet._types import F32, U8
from sppnet.detection import building
from tiny_model import save_tiny_model

IMAGES, THREADS = 24, 8


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def detector(path: Path) -> SPPDetector:
    return SPPDetector.load(path)


def pictures() -> list[U8]:
    """Images of different sizes, so that the number of windows differs too."""
    rng = np.random.default_rng(5)
    made = []
    for _ in range(IMAGES):
        height, width = (int(v) for v in rng.integers(80, 260, 2))
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        made.append(np.ascontiguousarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width]))
    return made


@pytest.fixture(scope="module")
def images() -> list[U8]:
    return pictures()


@pytest.fixture(scope="module")
def wanted(path: Path, images: list[U8], two_threads: None) -> list[Detections]:
    detector = SPPDetector.load(path)
    found = [detector.detect(image, 0.0) for image in images]
    assert all(len(item) > 20 for item in found)
    assert not any(found[0] == other for other in found[1:])
    return found


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """Sums depend on how many threads share them, so all results here are those of two."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def wrong(found: list[Detections], wanted: list[Detections]) -> list[int]:
    return [i for i, (got, right) in enumerate(zip(found, wanted, strict=True)) if got != right]


def test_threads_share_a_detector(detector: SPPDetector, images: list[U8], wanted: list[Detections]) -> None:
    start = threading.Barrier(THREADS)  # the first images of all threads come at once, before any part is built

    def work(i: int) -> Detections:
        if i < THREADS:
            start.wait(30)
        return detector.detect(images[i], 0.0)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(IMAGES)))
    assert wrong(found, wanted) == []


def test_threads_share_parts(detector: SPPDetector, images: list[U8], wanted: list[Detections]) -> None:
    def work(image: U8) -> Detections:
        return detector.detect_windows(detector.feature_maps(image), detector.propose(image), 0.0)

    with ThreadPoolExecutor(THREADS) as pool:
        assert wrong(list(pool.map(work, images)), wanted) == []


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))], ids=range(3))
def test_copies_in_threads(
    make: Callable[[SPPDetector], SPPDetector],
    detector: SPPDetector,
    images: list[U8],
    wanted: list[Detections],
) -> None:
    detector.detect(images[0])  # so that there is something to share
    copies = [detector, *(make(detector) for _ in range(3))]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda i: copies[i % 4].detect(images[i], 0.0), range(IMAGES)))
    assert wrong(found, wanted) == []


def test_a_copy_has_parameters_of_its_own(detector: SPPDetector, images: list[U8]) -> None:
    other = copy.copy(detector).set_params(features__short_sides_px=(96,), proposer__max_windows=20)
    before = detector.detect(images[0], 0.0)
    assert other.detect(images[0], 0.0) != before
    assert detector.detect(images[0], 0.0) == before
    untrained = clone(detector)
    assert untrained.get_params() == detector.get_params()


def test_parts_follow_the_parameters(detector: SPPDetector, path: Path, images: list[U8]) -> None:
    detector.detect(images[0], 0.0)
    features = detector.window_features()
    assert detector.window_features() is features  # built once
    detector.set_params(features__short_sides_px=(96,), suppression__nms_iou=0.1)
    fresh = SPPDetector.load(path).set_params(features__short_sides_px=(96,), suppression__nms_iou=0.1)
    assert detector.detect(images[0], 0.0) == fresh.detect(images[0], 0.0)
    assert detector.window_features() is not features
    assert detector.window_features().engine is features.engine  # which needn't be loaded again


def test_asyncio(detector: SPPDetector, images: list[U8], wanted: list[Detections]) -> None:
    async def everything() -> list[Detections]:
        return await asyncio.gather(*(asyncio.to_thread(detector.detect, image, 0.0) for image in images))

    assert wrong(asyncio.run(everything()), wanted) == []


_SHARED: SPPDetector | None = None


def _in_process(detector: SPPDetector, index: list[int]) -> list[Detections]:
    torch.set_num_threads(2)
    made = pictures()
    return [detector.detect(made[i], 0.0) for i in index]


def _inherited(index: list[int]) -> list[Detections]:
    assert _SHARED is not None
    return _in_process(_SHARED, index)


@pytest.mark.slow
def test_pickled_into_processes(detector: SPPDetector, images: list[U8], wanted: list[Detections]) -> None:
    detector.detect(images[0])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        jobs = [pool.submit(_in_process, detector, list(range(k, IMAGES, 2))) for k in range(2)]
        found = [job.result(120) for job in jobs]
    assert wrong([found[i % 2][i // 2] for i in range(IMAGES)], wanted) == []


def test_forked(detector: SPPDetector, images: list[U8], wanted: list[Detections]) -> None:
    """The child of a process that has used the detector uses it too."""
    global _SHARED
    _SHARED = detector
    detector.detect(images[0])
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        jobs = [pool.submit(_inherited, list(range(k, 8, 2))) for k in range(2)]
        found = [job.result(60) for job in jobs]
    assert wrong([found[i % 2][i // 2] for i in range(8)], wanted[:8]) == []
    assert detector.detect(images[0], 0.0) == wanted[0]


def test_lists(detector: SPPDetector, images: list[U8], wanted: list[Detections]) -> None:
    found = detector.detect(images[:3], 0.0)
    assert isinstance(found, list)
    assert found == wanted[:3]
    assert detector.detect((image for image in images[:2]), 0.0) == wanted[:2]
    assert detector.detect([], 0.0) == []
    assert detector.detect(tuple(images[:1]), 0.0) == wanted[:1]


def _on_cpu(given: tuple[Any, ...]) -> list[Any]:
    return ["cpu" if isinstance(part, str) and part == "cuda" else part for part in given]


def test_lists_overlap_with_the_device(
    detector: SPPDetector, images: list[U8], wanted: list[Detections], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs where there is another device: here the CPU stands in for it."""
    proposed: list[tuple[str, int]] = []
    finished: list[Detections] = []
    real = detector.proposer

    def proposer(image: U8) -> F32:
        proposed.append((threading.current_thread().name, len(finished)))
        return real(image)

    detector.set_params(proposer=proposer)
    for name in ("build_engine", "build_head"):
        build = getattr(building, name)
        monkeypatch.setattr(f"sppnet.detection.trainable.{name}", lambda *given, build=build: build(*_on_cpu(given)))
    detector.device = "cuda"
    for got, right in zip(detector._detect_each(iter(images[:6]), 0.0), wanted[:6], strict=True):
        assert got == right
        finished.append(got)
    assert all("proposals" in thread for thread, _ in proposed)
    assert len(proposed) == 6
    assert proposed[2][1] <= 1  # the third image was begun before the second was handed out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype, path: Path, images: list[U8], wanted: list[Detections]) -> None:
    with torch.autocast("cpu", dtype=dtype):
        detector = SPPDetector.load(path)
        assert detector.detect(images[0], 0.0) == wanted[0]
        assert detector.detect(images[:2], 0.0) == wanted[:2]
        maps = detector.feature_maps(images[0])
        assert all(m.dtype == np.uint8 for m in maps.maps)
        assert detector.detect_windows(maps, detector.propose(images[0]), 0.0) == wanted[0]
        pooled = detector.pool(maps, detector.propose(images[0]))
        assert pooled.dtype == detector.fc(pooled).dtype == np.float32
