"""`sppnet detect` on many photos: any number of workers, resumed after any kill, in every format, ends the same."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet import SPPDetector
from sppnet.cli.detect import FORMATS
from sppnet.cli.main import main
from sppnet.detection.detections import Detections
from sppnet.detection.exports import EXPORT_FORMATS
from sppnet.detection.model_file import FORMAT_VERSION
from sppnet.storage.output_folder import LIST_NAME
from tiny_model import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def photos(toy_voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 photos, two of one name, one in a folder below."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i, source in enumerate(sorted((toy_voc / "JPEGImages").iterdir())[:11]):
        shutil.copy(source, folder / f"{i:02d}.jpg")
    shutil.copy(folder / "03.jpg", folder / "more" / "00.jpg")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """All but the list of what was written, whose lines are in the order in which the drawings became ready."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != LIST_NAME)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def undisturbed(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    assert main(command(model, photos, out)) == 0
    return files(out)


def command(model: Path, photos: Path, out: Path) -> list[str]:
    return [
        "detect", str(photos), "--model", str(model), "--output", str(out / "drawn"), "--json", str(out / "f.json"),
        "--results", str(out / "f.csv"), "--quiet",
    ]  # fmt: skip


def test_formats_of_the_verb_are_those_that_can_be_written() -> None:
    assert FORMATS == EXPORT_FORMATS


