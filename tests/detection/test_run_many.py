"""detect_many without the command line: the same as one image after the other, whatever happens to the run."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppnet import Detections, SPPDetector, detect_many
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.detection.exports import write_results
from sppnet.detection.options import FinetuneOptions
from sppnet.detection.results import RESULTS_VERSION, FailedImage, ImageResult, results_document
from sppnet.detection.run import DetectionRun, journal_beside
from sppnet.errors import ArgumentError, ImageError
from tiny_model import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> SPPDetector:
    return SPPDetector.load(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture
def images(toy_voc: Path, tmp_path: Path) -> Path:
    """Five images, one of them in a folder below."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for i, source in enumerate(sorted((toy_voc / "JPEGImages").iterdir())[:5]):
        shutil.copy(source, folder / "more" / "0.jpg" if i == 4 else folder / f"{i}.jpg")
    return folder


def paths_of(results: list[ImageResult]) -> list[str]:
    return [result.path.name for result in results]


@pytest.mark.parametrize("workers", [1, 3])
def test_is_detect_on_each_image(detector: SPPDetector, images: Path, workers: int) -> None:
    run = detect_many(detector, images, threshold=0.6, workers=workers)
    assert isinstance(run, DetectionRun)
    results = list(run)
    assert paths_of(results) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "0.jpg"]
    for result in results:
        assert result.detections == detector.detect(result.path, 0.6)
        assert (result.width, result.height) == (320, 240)
        assert "decoding" in result.detections.seconds
    assert (run.failed, run.resumed, run.journal_path) == ([], 0, None)


def test_files_and_folders_and_thresholds_of_the_model(detector: SPPDetector, images: Path) -> None:
    results = list(detect_many(detector, [images / "2.jpg", images / "more"]))
    assert paths_of(results) == ["2.jpg", "0.jpg"]
    assert results[0].detections == detector.detect(images / "2.jpg")


def test_a_bad_file_is_named_or_ends_it(detector: SPPDetector, images: Path) -> None:
    (images / "1.jpg").write_bytes(b"no image")
    run = detect_many(detector, [images, images / "gone.jpg"])
    assert paths_of(list(run)) == ["0.jpg", "2.jpg", "3.jpg", "0.jpg"]
    assert [item.path.name for item in run.failed] == ["1.jpg", "gone.jpg"]
    assert all(str(item.path) in item.message for item in run.failed)
    strict = detect_many(detector, images, on_error="fail", workers=1)
    assert next(strict).path.name == "0.jpg"
    with pytest.raises(ImageError, match=r"1\.jpg"):
        list(strict)


