"""Many images: nothing of the user's is replaced, memory is bounded, the journal tells of the file that was read."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet import SPPDetector, images
from sppnet.datasets.video import Frame
from sppnet.detection import frames, run
from sppnet.detection.run import detect_many
from sppnet.errors import OutputError
from sppnet.image_budget import MemoryBudget
from sppnet.storage.journal import Journal
from sppnet.storage.output_folder import OutputFolder
from tiny_model import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> SPPDetector:
    return SPPDetector.load(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture
def photos(toy_voc: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, source in enumerate(sorted((toy_voc / "JPEGImages").iterdir())[:6]):
        shutil.copy(source, folder / f"{i}.jpg")
    return folder


def found_in(detector: SPPDetector, *given: Path, **options: Any) -> dict[str, Any]:
    with detect_many(detector, given, **options) as done:
        return {result.path.name: result for result in done} | {item.path.name: item for item in done.failed}


def test_files_of_the_user_stay(detector: SPPDetector, photos: Path, tmp_path: Path) -> None:
    Image.open(photos / "0.jpg").save(photos / "1.png")
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    for _ in range(2):  # the second time what the first drew is replaced
        found_in(detector, photos / "1.png", draw_to=photos)
        after = {path.name: path.read_bytes() for path in photos.glob("[!.]*")}
        assert after.pop("1-2.jpg")
        assert after == before
    (photos / "1-2.jpg").write_bytes(b"edited")
    found_in(detector, photos / "1.png", draw_to=photos)
    assert (photos / "1-2.jpg").read_bytes() == b"edited"
    assert (photos / "1-3.jpg").is_file()


def test_a_drawing_that_fails_is_not_noted_as_done(
    detector: SPPDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = OutputFolder.write

    def full(self: OutputFolder, name: str, data: bytes, **options: Any) -> Path:
        if name == "3.jpg":
            raise OutputError("3.jpg: can't be written (No space left on device)")
        return write(self, name, data, **options)

    options = {"draw_to": tmp_path / "out", "journal": tmp_path / "j"}
    monkeypatch.setattr(OutputFolder, "write", full)
    done = found_in(detector, photos, **options)
    assert "No space left" in done["3.jpg"].message
    monkeypatch.undo()
    done = found_in(detector, photos, **options)
    assert [name for name, result in done.items() if not result.resumed] == ["3.jpg"]
    assert (tmp_path / "out" / "3.jpg").is_file()


def test_a_full_disk_ends_the_run(
    detector: SPPDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is computed next would be lost, too; the same command goes on when there is space."""

    def full(self: object, *arguments: object, **options: object) -> None:
        error = OutputError("out: can't be written (No space left on device); free some space")
        error.errno = errno.ENOSPC
        raise error

    looked_at: list[int] = []
    detect = SPPDetector.detect

    def counting(self: SPPDetector, pixels: Any, threshold: float | None = None) -> Any:
        looked_at.append(1)
        return detect(self, pixels, threshold)

    many = [photos / name for name in ("0.jpg", "2.jpg", "3.jpg")] + [photos]
    monkeypatch.setattr(SPPDetector, "detect", counting)
    for owner, name in ((Journal, "_put"), (OutputFolder, "write")):
        with monkeypatch.context() as patch:
            many_at_once = detect_many(detector, many, draw_to=tmp_path / "out", journal=tmp_path / "j", workers=1)
            patch.setattr(owner, name, full)
            with pytest.raises(OutputError, match="can't be written"), many_at_once:
                list(many_at_once)
            assert many_at_once.failed == []
    monkeypatch.undo()
    assert 2 <= len(looked_at) <= 6  # a few ahead, not all
    assert len(found_in(detector, *many, journal=tmp_path / "j")) == 6


def test_frames_of_one_moment_keep_their_own_results(
    detector: SPPDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    shots = [rng.integers(0, 255, (60, 80, 3)).astype(np.uint8) for _ in range(3)]
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"")
    given = [Frame(k, 0.0, pixels, k) for k, pixels in enumerate(shots)]
    monkeypatch.setattr(frames, "read_frames", lambda path, every_s: iter(given))
    monkeypatch.setattr(frames, "count_frames", lambda path, every_s: len(given))
    both = []
    for _ in range(2):
        with detect_many(
            detector, clip, threshold=0.0, every_s=0, journal=tmp_path / "j", keep_journal=True
        ) as of_clip:
            both.append(list(of_clip))
    assert [result.resumed for result in both[1]] == [True] * 3
    assert [a.detections for a in both[0]] == [b.detections for b in both[1]]
    assert both[0][0].detections != both[0][1].detections


def test_an_image_that_is_replaced_while_the_run_goes_on_is_done_again(
    detector: SPPDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = SPPDetector.detect

    def replacing(self: SPPDetector, pixels: Any, threshold: float | None = None) -> Any:
        result = detect(self, pixels, threshold)
        if np.array_equal(pixels, old):
            shutil.copy(photos / "0.jpg", photos / "2.jpg")
        return result

    old = images.load_image(photos / "2.jpg")
    monkeypatch.setattr(SPPDetector, "detect", replacing)
    found_in(detector, photos, journal=tmp_path / "j", keep_journal=True)
    monkeypatch.undo()
    done = found_in(detector, photos, journal=tmp_path / "j")
    assert [name for name, result in done.items() if not result.resumed] == ["2.jpg"]
    assert done["2.jpg"].detections == done["0.jpg"].detections


@pytest.mark.parametrize("limit", [1, 200_000])
def test_little_memory_gives_the_same(
    limit: int, detector: SPPDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "1.jpg").write_bytes(b"no image")
    want = found_in(detector, photos)
    monkeypatch.setattr(run, "MemoryBudget", lambda: MemoryBudget(limit))
    for workers in (1, 4):
        got = found_in(detector, photos, draw_to=tmp_path / f"out {workers}", workers=workers)
        assert got.keys() == want.keys()
        assert all(got[n].detections == want[n].detections for n in got if n != "1.jpg")


def test_boxes_of_very_large_images_are_in_pixels_of_the_file(
    detector: SPPDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = found_in(detector, photos / "0.jpg", threshold=0.0)["0.jpg"]
    monkeypatch.setattr(images, "FULL_PIXELS", full.width * full.height // 3)
    half = found_in(detector, photos / "0.jpg", threshold=0.0, draw_to=tmp_path)["0.jpg"]
    assert (half.width, half.height) == (full.width, full.height)
    assert Image.open(tmp_path / "0.jpg").size == (-(-full.width // 2), -(-full.height // 2))
    boxes = half.detections.xyxy
    assert boxes.max() > full.width / 2
    assert (boxes >= 0).all()
    assert (boxes <= (full.width, full.height) * 2).all()


def test_a_run_that_goes_on_draws_what_it_found(detector: SPPDetector, photos: Path, tmp_path: Path) -> None:
    """Drawings of another run, with another threshold, aren't taken for those of this one."""
    out, journal = tmp_path / "out", tmp_path / "j"
    found_in(detector, photos, draw_to=out, threshold=1.0)
    bare = (out / "0.jpg").read_bytes()
    with detect_many(detector, [photos], threshold=0.0, journal=journal, keep_journal=True) as done:
        assert len(list(done)) == 6  # nothing was drawn
    for resumed in (0, 6):
        with detect_many(detector, [photos], threshold=0.0, journal=journal, keep_journal=True, draw_to=out) as done:
            assert sum(result.resumed for result in done) == resumed
        assert (out / "0.jpg").read_bytes() != bare
