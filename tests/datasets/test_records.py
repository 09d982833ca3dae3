"""Records and data sets hold what they promise, or say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import DatasetError


def record(**changes: Any) -> ImageRecord:
    values: dict[str, Any] = {
        "path": Path("a.jpg"),
        "boxes": [[0, 0, 10, 20], [5.5, 5, 100, 50]],
        "labels": [1, 0],
        "difficult": [False, True],
        "width": 100,
        "height": 50,
        "image_id": "a",
    }
    return ImageRecord(**(values | changes))


def test_arrays_are_typed_copied_and_frozen() -> None:
    boxes = np.array([[0, 0, 10, 20], [5, 5, 100, 50]], np.float64)
    made = record(boxes=boxes)
    boxes[:] = 7
    assert made.boxes.dtype == np.float32
    assert made.labels.dtype == np.int64
    assert made.difficult.dtype == np.bool_
    assert made.boxes.tolist() == [[0, 0, 10, 20], [5, 5, 100, 50]]
    assert len(made) == 2
    with pytest.raises(ValueError, match="read-only"):
        made.boxes[0] = 0
    with pytest.raises(AttributeError):
        made.width = 5  # type: ignore[misc]


def test_no_objects() -> None:
    made = record(boxes=[], labels=[], difficult=[])
    assert made.boxes.shape == (0, 4)
    assert made.labels.dtype == np.int64
    assert len(made) == 0
    assert made  # a picture without objects is still a picture


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": [[0, 0, 10, 20]]}, r"labels has shape \(2,\), expected \(1,\)"),
        ({"boxes": [[0, 0, 10], [0, 0, 10]]}, r"boxes has shape \(2, 3\)"),
        ({"boxes": [[0, 0, 10, 20], [5, 5, 101, 50]]}, "object 2 has box .* inside the image of 100x50"),
        ({"boxes": [[-1, 0, 10, 20], [5, 5, 100, 50]]}, "object 1"),
        ({"boxes": [[0, 0, 10, 20], [5, 5, 5, 50]]}, "object 2"),
        ({"boxes": [[0, 20, 10, 0], [5, 5, 7, 50]]}, "object 1"),
        ({"boxes": [[0, 0, 10, np.nan], [5, 5, 7, 50]]}, "object 1"),
        ({"boxes": [["a"] * 4] * 2}, "boxes can't be made"),
        ({"labels": [0, -1]}, "object 2 has label -1"),
        ({"labels": [0.5, 1]}, "whole numbers"),
        ({"difficult": [True]}, "difficult has shape"),
        ({"width": 0}, "width is 0"),
        ({"height": 10.5}, "height is 10.5"),
    ],
)
def test_bad_records(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        record(**changes)
    assert "a.jpg" in str(caught.value)


def test_dataset_is_a_sequence() -> None:
    records = [record(image_id=name, path=f"{name}.jpg") for name in "abcd"]
    dataset = DetectionDataset(records, ("cat", "dog"), "Pets", "train")
    assert len(dataset) == 4
    assert [item.image_id for item in dataset] == list("abcd")
    assert dataset[-1].image_id == "d"
    assert "Pets train: 4 images, 8 objects, 2 classes" in repr(dataset)
    part = dataset.subset([2, 0, -1])
    assert [item.image_id for item in part] == ["c", "a", "d"]
    assert (part.class_names, part.name, part.split) == (("cat", "dog"), "Pets", "train")
    assert len(dataset.subset([])) == 0
    some = dataset[1:3]
    assert [item.image_id for item in some] == ["b", "c"]
    assert (some.class_names, some.name, some.split) == (("cat", "dog"), "Pets", "train")
    assert [item.image_id for item in dataset[::-2]] == ["d", "b"]
    assert len(dataset[9:]) == 0


def test_masks() -> None:
    dataset = DetectionDataset([record(image_id=name) for name in "abc"], ("cat", "dog"), "Pets")
    for mask in ([False, True, True], np.array([False, True, True]), list(np.array([False, True, True]))):
        assert [item.image_id for item in dataset.subset(mask)] == ["b", "c"]
    assert [item.image_id for item in dataset.subset(np.array([2, 0], np.uint8))] == ["c", "a"]
    assert [item.image_id for item in dataset.subset(i for i in (1,))] == ["b"]
    assert len(dataset.subset([False] * 3)) == 0
    for mask in ([False, True], np.zeros(0, bool), np.ones((3, 1), bool)):
        with pytest.raises(DatasetError, match=r"Pets: indices: got a mask .* expected \(3,\)"):
            dataset.subset(mask)
    for wrong in ([0.7], ["a"], 3, "ab", [[0], [1, 2]], [[0]]):
        with pytest.raises(DatasetError, match=r"Pets: indices: got .* expected a list of whole numbers"):
            dataset.subset(wrong)  # type: ignore[arg-type]


def test_bad_datasets() -> None:
    with pytest.raises(DatasetError, match="label 1, expected less than 1"):
        DetectionDataset([record()], ("cat",))
    with pytest.raises(DatasetError, match="class name 'cat' occurs twice"):
        DetectionDataset([record()], ("cat", "cat"))
    with pytest.raises(DatasetError, match="image_id 'a' occurs twice"):
        DetectionDataset([record(), record()], ("cat", "dog"))
    dataset = DetectionDataset([record()], ("cat", "dog"))
    with pytest.raises(DatasetError, match="index 1 is out of range"):
        dataset.subset([1])
    with pytest.raises(DatasetError, match="occurs twice"):
        dataset.subset([0, 0])


def test_spread() -> None:
    records = [record(image_id=str(i), path=Path(f"{i}.jpg")) for i in range(10)]
    data = DetectionDataset(records, ("a", "b"), "name", "val", problems=("left out",))
    for count, expected in (
        (1, [0]),
        (2, [0, 9]),
        (4, [0, 3, 6, 9]),
        (10, range(10)),
        (99, range(10)),
        (None, range(10)),
    ):
        chosen = data.spread(count)
        assert [r.image_id for r in chosen] == [str(i) for i in expected]
        assert (chosen.class_names, chosen.name, chosen.split, chosen.problems) == (
            data.class_names, "name", "val", ("left out",),
        )  # fmt: skip
    with pytest.raises(DatasetError, match="count: got 0"):
        data.spread(0)
