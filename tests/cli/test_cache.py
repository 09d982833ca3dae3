"""``sppnet cache info|clear``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sppnet.cli.main import main
from sppnet.storage.atomic import _PLACE
from sppnet.storage.checkpoints import Checkpoints
from sppnet.storage.feature_cache import FeatureCache


def test_info_and_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("ab" * 20, {"map0": torch.zeros(1000)})
    Checkpoints(tmp_path, "run").save("fc", {"x": torch.zeros(2000)}, {"done": 1})
    killed = tmp_path / "ab" / f".abab-{2**22 + 5}-{_PLACE}{'0' * 8}.part.safetensors"
    killed.write_bytes(b"half")
    mine = tmp_path / "notes.txt"
    mine.write_text("mine")
    assert main(["cache", "info", str(tmp_path)]) == 0
    assert "2 files, 0.0 MB" in capsys.readouterr().out
    assert main(["cache", "clear", str(tmp_path)]) == 0
    assert "removed 2 files" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [mine]


def test_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
