"""Checkpoints: what was saved is found by the same run only, and damage counts as absence."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet.storage.checkpoints import Checkpoints, restore_generator, state_of_generator


def test_save_and_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine, other = Checkpoints(tmp_path, ("run", 1)), Checkpoints(tmp_path, ("run", 2))
    assert mine.load("fc") is None
    rng = np.random.default_rng(3)
    rng.random(5)
    mine.save("fc", {"weight": torch.ones(2, 3).T, "step": torch.tensor(4)}, {"rng": state_of_generator(rng)})
    found = mine.load("fc")
    assert found is not None
    assert torch.equal(found[0]["weight"], torch.ones(3, 2))
    assert int(found[0]["step"]) == 4
    again = np.random.default_rng(0)
    restore_generator(again, found[1]["rng"])
    assert again.random() == rng.random()
    assert other.load("fc") is None
    path = next(tmp_path.rglob("fc.safetensors"))
    path.rename(path.with_name("svm.safetensors"))
    with caplog.at_level(logging.WARNING, "sppnet"):
        assert mine.load("svm") is None  # a checkpoint of another stage
    assert "isn't a checkpoint of svm" in caplog.text
    mine.remove("svm")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_any_damage_counts_as_absence(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "run")
    checkpoints.save("fc", {"weight": torch.arange(100.0)}, {"step": 5})
    path = next(tmp_path.rglob("fc.safetensors"))
    good = path.read_bytes()
    for place in range(0, len(good), 5):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        assert checkpoints.load("fc") is None
