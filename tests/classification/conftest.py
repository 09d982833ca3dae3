"""Small photos of three kinds that a small network can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Layers this small take longer on several threads, many times longer where the processor is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``red``, ``green`` and ``striped``, 12 photos each, of many sizes and aspects."""
    root = tmp_path_factory.mktemp("folder") / "toys"
    rng = np.random.default_rng(0)
    for name in ("green", "red", "striped"):
        (root / name).mkdir(parents=True)
        for i in range(12):
            h, w = (int(v) for v in rng.integers(40, 90, 2))
            pixels = rng.integers(60, 120, (h, w, 3))
            if name == "striped":
                pixels[:, ::8] = pixels[:, 1::8] = 240
            else:
                pixels[..., 0 if name == "red" else 1] += 110
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:02}.png")
    return root
