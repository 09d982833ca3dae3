"""``--proposals``: the mode of selective search, in use and in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sppnet import GridProposer, SelectiveSearch, SPPDetector
from sppnet.cli.main import main
from tiny_model import save_tiny_model
from toy_data import write_toy_voc


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_voc(tmp_path_factory.mktemp("proposals") / "VOC", {"train": 2, "val": 1})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def test_detect_looks_at_windows_of_that_mode(model: Path, data: Path, tmp_path: Path) -> None:
    image = next((data / "JPEGImages").glob("*.jpg"))
    detector = SPPDetector.load(model)
    found = {}
    for name, options in (("own", []), ("fast", ["--proposals", "fast"]), ("quality", ["--proposals", "quality"])):
        out = tmp_path / f"{name}.json"
        command = ["detect", str(image), "--model", str(model), "--threshold", "0", "--json", str(out), "-q", *options]
        assert main(command) == 0
        rows = json.loads(out.read_text())["images"][0]["detections"]
        found[name] = [row["box"] for row in rows]
    assert found["own"] == found["fast"] != found["quality"]
    want = detector.set_params(proposer=SelectiveSearch("quality", 120)).detect(image, 0.0)
    np.testing.assert_allclose(found["quality"], want.xyxy, atol=0.01)


def test_features_and_eval_take_it_too(model: Path, data: Path, tmp_path: Path) -> None:
    image = next((data / "JPEGImages").glob("*.jpg"))
    out = tmp_path / "v.safetensors"
    command = ["features", str(image), "--model", str(model), "-o", str(out), "-q", "--proposals", "quality"]
    assert main([*command, "--max-windows", "30"]) == 0
    windows = next(v for k, v in load_file(out).items() if k.endswith("/windows"))
    assert np.array_equal(windows, SelectiveSearch("quality", 30)(image))
    figures = tmp_path / "figures.json"
    command = ["eval", str(data), "--model", str(model), "--proposals", "quality", "--json", str(figures), "-q"]
    assert main(command) == 0
    assert figures.exists()


def test_a_plot_that_can_t_be_drawn_is_refused_at_once(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the last image, when all else would be lost with it."""
    monkeypatch.setattr(SPPDetector, "detect", lambda *_, **__: pytest.fail("it looked at images"))
    for command in (["eval", str(data), "--model", str(model)], ["proposals", "--evaluate", str(data)]):
        assert main([*command, "--plot", str(tmp_path / "curves.doc")]) == 2
        assert "curves.doc" in capsys.readouterr().err


def test_windows_come_from_one_place(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(next((data / "JPEGImages").glob("*.jpg")))
    command = ["features", image, "--model", str(model), "-o", str(tmp_path / "v.safetensors"), "--proposals", "fast"]
    assert main([*command, "--windows", "w.npz"]) == 2
    assert "--proposals: windows come from --windows; leave one of them out" in capsys.readouterr().err
    assert main([*command[:-2], "--windows", "w.npz", "--max-windows", "1"]) == 2
    assert "--max-windows: all windows of --windows are taken" in capsys.readouterr().err


def test_a_model_with_windows_of_a_grid(model: Path, data: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.safetensors"
    SPPDetector.load(model).set_params(proposer=GridProposer(50, 24)).save(grid)
    image = str(next((data / "JPEGImages").glob("*.jpg")))
    out = tmp_path / "v.safetensors"
    command = ["features", image, "--model", str(grid), "-o", str(out), "-q", "--proposals", "fast"]
    assert main([*command, "--max-windows", "40"]) == 0
    windows = next(v for k, v in load_file(out).items() if k.endswith("/windows"))
    assert np.array_equal(windows, SelectiveSearch("fast", 40, 24)(image))


def test_training_goes_on_with_the_windows_of_the_model(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(data), "-o", str(tmp_path / "t.safetensors"), "--tune-convolutions", "--model", str(model)]
    assert main([*command, "--proposals", "quality"]) == 2
    assert "--proposals: is that of --model; leave it out" in capsys.readouterr().err


def test_the_file_says_which_windows(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "quality.safetensors"
    SPPDetector.load(model).set_params(proposer=SelectiveSearch("quality", 77)).save(path)
    assert main(["model", "info", "--model", str(path)]) == 0
    assert "selective search (quality), at most 77 an image" in capsys.readouterr().out
    SPPDetector.load(model).set_params(proposer=GridProposer(50)).save(path)
    assert main(["model", "info", "--model", str(path)]) == 0
    assert "grid, at most 50 an image" in capsys.readouterr().out
