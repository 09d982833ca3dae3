"""Photos in one folder a class: order, lists, classes of other photos, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.errors import ArgumentError, DatasetError, ImageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Cats, dogs and a folder of yaks that is empty, among files that aren't photos."""
    root = tmp_path / "pets"
    for name in (
        "dog/b.png",
        "dog/a.jpg",
        "cat/deep/er/2.png",
        "cat/1.PNG",
        "dog/.hidden.png",
        ".git/x.png",
        "top.png",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (200, 30, 40)).save(root / name)
    (root / "cat/notes.txt").write_text("no photo")
    (root / "yak").mkdir()
    return root


def _names(data: ImageFolder, root: Path) -> list[tuple[str, int]]:
    return [(path.relative_to(root).as_posix(), label) for path, label in data]


def test_sorted_by_class_and_name(root: Path) -> None:
    data = load_image_folder(root, split="train")
    assert data.class_names == ("cat", "dog", "yak")
    assert _names(data, root) == [("cat/1.PNG", 0), ("cat/deep/er/2.png", 0), ("dog/a.jpg", 1), ("dog/b.png", 1)]
    assert data.counts().tolist() == [2, 2, 0]
    assert data.labels.dtype == np.int64
    assert not data.labels.flags.writeable
    assert (data.name, data.split, len(data), data.problems) == ("pets", "train", 4, ())
    assert repr(data) == "<ImageFolder pets train: 4 images, 3 classes>"


def test_list_gives_the_choice_and_the_order(root: Path) -> None:
    listed = root.parent / "test.txt"
    # as an editor on Windows leaves it: a byte order mark and CRLF
    listed.write_bytes("\ufeffdog/b.png\r\n\r\n# a remark\r\ncat/1.PNG\r\n".encode())
    data = load_image_folder(root, listed)
    assert _names(data, root) == [("dog/b.png", 1), ("cat/1.PNG", 0)]
    assert data.class_names == ("cat", "dog", "yak")
    for line, message in (
        ("dog/c.png", r"test\.txt, line 2: .*dog/c\.png isn't there"),
        ("b.png", "line 2: got 'b.png', expected CLASS/image.jpg"),
        ("../pets/dog/b.png", "line 2: got"),
        ("/etc/hostname", "line 2: got"),
    ):
        listed.write_text(f"cat/1.PNG\n{line}\n")
        with pytest.raises(DatasetError, match=message):
            load_image_folder(root, listed, on_error="fail")
    with pytest.raises(DatasetError, match="can't be read as a list"):
        load_image_folder(root, root / "t.png", on_error="fail")
    listed.write_text("\n")
    with pytest.raises(DatasetError, match="no images"):
        load_image_folder(root, listed, on_error="fail")


def test_classes_of_the_training_photos_keep_their_order(root: Path) -> None:
    data = load_image_folder(root, class_names=("zebra", "dog", "cat"))
    assert _names(data, root) == [("cat/1.PNG", 2), ("cat/deep/er/2.png", 2), ("dog/a.jpg", 1), ("dog/b.png", 1)]
    assert data.counts().tolist() == [0, 2, 2]
    with pytest.raises(DatasetError, match=r"class 'dog' is none of the 2 expected \(cat, yak\)"):
        load_image_folder(root, class_names=("cat", "yak"), on_error="fail")
    with pytest.raises(DatasetError, match="'cat' occurs twice"):
        load_image_folder(root, class_names=("cat", "cat", "dog"), on_error="fail")


def test_damaged_photos_stop_or_are_told(root: Path) -> None:
    (root / "cat/3.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"cat/3\.png"):
        load_image_folder(root, on_error="fail")
    data = load_image_folder(root, on_error="skip")
    assert len(data) == 4
    (problem,) = data.problems
    assert "cat/3.png" in problem


def test_nothing_to_read(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        load_image_folder(tmp_path / "missing", on_error="fail")
    with pytest.raises(DatasetError, match=r"has no folders; expected one a class"):
        load_image_folder(root / "yak", on_error="fail")
    (tmp_path / "empty/yak").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no images"):
        load_image_folder(tmp_path / "empty", on_error="fail")


def test_subsets(root: Path) -> None:
    data = load_image_folder(root)
    assert _names(data.subset([3, 0]), root) == [("dog/b.png", 1), ("cat/1.PNG", 0)]
    assert _names(data.subset(data.labels == 1), root) == [("dog/a.jpg", 1), ("dog/b.png", 1)]
    assert len(data.subset([])) == 0
    assert data.subset([2]).class_names == data.class_names
    assert _names(data.subset([False, False, True, False]), root) == [("dog/a.jpg", 1)]
    with pytest.raises(DatasetError, match="index 4 is out of range for 4 images"):
        data.subset([0, 4])
    with pytest.raises(DatasetError, match=r"got a mask \(1,\), expected \(4,\)"):
        data.subset(np.array([True]))
    with pytest.raises(DatasetError, match="got float64"):
        data.subset([0.7])  # type: ignore[list-item]


def test_a_misspelt_on_error_is_refused(root: Path) -> None:
    with pytest.raises(ArgumentError, match="on_error: got 'raise', expected one of fail, skip"):
        load_image_folder(root, on_error="raise")  # type: ignore[arg-type]


def test_labels_are_checked() -> None:
    with pytest.raises(DatasetError, match=r"expected shape \(1,\)"):
        ImageFolder((Path("a"),), np.array([0, 1]), ("x", "y"))
    with pytest.raises(DatasetError, match="from 2 to 2, expected 0 to 1"):
        ImageFolder((Path("a"),), np.array([2]), ("x", "y"))
