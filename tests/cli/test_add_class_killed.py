"""`sppnet add-class` killed at any moment: nothing half written, and the next run gives the same file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sppnet.cli.main import main
from tiny_model import save_tiny_model
from toy_data import write_toy_voc

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_killed_and_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_model(tmp_path / "tiny.safetensors", ("cat", "bowl"))
    data = write_toy_voc(tmp_path / "VOC", {"train": 6})
    whole, output = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    base = ["add-class", str(data), "--model", str(model), "--folds", "2", "--quiet", "--output"]
    assert main([*base, str(whole)]) == 0
    assert "cup: whatever isn't annotated as such" in capsys.readouterr().out
    cache = tmp_path / "killed.safetensors.cache"
    code = "import sys; from sppnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it
    for wanted in (1, 7):  # entries in the cache at which it is killed
        process = subprocess.Popen(
            [sys.executable, "-c", code, *base, str(output)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            if len(list(cache.glob("??/*.safetensors"))) >= wanted:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists() or output.read_bytes() == whole.read_bytes()
    assert main([*base, str(output)]) == 0
    assert output.read_bytes() == whole.read_bytes()
    assert not cache.exists()
