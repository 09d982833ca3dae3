"""A detector inside a program of somebody else: other precisions, inference mode, silent logging, ``python -m``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sppnet import Detections, SPPDetector
from sppnet.cli.main import main
from tiny_model import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def image(toy_voc: Path) -> Path:
    return min((toy_voc / "JPEGImages").iterdir())


@pytest.fixture(scope="module")
def expected(model: Path, image: Path) -> Detections:
    found = SPPDetector.load(model).detect(image, 0)
    assert not found.is_empty()
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(model: Path, image: Path, expected: Detections, dtype: torch.dtype) -> None:
    detector = SPPDetector.load(model)
    with torch.autocast("cpu", dtype):
        assert torch.is_autocast_enabled("cpu")
        assert detector.detect(image, 0) == expected
        assert SPPDetector.load(model).detect(image, 0) == expected
        assert torch.is_autocast_enabled("cpu")  # as the caller had it


def test_modes_without_gradients_change_nothing(model: Path, image: Path, expected: Detections) -> None:
    detector = SPPDetector.load(model)
    with torch.inference_mode():
        assert detector.detect(image, 0) == expected
    with torch.no_grad():
        assert detector.detect(image, 0) == expected
    assert detector.detect(image, 0) == expected


SCRIPT = """\
import logging, sys
from sppnet import SPPDetector, detect_many
if sys.argv[3] == "silent":
    logging.getLogger("sppnet").setLevel(logging.CRITICAL)
run = detect_many(SPPDetector.load(sys.argv[1]), sys.argv[2])
assert len(list(run)) == len(run.failed) == 1
"""


@pytest.mark.parametrize("how", ["silent", "as it is"])
def test_the_logger_sppnet_silences_the_library(how: str, model: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.jpg").write_bytes(b"damaged")
    shutil.copy(image, tmp_path / "good.jpg")
    command = [sys.executable, "-c", SCRIPT, str(model), str(tmp_path), how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout == ""
    if how == "silent":
        assert done.stderr == ""
    else:
        assert "damaged.jpg" in done.stderr


def test_both_ways_to_ask_for_json_give_one_document(model: Path, image: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.txt"]
    command = ["detect", str(image), "--model", str(model), "-q"]
    assert main([*command, "--json", str(files[0])]) == 0
    assert main([*command, "--results", str(files[1])]) == 0
    assert main([*command, "--results", str(files[2]), "--format", "json"]) == 0
    texts = {file.read_text(encoding="utf-8") for file in files}
    assert len(texts) == 1
    document = json.loads(texts.pop())
    assert (document["format"], document["version"]) == ("sppnet-results", 1)


def test_python_m_sppnet_shows_the_usage_of_the_verb() -> None:
    command = [sys.executable, "-m", "sppnet", "detect", "a.jpg", "--thresold", "0.3"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == (
        "usage: sppnet detect IMAGE|DIR [IMAGE|DIR ...] [options]\n"
        "sppnet detect: unrecognized arguments: --thresold 0.3; did you mean --threshold?\n"
    )
