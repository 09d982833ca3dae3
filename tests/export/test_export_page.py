"""The code of docs/export.md and of its example, as somebody would run it who has no sppnet."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

import sppnet
from sppnet import SPPDetector, export_onnx, load_image
from sppnet.boxes import clip_boxes, decode_deltas
from sppnet.cli.main import main
from sppnet.detection.heads import HeadEngine
from tiny_model import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "onnx_detector.py"


def code_of_page(language: str) -> list[str]:
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody exported a small detector."""
    folder = tmp_path_factory.mktemp("page")
    detector = SPPDetector.load(save_tiny_model(folder / "m.safetensors"))
    export_onnx(detector, folder / "detector.onnx")
    export_onnx(detector, folder / "s.onnx", suppression=True)
    return folder


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_parts(precision: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe between convolutions and head gives the detector's numbers, at two scales, with any windows."""
    detector = SPPDetector.load(home / "m.safetensors")
    detector.set_params(features__precision=precision, features__short_sides_px=(96, 192))
    export_onnx(detector, tmp_path / "detector.onnx")
    export_onnx(detector, tmp_path / "detector.onnx", parts=True)
    Image.fromarray(data.coffee()).save(tmp_path / "image.jpg")  # more than 4 times as high as the first scale
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    (first,) = code_of_page("python")
    exec(first, names)
    image = load_image(tmp_path / "image.jpg")
    np.testing.assert_array_equal(names["image"], image)
    corner, size = np.random.default_rng(0).uniform(-50, 500, (2, 60, 2))
    odd = [[0, 0, 600, 400], [-90, -90, -10, -10], [700, 500, 900, 900], [300, 200, 301, 201], [400, 300, 20, 10]]
    names["windows"] = windows = np.concatenate([np.array(odd), np.hstack([corner, corner + size])]).astype(np.float32)
    recipe, with_sppnet = code_of_page("py")
    exec(recipe, names)
    assert set(names["which"].tolist()) == {0, 1}
    features, weights = detector.window_features(), detector.weights_
    vectors = np.asarray(features.pool(features.maps(image), windows))
    assert names["pooled"].dtype == vectors.dtype
    np.testing.assert_allclose(names["pooled"], vectors, atol=0 if precision == "int8" else 1e-4)
    head = HeadEngine(weights.arrays(), features.quantised, threads=1)
    margins, deltas = head.scores(head.fc(vectors))
    boxes = [clip_boxes(decode_deltas(windows, deltas[:, c]), 400, 600) for c in range(weights.classes)]
    np.testing.assert_allclose(names["boxes"], np.stack(boxes, 1), atol=1e-2)
    for c in range(weights.classes):
        one = (1 / (1 + np.exp(-np.ascontiguousarray(margins[:, c])))).astype(np.float32)
        np.testing.assert_allclose(names["scores"][:, c], weights.probability(one, c), atol=5e-5)
    pooled = names["pooled"]
    exec(with_sppnet, names | (more := {"sppnet": sppnet}), more)
    np.testing.assert_array_equal(more["pooled"], pooled)


def pictures(folder: Path) -> dict[str, Path]:
    """Files of kinds that are not simply RGB."""
    rgb, rng = data.chelsea()[:90, :140], np.random.default_rng(0)
    alpha = rng.integers(0, 256, (90, 140, 1), np.uint8)
    palette = Image.fromarray(rgb).quantize(32)
    palette.info["transparency"] = 3
    turned = Image.Exif()
    turned[0x112] = 6
    steps = np.add.outer(np.arange(90), np.arange(140))
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "turned.jpg": (Image.fromarray(rgb), {"exif": turned}),
        "rgba.png": (Image.fromarray(np.concatenate([rgb, alpha], 2)), {}),
        "la.png": (Image.fromarray(np.concatenate([rgb[..., :1], alpha], 2)), {}),
        "palette.png": (palette, {"transparency": 3}),
        "gray8.png": (Image.fromarray(rgb[..., 0]), {}),
        "gray12.png": (Image.fromarray((steps * 17).astype(np.uint16)), {}),
        "gray16.png": (Image.fromarray((steps * 280).astype(np.uint16)), {}),
    }
    for name, (picture, options) in files.items():
        picture.save(folder / name, **options)
    return {name: folder / name for name in files}


def run_example(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> dict[str, Any]:
    """What the example has at its end."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, arguments)])
    return runpy.run_path(str(EXAMPLE))


def test_images_are_read_as_sppnet_reads_them(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    read = run_example(monkeypatch, home / "s.onnx", pictures(tmp_path)["gray8.png"])["read_image"]
    for name, path in pictures(tmp_path).items():
        right = load_image(path)
        np.testing.assert_array_equal(read(str(path)), right, err_msg=name)
        (home / "image.jpg").write_bytes(path.read_bytes())  # whatever it is: Pillow looks at its bytes
        names: dict[str, Any] = {}
        exec(code_of_page("python")[0], names)
        np.testing.assert_array_equal(names["image"], right, err_msg=name)


def test_example_reads_what_proposals_writes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of files, one file of several images, a plain list, and lines of numbers."""
    for name in ("0.png", "1.png"):
        Image.fromarray(data.chelsea()[: 100 + 9 * int(name[0]), :140]).save(tmp_path / name)
    images, folder, one = [str(tmp_path / "0.png"), str(tmp_path / "1.png")], tmp_path / "dir", tmp_path / "all.json"
    for output in (folder, one):
        assert main(["proposals", *images, "-o", str(output), "--mode", "grid", "--max-windows", "30"]) == 0
    right = np.array(json.loads((folder / "1.png.json").read_text())["1.png"], np.float32)
    assert len(right)
    (tmp_path / "list.json").write_text(json.dumps(right.tolist()))
    np.savetxt(tmp_path / "w.csv", right, fmt="%.9g", delimiter=",")
    for file in (folder / "1.png.json", one, tmp_path / "list.json", tmp_path / "w.csv"):
        capsys.readouterr()
        found = run_example(monkeypatch, home / "s.onnx", images[1], file)
        np.testing.assert_array_equal(found["windows"], right)
        assert re.search(r"^[01]\.\d+ (cat|cup|dög) \[", capsys.readouterr().out, re.MULTILINE)
    with pytest.raises(SystemExit, match=r"all\.json: has windows of 2 images, and none is other\.png"):
        run_example(monkeypatch, home / "s.onnx", Path(images[1]).rename(tmp_path / "other.png"), one)
