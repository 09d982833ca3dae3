"""The verb ``proposals``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sppnet.cli.main import main
from sppnet.proposals import load_proposals, save_proposals, selective_search


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        image = Image.new("RGB", (120, 90), (200, 190, 180))
        ImageDraw.Draw(image).ellipse((20 + 10 * i, 20, 80, 70), fill=(200, 30, 30))
        image.save(folder / f"{i}.png")
    return folder


def test_all_windows_in_one_file(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proposals", str(photos), "--output", str(tmp_path / "w.npz"), "--quiet"]) == 0
    stored = load_proposals(tmp_path / "w.npz")
    assert list(stored) == ["0.png", "1.png"]
    np.testing.assert_array_equal(stored["0.png"], selective_search(photos / "0.png"))
    assert "2 images" in capsys.readouterr().out


def test_a_folder_with_drawings(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["proposals", str(photos), "-o", str(out), "--draw", "--mode", "grid", "--max-windows", "50"]) == 0
    assert sorted(p.name for p in out.glob("[!.]*")) == [
        "0.png.json",
        "0.png.windows.jpg",
        "1.png.json",
        "1.png.windows.jpg",
    ]
    assert len(load_proposals(out / "0.png.json")["0.png"]) == 50
    assert Image.open(out / "0.png.windows.jpg").size == (120, 90)


def test_a_table_on_the_screen(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proposals", str(photos / "0.png")]) == 0
    assert "windows, the first:" in "".join(capsys.readouterr())


def test_a_broken_picture_is_reported_and_the_others_done(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    assert main(["proposals", str(photos), "--output", str(tmp_path / "w.json"), "--quiet"]) == 1
    assert len(load_proposals(tmp_path / "w.json")) == 2
    assert "broken.jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no images"),
        (["a.png", "--draw"], "--output DIR"),
        (["a.png", "--draw", "--output", "w.npz"], "--output DIR"),
        (["a.png", "--plot", "a.png"], "--evaluate"),
        (["a.png", "--evaluate", "data"], "leave out"),
    ],
)
def test_usage(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proposals", *options]) == 2
    assert message in capsys.readouterr().err


def voc(root: Path, photos: Path) -> Path:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for i in range(2):
        Image.open(photos / f"{i}.png").save(root / f"JPEGImages/{i}.jpg", quality=95)
        (root / f"Annotations/{i}.xml").write_text(
            f"<annotation><filename>{i}.jpg</filename><size><width>120</width><height>90</height><depth>3</depth></size>"
            f"<object><name>ball</name><difficult>0</difficult><bndbox><xmin>{21 + 10 * i}</xmin><ymin>21</ymin>"
            "<xmax>81</xmax><ymax>71</ymax></bndbox></object></annotation>"
        )
    (root / "ImageSets/Main/val.txt").write_text("0\n1\n")
    return root


def test_evaluate(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = voc(tmp_path / "voc", photos)
    report = tmp_path / "r.json"
    assert main(["proposals", "--evaluate", str(data), "--json", str(report), "--quiet"]) == 0
    found = json.loads(report.read_text())
    assert found["objects"] == 2
    assert found["recall"]["0.5"][-1] == 1.0
    assert "recall@0.7" in capsys.readouterr().out


def test_evaluate_windows_of_a_file_with_a_plot(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib (the extra 'plot') is not installed")
    data = voc(tmp_path / "voc", photos)
    save_proposals(tmp_path / "w.json", {"0": [[20, 20, 81, 71]], "1": [[0, 0, 20, 20]]})
    options = ["--windows", str(tmp_path / "w.json"), "--plot", str(tmp_path / "r.png"), "--quiet"]
    assert main(["proposals", "--evaluate", str(data), *options]) == 0
    assert "0.500" in capsys.readouterr().out
    assert (tmp_path / "r.png").stat().st_size > 1000
