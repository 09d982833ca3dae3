"""From table to table: the same results as one image at a time, and a row for each image that is bad."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sppnet
from scale_cases import rows_of, write_broken
from sppnet import ArgumentError, ImageClassifier, NotFittedError, SPPDetector
from sppnet.detection.vectors import window_vectors
from sppnet.scale import classify_batch, detect_batch, features_batch
from sppnet.scale.batches import DETECTIONS

pa = pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_detections_are_those_of_detect_bit_for_bit(detector: SPPDetector, images: list[Path]) -> None:
    table = detect_batch(pa.table({"path": [str(p) for p in images]}), detector, model_sha256="5e")
    assert table.schema.equals(DETECTIONS)
    assert table.num_rows == len(images)
    found = 0
    for row, path in zip(table.to_pylist(), images, strict=True):
        expected = detector.detect(path)
        width, height = Image.open(path).size
        assert (row["path"], row["width"], row["height"], row["error"]) == (str(path), width, height, None)
        assert (row["model_sha256"], row["sppnet_version"]) == ("5e", sppnet.__version__)
        assert row["milliseconds"] > 0
        assert rows_of(row) == rows_of(expected)
        found += len(expected)
    assert found > len(images)  # otherwise nothing was compared


def test_bytes_and_paths_give_the_same(detector: SPPDetector, images: list[Path]) -> None:
    paths = [str(p) for p in images[:3]]
    by_path = detect_batch(pa.table({"path": paths}), detector).drop_columns(["milliseconds"])
    content = [p.read_bytes() for p in images[:3]]
    for kind in (pa.binary(), pa.large_binary()):
        table = pa.table({"bytes": pa.array(content, kind), "path": paths, "other": [1, 2, 3]})
        assert detect_batch(table, detector).drop_columns(["milliseconds"]).equals(by_path)
    mixed = pa.table({"bytes": [None, *content[1:]], "path": [paths[0], "a", "b"]})  # a null is read by its path
    assert detect_batch(mixed, detector)["detections"].equals(by_path["detections"])
    batch = pa.RecordBatch.from_pydict({"bytes": content})
    nameless = detect_batch(batch, detector)
    assert nameless["path"].to_pylist() == [None] * 3
    assert nameless["detections"].equals(by_path["detections"])


def test_a_bad_image_is_a_row(detector: SPPDetector, images: list[Path], tmp_path: Path) -> None:
    broken = write_broken(tmp_path, images[0])
    paths = [str(images[0]), *map(str, broken), str(images[1])]
    rows = detect_batch(pa.table({"path": paths}), detector).to_pylist()
    assert [row["path"] for row in rows] == paths
    for row, (path, word) in zip(rows[1:-1], broken.items(), strict=True):
        assert str(path) in row["error"], row
        assert word in row["error"], row
        assert (row["width"], row["height"], row["detections"]) == (None, None, None)
    for row, image in ((rows[0], images[0]), (rows[-1], images[1])):
        assert row["error"] is None
        assert rows_of(row) == rows_of(detector.detect(image))
    here = [p for p in broken if p.is_file()]
    again = detect_batch(pa.table({"bytes": [p.read_bytes() for p in here]}), detector).to_pylist()
    for i, (row, path) in enumerate(zip(again, here, strict=True), 1):
        assert row["error"].startswith(f"image {i} of the batch: ")
        assert broken[path] in row["error"]


def test_a_table_with_neither_path_nor_bytes(detector: SPPDetector) -> None:
    assert detect_batch(pa.table({"path": pa.array([], pa.string())}), detector).num_rows == 0
    row = detect_batch(pa.table({"path": [None, ""]}), detector).to_pylist()[1]
    assert row["error"] == "image 2 of the batch: has neither a path nor bytes"
    with pytest.raises(ArgumentError, match="got the columns file, size, expected 'path'"):
        detect_batch(pa.table({"file": ["a"], "size": [1]}), detector)
    with pytest.raises(ArgumentError, match="column 'path': got int64, expected strings"):
        detect_batch(pa.table({"path": [1]}), detector)
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["path", "path"])
    with pytest.raises(ArgumentError, match="got 2 columns 'path', expected one"):
        detect_batch(twice, detector)
    with pytest.raises(NotFittedError):
        detect_batch(pa.table({"path": ["a"]}), SPPDetector())


def test_an_unexpected_error_stays_with_its_image(
    detector: SPPDetector, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = SPPDetector.detect
    calls: list[int] = []

    def detect(self: SPPDetector, image: Any, threshold: float | None = None) -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise [MemoryError(), ZeroDivisionError("by zero")][len(calls) - 1]
        return work(self, image, threshold)

    monkeypatch.setattr(SPPDetector, "detect", detect)
    rows = detect_batch(pa.table({"path": [str(p) for p in images[:3]]}), detector).to_pylist()
    assert "not enough memory" in rows[0]["error"]
    assert "unexpected ZeroDivisionError: by zero" in rows[1]["error"]
    assert rows[2]["error"] is None


def test_vectors_of_windows(detector: SPPDetector, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    paths = [str(images[0]), str(tmp_path / "bad.jpg")]
    for kind in ("fc", "pooled"):
        windows, vectors = window_vectors(detector, images[0], kind=kind)
        good, bad = features_batch(pa.table({"path": paths}), detector, kind=kind).to_pylist()
        np.testing.assert_array_equal(np.array(good["windows"], np.float32), windows)
        np.testing.assert_array_equal(np.array(good["vectors"], np.float32), vectors)
        assert (bad["windows"], bad["vectors"]) == (None, None)
        assert "bad.jpg: not an image" in bad["error"]


def test_classes_of_whole_images(images: list[Path]) -> None:
    classifier = ImageClassifier.load()
    table = classify_batch(pa.table({"path": [str(images[0]), "gone.jpg"]}), classifier, top=3)
    good, bad = table.to_pylist()
    expected = classifier.classify(images[0], 3)
    assert [(c["class_id"], c["class_name"]) for c in good["classes"]] == [(g.class_id, g.class_name) for g in expected]
    assert [c["probability"] for c in good["classes"]] == [float(np.float32(g.probability)) for g in expected]
    assert bad["classes"] is None
    assert "no such file" in bad["error"]
    with pytest.raises(ArgumentError, match="top: got 0"):
        classify_batch(table, classifier, top=0)
    with pytest.raises(NotFittedError):
        classify_batch(table, ImageClassifier())


def test_a_turned_and_a_very_large_image(detector: SPPDetector, images: list[Path]) -> None:
    """Sizes are those of the upright image; an image above the budget is done as `sppnet detect` does it."""
    with Image.open(images[0]) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        turned, large = io.BytesIO(), io.BytesIO()
        image.save(turned, "JPEG", exif=exif)
        image.resize((9000, 7200)).save(large, "JPEG")
        width, height = image.size
    rows = detect_batch(pa.table({"bytes": [turned.getvalue(), large.getvalue()]}), detector).to_pylist()
    assert (rows[0]["width"], rows[0]["height"]) == (height, width)
    assert (rows[1]["width"], rows[1]["height"], rows[1]["error"]) == (9000, 7200, None)
    assert max(d["x1"] for d in rows[1]["detections"]) > 4500  # in pixels of the file, not of the smaller image


def test_hash_of_cases_is_stable(images: list[Path]) -> None:
    """The images of these tests differ from one another; otherwise equal results would prove little."""
    assert len({hashlib.sha256(p.read_bytes()).hexdigest() for p in images}) == len(images)
