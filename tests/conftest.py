"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from toy_data import write_toy_images, write_toy_voc

# The same examples in every run, so that a test fails where its cause is. `HYPOTHESIS_PROFILE=explore` draws new ones.
# No deadlines: on a busy machine any example may take long.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import onnxruntime themselves

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


# Files that take longest. `make test` gives each of two workers half of the tests, and who is done takes from the end
# of the other's half: so each half begins with its long files, and what is left at the end is short. A third worker
# gained nothing on two cores (712 s), and starved the browser.
LONG = (
    ("test_readme.py", "test_learner.py", "test_browser.py"),
    ("test_ray_run.py", "test_native.py", "test_hostile_images.py", "test_fallback.py", "test_examples.py"),
)

# Files without one slow test that take 4 to 22 seconds all the same. What they test breaks seldom by itself, so
# `make test-fast`, which a developer runs all day, leaves them out.
TOGETHER_LONG = (
    "backbones/test_engines.py",
    "backbones/test_tuned.py",
    "classification/test_image_classifier.py",
    "classification/test_networks.py",
    "cli/test_classify_train.py",
    "cli/test_detect_many.py",
    "datasets/test_generated.py",
    "detection/test_classes.py",
    "detection/test_concurrency.py",
    "detection/test_frames.py",
    "detection/test_held_out.py",
    "detection/test_mirror.py",
    "detection/test_run.py",
    "detection/test_run_many.py",
    "detection/test_tuning.py",
    "fuzz/test_any_input.py",
    "hostile/test_odd_files.py",
    "kernels/test_fallback.py",
    "pooling/test_ops.py",
    "scale/test_sources_and_parts.py",
    "scale/test_steps.py",
    "test_image_memory.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the development data, and put the tests into an order in which all workers end together."""
    short = [item for item in items if item.path.name not in {name for names in LONG for name in names}]
    ordered: list[pytest.Item] = []
    for i, names in enumerate(LONG):
        ordered += [item for name in names for item in items if item.path.name == name]
        taken = len(items) * (i + 1) // len(LONG) - len(ordered) if i + 1 < len(LONG) else len(short)
        ordered += short[: max(taken, 0)]
        short = short[max(taken, 0) :]
    items[:] = ordered
    long = {Path(__file__).resolve().parent / name for name in TOGETHER_LONG}
    for item in items:
        if item.path in long:
            item.add_marker(pytest.mark.long)
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data beside the repository (VOC2007, Caltech-101, BCCD); skips where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the development data in ../shared/data, which isn't part of the repository")
    return SHARED_DATA


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For small images and layers: several threads gain little, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20140618)


@pytest.fixture(scope="session")
def toy_voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set of two classes in VOC layout: 24 images to train on, 8 to validate."""
    return write_toy_voc(tmp_path_factory.mktemp("toy") / "VOC", {"train": 24, "val": 8})


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three kinds in one folder each, that a small network can tell apart: 12 of each."""
    return write_toy_images(tmp_path_factory.mktemp("folder") / "toys")
