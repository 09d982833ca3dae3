"""Conversion and contact sheets, without the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet import convert_dataset, load_dataset
from sppnet.datasets.example import write_example
from sppnet.datasets.sheet import draw_dataset
from sppnet.errors import ArgumentError, DatasetError, ImageError


def table(root: Path, rows: str) -> Path:
    root.mkdir()
    for i, colour in enumerate(("red", "lime", "blue", "white")):
        Image.new("RGB", (40, 30), colour).save(root / f"{i}.png")
    (root / "annotations.csv").write_text("image,x0,y0,x1,y1,label,split\n" + rows)
    return root


ROWS = "0.png,1,2,30,20,cat,train\n1.png,5.5,5,25,25,dog,train\n2.png,0,0,40,30,cat,val\n3.png,,,,,,val\n"


def test_convert(tmp_path: Path) -> None:
    source = table(tmp_path / "csv", ROWS)
    done = convert_dataset(source, tmp_path / "coco", "coco", rename={"dog": "hound"})
    assert (done.format, done.losses, len(done.dataset)) == ("csv", (), 4)
    for split in ("train", "val"):
        before = load_dataset(source, split, rename={"dog": "hound"})
        after = load_dataset(tmp_path / "coco", split, format="coco")
        assert after.class_names == before.class_names == ("cat", "hound")
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a.boxes, b.boxes)
            np.testing.assert_array_equal(a.labels, b.labels)
            assert a.path.read_bytes() == b.path.read_bytes()
    with pytest.raises(ArgumentError, match="isn't an empty folder"):
        convert_dataset(source, tmp_path / "coco", "coco")


def test_what_is_wrong_and_what_is_lost_is_told(tmp_path: Path) -> None:
    bad = ROWS + "0.png,30,2,1,20,cat,train\n0.png,2,2,9,9,cat,train\n"
    done = convert_dataset(table(tmp_path / "csv", bad), tmp_path / "voc", "voc")
    assert len(done.dataset.problems) == 1
    assert "object 6 (cat) has box (30, 2, 1, 20)" in done.dataset.problems[0]
    assert sum(map(len, done.dataset)) == 4
    hard = "image,x0,y0,x1,y1,label,difficult\n0.png,1,2,30,20,cat,1\n1.png,1,2,30,20,cat,0\n"
    source = table(tmp_path / "hard", "")
    (source / "annotations.csv").write_text(hard)
    losses = convert_dataset(source, tmp_path / "yolo", "yolo").losses
    assert len(losses) == 2
    assert losses[0].startswith("the data set isn't split")
    assert losses[1].startswith("1 difficult flags are lost")
    with pytest.raises(DatasetError):
        convert_dataset(tmp_path / "csv", tmp_path / "strict", "voc", on_error="fail")
    assert not (tmp_path / "strict").exists()


def test_the_sheet_shows_what_was_asked_for(tmp_path: Path) -> None:
    data = load_dataset(table(tmp_path / "csv", ROWS))
    sheet = draw_dataset(data, tile_px=40, columns=2)
    assert (sheet.shown, sheet.candidates, sheet.failed) == (4, 4, ())
    colours = {c for _, c in sheet.image.getcolors(1 << 20) or []}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)} <= colours
    cats = draw_dataset(data, class_name="cat", tile_px=40)
    assert (cats.shown, cats.candidates) == (2, 2)
    assert (0, 255, 0) not in {c for _, c in cats.image.getcolors(1 << 20) or []}
    assert draw_dataset(data, limit=1).shown == 1
    with pytest.raises(ArgumentError, match="class: got 'cow'; expected one of cat, dog"):
        draw_dataset(data, class_name="cow")
    with pytest.raises(DatasetError, match="no images to show"):
        draw_dataset(data.subset([]))
    with pytest.raises(ArgumentError, match="on_error: got 'raise', expected one of fail, skip"):
        draw_dataset(data, on_error="raise")  # type: ignore[arg-type]


def test_a_damaged_image_is_left_out_of_the_sheet(tmp_path: Path) -> None:
    data = load_dataset(table(tmp_path / "csv", ROWS))
    data[1].path.write_bytes(b"damaged")
    sheet = draw_dataset(data)
    assert (sheet.shown, sheet.candidates) == (3, 4)
    assert [item.path.name for item in sheet.failed] == ["1.png"]
    with pytest.raises(ImageError):
        draw_dataset(data, on_error="fail")


def test_the_example_can_be_read_again(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image (the extra 'demo') is not installed")
    made = write_example(tmp_path / "out", "yolo", images=4, classes=2)
    read = load_dataset(tmp_path / "out")
    assert (len(read), sum(map(len, read))) == (4, sum(map(len, made)))


@pytest.mark.parametrize("format", ["voc", "coco"])
def test_a_broken_image_of_a_split_is_left_out(format: str, toy_voc: Path, tmp_path: Path) -> None:
    """Its id is in a list of the source, but nothing of it is written."""
    shutil.copytree(toy_voc, tmp_path / "in")
    first = load_dataset(tmp_path / "in", "train")[0]
    first.path.write_text("no image")
    done = convert_dataset(tmp_path / "in", tmp_path / "out", format, placement="symlink")
    assert first.image_id not in {record.image_id for record in done.dataset}
    assert any(str(first.path) in problem for problem in done.dataset.problems)
    assert len(load_dataset(tmp_path / "out", "train")) == len(load_dataset(toy_voc, "train")) - 1
