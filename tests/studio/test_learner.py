"""The worker and the server's side of it, with the detector that comes with the package."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra studio")
from person import iou

from sppnet.datasets.example import make_example
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.detector import SPPDetector
from sppnet.detection.measure import doubts_about
from sppnet.errors import ArgumentError
from sppnet.studio.learner import Learner
from sppnet.studio.project import Project
from sppnet.studio.worker import Worker

pytestmark = pytest.mark.slow


@pytest.fixture
def digits(tmp_path: Path) -> DetectionDataset:
    data = make_example(tmp_path / "digits", 20, 2, 0)
    for file in (tmp_path / "digits").iterdir():
        if file.suffix != ".jpg":
            file.unlink()
    return data


@pytest.fixture
def project(digits: DetectionDataset) -> Iterator[Project]:
    project = Project(digits[0].path.parent)
    yield project
    project.close()


@pytest.fixture
def learner(project: Project) -> Iterator[Learner]:
    learner = Learner(project, lambda event: None, threads=1)
    yield learner
    learner.close()


def test_threads_that_are_asked_for_where_the_system_has_no_affinity(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On macOS and Windows."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.setattr(Learner, "_start", lambda self: None)
    assert Learner(project, lambda event: None, threads=3).threads == 3
    assert Learner(project, lambda event: None).threads == 5


class Nobody:
    """A connection whose other side doesn't listen."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)

    def poll(self, seconds: float) -> bool:
        return False


def test_what_was_broken_is_looked_at_again(digits: DetectionDataset, tmp_path: Path) -> None:
    """A disk that was away for a moment doesn't cost the lessons of its images."""
    worker = Worker(Nobody(), None, str(tmp_path / "state"))  # type: ignore[arg-type]
    image, path = "1", digits[0].path
    data = path.read_bytes()
    path.write_bytes(b"no image")
    worker.on_images([(image, str(path))])
    worker.on_classes([0])
    worker.on_front(image)
    worker.on_labels(image, True, [[1, 1, 30, 30]], [0], [])
    for _ in range(3):
        worker._work()
    assert worker.broken == {image}
    assert not worker.lessons
    assert not worker.todo_lessons
    path.write_bytes(data)
    worker.on_images([(image, str(path))])
    for _ in range(3):
        worker._work()
    assert list(worker.lessons) == [image]
    assert worker.connection.sent[-1].get("broken") is None  # type: ignore[attr-defined]
    assert any(event["type"] == "windows" for event in worker.connection.sent)  # type: ignore[attr-defined]


def test_a_class_that_is_gone_is_not_exported(tmp_path: Path) -> None:
    """After a merge, before the rest was learned anew."""
    worker = Worker(Nobody(), None, str(tmp_path / "state"))  # type: ignore[arg-type]
    weights = worker.detector.weights_.of_classes([3, 5, 8])
    worker.taught, worker.taught_classes = weights, [10, 11, 12]
    detector, names = worker._present({10: "cat", 12: "cow", 13: "new"})
    assert names == detector.class_names_ == ("cat", "cow")
    np.testing.assert_array_equal(detector.weights_.class_weight, weights.class_weight[[0, 2]])
    with pytest.raises(ArgumentError, match="still being learned"):  # not the classes of the detector to start from
        worker._present({13: "new"})
    np.testing.assert_array_equal(detector.weights_.box_bias, weights.box_bias[[0, 1, 2, 3, 8, 9, 10, 11]])


def wait_for(what: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
    return value


def test_likely_mistakes_are_those_that_were_made(digits: DetectionDataset, project: Project, learner: Learner) -> None:
    """Labels with three mistakes in them: heads that did not learn from these images find them."""
    numbers = [project.add_class(name).class_id for name in digits.class_names]
    learner.classes_changed()
    ids = {image.name: image.image_id for image in project.images}
    planted: list[tuple[str, str, Any]] = []
    for i, record in enumerate(digits):
        rows = [
            [*box, numbers[c], "drawn"] for box, c in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
        ]
        if i == 2:
            planted.append(("missing", record.path.name, rows.pop(0)[:4]))
        if i == 5:
            planted.append(("class", record.path.name, rows[0][:4]))
            rows[0][4] = numbers[1 - record.labels[0]]
        project.set_labels(ids[record.path.name], 0, rows, True)
    for image_id in ids.values():  # all at once: nothing is trained in between
        learner.labels_changed(image_id)
    wait_for(lambda: learner.quality()["measured"] == len(digits))
    quality = learner.quality()
    assert all(row["ap"] > 0.6 for row in quality["classes"])
    assert all(row["ap_low"] <= row["ap"] <= row["ap_high"] for row in quality["classes"])
    found = [(d["kind"], d["name"], d["box"]) for d in quality["disagreements"]]
    for kind, name, box in planted:
        assert any(
            (k, n) == (kind, name) and iou(b, box) > 0.5 for k, n, b in found
        ), (kind, name, found)  # fmt: skip


def test_a_file_that_is_no_image_does_not_stop_the_work(learner: Learner, digits: DetectionDataset) -> None:
    for data in (b"", b"no image", digits[0].path.read_bytes()[:500]):
        with pytest.raises(ArgumentError):
            learner.detect(data)
    assert learner.detect(digits[0].path.read_bytes())["width"] == 320
    assert learner._restarts == 0


def test_the_taught_detector_is_written_as_a_file_and_as_onnx(
    digits: DetectionDataset, project: Project, learner: Learner
) -> None:
    """Both can be read, and know the classes by the names that they have in the studio."""
    onnxruntime = pytest.importorskip("onnxruntime")
    with pytest.raises(ArgumentError, match="no detector yet"):
        learner.export({"what": "onnx"})
    numbers = [project.add_class(f"digit {name}").class_id for name in digits.class_names]
    learner.classes_changed()
    ids = {image.name: image.image_id for image in project.images}
    for record in digits.records[:3]:
        rows = [
            [*box, numbers[c], "drawn"] for box, c in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
        ]
        project.set_labels(ids[record.path.name], 0, rows, True)
        learner.labels_changed(ids[record.path.name])
    wait_for(lambda: learner.status()["teaching"]["state"] == "ready")
    names = tuple(f"digit {name}" for name in digits.class_names)
    detector = SPPDetector.load(learner.export({"what": "model"}))
    assert detector.class_names_ == names
    (doubt,) = doubts_about(detector, digits)  # it knows from which images it was taught
    assert "3 of 20 images" in doubt
    assert not doubts_about(detector, digits.subset(range(3, 20)))
    session = onnxruntime.InferenceSession(str(learner.export({"what": "onnx"})))
    assert [i.name for i in session.get_inputs()] == ["image", "windows"]
    assert all(name in str(session.get_modelmeta().custom_metadata_map) for name in names)
