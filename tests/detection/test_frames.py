"""Detection in videos: each frame is done as an image is, with its time in every output; nothing is dropped."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppnet import SPPDetector, detect_many
from sppnet.cli.main import main
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.video import read_frames
from sppnet.detection.detections import Detections
from sppnet.detection.exports import EXPORT_FORMATS, FOLDER_FORMATS, write_results
from sppnet.errors import ArgumentError, ImageError, MissingDependencyError
from tiny_model import save_tiny_model
from toy_video import write_clip

pytest.importorskip("av")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def detector(model: Path) -> SPPDetector:
    return SPPDetector.load(model)


@pytest.fixture(scope="module")
def clip(toy_voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", sorted((toy_voc / "JPEGImages").iterdir())[:3])


def test_is_detect_on_each_frame(detector: SPPDetector, clip: Path) -> None:
    results = list(detect_many(detector, clip, threshold=0.6))
    frames = list(read_frames(clip, 1.0))
    assert [result.time_s for result in results] == [frame.time_s for frame in frames] == [0.0, 1.0, 2.0]
    for result, frame in zip(results, frames, strict=True):
        assert result.path == clip
        assert result.detections == detector.detect(frame.pixels, 0.6)
        assert (result.width, result.height) == (320, 240)
    assert len(results[0].detections)
    half = list(detect_many(detector, [clip], threshold=0.6, every_s=0.5))
    assert [result.time_s for result in half] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert half[::2] == results


def test_goes_on_from_the_journal(
    detector: SPPDetector, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(detect_many(detector, clip, draw_to=tmp_path / "whole"))
    options: dict[str, Any] = {"journal": tmp_path / "j", "draw_to": tmp_path / "drawn"}
    stopped = detect_many(detector, clip, **options)
    assert next(stopped) == whole[0]
    stopped.close()
    calls = []
    detect = SPPDetector.detect

    def counted(self: SPPDetector, *args: Any) -> Detections:
        calls.append(1)
        found: Detections = detect(self, *args)
        return found

    monkeypatch.setattr(SPPDetector, "detect", counted)
    with detect_many(detector, clip, **options) as run:
        assert list(run) == whole
        assert (run.resumed, len(calls)) == (1, 2)
    assert not (tmp_path / "j").exists()
    for k in range(3):
        name = f"clip_00000{k}000.jpg"
        assert (tmp_path / "drawn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_drawings_of_the_user_stay(detector: SPPDetector, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "clip_000001000.jpg").write_text("mine")
    for _ in range(2):
        list(detect_many(detector, clip, draw_to=tmp_path))
    assert (tmp_path / "clip_000001000.jpg").read_text() == "mine"
    names = {p.name for p in tmp_path.glob("*.jpg")}
    assert names == {"clip_000000000.jpg", "clip_000001000.jpg", "clip_000001000-2.jpg", "clip_000002000.jpg"}


def test_on_the_command_line(clip: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["detect", str(clip), "--model", str(model), "--threshold", "0.6", "-o", str(tmp_path / "drawn")]
    arguments += ["--json", str(tmp_path / "f.json"), "--results", str(tmp_path / "f.csv"), "--every", "1500ms"]
    assert main(arguments) == 0
    assert f"{clip}     1.500 s" in capsys.readouterr().out
    document = json.loads((tmp_path / "f.json").read_text())
    assert [(item["image"], item["video"], item["time_s"]) for item in document["images"]] == [
        ("clip_000000000.jpg", "clip.mp4", 0.0),
        ("clip_000001500.jpg", "clip.mp4", 1.5),
    ]
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["image"], row["video"], row["time_s"]) for row in rows} == {
        ("clip_000000000.jpg", "clip.mp4", "0.000"),
        ("clip_000001500.jpg", "clip.mp4", "1.500"),
    }
    assert sorted(p.name for p in (tmp_path / "drawn").glob("*.jpg")) == ["clip_000000000.jpg", "clip_000001500.jpg"]
    assert not list(tmp_path.glob("*.journal"))
    for wrong in ("0", "soon"):
        assert main([*arguments, "--every", wrong]) == 2
        assert f"got '{wrong}', expected a duration above 0" in capsys.readouterr().err


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_results_fit_to_the_frames_that_are_written(
    format: str, detector: SPPDetector, clip: Path, tmp_path: Path
) -> None:
    """Labels of frames name the files of `sppnet data frames`, and are read back with them."""
    results = []
    for result in detect_many(detector, clip, threshold=0.6):
        sides = result.detections.xyxy[:, 2:] - result.detections.xyxy[:, :2]
        results.append(replace(result, detections=result.detections[sides.min(1) > 2]))
    target = tmp_path / ("labels" if format in FOLDER_FORMATS else f"labels.{format.partition('-')[0]}")
    files = write_results(target, results, detector.class_names_, format=format)
    text = "".join(file.read_text() for file in files) + " ".join(file.name for file in files)
    assert format == "coco-results" or all(f"clip_00000{k}000" in text for k in range(3))
    if format not in ("voc", "yolo", "coco", "cvat"):
        return
    frames = target / "images" if format == "yolo" else tmp_path / "frames"
    assert main(["data", "frames", str(clip), "-o", str(frames), "--quiet"]) == 0
    if format == "coco":
        target = target.rename(tmp_path / "labels.json")
    if format == "cvat":
        target = target.rename(tmp_path / "labels.xml")
    data = load_dataset(target, format=format, images=frames)
    assert len(data) == 3
    assert not data.problems
    for record, result in zip(data, results, strict=True):
        np.testing.assert_allclose(record.boxes, result.detections.xyxy, atol=1)


def test_two_videos_of_one_stem_and_images(detector: SPPDetector, clip: Path, toy_voc: Path, tmp_path: Path) -> None:
    image = tmp_path / "clip_000000000.jpg"
    shutil.copy(sorted((toy_voc / "JPEGImages").iterdir())[0], image)
    shutil.copy(clip, tmp_path / "clip.mp4")
    shutil.copy(clip, tmp_path / "clip.m4v")
    given = [tmp_path / "clip.mp4", image, tmp_path / "clip.m4v"]
    drawn = tmp_path / "drawn"
    results = list(detect_many(detector, given, every_s=2, draw_to=drawn))
    assert [r.path.name for r in results] == ["clip.mp4", "clip.mp4", "clip_000000000.jpg", "clip.m4v", "clip.m4v"]
    write_results(tmp_path / "f.jsonl", results, detector.class_names_)
    names = [json.loads(line)["image"] for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert len(set(names)) == 5
    assert names[2] == "clip_000000000.jpg"
    assert len(list(drawn.glob("*.jpg"))) == 5


def test_videos_in_folders_are_told_about(
    detector: SPPDetector, clip: Path, toy_voc: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(clip, tmp_path / "a.MOV")
    with pytest.raises(ImageError, match=r"no images in .*; 1 video in folders is left out \(a\.MOV\), name"):
        detect_many(detector, tmp_path)
    shutil.copy(clip, tmp_path / "b.mp4")
    shutil.copy(sorted((toy_voc / "JPEGImages").iterdir())[0], tmp_path / "i.jpg")
    with caplog.at_level(logging.WARNING):
        results = list(detect_many(detector, [tmp_path, tmp_path / "b.mp4"], every_s=2))
    assert [result.path.name for result in results] == ["i.jpg", "b.mp4", "b.mp4"]
    assert "1 video in folders is left out (a.MOV); name it to look at its frames" in caplog.text


def test_damaged_missing_and_without_the_extra(
    detector: SPPDetector, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 99)
    run = detect_many(detector, [tmp_path / "bad.mp4", tmp_path / "gone.mp4", clip])
    assert len(list(run)) == 3
    assert [item.path.name for item in run.failed] == ["bad.mp4", "gone.mp4"]
    with pytest.raises(ImageError, match=r"bad\.mp4: can't be read as a video"):
        list(detect_many(detector, [tmp_path / "bad.mp4"], on_error="fail"))
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ArgumentError, match="every_s"):
            detect_many(detector, clip, every_s=wrong)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"clip\.mp4: reading videos needs PyAV: pip install"):
        list(detect_many(detector, clip, on_error="fail"))


def test_playlists_open_no_other_files(clip: Path, tmp_path: Path) -> None:
    """FFmpeg would follow a list of files, whatever the list is called."""
    shutil.copy(clip, tmp_path / "secret.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3.0,\nsecret.mp4\n#EXT-X-ENDLIST\n"
    (tmp_path / "play.mp4").write_text(playlist)
    for name in ("list.mp4", "play.mp4"):
        with pytest.raises(ImageError, match="can't be read as a video"):
            list(read_frames(tmp_path / name))


def test_other_verbs_say_what_to_do_with_a_video(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(clip)]) == 1
    assert "sppnet data frames" in capsys.readouterr().err
