"""The scripts in ``examples/`` run as they are, and compute what they say."""

from __future__ import annotations

import io
import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet import spatial_pyramid_pool
from sppnet.boxes import box_iou, decode_deltas, encode_deltas, nms

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    """The names of ``spp_from_scratch.py``, which has not run its main part."""
    return runpy.run_path(str(EXAMPLES / "spp_from_scratch.py"))


@pytest.fixture
def boxes(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    corner, side = rng.uniform(0, 60, (40, 2)), rng.uniform(5, 40, (40, 2))
    return np.concatenate([corner, corner + side], 1).astype(np.float32)


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (13, 9), (40, 60)])
def test_its_pyramid_is_the_layer(paper: dict[str, Any], size: tuple[int, int]) -> None:
    maps = torch.randn(1, 5, *size)
    assert torch.equal(paper["pyramid"](maps[0]), spatial_pyramid_pool(maps, paper["LEVELS"])[0])


def test_its_boxes_are_those_of_the_library(paper: dict[str, Any], boxes: Any, rng: np.random.Generator) -> None:
    scores = rng.permutation(len(boxes)) / len(boxes)
    assert paper["suppress"](boxes, scores) == nms(boxes, scores, 0.3).tolist()
    shifts = paper["shift"](boxes, boxes[::-1])
    np.testing.assert_allclose(shifts, encode_deltas(boxes, boxes[::-1]), atol=1e-6)
    np.testing.assert_allclose(paper["move"](boxes, shifts), boxes[::-1], atol=1e-4)
    np.testing.assert_allclose(paper["move"](boxes, shifts / 2), decode_deltas(boxes, shifts / 2), atol=1e-4)


def test_its_svm_parts_two_clouds(paper: dict[str, Any]) -> None:
    cloud = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    is_object = torch.arange(60) % 3 == 0
    cloud[is_object] += 2.0
    weight = paper["train_svm"](cloud, is_object, cost=1.0)
    from sklearn.svm import LinearSVC

    peer = LinearSVC(C=1.0, tol=1e-8, max_iter=100_000, intercept_scaling=1000).fit(cloud.numpy(), is_object.numpy())
    np.testing.assert_allclose(weight[:-1].numpy(), peer.coef_[0], atol=2e-3)


@pytest.mark.slow
def test_it_finds_what_it_never_saw(paper: dict[str, Any]) -> None:
    """On eight new scenes both objects are found, by the best box of their class, most of them closely."""
    learned = paper["train"]()
    ious = []
    for seed in range(100, 108):
        image, truth = paper["scene"](np.random.default_rng(seed))
        found = paper["detect"](image, learned)
        for name, true_box in zip(paper["NAMES"], truth, strict=True):
            best = max((d for d in found if d[0] == name), key=lambda d: d[1])
            ious.append(box_iou(best[2][None], true_box[None])[0, 0])
    assert min(ious) > 0.5
    assert np.median(ious) > 0.8


def run(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``examples/SCRIPT`` prints when it runs in ``folder``, as a user would start it without arguments."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", [script])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return capsys.readouterr().out


def test_scripts_are_short() -> None:
    assert len((EXAMPLES / "spp_from_scratch.py").read_text().splitlines()) <= 145
    for path in EXAMPLES.glob("*.py"):
        assert path.name == "spp_from_scratch.py" or len(path.read_text().splitlines()) < 80, path.name


def test_windows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run("windows_only.py", tmp_path, monkeypatch, capsys)
    assert "500 windows in an image of 512 x 512 pixels" in printed
    with Image.open(tmp_path / "windows.png") as drawn:
        assert drawn.size == (512, 512)


@pytest.mark.slow
def test_window_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The face of the cat is found again, mirrored, where it is in the smaller image."""
    printed = run("window_vectors.py", tmp_path, monkeypatch, capsys)
    hits = re.findall(r"^0\.\d+  (.*), window \[(.*)\]$", printed, re.MULTILINE)
    assert len(hits) == 3
    face = np.array([[(451 - 340) / 2, 5, (451 - 90) / 2, 145]])
    for name, window in hits:
        assert name == "the same cat, smaller and mirrored"
        inside = np.array([[float(v) for v in window.split()]])
        assert box_iou(inside, face)[0, 0] > 0.3


@pytest.mark.slow
def test_layer_in_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shares = re.findall(r"([\d.]+)% right", run("layer_in_torch.py", tmp_path, monkeypatch, capsys))
    assert len(shares) == 3
    assert min(map(float, shares)) > 90


@pytest.mark.slow
def test_add_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run("add_class.py", tmp_path, monkeypatch, capsys)
    assert "classes before: 20 after: 21" in printed
    assert "to the last bit: True" in printed
    assert (tmp_path / "with-zero.safetensors").is_file()


@pytest.mark.slow
def test_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run("own_images.py", tmp_path, monkeypatch, capsys)
    assert np.mean([float(ap) for ap in re.findall(r"average precision ([\d.]+)", printed)]) > 0.5
    assert (tmp_path / "own.safetensors").is_file()
    assert (tmp_path / "found.png").is_file()


def test_batch_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each path gets its own answer, in order, and an image that cannot be read ends nothing."""
    from skimage import data

    good, bad = tmp_path / "cät.png", tmp_path / "bad.jpg"
    Image.fromarray(data.chelsea()).save(good)
    bad.write_bytes(b"no image")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{bad}\n\n{good}\n"))
    replies = [json.loads(line) for line in run("batch_service.py", tmp_path, monkeypatch, capsys).splitlines()]
    assert [reply["path"] for reply in replies] == [str(bad), str(good)]
    assert "bad.jpg" in replies[0]["error"]
    best = replies[1]["objects"][0]
    assert best["class"] == "cat"
    assert box_iou(np.array([best["xyxy"]]), np.array([[0, 0, 451, 300]]))[0, 0] > 0.6
