"""The verbs train, eval and detect as a person uses them, on a small data set and on a folder of good and bad files."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet.cli.main import main
from tiny_model import save_tiny_model
from toy_data import write_toy_voc


@pytest.fixture(scope="module")
def model(toy_voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "toy.safetensors"
    status = main(["train", str(toy_voc), "--output", str(path), "--scales", "240", "--epochs", "4"])
    assert status == 0
    return path


@pytest.mark.slow
def test_train_leaves_the_model_and_a_picture_of_examples(model: Path) -> None:
    assert sorted(p.name for p in model.parent.iterdir()) == ["toy-examples.jpg", "toy.safetensors"]


@pytest.mark.slow
def test_train_the_papers_way_and_at_two_scales(tmp_path: Path) -> None:
    """SVMs and ridge regression, at several scales."""
    data = write_toy_voc(tmp_path / "VOC", {"train": 12, "val": 4})
    path = tmp_path / "scales.safetensors"
    options = ["--scales", "240", "160", "--classifier", "svm", "--box-regression", "ridge", "--epochs", "4"]
    options += ["--proposals", "quality"]
    assert main(["train", str(data), "--output", str(path), *options, "--quiet"]) == 0
    from sppnet.detection.model_file import read_model

    stored = read_model(path)[1]
    assert stored["proposer"]["mode"] == "quality"
    assert stored["short_sides_px"] == [160, 240]
    assert stored["training"]["flip_short_sides_px"] == [133, 200]
    assert (stored["training"]["classifier"], stored["training"]["box_regression"]) == ("svm", "ridge")
    assert stored["metrics"]["voc-area"]["map"] > 0.5


@pytest.mark.slow
def test_train_without_a_fully_connected_layer(tmp_path: Path) -> None:
    path, data = tmp_path / "pool.safetensors", write_toy_voc(tmp_path / "VOC", {"train": 12, "val": 6})
    assert main(["train", str(data), "--output", str(path), "--scales", "240", "--layers", "pool"]) == 0
    from sppnet.detection.model_file import read_model

    tensors, stored = read_model(path)
    assert tensors["fc6_weight"].shape[0] == 0
    assert stored["metrics"]["voc-area"]["map"] > 0.7


@pytest.mark.slow
def test_train_as_rcnn(tmp_path: Path) -> None:
    """A pass of the convolutions a window; what it finds it finds with such passes, too."""
    data = write_toy_voc(tmp_path / "VOC", {"train": 2})
    path = tmp_path / "rcnn.safetensors"
    options = ["--features", "rcnn", "--backbone", "efficientnet-lite0", "--val-split", "none", "--epochs", "1"]
    assert main(["train", str(data), "--split", "train", "--output", str(path), *options]) == 0
    from sppnet.detection.detector import SPPDetector

    detector = SPPDetector.load(path)
    assert detector.features.method == "rcnn"
    detector.set_params(proposer__max_windows=20)
    photo = next((data / "JPEGImages").glob("*.jpg"))
    passes: list[int] = []
    features = detector.window_features()
    engine = features.engine

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        def __call__(self, image: np.ndarray) -> Any:
            passes.append(len(image))
            return engine(image)

    features.engine = Counted()
    maps = detector.feature_maps(photo)
    assert passes == []  # the passes come after the windows
    detector.pool(maps, detector.propose(photo))
    assert sum(passes) == len(detector.propose(photo))  # one crop a window


@pytest.mark.slow
def test_eval_prints_both_protocols(
    model: Path, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    assert main(["eval", str(toy_voc), "--model", str(model), "--split", "val", "--json", str(figures)]) == 0
    text = capsys.readouterr().out
    assert "protocol voc07-11pt" in text
    assert "protocol voc-area" in text
    assert "convolutions" in text
    found = json.loads(figures.read_text())
    assert found["voc-area"]["images"] == 8
    assert found["voc-area"]["map"] > 0.7
    # what train measured stands in the model, and eval measures the same
    from sppnet.detection.model_file import read_model

    stored = read_model(model)[1]["metrics"]["voc-area"]["map"]
    assert stored == pytest.approx(found["voc-area"]["map"], abs=2e-3)
    page = tmp_path / "failures"
    assert main(["eval", str(toy_voc), "--model", str(model), "--limit", "3", "--failures", str(page)]) == 0
    text = capsys.readouterr().out
    assert "(3 images)" in text
    counts = next(line for line in text.splitlines() if "detections right" in line)
    assert counts in (page / "index.html").read_text()
    assert str(page / "index.html") in text


@pytest.mark.slow
def test_other_scales_than_the_models(model: Path, toy_voc: Path, tmp_path: Path) -> None:
    found = {}
    for name, sides in (("own", []), ("same", ["240"]), ("more", ["416", "240", "160"])):
        figures = tmp_path / f"{name}.json"
        options = ["--scales", *sides] if sides else []
        assert main(["eval", str(toy_voc), "--model", str(model), "--json", str(figures), "--quiet", *options]) == 0
        found[name] = json.loads(figures.read_text())["voc-area"]
    assert found["own"] == found["same"]
    assert found["more"] != found["own"]
    assert found["more"]["map"] > 0.5


@pytest.mark.slow
def test_detect_draws_and_writes(
    model: Path, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = toy_voc / "JPEGImages" / "000000.jpg"
    other = tmp_path / "more" / "000000.jpg"
    other.parent.mkdir()
    shutil.copy(photo, other)
    out, data = tmp_path / "drawn", tmp_path / "found.json"
    arguments = [
        "detect",
        str(photo),
        str(other.parent),
        "--model",
        str(model),
        "--output",
        str(out),
        "--json",
        str(data),
    ]
    assert main([*arguments, "--threshold", "0.2"]) == 0
    text = capsys.readouterr().out
    assert "time in ms" in text
    assert all(stage in text for stage in ("proposals", "convolutions", "pooling", "fc", "classes", "NMS"))
    found = json.loads(data.read_text())
    root = Path(os.path.commonpath([photo.parent, other.parent]))
    assert [root / item["image"] for item in found["images"]] == [photo, other]
    first, second = (p["detections"] for p in found["images"])
    assert first == second
    assert first
    assert first[0]["class_name"] in found["class_names"]
    drawn = sorted(p.name for p in out.glob("*.jpg"))
    assert drawn == ["000000-2.jpg", "000000.jpg"]
    before, after = (np.asarray(Image.open(p)).astype(int) for p in (photo, out / "000000.jpg"))
    x0, y0, _, y1 = (round(v) for v in first[0]["box"])
    edge = np.abs(before - after)[y0:y1, max(x0 - 1, 0) : x0 + 2]
    assert edge.max() > 60  # a line was drawn where the box is
    assert photo.read_bytes() == other.read_bytes()


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.slow
def test_bad_files_are_named_and_the_others_are_done(
    model: Path, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    good = Image.open(toy_voc / "JPEGImages" / "000001.jpg")
    good.save(folder / "good.jpg")
    whole = (folder / "good.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "huge.png").write_bytes(_png_header(20000, 20000))
    Image.new("RGB", (1, 1), "red").save(folder / "one.png")
    good.convert("CMYK").save(folder / "cmyk.jpg")
    grey = np.asarray(good.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(folder / "grey16.png")
    good.quantize(16).save(folder / "palette.png", transparency=0)
    turned = good.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    bad = {"truncated.jpg", "empty.jpg", "text.jpg", "huge.png", "missing.jpg"}
    data = tmp_path / "found.json"
    status = main(
        ["detect", str(folder), str(folder / "missing.jpg"), "--model", str(model), "--json", str(data), "--quiet"]
    )
    captured = capsys.readouterr()
    assert status == 1
    assert "Traceback" not in captured.err
    found = json.loads(data.read_text())
    assert {Path(f["image"]).name for f in found["failed"]} == bad
    for failure in found["failed"]:
        assert Path(failure["image"]).name in failure["error"]
        assert sum(Path(failure["image"]).name in line for line in captured.err.splitlines()) == 1
    done = {Path(p["image"]).name for p in found["images"]}
    assert done == {p.name for p in folder.iterdir()} - bad
    assert "5 of 11 images failed" in captured.out
    # upright: the turned picture is found as the straight one is
    boxes = {Path(p["image"]).name: [d["class_name"] for d in p["detections"]] for p in found["images"]}
    assert boxes["turned.jpg"] == boxes["good.jpg"]


def test_usage_errors(toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_model(tmp_path / "tiny.safetensors", ("cat", "cup"))
    photo = str(toy_voc / "JPEGImages" / "000000.jpg")
    assert main(["detect", photo, "--model", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors: no such file" in capsys.readouterr().err
    assert main(["detect", photo, "--threshold", "7"]) == 2
    assert main(["train", str(tmp_path), "--output", str(tmp_path / "m")]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert main(["train", str(toy_voc), "--output", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    photo = str(toy_voc / "JPEGImages" / "000000.jpg")
    assert main(["detect", photo, "--model", str(model), "--scales", "9999"]) == 2
    assert "--scales: got '9999', expected 32 to 4000 pixels" in capsys.readouterr().err
    (tmp_path / "taken").write_text("")
    assert main(["eval", str(toy_voc), "--model", str(model), "--failures", str(tmp_path / "taken")]) == 2
    assert "taken" in capsys.readouterr().err
    assert main(["eval", str(toy_voc), "--model", str(model), "--split", "nosuch"]) == 2
    assert "nosuch" in capsys.readouterr().err
