"""Files: never half of one, and the same bytes for the same content."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from sppnet.files import stable_safetensors, write_atomic


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail() -> None:
        with write_atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_safetensors_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5, dtype=torch.int8), "a": torch.randn(3, 2), "é": torch.zeros(0, 4)}
    metadata = {name: f"value of {name} \u00fc" for name in ("one", "two", "three", "four", "five")}
    files = {stable_safetensors(save(tensors, metadata=metadata)) for _ in range(30)}
    assert len(files) == 1
    data = files.pop()
    (tmp_path / "x").write_bytes(data)
    with safe_open(tmp_path / "x", framework="pt") as file:
        assert file.metadata() == metadata
    for name, value in load(data).items():
        assert torch.equal(value, tensors[name])
