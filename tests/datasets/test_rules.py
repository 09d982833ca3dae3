"""Rules that hold for every format: bad images, renaming, splits, links, folders that can't be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet.cli.main import main
from sppnet.datasets.check import check_dataset
from sppnet.datasets.duplicates import duplicate_groups, hash_images, look_alikes
from sppnet.datasets.judging import refuse_many_bad
from sppnet.datasets.loading import load_dataset, read_dataset
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.splits import canonical_split, split_of_name
from sppnet.datasets.splitting import split_dataset
from sppnet.datasets.training_splits import load_training_splits, load_validation_split
from sppnet.errors import ArgumentError, DatasetError


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(noise).resize((160, 120)).save(path)


def table(home: Path, count: int, label: str = "cat") -> Path:
    """``count`` images, each with one object."""
    for k in range(count):
        image(home / f"{k:02d}.jpg", k)
    rows = [f"{k:02d}.jpg,10,10,50,50,{label}" for k in range(count)]
    (home / "t.csv").write_text("\n".join(["image,x0,y0,x1,y1,label", *rows]) + "\n")
    return home


def damage(home: Path, count: int) -> None:
    for k in range(count):
        path = home / f"{k:02d}.jpg"
        path.write_bytes(path.read_bytes()[:9])


@pytest.mark.parametrize(("images", "bad", "stops"), [(20, 1, False), (20, 2, False), (20, 3, True), (4, 1, False),
                                                      (4, 2, True), (10, 1, False)])  # fmt: skip
def test_more_than_a_tenth_of_bad_images_stops(images: int, bad: int, stops: bool, tmp_path: Path) -> None:
    damage(table(tmp_path, images), bad)
    raw = read_dataset(tmp_path)
    report = check_dataset(tmp_path)
    assert (report.bad, report.accepted) == (bad, not stops)
    assert main(["data", "check", str(tmp_path), "--quiet"]) == int(stops)
    assert main(["data", "check", str(tmp_path), "--quiet", "--strict"]) == 1
    if stops:
        message = f"{bad} of {images} images are unusable, more than a tenth"
        with pytest.raises(DatasetError, match=message):
            load_training_splits(raw)
        assert message in report.stop
    else:
        splits = load_training_splits(raw)
        assert len(splits.train) + len(splits.validation or ()) == images - bad
        assert len(splits.train.problems) == bad
    with pytest.raises(DatasetError):
        load_training_splits(raw, on_error="fail")


def test_the_rule_itself() -> None:
    refuse_many_bad("x", 10, 1)
    refuse_many_bad("x", 1, 1)
    refuse_many_bad("x", 30, 3)
    with pytest.raises(DatasetError, match=r"(?s)x: 4 of 30 images.*\n  a\n.*\n  and 1 more"):
        refuse_many_bad("x", 30, 4, ["a", "b", "c", "d", "e", "f"])


# --- renaming --------------------------------------------------------------------------------------------------------


def test_classes_get_other_names(tmp_path: Path) -> None:
    table(tmp_path, 3, "couch")
    data = load_dataset(tmp_path, rename={"couch": "sofa"})
    assert data.class_names == ("sofa",)
    assert data.count_objects().tolist() == [3]
    with pytest.raises(DatasetError, match="no class 'coach' to rename; did you mean 'couch'"):
        load_dataset(tmp_path, rename={"coach": "sofa"})


def test_two_classes_become_one(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg", 0)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .2 .2\n1 .5 .5 .4 .4\n2 .2 .2 .1 .1\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [car, bus, dog]\n")
    data = load_dataset(tmp_path, rename={"car": "vehicle", "bus": "vehicle"})
    assert data.class_names == ("vehicle", "dog")
    assert data[0].labels.tolist() == [0, 0, 1]


def test_renaming_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path / "in", 3, "couch")
    rename = ["--rename", "couch=sofa"]
    assert main(["data", "check", str(tmp_path / "in"), "--classes", "sofa", *rename, "--quiet"]) == 0
    assert (
        main(["data", "convert", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--to", "voc", *rename, "--quiet"])
        == 0
    )
    assert load_dataset(tmp_path / "out").count_objects()[-3] == 3  # sofa is the 18th of VOC's 20
    capsys.readouterr()
    for wrong in ("couch", "=x", "a="):
        assert main(["data", "check", str(tmp_path / "in"), "--rename", wrong]) == 2
        assert "expected OLD=NEW" in capsys.readouterr().err


# --- splits ----------------------------------------------------------------------------------------------------------


def test_names_of_splits() -> None:
    names = {
        "train": "train", "instances_train2017": "train", "train_labels": "train", "labels_train": "train",
        "train-annotations-bbox": "train", "VALID": "valid", "obj_train_data": "train", "Test": "test",
        "test_train": "", "train_station": "", "trains": "", "trainval": "", "": "", "validation_set": "validation",
    }  # fmt: skip
    assert {name: split_of_name(name) for name in names} == names
    assert [canonical_split(name) for name in ("TRAIN", "Validation", "mine", " Mine ")] == [
        "train", "validation", "mine", "Mine",
    ]  # fmt: skip


def alike(home: Path, groups: int, each: int) -> Path:
    """Groups of images that differ in quality only."""
    home.mkdir(exist_ok=True)
    rows = []
    for g in range(groups):
        noise = np.random.default_rng(g).integers(0, 255, (12, 16, 3), np.uint8)
        picture = Image.fromarray(noise).resize((160, 120))
        for k in range(each):
            picture.save(home / f"g{g:02d}_{k}.jpg", quality=95 - 10 * k)
            rows.append(f"g{g:02d}_{k}.jpg,10,10,50,50,{'cat' if g % 2 else 'dog'}")
    (home / "t.csv").write_text("\n".join(["image,x0,y0,x1,y1,label", *rows]) + "\n")
    return home


def groups_of(data: DetectionDataset) -> set[str]:
    return {record.image_id.partition("_")[0] for record in data}


def test_images_that_look_alike_go_into_the_same_split(tmp_path: Path) -> None:
    raw = read_dataset(alike(tmp_path, 10, 3))
    for seed in range(5):
        splits = load_training_splits(raw, seed=seed)
        assert splits.validation is not None
        assert not groups_of(splits.train) & groups_of(splits.validation)
        assert len(splits.validation) == 6
        assert "images that look alike stay together: 20" in splits.notes[0]
        again, _ = load_validation_split(raw, None, splits.train.class_names, seed=seed)
        assert [r.image_id for r in again] == [r.image_id for r in splits.validation]


def test_all_images_alike_can_still_be_divided(tmp_path: Path) -> None:
    splits = load_training_splits(read_dataset(alike(tmp_path, 1, 5)))
    assert splits.validation is not None
    assert (len(splits.train), len(splits.validation)) == (4, 1)
    assert "all images look alike" in splits.notes[0]


def test_groups_of_duplicates_join_what_hangs_together(tmp_path: Path) -> None:
    hashes = np.zeros((5, 4), np.uint64)
    hashes[:, 0] = [0xFFFF0000, 0xFFFF001F, 0xFFFF03FF, 0xAAAA5555AAAA5555, 0]
    assert [(i, others.tolist()) for i, others in look_alikes(hashes, 5)] == [(0, [1]), (1, [2])]
    assert duplicate_groups(hashes, 5) == [0, 0, 0, 3, 4]
    (tmp_path / "x.jpg").write_bytes(b"no image")
    assert not hash_images([tmp_path / "x.jpg"]).any()


def test_groups_of_a_split_are_checked(tmp_path: Path) -> None:
    data = load_dataset(table(tmp_path, 4))
    with pytest.raises(ArgumentError, match="groups: got 3, expected one for each of 4 images"):
        split_dataset(data, groups=[0, 1, 2])
    with pytest.raises(DatasetError, match="too many of its images look alike"):
        split_dataset(data, groups=[0, 0, 0, 0])
    one, two = split_dataset(data, (0.5, 0.5), groups=[7, 7, 3, 3])
    assert {tuple(r.image_id for r in part) for part in (one, two)} == {("00", "01"), ("02", "03")}


# --- folders ---------------------------------------------------------------------------------------------------------


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    table(tmp_path / "data", 2)
    (tmp_path / "data" / "again").symlink_to(".")
    (tmp_path / "data" / "up").symlink_to("..")
    data = load_dataset(tmp_path / "data", on_error="fail")
    assert [record.image_id for record in data] == ["00", "01"]


def test_images_of_another_folder(tmp_path: Path) -> None:
    """``images`` says where; it may be anywhere, and names may have lost their folders."""
    table(tmp_path / "data", 3)
    (tmp_path / "pics").mkdir()
    for path in (tmp_path / "data").glob("*.jpg"):
        path.rename(tmp_path / "pics" / path.name)
    assert len(load_dataset(tmp_path / "data")) == 0
    data = load_dataset(tmp_path / "data", images=tmp_path / "pics", on_error="fail")
    assert [record.path.parent for record in data] == [tmp_path / "pics"] * 3
    assert main(["data", "check", str(tmp_path / "data"), "--images", str(tmp_path / "pics"), "--quiet"]) == 0
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        load_dataset(tmp_path / "data", images=tmp_path / "nowhere")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't be tried as root: the system call is replaced."""
    table(tmp_path / "data" / "open", 1)
    table(tmp_path / "data" / "shut", 1)
    (tmp_path / "data" / "t.csv").write_text(
        "image,x0,y0,x1,y1,label\nmissing.jpg,1,1,20,20,cat\n00.jpg,1,1,20,20,cat\n"
    )
    scandir, shut = os.scandir, str(tmp_path / "data" / "shut")

    def refuse(path: Any) -> Any:
        if os.fspath(path) == shut:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    raw = read_dataset(tmp_path / "data" / "t.csv")
    (problem,) = [p for p in raw.problems if p.kind == "unreadable folder"]
    assert (problem.level, problem.file) == ("error", shut)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    image(tmp_path / "a.jpg", 0)
    file = tmp_path / "coco.json"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match=r"a regular file|is a folder|no annotations|no COCO"):
        load_dataset(tmp_path, format="coco")
    with pytest.raises(DatasetError):
        load_dataset(tmp_path)