@pytest.mark.slow
def test_same_with_any_number_of_workers(
    model: Path, photos: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    assert len(undisturbed) == 14  # 12 drawings, JSON, CSV; no journal
    for workers in (1, 5):
        out = tmp_path / str(workers)
        assert main([*command(model, photos, out), "--workers", str(workers)]) == 0
        assert files(out) == undisturbed


def test_thresholds_of_the_model_hold_unless_overridden(model: Path, photos: Path, tmp_path: Path) -> None:
    def scores(*more: str) -> list[tuple[str, float]]:
        out = tmp_path / "f.csv"
        assert main(["detect", str(photos), "--model", str(model), "--results", str(out), "--quiet", *more]) == 0
        with out.open(encoding="utf-8", newline="") as file:
            return [(row["label"], float(row["confidence"])) for row in csv.DictReader(file)]

    least = SPPDetector.load(model).thresholds_
    assert least == {"cat": 0.8, "cup": 0.9, "dög": 0.5}
    tuned = scores()
    assert tuned
    assert all(score >= least[name] - 1e-4 for name, score in tuned)
    assert any(score < 0.8 for _, score in tuned)
    assert all(score >= 0.95 - 1e-4 for _, score in scores("--threshold", "0.95"))


@pytest.mark.slow
def test_resumes_after_kills(model: Path, photos: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """Killed a few times, at moments that differ; then run to its end."""
    code = "import sys; from sppnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    journal = tmp_path / "f.csv.journal"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it
    for wanted in (1, 4, 9):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *command(model, photos, tmp_path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            if journal.is_file() and journal.read_bytes().count(b"\n") > wanted:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name, content in files(tmp_path).items():  # nothing half written under a final name
            if ".part" not in name and not name.endswith((".journal", ".journal.lock")):
                assert content == undisturbed[name], name
    before = journal.read_bytes() if journal.is_file() else b""
    if before:
        journal.write_bytes(before + b'{"key": "/torn')  # a line that was cut off
    assert main(command(model, photos, tmp_path)) == 0
    assert files(tmp_path) == undisturbed  # and nothing that the killed ones left


@pytest.mark.slow
def test_what_is_done_is_not_done_again(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    detect = SPPDetector.detect

    def counting(self: SPPDetector, image: np.ndarray, threshold: float | None = None) -> Detections:
        seen.append(1)
        found: Detections = detect(self, image, threshold)
        return found

    monkeypatch.setattr(SPPDetector, "detect", counting)
    here = tmp_path / "photos"
    shutil.copytree(photos, here)
    base = ["detect", str(here), "--model", str(model), "--journal", str(tmp_path / "j")]
    assert main([*base, "--results", str(tmp_path / "a.json")]) == 0
    assert len(seen) == 12
    seen.clear()
    assert main([*base, "--results", str(tmp_path / "b.json")]) == 0
    assert not seen
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    printed = capsys.readouterr()
    assert "12 of 12 images were done before" in printed.err
    assert "12 images were done before, so they aren't listed here" in printed.out
    # a photo that has changed, and a new one
    Image.open(here / "00.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(here / "00.jpg")
    shutil.copy(here / "01.jpg", here / "new.jpg")
    assert main([*base, "--results", str(tmp_path / "c.json")]) == 0
    assert len(seen) == 2
    seen.clear()
    assert main([*base, "--threshold", "0.3"]) == 0  # other settings
    assert "of another model, version or settings" in capsys.readouterr().err
    assert len(seen) == 13
    seen.clear()
    assert main([*base, "--threshold", "0.3", "--fresh"]) == 0
    assert len(seen) == 13


def test_after_a_failure_only_that_photo_is_done(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, out = tmp_path / "photos", tmp_path / "f.json"
    shutil.copytree(photos, here)
    (here / "05.jpg").write_bytes(b"no picture")
    base = ["detect", str(here), "--model", str(model), "--results", str(out), "--quiet"]
    assert main(base) == 1
    text = capsys.readouterr()
    assert "1 of 12 images failed" in text.out
    assert text.err.count("05.jpg") == 1
    shutil.copy(photos / "05.jpg", here / "05.jpg")
    assert main(base[:-1]) == 0
    assert "11 of 12 images were done before" in capsys.readouterr().err
    whole = tmp_path / "whole.json"
    assert main(["detect", str(photos), "--model", str(model), "--results", str(whole), "--quiet"]) == 0
    assert json.loads(out.read_text()) == json.loads(whole.read_text())
    assert not list(tmp_path.glob("*.journal"))


def test_refusals(model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["detect", str(photos), "--model", str(model)]
    mine = tmp_path / "mine.txt"
    mine.write_text("precious\n")
    for more, message in (
        (["--format", "coco"], "name the file or folder to write with --results"),
        (["--results", str(tmp_path / "x.txt")], "names no format"),
        (["--results", str(tmp_path)], "names no format"),
        (["--results", str(tmp_path), "--format", "coco"], "is a folder"),
        (["--results", str(mine), "--format", "voc"], "is a file"),
        (["--journal", str(mine)], "isn't a journal of sppnet"),
        (["--journal", str(tmp_path)], "is a folder"),
        (["--format", "xml"], "expected one of"),
    ):
        assert main([*base, *more]) == 2, more
        assert message in capsys.readouterr().err
    assert mine.read_text() == "precious\n"


@pytest.mark.parametrize("format", ["csv", "counts", "jsonl", "coco"])
def test_results_stay_where_no_image_can_be_done(
    format: str, model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / f"f.{format}"
    command = ["--model", str(model), "-q", "--results", str(found), "--format", format]
    assert main(["detect", str(photos / "00.jpg"), *command]) == 0
    before = found.read_bytes()
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    assert main(["detect", str(tmp_path / "bad.jpg"), *command]) == 1
    assert f"not written: {found} (no image could be done)" in capsys.readouterr().out
    assert found.read_bytes() == before


def test_features(model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file

    from sppnet.detection.vectors import window_vectors

    out = tmp_path / "v.safetensors"
    base = ["features", str(photos), "--model", str(model), "--quiet", "--max-windows", "50"]
    assert main([*base, "--estimate"]) == 0
    assert "at most 600 windows of 12 images, 48 numbers each, float32: at most 0.1 MB" in capsys.readouterr().out
    assert main([*base, "--output", str(out)]) == 0
    got = load_file(out)
    assert len(got) == 24
    detector = SPPDetector.load(model).set_params(proposer__max_windows=50)
    for name in ("01.jpg", next(n for n in got if n.endswith("more/00.jpg/vectors"))[: -len("/vectors")]):
        boxes, vectors = window_vectors(detector, photos / ("more/00.jpg" if "more" in name else name))
        assert np.array_equal(got[f"{name}/windows"], boxes)
        assert np.array_equal(got[f"{name}/vectors"], vectors)
    # boxes of one's own, in their order, one of them outside; float16; pooled
    given = [[10, 20, 90, 100], [0, 0, 320, 240], [900, 900, 950, 950]]
    (tmp_path / "b.json").write_text(json.dumps({f"{i:02d}.jpg": given[: i % 3 + 1] for i in range(11)}))
    some = [str(photos / f"{i:02d}.jpg") for i in range(11)]
    more = ["--windows", str(tmp_path / "b.json"), "--kind", "pooled", "--float16", "--output", str(out)]
    assert main(["features", *some, "--model", str(model), "--quiet", *more]) == 0
    half = load_file(out)
    assert half["02.jpg/vectors"].shape == (3, detector.window_features().dims)
    assert half["02.jpg/vectors"].dtype == np.float16
    assert half["02.jpg/windows"].tolist() == given
    exact = window_vectors(detector, photos / "02.jpg", given, kind="pooled")[1]
    np.testing.assert_allclose(half["02.jpg/vectors"], exact, rtol=2e-3, atol=1e-3)
    assert main(["features", str(photos), "--model", str(model)]) == 2
    assert "name the file to write with --output" in capsys.readouterr().err


def test_model_info(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "info", "--model", str(model)]) == 0
    text = capsys.readouterr().out
    for word in (
        "dög",
        "0.900",
        "efficientnet-lite0",
        "short side 160 px",
        "levels 2, 1",
        "Apache-2.0",
        f"version {FORMAT_VERSION}",
    ):
        assert word in text
    about = tmp_path / "about.json"
    assert main(["model", "info", "--model", str(model), "--json", str(about)]) == 0
    assert json.loads(about.read_text(encoding="utf-8"))["class_names"] == ["cat", "cup", "dög"]
    assert capsys.readouterr().out.startswith(text)
    assert main(["model", "info"]) == 0
    assert "tvmonitor" in capsys.readouterr().out
    bad = tmp_path / "bad.safetensors"
    content = bytearray(model.read_bytes())
    content[-5] ^= 1
    bad.write_bytes(content)
    for path, message in ((bad, "damaged"), (tmp_path / "none", "no such file"), (Path(__file__), "not a safetensors")):
        assert main(["model", "info", "--model", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert str(path) in error
