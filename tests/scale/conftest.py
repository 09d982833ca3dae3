"""Fixtures of the tests of the door to many images."""

from __future__ import annotations

from pathlib import Path

import pytest

from scale_cases import write_images
from sppnet import SPPDetector
from tiny_model import save_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("scale") / "tiny.safetensors")


@pytest.fixture(scope="session")
def detector(model: Path) -> SPPDetector:
    return SPPDetector.load(model)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("scale") / "images", 6)
