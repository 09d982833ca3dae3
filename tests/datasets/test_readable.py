"""Images that can't be decoded, and folders of images as background."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.background import load_background
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.readable import DecodedImages, damage_of, find_damage, refuse_problems, without_damaged
from sppnet.errors import ArgumentError, DatasetError, ImageError


@pytest.fixture
def data(toy_voc: Path, tmp_path: Path) -> Path:
    """Six images, the third of which is cut off: its header is whole."""
    folder = tmp_path / "VOC"
    for part in ("Annotations", "JPEGImages"):
        (folder / part).mkdir(parents=True)
        for source in sorted((toy_voc / part).iterdir())[:6]:
            shutil.copy(source, folder / part)
    bad = sorted((folder / "JPEGImages").iterdir())[2]
    bad.write_bytes(bad.read_bytes()[:3000])
    return folder


def test_left_out_and_listed_or_refused(data: Path) -> None:
    dataset = load_dataset(data)
    left = without_damaged(dataset)
    assert [r.image_id for r in left] == [r.image_id for i, r in enumerate(dataset) if i != 2]
    assert len(left.problems) == 1
    assert str(dataset[2].path) in left.problems[0]
    with pytest.raises(DatasetError, match=r"000002\.jpg: damaged"):
        without_damaged(dataset, on_error="fail")
    with pytest.raises(DatasetError, match="none of the images can be read"):
        without_damaged(dataset.subset([2]))
    fine = dataset.subset([0, 1])
    assert without_damaged(fine) is fine


def test_what_was_decoded_is_not_decoded_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def noting(path: Path) -> str:
        seen.append(path)
        return damage_of(path)

    monkeypatch.setattr("sppnet.datasets.readable.damage_of", noting)
    dataset = load_dataset(data)
    without_damaged(dataset, known=DecodedImages(tmp_path / "cache"))
    assert len(seen) == 6
    seen.clear()
    known = DecodedImages(tmp_path / "cache")
    assert [record.path in known for record in dataset] == [True, True, False, True, True, True]
    assert len(without_damaged(dataset, known=known)) == 5
    assert seen == [dataset[2].path]
    # a file that changes is decoded again
    Image.new("RGB", (320, 240)).save(dataset[0].path)
    assert dataset[0].path not in DecodedImages(tmp_path / "cache")
    assert tmp_path / "gone.jpg" not in known


def test_find_damage_keeps_the_order(data: Path) -> None:
    paths = sorted((data / "JPEGImages").iterdir())
    for threads in (1, 4):
        found = find_damage(paths, threads=threads)
        assert [bool(text) for text in found] == [False, False, True, False, False, False]
    assert find_damage([]) == []


def test_a_refusal_lists_a_few() -> None:
    refuse_problems([])
    with pytest.raises(DatasetError) as caught:
        refuse_problems([f"{i}.jpg: damaged" for i in range(7)])
    assert "4.jpg: damaged\nand 2 more" in str(caught.value)
    assert "5.jpg" not in str(caught.value)


def test_background(data: Path, tmp_path: Path) -> None:
    annotated = load_background(data)
    assert annotated.class_names == ("cat", "cup")
    folder = tmp_path / "plain"
    (folder / "below").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    Image.new("RGB", (20, 50)).save(folder / "below" / "b.png")
    (folder / "c.png").write_text("no image")
    plain = load_background(folder)
    assert [(r.path.name, r.width, r.height, len(r)) for r in plain] == [("a.png", 40, 30, 0), ("b.png", 20, 50, 0)]
    assert plain.class_names == ()
    assert np.array_equal(plain.count_objects(), [])
    assert len(plain.problems) == 1
    assert "c.png" in plain.problems[0]
    with pytest.raises(ImageError, match=r"c\.png"):
        load_background(folder, on_error="fail")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError):
        load_background(tmp_path / "empty")


@pytest.mark.parametrize("known", [False, True])
def test_a_record_of_another_size_is_left_out(known: bool, toy_voc: Path, tmp_path: Path) -> None:
    dataset = load_dataset(toy_voc).subset(range(4))
    decoded = DecodedImages(tmp_path) if known else None
    if decoded is not None:
        decoded.add(record.path for record in dataset)
    first = dataset[1]
    assert (first.width, first.height) == (320, 240)
    wrong = replace(dataset, records=[dataset[0], replace(first, width=321, height=240), *dataset[2:]])
    left = without_damaged(wrong, known=decoded)
    assert [r.image_id for r in left] == [dataset[i].image_id for i in (0, 2, 3)]
    assert left.problems[-1].startswith(f"{first.path}: its record says 321x240, but the upright image is 320x240")
    with pytest.raises(DatasetError, match="its record says 321x240"):
        without_damaged(wrong, known=decoded, on_error="fail")


def test_a_misspelt_on_error_is_refused(data: Path) -> None:
    with pytest.raises(ArgumentError, match="on_error: got 'raise', expected one of fail, skip"):
        without_damaged(load_dataset(data), on_error="raise")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="on_error: got 'raise'"):
        load_background(data, on_error="raise")  # type: ignore[arg-type]
