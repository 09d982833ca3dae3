"""Failures: each kind on boxes made by hand, counts that add up, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet import Detections
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import ArgumentError
from sppnet.evaluation.failure_page import write_failure_page
from sppnet.evaluation.failures import find_failures, format_failures, recall_by_size

NAMES = ("cat", "dog")


def record(path: Path, boxes: list[tuple[float, ...]], labels: list[int], difficult: list[bool]) -> ImageRecord:
    Image.new("RGB", (200, 120), (90, 120, 60)).save(path)
    return ImageRecord(
        path=path, image_id=path.stem, width=200, height=120, boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64), difficult=np.array(difficult, bool),
    )  # fmt: skip


def detections(rows: Sequence[Sequence[float]]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64), NAMES
    )


@pytest.fixture
def data(tmp_path: Path) -> DetectionDataset:
    first = record(tmp_path / "a.png", [(0, 0, 40, 40), (100, 0, 200, 100), (50, 50, 60, 60)], [0, 1, 0], [False] * 3)
    second = record(tmp_path / "b.png", [(0, 0, 50, 50)], [0], [True])
    return DetectionDataset(name="made", split="val", class_names=NAMES, records=[first, second])


FOUND: list[list[tuple[float, ...]]] = [
    [
        (0, 0, 40, 40, 0.9, 0),  # right
        (0, 0, 40, 36, 0.8, 0),  # the same again
        (100, 0, 140, 100, 0.7, 1),  # IoU 0.4
        (100, 0, 200, 100, 0.6, 0),  # a cat on a dog
        (0, 60, 40, 100, 0.5, 1),  # nothing there
        (0, 60, 40, 100, 0.1, 1),  # below the threshold
    ],
    [(0, 0, 50, 50, 0.9, 0), (0, 0, 50, 50, 0.3, 1)],  # difficult: neither way; a dog on it
]


def test_each_kind(data: DetectionDataset) -> None:
    found = [detections(rows) for rows in FOUND]
    failures, right = find_failures(found, data, {"cat": 0.2, "dog": 0.2})
    assert right == 1
    assert [(f.kind, f.image, f.class_id, f.other) for f in failures] == [
        ("twice", 0, 0, -1),
        ("loose", 0, 1, -1),
        ("confused", 0, 0, 1),
        ("background", 0, 1, -1),
        ("missed", 0, 1, -1),
        ("missed", 0, 0, -1),
        ("confused", 1, 1, 0),
    ]
    loose, missed = failures[1], failures[4]
    assert loose.confidence == pytest.approx(0.7)
    assert loose.iou == pytest.approx(0.4)
    assert np.isnan(missed.confidence)
    assert missed.iou == pytest.approx(0.4)
    np.testing.assert_array_equal(missed.box, [100, 0, 200, 100])


def test_counts(data: DetectionDataset) -> None:
    found = [detections(rows) for rows in FOUND]
    failures, right = find_failures(found, data, {"cat": 0.2, "dog": 0.2})
    assert recall_by_size(failures, data) == [
        ("under 32", 1, 0), ("32 to 64", 1, 1), ("64 to 128", 1, 0), ("128 and more", 0, 0),
    ]  # fmt: skip
    text = format_failures(failures, right, data)
    assert "1 detections right, 5 wrong, 2 objects missed" in text
    assert "cat on dog 1" in text
    assert find_failures([detections([]), detections([])], data, dict.fromkeys(NAMES, 0.5))[1] == 0


def test_page(data: DetectionDataset, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    found = [detections(rows) for rows in FOUND]
    text = write_failure_page(folder, found, data, {"cat": 0.2, "dog": 0.2}, model="a <model>")
    page = (folder / "index.html").read_text()
    assert "a &lt;model&gt;" in page
    assert text.splitlines()[0] in page
    for kind in ("loose", "confused", "background", "twice", "missed"):
        assert f"src='{kind}.jpg'" in page
        sheet = np.asarray(Image.open(folder / f"{kind}.jpg"))
        red = (sheet[..., 0] > 200) & (sheet[..., 1] < 110) & (sheet[..., 2] < 110)
        assert red.any() == (kind != "missed")
    # with nothing wrong no sheet of an earlier run stays
    right = [detections([(*map(float, b), 0.9, int(c)) for b, c in zip(r.boxes, r.labels, strict=True)]) for r in data]
    write_failure_page(folder, right, data, {"cat": 0.2, "dog": 0.2})
    assert not list(folder.glob("*.jpg"))


@pytest.mark.parametrize("name", ["index.html", "missed.jpg"])
def test_page_replaces_no_file_of_the_user(data: DetectionDataset, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    found = [detections(rows) for rows in FOUND]
    with pytest.raises(ArgumentError, match=f"{name}: is there already"):
        write_failure_page(tmp_path, found, data, {"cat": 0.2, "dog": 0.2})
    assert (tmp_path / name).read_text() == "mine"
    assert not list(tmp_path.glob("loose*"))