def test_goes_on_from_the_journal(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    """Stopped after two images; the second run yields all of them, as if nothing had happened."""
    journal = journal_beside(tmp_path / "found.json")
    assert journal.name == "found.json.journal"
    whole = list(detect_many(detector, images))
    stopped = detect_many(detector, images, journal=journal, workers=1)
    assert [next(stopped).path.name for _ in range(2)] == ["0.jpg", "1.jpg"]
    stopped.close()
    assert journal.is_file()
    with detect_many(detector, images, journal=journal) as run:
        assert 2 <= run.resumed < 5
        results = list(run)
        assert journal.is_file()  # results may still have to be written
    assert not journal.exists()
    assert [r.detections for r in results] == [r.detections for r in whole]
    assert [r.path for r in results] == [r.path for r in whole]
    assert sum(r.resumed for r in results) == run.resumed


def test_when_the_journal_stays(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j"
    with detect_many(detector, images, journal=journal, keep_journal=True) as run:
        list(run)
    assert journal.is_file()
    with detect_many(detector, images, journal=journal) as run:
        assert run.resumed == 5
        next(run)  # not gone through to the end
    assert journal.is_file()
    run = detect_many(detector, images, journal=journal)
    list(run)
    run.__exit__(KeyError, KeyError(), None)  # as the block does that ends with an error
    assert journal.is_file()
    (images / "1.jpg").write_bytes(b"no image")
    with detect_many(detector, images, journal=journal) as run:
        list(run)
    assert journal.is_file()  # so that only the bad one is done once it is mended
    assert detect_many(detector, images, journal=journal, threshold=0.9).resumed == 0


def test_drawings_replace_nothing_of_the_users(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    (drawn / "2.jpg").write_text("precious")
    list(detect_many(detector, images, draw_to=drawn))
    names = {p.name for p in drawn.glob("*.jpg")}
    assert names == {"0.jpg", "0-2.jpg", "1.jpg", "2.jpg", "2-2.jpg", "3.jpg"}
    assert (drawn / "2.jpg").read_text() == "precious"
    before = {p.name: p.read_bytes() for p in drawn.glob("*.jpg")}
    list(detect_many(detector, images, draw_to=drawn))  # the same names, not more
    assert {p.name: p.read_bytes() for p in drawn.glob("*.jpg")} == before
    # into the folder of the images: they stay, and drawings are not taken for images the next time
    inside = images / "drawn"
    assert len(list(detect_many(detector, images, draw_to=inside))) == 5
    assert len(list(detect_many(detector, images, draw_to=inside))) == 5
    with pytest.raises(ArgumentError, match="holds the images"):
        detect_many(detector, images, draw_to=images)


def test_wrong_arguments(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="no images in"):
        detect_many(detector, tmp_path / "empty")
    with pytest.raises(ImageError, match=r"expected a path, .* got ndarray"):
        detect_many(detector, [np.zeros((9, 9, 3), np.uint8)])  # type: ignore[list-item]  # what is tested
    for arguments, message in (
        ({"workers": 0}, "workers: got 0"),
        ({"workers": 1.5}, "workers: got 1.5, expected a whole number"),
        ({"threshold": "0.5"}, "threshold: got '0.5', expected a number"),
        ({"on_error": "raise"}, "on_error: got 'raise', expected one of fail, skip"),
        ({"threshold": 1.5}, "threshold: got 1.5"),
        ({"draw_to": tmp_path / "file"}, "can't be used as a folder"),
    ):
        with pytest.raises(ArgumentError, match=message):
            detect_many(detector, images, **arguments)


def test_the_document_of_results(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    (images / "1.jpg").write_bytes(b"no image")
    run = detect_many(detector, images)
    results = list(run)
    path = tmp_path / "found.json"
    write_results(
        path, results, detector.class_names_, failed=run.failed, thresholds=detector.thresholds_, model="tiny"
    )
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["format"], document["version"], document["model"]) == ("sppnet-results", RESULTS_VERSION, "tiny")
    assert document["class_names"] == list(detector.class_names_)
    assert document["thresholds"] == detector.thresholds_
    assert [item["image"] for item in document["images"]] == ["0.jpg", "2.jpg", "3.jpg", "more/0.jpg"]
    assert [item["image"] for item in document["failed"]] == ["1.jpg"]
    for item, result in zip(document["images"], results, strict=True):
        assert (item["width"], item["height"]) == (320, 240)
        np.testing.assert_allclose([d["box"] for d in item["detections"]], result.detections.xyxy, atol=0.006)
        assert [d["class_id"] for d in item["detections"]] == result.detections.class_id.tolist()
    # with a folder given, names are relative to it, also where an image lies elsewhere
    failed = [FailedImage(tmp_path / "x.jpg", "x.jpg: gone")]
    given = results_document(results, detector.class_names_, root=images / "more", failed=failed)
    assert given["images"][-1]["image"] == "0.jpg"
    assert given["images"][0]["image"] == (images / "0.jpg").as_posix()
    assert given["failed"][0]["image"] == (tmp_path / "x.jpg").as_posix()


def test_folders_of_labels_replace_nothing_of_the_users(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    results = list(detect_many(detector, images))
    folder = tmp_path / "set"
    for _ in range(2):
        write_results(folder, results, detector.class_names_, format="yolo")
    (folder / "labels" / "0.txt").write_text("mine")
    with pytest.raises(OSError, match=r"0\.txt: is there already"):
        write_results(folder, results, detector.class_names_, format="yolo")
    assert (folder / "labels" / "0.txt").read_text() == "mine"


@pytest.mark.parametrize("threshold", [7, float("nan"), "0.5", {}, np.array([0.1, 0.2])])
def test_a_threshold_is_a_number(detector: SPPDetector, threshold: Any) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(ArgumentError, match=r"threshold: got .* expected a number from 0 to 1"):
        detector.detect(image, threshold)
    with pytest.raises(ArgumentError, match=r"threshold: got .* expected a number from 0 to 1"):
        detector.detect_windows(detector.feature_maps(image), [[0, 0, 30, 30]], threshold)


def test_an_array_of_paths_is_several_images(detector: SPPDetector, images: Path) -> None:
    paths = sorted(str(path) for path in images.rglob("*.png"))[:2] or sorted(str(p) for p in images.rglob("*.jpg"))[:2]
    assert len(paths) == 2
    for dtype in (str, object):
        found = detector.detect(np.array(paths, dtype), 0.0)
        assert found == [detector.detect(path, 0.0) for path in paths]


def test_numbers_of_numpy_are_saved(detector: SPPDetector, tmp_path: Path) -> None:
    mine = copy.copy(detector).set_params(seed=np.int64(3), finetune=FinetuneOptions(epochs=np.int64(2)))  # type: ignore[arg-type]  # is taken, too
    mine.metadata_ = {**mine.metadata_, "score": np.float32(0.5)}
    mine.save(tmp_path / "numpy.safetensors")
    loaded = SPPDetector.load(tmp_path / "numpy.safetensors")
    assert (loaded.seed, loaded.finetune.epochs, loaded.metadata_["score"]) == (3, 2, 0.5)


def test_calibration_takes_results_of_its_own_classes_alone(detector: SPPDetector, images: Path) -> None:
    names = detector.class_names_
    path = next(path for path in images.rglob("*") if path.suffix in (".png", ".jpg"))
    box = np.array([[0, 0, 9, 9]], np.float32)
    record = ImageRecord(path, box, np.zeros(1, np.int64), np.zeros(1, bool), 50, 40, "a")
    data = DetectionDataset([record], names, "mine", "val")
    before = detector.thresholds_
    for found, message in (
        ([], "got detections of 0 images, but the data set has 1"),
        ([Detections.empty(names[::-1])], "detections: their classes are"),
        ([Detections.empty((*names, "fork"))], "detections: their classes are"),
    ):
        with pytest.raises(ArgumentError, match=message):
            detector.calibrate(found, data)
    assert detector.thresholds_ == before
