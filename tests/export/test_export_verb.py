"""``sppnet export``, and the example that runs what it writes without sppnet."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from skimage import data

from sppnet.boxes import box_iou
from sppnet.cli.main import main
from tiny_model import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "onnx_detector.py"
# Runs the example where neither sppnet nor torch can be imported
ALONE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("sppnet", "torch", "onnx", "numba", "cv2"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    save_tiny_model(folder / "m.safetensors")
    return folder


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], {"d.onnx": ["boxes", "scores"]}),
        (["--suppression"], {"d.onnx": ["boxes", "scores", "class_ids"]}),
        (["--parts"], {"d-convolutions.onnx": ["map"], "d-head.onnx": ["boxes", "scores"]}),
    ],
)
def test_files(
    options: list[str], names: dict[str, list[str]], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--model", str(home / "m.safetensors"), "-o", str(tmp_path / "d.onnx"), *options]
    assert main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert capsys.readouterr().out.count("written: ") == len(names)
    for name, outputs in names.items():
        assert [o.name for o in onnx.load(tmp_path / name).graph.output] == outputs
    assert main(arguments) == 0  # again: replaced


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-o d.safetensors", "output: got 'd.safetensors', expected a name that ends in .onnx"),
        ("-o d.onnx --parts --suppression", "the parts have none; leave out suppression or parts"),
        ("-o d.onnx --parts", "d-head.onnx: is there already, and was not written by sppnet"),
        ("-o d.onnx --model none.safetensors", "none.safetensors"),
        ("-o .", "is a folder; name a file, for instance detector.onnx"),
        ("-o m.onnx --model m.onnx", "--output m.onnx: is read by this command; name another file"),
    ],
)
def test_refused(
    options: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d-head.onnx", "m.onnx"):
        (tmp_path / name).write_bytes(b"mine")
    assert main(["export", *options.split()]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"d-head.onnx": b"mine", "m.onnx": b"mine"}


def test_needs_no_torch(home: Path, tmp_path: Path) -> None:
    code = "import sys; from sppnet.cli.main import main; sys.exit(main(sys.argv[1:]) + 9 * ('torch' in sys.modules))"
    options = ["export", "--model", str(home / "m.safetensors"), "-o", str(tmp_path / "d.onnx"), "--suppression"]
    subprocess.run([sys.executable, "-c", code, *options], check=True, timeout=120)
    assert (tmp_path / "d.onnx").is_file()


def run_alone(*arguments: str | Path) -> str:
    command = [sys.executable, "-c", ALONE, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_example_runs_alone(tmp_path: Path) -> None:
    """The cat is found with windows of the grid, and with windows of a file."""
    assert main(["export", "-o", str(tmp_path / "d.onnx"), "--suppression"]) == 0
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    (tmp_path / "windows.csv").write_text("40,10,400,300\n300.5,200,340,299\n")
    for more in ([], [tmp_path / "windows.csv"]):
        printed = run_alone(tmp_path / "d.onnx", tmp_path / "cat.png", *more)
        (found,) = re.findall(r"^([01]\.\d+) (\w+) \[(.*)\]$", printed, re.MULTILINE)
        assert found[1] == "cat"
        box = np.array([[float(v) for v in found[2].split(",")]])
        assert box_iou(box, np.array([[0.0, 0, 451, 300]]))[0, 0] > 0.6
