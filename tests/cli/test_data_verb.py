"""`sppnet data`, `sppnet train` on any format, the tutorial, and training that is killed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kill_train import run_with_kills, same_outputs
from sppnet.cli import common
from sppnet.cli.main import main
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.writing import WRITTEN_FORMATS
from sppnet.errors import ArgumentError

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def test_example_convert_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "start"
    assert main(["data", "example", "-o", str(start), "--count", "9", "--digits", "4"]) == 0
    first = load_dataset(start)
    assert len(first) == 9
    assert first.class_names == ("one", "three", "two", "zero")  # VOC has no list of classes
    # the same arguments, the same files
    main(["data", "example", "-o", str(tmp_path / "again"), "--count", "9", "--digits", "4"])
    for record in first:
        assert (tmp_path / "again" / "JPEGImages" / record.path.name).read_bytes() == record.path.read_bytes()
    for format in WRITTEN_FORMATS:
        target = tmp_path / format
        assert main(["data", "convert", str(start), "-o", str(target), "--to", format, "--quiet"]) == 0
        assert len(load_dataset(target)) == 9
    text = capsys.readouterr().out
    assert "not carried over: the data set isn't split and YOLO's format wants it" in text
    assert main(["data", "convert", str(start), "-o", str(tmp_path / "coco"), "--to", "voc"]) == 2
    assert "isn't an empty folder" in capsys.readouterr().err
    sheet = tmp_path / "sheet.png"
    assert main(["data", "show", str(start), "--output", str(sheet), "--limit", "5", "--columns", "3", "-q"]) == 0
    assert "drawn: 5 of 9" in capsys.readouterr().out
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape[1] > 3 * 320
    assert main(["data", "show", str(start), "--output", str(sheet), "--class", "five"]) == 2
    assert "expected one of one, three, two, zero" in capsys.readouterr().err
    assert main(["data", "show", str(start), "--output", str(tmp_path / "sheet.xyz")]) == 2
    assert "use .png or .jpg" in capsys.readouterr().err
    assert main(["data", "chek", str(start)]) == 2
    assert "did you mean 'check'" in capsys.readouterr().err


def doubtful(home: Path, name: str) -> Path:
    """Objects of class ``name``, one of them twice."""
    for k in range(12):
        noise = np.random.default_rng(k).integers(0, 255, (12, 16, 3), np.uint8)
        home.mkdir(exist_ok=True)
        Image.fromarray(noise).resize((160, 120)).save(home / f"{k}.jpg")
    rows = [f"{k}.jpg,10,10,90,90,{name}" for k in (*range(12), 0)]
    (home / "boxes.csv").write_text("\n".join(["image,x0,y0,x1,y1,label", *rows]) + "\n")
    return home


def test_training_tells_of_warnings_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise ArgumentError("far enough")

    monkeypatch.setattr("sppnet.detection.estimate.estimate_training", stop)
    monkeypatch.setattr("sppnet.detection.detector.SPPDetector.add_classes", stop)
    data, out = doubtful(tmp_path / "my data", "Aeroplanes"), str(tmp_path / "m.safetensors")
    command = f"see it with sppnet data check '{data}'"
    assert main(["train", str(data), "-o", out, "-q"]) == 2
    assert f"sppnet: 1 warning in the data (repeated object): {command}\n" in capsys.readouterr().err
    assert main(["add-class", str(data), "-o", out, "-q", "--rename", "Aeroplanes=aeroplanes"]) == 2
    text = capsys.readouterr().err
    assert f"{command} --rename Aeroplanes=aeroplanes\n" in text
    assert "'aeroplanes' (the detector has 'aeroplane')" in text
    assert main(["data", "check", str(data), "-q"]) == 0
    assert "1 warnings" in capsys.readouterr().out
    # nothing is said about what is fine
    other = doubtful(tmp_path / "other", "mug")
    (other / "boxes.csv").write_text((other / "boxes.csv").read_text().rpartition("0.jpg")[0])
    assert main(["add-class", str(other), "-o", out, "-q"]) == 2
    assert capsys.readouterr().err == "sppnet: far enough\n"


@pytest.mark.slow
def test_damaged_picture_stops_training_before_it_begins_or_is_left_out(
    toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert main(["data", "convert", str(toy_voc), "-o", str(data), "--to", "coco", "--quiet"]) == 0
    victim = data / "train" / "000003.jpg"
    victim.write_bytes(victim.read_bytes()[:3000])
    model = tmp_path / "m.safetensors"
    train = ["train", str(data), "--output", str(model), "--scales", "64", "--epochs", "1"]
    for strict in (["--strict"], ["--on-error", "fail"]):
        assert main([*train, *strict]) == 2
        assert "000003.jpg: damaged" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == [data]
    assert main([*train, "--val-split", "none"]) == 0
    text = capsys.readouterr().out
    assert "left out:" in text
    assert "estimate, from 4 of the images: about" in text
    assert "disk: " in text
    assert f"sppnet detect IMAGE --model {model}" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "m.safetensors"]
    figures = tmp_path / "f.json"
    assert (
        main(
            [
                "eval",
                str(data),
                "--model",
                str(model),
                "--protocol",
                "coco",
                "--json",
                str(figures),
                "--limit",
                "3",
                "-q",
            ]
        )
        == 0
    )
    assert "protocol coco" in capsys.readouterr().out
    assert set(json.loads(figures.read_text())["coco"]["ap"]) == {"cat", "cup"}


@pytest.mark.slow
def test_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line.strip() for line in TUTORIAL.splitlines() if re.match(r" {4}sppnet ", line)]
    assert [shlex.split(c)[1] for c in commands] == ["data", "data", "data", "train", "eval", "detect", "data"]
    monkeypatch.chdir(tmp_path)
    outputs = {}
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
        outputs[" ".join(shlex.split(command)[1:3])] = capsys.readouterr().out
    assert "training accepts it" in outputs["data check"]
    # what training measured is what eval measures, picture by picture
    found = re.search(r"mean / total +(\S+) +(\S+) +(\d+) +(\d+) +(\d+) +(\d+)\n", outputs["train digits"])
    assert found
    assert re.findall(r"mean / total +(\S+)", outputs["eval digits"]) == [found[1], found[2]]
    assert float(found[2]) > 0.4
    objects, hits, missed, _ = map(int, found.groups()[2:])
    assert objects == hits + missed
    assert hits >= objects / 2
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        *("digits", "digits.png", "digits.safetensors", "digits-examples.jpg", "found", "digits-coco"),
    }
    assert len(list((tmp_path / "found").glob("*.jpg"))) == 48


@pytest.mark.slow
def test_killed_training_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert main(["data", "example", "-o", str(data), "--count", "10", "--quiet"]) == 0
    outcome = run_with_kills(tmp_path, data, [0.5, 0.7])
    assert outcome.kills
    assert same_outputs(outcome), (sorted(outcome.files), sorted(outcome.resumed), outcome.kills)


def test_a_log_file_hears_of_the_progress_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "SECONDS_A_LINE", 0.0)
    assert list(common.progress(range(3), "counting")) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 6
    assert all(line.startswith("counting: ") and "\r" not in line for line in lines)
    assert lines[-1].startswith("counting: 3 of 3")
    assert list(common.progress(range(3), "counting", quiet=True)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
