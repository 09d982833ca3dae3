"""What must work where torch isn't installed: everything but training and CUDA."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sppnet import (
    ImageClassifier,
    SelectiveSearch,
    SPPClassifier,
    SPPDetector,
    View,
    load_backbone,
    load_image_folder,
)
from toy_data import write_toy_voc

WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "MISSING":
            raise ModuleNotFoundError("No module named 'MISSING'", name="MISSING")
sys.meta_path.insert(0, Refuse())
from sppnet.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments: str | Path, missing: str = "torch") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT.replace("MISSING", missing), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_voc(tmp_path_factory.mktemp("voc"), {"train": 8, "val": 6})


@pytest.mark.slow
def test_detect_and_measure(data: Path, tmp_path: Path) -> None:
    image = next((data / "JPEGImages").glob("*.jpg"))
    found = run("detect", image, "--json", tmp_path / "found.json", "--output", tmp_path / "drawn")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "found.json").is_file()
    assert run("proposals", image, "--output", tmp_path / "w.json").returncode == 0
    vectors = run("features", image, "--output", tmp_path / "v.safetensors", "--max-windows", "20")
    assert vectors.returncode == 0, vectors.stderr
    assert run("model", "info").returncode == 0
    exported = run("export", "--output", tmp_path / "d.onnx")
    assert exported.returncode == 0, exported.stderr
    model = tmp_path / "m.safetensors"
    SPPDetector.load().set_params(proposer=SelectiveSearch(max_windows=50)).remove_classes(["boat"]).rename_class(
        "sheep", "cup"
    ).save(model)
    measured = run("eval", data, "--model", model, "--split", "val")
    assert measured.returncode == 0, measured.stderr
    assert "voc-area" in measured.stdout


@pytest.mark.slow
def test_classify_and_measure(toy_folder: Path, tmp_path: Path) -> None:
    image = next(toy_folder.rglob("*.jpg"), None) or next(toy_folder.rglob("*.png"))
    shown = run("classify", image, "--views", "10", "--json", tmp_path / "classes.json")
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 7  # a heading, five classes, the file
    model = tmp_path / "c.safetensors"
    ImageClassifier(levels=(2, 1), views=(View(64),), folds=2).fit(load_image_folder(toy_folder, split="all")).save(
        model
    )
    measured = run("classify-eval", toy_folder, "--model", model)
    assert measured.returncode == 0, measured.stderr
    assert "mean class accuracy" in measured.stdout


@pytest.mark.slow
def test_convolutions_of_a_file_need_torch_and_say_so(toy_folder: Path, tmp_path: Path) -> None:
    network = SPPClassifier(load_backbone("zf5@0.05", pretrained=False, trainable=True), (2, 1), 3, hidden=(6,))
    ImageClassifier.from_network(network, ("a", "b", "c")).save(tmp_path / "own.safetensors")
    image = next(toy_folder.rglob("*.png"), None) or next(toy_folder.rglob("*.jpg"))
    got = run("classify", image, "--model", tmp_path / "own.safetensors")
    assert got.returncode == 2
    assert "Traceback" not in got.stderr
    assert "need torch, which is not installed: pip install torch" in got.stderr


def test_layers_of_torch_say_so() -> None:
    code = (
        WITHOUT.replace("MISSING", "torch").split("from sppnet.cli")[0]
        + "import sppnet; sppnet.pool_windows; sppnet.SpatialPyramidPool"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingDependencyError: SpatialPyramidPool: training" in got.stderr


def test_what_needs_torch_says_how_to_get_it(data: Path, tmp_path: Path) -> None:
    got = run("train", data, "--output", tmp_path / "m.safetensors", "--val-split", "none")
    assert got.returncode == 2
    assert "Traceback" not in got.stderr
    assert "need torch, which is not installed: pip install torch" in got.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_the_studio_says_so_before_it_starts(data: Path) -> None:
    got = run("studio", data / "JPEGImages", "--no-browser")
    assert got.returncode == 2
    assert got.stdout == ""
    assert got.stderr.startswith("sppnet: training, the studio, networks trained whole and GPUs need torch, which")
    assert len(got.stderr.splitlines()) == 1


@pytest.mark.parametrize(("missing", "package"), [("onnxruntime", "onnxruntime"), ("PIL", "pillow")])
def test_a_missing_dependency_is_named(data: Path, missing: str, package: str) -> None:
    got = run("detect", next((data / "JPEGImages").glob("*.jpg")), missing=missing)
    assert got.returncode == 2
    assert got.stderr.endswith(f" is not installed: pip install {package}\n")
    assert len(got.stderr.splitlines()) == 1
