"""``sppnet classify`` and ``sppnet backbones``, as they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.classification.multiview import MapViews, view_from_dict
from sppnet.classification.views import View
from sppnet.cli.main import main

CATS = {"tabby cat", "tiger cat", "Egyptian cat"}


def test_cat_and_coffee(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(data.chelsea()).save(photos / "chelsea.png")
    Image.fromarray(data.coffee()).save(photos / "coffee.jpg", quality=92)
    (photos / "damaged.jpg").write_bytes((photos / "coffee.jpg").read_bytes()[:200])
    found = tmp_path / "found.json"
    assert main(["classify", str(photos), "--top", "3", "--json", str(found), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert err.count("damaged.jpg") == 1
    assert "Traceback" not in err
    rows = [line for line in out.splitlines() if str(photos / "chelsea.png") in line]
    assert len(rows) == 1
    assert any(rows[0].endswith(cat) for cat in CATS)
    assert "1 of 3" in out
    document = json.loads(found.read_text(encoding="utf-8"))
    assert document["classes"] == 1000
    cat, coffee = document["images"]
    assert [cat["image"], coffee["image"]] == [str(photos / "chelsea.png"), str(photos / "coffee.jpg")]
    assert cat["classes"][0]["class_name"] in CATS
    assert {c["class_name"] for c in cat["classes"]} == CATS
    assert (coffee["classes"][0]["class_name"], coffee["classes"][0]["class_id"]) == ("espresso", 967)
    assert all(len(p["classes"]) == 3 for p in document["images"])
    assert coffee["classes"][0]["probability"] > 0.5
    assert [Path(f["image"]).name for f in document["failed"]] == ["damaged.jpg"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network with random weights and three classes."""
    torch.manual_seed(0)
    network = SPPClassifier(load_backbone("zf5@0.05", pretrained=False, trainable=True), (2, 1), 3, hidden=())
    path = tmp_path / "tiny.safetensors"
    ImageClassifier.from_network(network, ("ä", "b", "c"), (View(64), View(64, "crop"))).save(path)
    return path


def test_own_classes_at_several_sizes(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    photo, found = tmp_path / "noise.png", tmp_path / "deep/er/found.json"
    Image.fromarray(pixels).save(photo)
    assert main(["classify", str(photo), "--model", str(model), "--scales", "48", "96", "--json", str(found)]) == 0
    assert str(found) in capsys.readouterr().out
    document = json.loads(found.read_text(encoding="utf-8"))
    views = [(view["side_px"], view["how"]) for view in document["views"]]
    assert views == [(48, "full"), (48, "crop"), (96, "full"), (96, "crop")]
    classifier = ImageClassifier.load(model)
    classifier.views = tuple(View(side, "crop" if how == "crop" else "full") for side, how in views)
    classes = document["images"][0]["classes"]
    assert [(c["class_name"], c["probability"]) for c in classes] == [
        (g.class_name, round(g.probability, 5)) for g in classifier.classify(pixels)
    ]
    assert sum(c["probability"] for c in classes) == pytest.approx(1, abs=1e-4)
    assert document["failed"] == []


def test_windows_of_maps(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model's own views are of 64 pixels, so windows and scales are in proportion to that."""
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    photo, found = tmp_path / "noise.png", tmp_path / "found.json"
    Image.fromarray(pixels).save(photo)
    for options, views in (
        (["--views", "10"], [MapViews((73,), 64, places=5)]),
        (["--views", "96"], [MapViews((64, 73, 86, 103, 128, 160), 64)]),
        (["--views", "10", "--scales", "80", "96"], [MapViews((80, 96), 64, places=5)]),
        (["--views", "full"], [View(64)]),
        (["--views", "full", "--scales", "48", "80"], [View(48), View(80)]),
    ):
        assert main(["classify", str(photo), "--model", str(model), "--json", str(found), *options]) == 0
        document = json.loads(found.read_text(encoding="utf-8"))
        assert [view_from_dict(view) for view in document["views"]] == views
        classifier = ImageClassifier.load(model)
        classifier.views = tuple(views)
        assert [c["probability"] for c in document["images"][0]["classes"]] == [
            round(g.probability, 5) for g in classifier.classify(pixels)
        ]
    bone = load_backbone("zf5@0.05", pretrained=False, trainable=True)
    fixed = SPPClassifier(bone, FixedPool(2, 1, bone.map_size(64, 64)), 2, hidden=())
    ImageClassifier.from_network(fixed, ("a", "b"), (View(64, "warp"),)).save(model)
    capsys.readouterr()
    assert main(["classify", str(photo), "--model", str(model), "--views", "96"]) == 2
    assert "views 96: this model has no pyramid" in capsys.readouterr().err


def test_wrong_use_is_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.write_bytes(model.read_bytes()[:500])
    photo = tmp_path / "p.png"
    Image.new("RGB", (30, 30)).save(photo)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([str(photo), "--model", str(model)], "tiny.safetensors: 500 bytes that are not a safetensors file"),
        ([str(photo), "--model", str(tmp_path / "none.safetensors")], "no such file"),
        ([str(tmp_path / "empty")], "no images in"),
    ):
        assert main(["classify", *arguments]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert len(err.splitlines()) <= 2
        assert "Traceback" not in err


def test_backbones_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "backbones.json"
    assert main(["backbones", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    lite = rows["efficientnet-lite0"]
    assert (lite["channels"], lite["stride"], lite["offset"]) == (320, 16, 15.5)
    assert lite["weights_installed"] is True
    assert lite["licence"] == "Apache-2.0"
    assert "`train` takes efficientnet-lite0+mid if you don't say otherwise, and `classify-train` efficientnet" in out
    for name in rows:
        assert sum(line.split()[0] == name for line in out.splitlines() if line) == 1
    zf5 = rows["zf5"]
    assert (zf5["channels"], zf5["stride"], zf5["weights_installed"]) == (256, 16, False)
    assert "your own file" in zf5["weights"]
    # what is listed is what is loaded
    bone = load_backbone("efficientnet-lite0")
    assert (bone.channels, bone.stride, bone.offset) == (320, 16, 15.5)
    bone = load_backbone("zf5", pretrained=False)
    assert sum(p.numel() for p in bone.parameters()) == zf5["parameters"]
