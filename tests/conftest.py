"""Fixtures of all tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data beside the repository (VOC2007, Caltech-101, BCCD); skips where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the development data in ../shared/data, which isn't part of the repository")
    return SHARED_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20140618)
