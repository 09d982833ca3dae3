"""Nothing is written outside the output folder, and no image is copied from outside the data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.cli.main import main
from sppnet.datasets.assembling import assemble
from sppnet.datasets.check import check_dataset
from sppnet.datasets.loading import load_dataset, read_dataset
from sppnet.datasets.splits import check_split_name
from sppnet.datasets.write_job import WriteJob
from sppnet.datasets.writing import WRITTEN_FORMATS, write_dataset
from sppnet.errors import DatasetError


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, *path.name.encode()]).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(noise).resize((160, 120)).save(path)
    return path


def table(home: Path, rows: list[str], columns: str = "image,x0,y0,x1,y1,label,split") -> Path:
    home.mkdir(parents=True, exist_ok=True)
    (home / "t.csv").write_text("\n".join([columns, *rows]) + "\n")
    return home


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


EVIL = ["/any/dir", "../../x", "..", ".", "a/b", "a\\b", "C:x", "x\0y", "a\ud800", "x" * 300, " ", "a\x1b[31m", "a."]


@pytest.mark.parametrize("split", EVIL)
def test_splits_that_lead_elsewhere_are_refused(split: str) -> None:
    with pytest.raises(DatasetError, match="can't be the name of a folder"):
        check_split_name(split)


@pytest.mark.parametrize("split", ["/any/dir", "../../x", "..", "a\\..\\b"])
@pytest.mark.parametrize("format", WRITTEN_FORMATS)
def test_convert_of_evil_splits_writes_nothing_elsewhere(split: str, format: str, tmp_path: Path) -> None:
    target = str(tmp_path / "victim") if split == "/any/dir" else split
    home = tmp_path / "in" / "data"
    for k in range(3):
        image(home / f"{k}.jpg")
    table(home, [f"{k}.jpg,10,10,50,50,cat,{target if k == 0 else 'train'}" for k in range(3)])
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "0.jpg").write_bytes(b"mine")
    before = everything(tmp_path)
    status = main(["data", "convert", str(home), "-o", str(tmp_path / "a" / "b" / "out"), "--to", format, "--quiet"])
    assert status in (1, 2)
    after = everything(tmp_path)
    assert {name: data for name, data in after.items() if not name.startswith("a/b/out/")} == before
    # As a library call, where the reader didn't look
    data = load_dataset(home, on_error="skip")
    with pytest.raises(DatasetError, match="can't be the name of a folder"):
        write_dataset(data, tmp_path / "a" / "c", format, splits={target: [data[0].image_id]})
    assert not (tmp_path / "a" / "c").exists()


def test_every_target_is_below_the_output_folder(tmp_path: Path) -> None:
    image(tmp_path / "x.jpg")
    data = load_dataset(table(tmp_path, ["x.jpg,10,10,50,50,cat,train"]))
    root = tmp_path / "out"
    root.mkdir()
    job = WriteJob(root, data, {"": [0]}, ["x.jpg"])
    for parts in (("..", "x"), ("a", "../../x"), ("/etc/x",), ("",), (".",)):
        with pytest.raises(DatasetError, match="leads out of the output folder"):
            job.target(*parts)
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(DatasetError, match="leads out"):
        job.write("x", "link", "y.txt")
    assert job.target("a", "b.txt") == root / "a" / "b.txt"


def coco(home: Path, *names: str) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    document = {
        "images": [{"id": i, "file_name": name, "width": 160, "height": 120} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "category_id": 0, "bbox": [9, 9, 9, 9]} for i in range(len(names))],
        "categories": [{"id": 0, "name": "cat"}],
    }
    (home / "annotations.json").write_text(json.dumps(document))
    return home


def yolo(home: Path, *names: str) -> Path:
    folder = (home / names[0]).parent
    (home / "data.yaml").write_text(f"names: [cat]\ntrain: {folder}\n")
    return home


def csv(home: Path, *names: str) -> Path:
    return table(home, [f"{name},10,10,50,50,cat" for name in names], "image,x0,y0,x1,y1,label")


def labelme(home: Path, *names: str) -> Path:
    for k, name in enumerate(names):
        (home / f"j{k}.json").write_text(json.dumps({"imagePath": name, "shapes": []}))
    return home


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("make", [coco, yolo, csv, labelme])
def test_images_outside_are_never_copied_silently(
    make: Callable[..., Path], absolute: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = image(tmp_path / "secret" / "x.png")
    home = tmp_path / "data"
    home.mkdir()
    make(home, str(secret) if absolute else "../secret/x.png")
    raw = read_dataset(home)
    assert [found.outside for found in raw.images.values()] == [True]
    data = assemble(raw, None, allow_outside=False)
    assert len(data) == 0
    assert "lies outside the data set" in data.problems[0]
    main(["data", "convert", str(home), "-o", str(tmp_path / "out"), "--to", "coco", "--quiet"])
    printed = capsys.readouterr()
    assert "outside the data set" in printed.out + printed.err
    assert not [p for p in tmp_path.rglob("*.png") if p != secret]
    # The check says so, and whoever names the folder means it
    assert any(problem.kind == "outside the data set" for problem in check_dataset(home).problems)
    status = main(["data", "convert", str(home), "-o", str(tmp_path / "meant"), "--to", "coco", "--images",
                   str(secret.parent), "--quiet"])  # fmt: skip
    assert status == 0
    assert [p.name for p in (tmp_path / "meant").rglob("*.png")] == ["x.png"]


def test_an_image_inside_is_preferred_to_one_outside(tmp_path: Path) -> None:
    outside = image(tmp_path / "old" / "images" / "x.png")
    inside = image(tmp_path / "data" / "images" / "x.png", 1)
    assert load_dataset(coco(tmp_path / "data", str(outside)))[0].path == inside


@pytest.mark.parametrize("format", WRITTEN_FORMATS)
def test_a_split_called_other_is_kept(format: str, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        image(tmp_path / "in" / f"{name}.jpg")
    table(
        tmp_path / "in",
        [f"{n}.jpg,10,10,50,50,cat,{s}" for n, s in zip(names, ("other", "train", "", "other"), strict=True)],
    )
    raw = read_dataset(tmp_path / "in")
    assert {name: len(ids) for name, ids in raw.splits.items()} == {"other": 2, "train": 1}
    losses = write_dataset(assemble(raw, None), tmp_path / "out", format, splits=raw.splits)
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 4
    if format != "voc":
        assert any("1 images are in no split; they are put into one called other-2" in loss for loss in losses)
        assert len(load_dataset(tmp_path / "out", format=format)) == 4


def test_names_that_differ_in_case_only_stay_apart(tmp_path: Path) -> None:
    for k, folder in enumerate(("one", "two")):
        image(tmp_path / "in" / folder / ("X.jpg" if k else "x.jpg"))
    csv(tmp_path / "in", "one/x.jpg", "two/X.jpg")
    write_dataset(load_dataset(tmp_path / "in"), tmp_path / "out", "voc")
    written = [p.name.lower() for p in (tmp_path / "out").rglob("*.jpg")]
    assert len(set(written)) == 2
