"""Where results are to be written is looked at before any work is done for them, and nothing is left behind."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet.cli.main import main
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.writing import WRITTEN_FORMATS
from sppnet.detection.detections import Detections
from sppnet.detection.examples import draw_examples
from sppnet.drawing import draw_detections
from tiny_model import save_tiny_model
from toy_data import write_toy_voc

pytestmark = pytest.mark.usefixtures("one_thread")

FOLDER = "is a folder; name a file, for instance "
FILE = "a file is a file, expected a folder; name another"
# a folder where a file is wanted, a file where a folder is
REFUSED = [
    ("train data --output folder", f"--output folder: {FOLDER}folder/model.safetensors"),
    ("train data --output 'a file/m.safetensors'", FILE),
    ("train data --output m.safetensors --cache 'a file'", FILE),
    ("add-class data --model m.safetensors --output folder", FOLDER),
    ("add-class data --model m.safetensors --output n.safetensors --cache 'a file'", FILE),
    ("remove-class cat --model m.safetensors --output 'a file/n.safetensors'", FILE),
    ("rename-class cat dog --model m.safetensors --output folder", FOLDER),
    ("detect photos --model m.safetensors --json folder", f"--json folder: {FOLDER}folder/found.json"),
    ("detect photos --model m.safetensors --results folder --format csv", f"{FOLDER}folder/found.csv"),
    ("detect photos --model m.safetensors --results 'a file/x.csv'", FILE),
    ("detect photos --model m.safetensors --results 'a file/x' --format voc", FILE),
    ("detect photos --model m.safetensors --journal 'a file/j'", FILE),
    ("detect photos --model m.safetensors --output 'a file'", "can't be used as a folder for output"),
    ("detect photos --model m.safetensors --output photos", "photos: holds the images; name another folder"),
    ("detect photos --model photos --output drawn", "photos: is a folder, expected the file of a detector"),
    ("eval data --model m.safetensors --json folder", f"{FOLDER}folder/figures.json"),
    ("eval data --model m.safetensors --plot 'a file/curves.png'", FILE),
    ("features photos --model m.safetensors --output folder", f"{FOLDER}folder/vectors.safetensors"),
    ("data check data --json folder", f"{FOLDER}folder/report.json"),
    ("data show data --output folder", f"{FOLDER}folder/sheet.png"),
    ("data show data --output sheet", "its name says no format of images that can be written"),
    ("data show data --output sheet.pgn", ".pgn is no format of images that can be written; use .png or .jpg"),
    ("data show data --output s.png --class cot", "class: got 'cot'; did you mean 'cat'? expected one of cat, cup"),
    ("data convert data -o 'a file' --to coco", FILE),
    ("data convert data -o 'a file/coco' --to coco", FILE),
    ("data example -o 'a file/digits'", FILE),
    ("detect photos -o out.jpg", "--output out.jpg: a folder is written here, and this is the name of a file"),
    ("detect photos --results x.xml --format voc", "--results x.xml: a folder is written here"),
    ("proposals photos -o w.csv", "name a folder, or a file .npz or .json"),
    ("data convert data -o new.zip --to coco", "--output new.zip: a folder is written here"),
    ("eval data --failures page.html", "--failures page.html: a folder is written here"),
    ("features photos -o v.npz", "--output v.npz: a file of safetensors is written here, not .npz"),
    *((f"{verb} -o my{ending}", f"--output my{ending}: a file of safetensors is written here, not {ending}")
      for verb in ("train data", "rename-class cat dog") for ending in (".pt", ".pth", ".npz", ".onnx")),
    ("eval m.safetensors --model data", "were the two swapped? sppnet eval data --model m.safetensors"),
    ("eval data --rename cat=RBC --rename cup=WBC", "data: the default detector doesn't know RBC, WBC; name yours"),
    ("detect m.safetensors", "m.safetensors: is a detector, expected images; name it with --model"),
    ("classify photos --model m.safetensors", "is a detector, expected a classifier; use `sppnet detect`"),
    ("classify-eval data --model m.safetensors", "is a detector, expected a classifier; use `sppnet eval`"),
    ("data check dato", "dato: no such file or folder; did you mean 'data'? name a data set"),
    ("data check data/JPEGImages/000000.jpg", "000000.jpg: is an image; name the folder of the data set"),
]  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("desk")
    write_toy_voc(home / "data", {"train": 3, "val": 1})
    (home / "photos").mkdir()
    for source in sorted((home / "data" / "JPEGImages").iterdir())[:2]:
        shutil.copy(source, home / "photos")
    save_tiny_model(home / "m.safetensors")
    (home / "folder").mkdir()
    (home / "a file").write_text("mine")
    return home


def everything(home: Path) -> list[str]:
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*"))


@pytest.mark.parametrize(("command", "message"), REFUSED)
def test_refused_at_once(
    command: str, message: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    before = everything(desk)
    assert main(shlex.split(command)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1  # one line, and nothing was begun
    assert printed.out == ""
    assert everything(desk) == before


def test_drawn_photos_are_not_taken_for_photos(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(desk / "photos", tmp_path / "my photos")
    monkeypatch.chdir(tmp_path / "my photos")
    command = ["detect", ".", "--model", str(desk / "m.safetensors"), "--output", "dräwn", "--results", "f.csv", "-q"]
    assert main(command) == 0
    results, names = Path("f.csv").read_bytes(), everything(Path())
    assert main(command) == 0
    assert (Path("f.csv").read_bytes(), everything(Path())) == (results, names)
    assert main([*command[:1], "dräwn", *command[2:]]) == 2
    assert "holds the images" in capsys.readouterr().err
    # one that is named itself is meant
    assert main(["detect", "dräwn/000000.jpg", *command[2:4], "--output", "dräwn", "-q"]) == 0
    assert sorted(p.name for p in Path("dräwn").glob("*.jpg")) == ["000000-2.jpg", "000000.jpg", "000001.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no file may have such a name")
def test_names_that_are_no_utf8(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As they come out of old archives. Data sets get another name for the picture; results can't."""
    data = tmp_path / "data"
    shutil.copytree(desk / "data", data)
    odd = os.fsdecode(b"\xff\xe9")
    (data / "JPEGImages" / "000000.jpg").rename(data / "JPEGImages" / f"{odd}.jpg")
    (data / "Annotations" / "000000.xml").rename(data / "Annotations" / f"{odd}.xml")
    for file in (data / "ImageSets" / "Main").iterdir():
        file.unlink()
    assert main(["data", "check", str(data), "--quiet"]) == 0
    for format in WRITTEN_FORMATS:
        assert main(["data", "convert", str(data), "-o", str(tmp_path / format), "--to", format, "--quiet"]) == 0
        assert sorted(map(len, load_dataset(tmp_path / format))) == sorted(map(len, load_dataset(data)))
    capsys.readouterr()
    results = tmp_path / "f.csv"
    model = ["--model", str(desk / "m.safetensors"), "--quiet"]
    assert main(["detect", str(data / "JPEGImages"), *model, "--results", str(results)]) == 1
    assert (
        "\\udcff\\udce9.jpg': its name isn't UTF-8, so no results could name it; rename it" in capsys.readouterr().err
    )
    assert {line.split(",")[0] for line in results.read_text().splitlines()} > {"000001.jpg", "000002.jpg"}


