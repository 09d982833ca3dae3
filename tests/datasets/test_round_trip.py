"""Any data set written in any format and read again is the same, but for what the writer says is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.datasets.loading import detect_format, load_dataset, read_dataset
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.datasets.writing import WRITTEN_FORMATS, write_dataset

SIZES = ((640, 480), (33, 1001), (97, 64))
# as people name classes: letters of any alphabet, digits, blanks and signs inside
NAMES = st.lists(
    st.text(st.characters(categories=("L", "N"), include_characters=" -_.,;'\"&<#()"), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool),
    min_size=1,
    max_size=4,
    unique_by=str.casefold,
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("pictures")
    paths = []
    for i, (width, height) in enumerate(SIZES):
        paths.append(home / f"photo \u00e4 {i}.png")
        Image.new("RGB", (width, height), (i, 90, 200)).save(paths[-1])
    return paths


@st.composite
def datasets(draw: st.DrawFn, pictures: list[Path]) -> DetectionDataset:
    names = draw(NAMES)
    records = []
    for path, (width, height) in zip(pictures, SIZES, strict=True):
        boxes, labels = [], []
        for _ in range(draw(st.integers(0, 4))):
            x0, y0 = draw(st.integers(0, 100 * width - 500)), draw(st.integers(0, 100 * height - 500))
            x1, y1 = draw(st.integers(x0 + 300, 100 * width)), draw(st.integers(y0 + 300, 100 * height))
            boxes.append([value / 100 for value in (x0, y0, x1, y1)])
            labels.append(draw(st.integers(0, len(names) - 1)))
        difficult = [draw(st.booleans()) for _ in boxes]
        shape = np.array(boxes, np.float32).reshape(-1, 4)
        records.append(
            ImageRecord(path, shape, np.array(labels, np.int64), np.array(difficult, bool), width, height, path.stem)
        )
    return DetectionDataset(records, tuple(names), name="any")


@pytest.mark.parametrize("format", WRITTEN_FORMATS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_written_and_read(format: str, pictures: list[Path], data: st.DataObject) -> None:
    dataset = data.draw(datasets(pictures))
    split = data.draw(st.booleans())
    ids = [record.image_id for record in dataset]
    splits = {"train": ids[:2], "val": ids[2:]} if split else None
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "data"
        losses = write_dataset(dataset, home, format, splits=splits, placement="symlink")
        if format != "csv" or any(len(record) for record in dataset):
            assert detect_format(home) == format
        again = load_dataset(home, format=format)
        if split:
            found = read_dataset(home, format).splits
            assert {name: sorted(items) for name, items in found.items()} == {"train": ids[:2], "val": ids[2:]}
    difficult_lost = any("difficult" in loss for loss in losses)
    by_id = {record.image_id: record for record in again}
    assert sorted(by_id) == ids
    for record in dataset:
        other = by_id[record.image_id]
        assert (other.width, other.height) == (record.width, record.height)
        assert [again.class_names[i] for i in other.labels] == [dataset.class_names[i] for i in record.labels]
        np.testing.assert_allclose(other.boxes, record.boxes, atol=0.01)
        assert difficult_lost or other.difficult.tolist() == record.difficult.tolist()
