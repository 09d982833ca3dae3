"""Files: never half of one, and the same bytes for the same content."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from sppnet.storage import atomic as files
from sppnet.storage.atomic import stable_safetensors, write_atomic


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


def leftover(folder: Path, pid: int, *, machine: str = files._MACHINE, age_s: float = 0.0) -> Path:
    """What a killed process would have left of ``table.json``."""
    path = folder / f".table-{pid}-{machine}{'0' * 8}.part.json"
    path.write_text("half")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    other = "0000" if files._MACHINE != "0000" else "0001"
    rubbish = [
        leftover(tmp_path, gone.pid),
        leftover(tmp_path, 2**22 + 1, machine=other, age_s=90_000),
        leftover(tmp_path, os.getpid()),  # an earlier process of this number
    ]
    kept = [
        leftover(tmp_path, os.getppid()),  # alive
        leftover(tmp_path, gone.pid, machine=other),  # nobody here knows
        tmp_path / ".table-notes.part.json",
    ]
    kept[2].write_text("mine")
    folder = tmp_path / f".set-{gone.pid}-{files._MACHINE}{'0' * 8}.part"  # an unfinished folder
    (folder / "images").mkdir(parents=True)
    files._swept.discard(tmp_path)
    with write_atomic(tmp_path / "table.json") as temporary:
        temporary.write_text("{}")
        with write_atomic(tmp_path / "other.json") as second:  # our own, unfinished, stays
            second.write_text("{}")
    assert not any(path.exists() for path in [*rubbish, folder])
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "table.json", tmp_path / "other.json"])


def test_folders(tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()
    with write_atomic(target) as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
    assert [p.name for p in target.iterdir()] == ["a"]

    def again() -> None:
        with write_atomic(target) as temporary:
            temporary.mkdir()

    with pytest.raises(OSError):  # never over what is there
        again()
    assert [p.name for p in tmp_path.rglob("*")] == ["set", "a"]


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_atomic(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())