@pytest.mark.slow
def test_the_command_at_the_end_can_be_pasted(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the name of the model has blanks and quotes in it."""
    monkeypatch.chdir(tmp_path)
    size = ["--scales", "64", "--epochs", "1", "--quiet"]
    assert main(["train", str(desk / "data"), "--output", "my dog's mödel.safetensors", *size]) == 0
    command = capsys.readouterr().out.splitlines()[-1].strip().replace("IMAGE", str(desk / "photos" / "000000.jpg"))
    assert main(shlex.split(command)[1:]) == 0
    assert Path("found/000000.jpg").is_file()
    assert Path("my dog's mödel-examples.jpg").is_file()


def test_picture_of_examples(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right, what is wrong and what was missed are told apart, by words and colours."""
    drawn: list[tuple[list[str], dict[str, tuple[int, int, int]]]] = []

    def spy(picture: Image.Image, boxes: object, names: list[str], scores: object, **more: Any) -> Image.Image:
        drawn.append((names, more["colours"]))
        return draw_detections(picture, boxes, names, scores, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("sppnet.detection.examples.draw_detections", spy)
    dataset = load_dataset(desk / "data", "val")
    record = dataset[0]
    boxes = np.concatenate([record.boxes[:1], [[0, 0, 30, 30]], [[5, 5, 9, 9]]]).astype(np.float32)
    labels = np.array([record.labels[0], 1 - record.labels[0], 0])
    found = Detections(boxes, np.array([0.9, 0.6, 0.4], np.float32), labels, dataset.class_names)
    path = tmp_path / "examples.jpg"
    draw_examples([found], dataset, dict.fromkeys(dataset.class_names, 0.5), path)
    (names, colours), *more = drawn
    assert not more
    right, wrong = (dataset.class_names[label] for label in labels[:2])
    missed = [f"missed: {dataset.class_names[label]}" for label in record.labels[1:]]
    assert names == [right, f"wrong: {wrong}", *missed]  # and nothing below the threshold
    assert colours[f"wrong: {wrong}"] == colours[wrong] != colours[right]
    assert all(colours[name] == (255, 255, 255) for name in missed)
    assert Image.open(path).size[1] > record.height
