"""Which photos of a folder are trained on and measured on, however it is laid out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.datasets.folder_splits import find_folder_splits, load_folder_splits, load_folder_test
from sppnet.datasets.readable import damage_of
from sppnet.datasets.splitting import split_folder
from sppnet.errors import ArgumentError, DatasetError

NAMES = ("green", "red", "striped")


def test_split_is_stratified_and_seeded() -> None:
    labels = np.repeat([0, 1, 2], [50, 17, 3])
    paths = tuple(Path(f"photos/{label}/{i:03}.png") for i, label in enumerate(labels))
    data = ImageFolder(paths, labels, ("a", "b", "c"), "photos", problems=("one",))
    train, val = split_folder(data, seed=4)
    assert (train.counts().tolist(), val.counts().tolist()) == ([40, 14, 2], [10, 3, 1])
    assert sorted((*train.paths, *val.paths)) == sorted(paths)
    assert (train.split, val.split, train.problems, val.problems) == ("train", "val", ("one",), ())
    # neither the order of the photos nor the folder's place matters
    back = ImageFolder(tuple(Path("/else") / p for p in paths[::-1]), labels[::-1], ("a", "b", "c"))
    assert {p.name for p in split_folder(back, seed=4)[1].paths} == {p.name for p in val.paths}
    assert {p.name for p in split_folder(data, seed=5)[1].paths} != {p.name for p in val.paths}
    with pytest.raises(ArgumentError, match="shares"):
        split_folder(data, (1, 0))
    with pytest.raises(DatasetError, match="can't be divided"):
        split_folder(data.subset([0]))


def test_folders_without_parts(toy_folder: Path) -> None:
    parts = load_folder_splits(toy_folder, seed=3)
    assert find_folder_splits(toy_folder) == ()
    assert parts.validation is not None
    assert (parts.train.counts().tolist(), parts.validation.counts().tolist()) == ([10, 10, 10], [2, 2, 2])
    assert not set(parts.train.paths) & set(parts.validation.paths)
    assert parts.notes == ("no split to measure on: 6 images of 36 are kept for that (stratified, seed 3)",)
    again, note = load_folder_test(toy_folder, NAMES, drawn_from=parts.sha256, seed=3)
    assert again.paths == parts.validation.paths
    assert "only the 6 images of 36" in note
    whole, note = load_folder_test(toy_folder, NAMES, drawn_from="other", seed=3)
    assert (len(whole), note) == (36, "")
    everything = load_folder_splits(toy_folder, validation="none")
    assert (len(everything.train), everything.validation, everything.notes) == (36, None, ())


def test_parts_are_folders(toy_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for part, numbers in (("Train", range(6)), ("test", range(6, 9)), ("valid", range(9, 12))):
        for name in NAMES:
            (root / part / name).mkdir(parents=True)
            for i in numbers:
                shutil.copy(toy_folder / name / f"{i:02}.png", root / part / name)
    assert find_folder_splits(root) == ("Train", "test", "valid")
    parts = load_folder_splits(root)
    assert parts.validation is not None
    assert (len(parts.train), len(parts.validation), parts.sha256, parts.notes) == (18, 9, "", ())
    assert {p.parts[-3] for p in parts.validation.paths} == {"valid"}
    assert (parts.train.name, parts.train.split) == ("photos", "Train")
    assert {p.parts[-3] for p in load_folder_test(root, NAMES)[0].paths} == {"valid"}
    named = load_folder_splits(root, "test", "Train")
    assert named.validation is not None
    assert (len(named.train), len(named.validation)) == (9, 18)
    shutil.rmtree(root / "valid")  # photos to test on aren't looked at in training
    parts = load_folder_splits(root)
    assert parts.validation is not None
    assert (len(parts.train), len(parts.validation)) == (15, 3)
    assert {p.parts[-3] for p in parts.validation.paths} == {"Train"}
    assert {p.parts[-3] for p in load_folder_test(root, NAMES)[0].paths} == {"test"}
    shutil.rmtree(root / "test")
    again, _ = load_folder_test(root, NAMES, drawn_from=parts.sha256)
    assert again.paths == parts.validation.paths
    with pytest.raises(DatasetError, match=r"isn't a split of the images.*that are there: Train"):
        load_folder_splits(root, "test", on_error="fail")
    same = load_folder_splits(root, "Train", "Train")
    assert same.notes == ("18 images are in both splits: what is measured on them says little",)


def test_photos_of_trains_are_a_class(toy_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "vehicles"
    shutil.copytree(toy_folder / "red", root / "train")
    shutil.copytree(toy_folder / "green", root / "car")
    assert find_folder_splits(root) == ()
    assert load_folder_splits(root).train.class_names == ("car", "train")
    shutil.copytree(toy_folder, root / "test")  # folders of photos beside it, but it has photos of its own
    assert find_folder_splits(root) == ()


def test_images_to_test_on_without_classes_are_no_class(toy_folder: Path, tmp_path: Path) -> None:
    """As many competitions give them."""
    shutil.copytree(toy_folder, tmp_path / "train")
    shutil.copytree(toy_folder / "red", tmp_path / "test")
    (tmp_path / "__MACOSX").mkdir()
    assert find_folder_splits(tmp_path) == ("train",)
    assert load_folder_splits(tmp_path).train.class_names == load_folder_splits(toy_folder).train.class_names


def test_lists(toy_folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "train.txt", tmp_path / "val.txt"
    first.write_text("".join(f"{name}/{i:02}.png\n" for name in NAMES for i in range(4)))
    second.write_text("red/08.png\nred/00.png\n")
    parts = load_folder_splits(toy_folder, train_list=first, validation_list=second)
    assert parts.validation is not None
    assert parts.train.counts().tolist() == [4, 4, 4]
    assert [p.name for p in parts.validation.paths] == ["08.png", "00.png"]
    assert parts.notes == ("1 images are in both splits: what is measured on them says little",)
    drawn = load_folder_splits(toy_folder, train_list=first)
    assert drawn.validation is not None
    assert (len(drawn.train), len(drawn.validation)) == (9, 3)
    assert len(load_folder_test(toy_folder, NAMES, list_file=second)[0]) == 2
    with pytest.raises(DatasetError, match="its class 'red' is none of the 2 expected"):
        load_folder_test(toy_folder, ("green", "striped"), list_file=second, on_error="fail")


def test_damage_is_told(toy_folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "cut.png"
    photo.write_bytes((toy_folder / "red" / "00.png").read_bytes()[:3000])
    assert "cut.png: damaged" in damage_of(photo)
    assert damage_of(toy_folder / "red" / "00.png") == ""


def test_digests_tell_photos_from_others(toy_folder: Path) -> None:
    data = load_image_folder(toy_folder)
    assert data.sha256() == load_image_folder(toy_folder).sha256()
    renamed = ImageFolder(data.paths, data.labels, ("green", "red", "dotted"))
    assert len({part.sha256() for part in (data, data.subset(range(35)), renamed)}) == 3


def _folder_of_bursts(root: Path) -> Path:
    """Two classes of six scenes each; of each scene three images that differ in brightness, size or compression."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for scene in range(6):
            small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize(
                (160, 120), Image.Resampling.BICUBIC
            )
            small.save(root / name / f"{scene}a.png")
            small.resize((120, 90)).save(root / name / f"{scene}b.jpg", quality=60)
            small.point([v * 9 // 10 for v in range(256)] * 3).save(root / name / f"{scene}c.png")
    return root


@pytest.mark.parametrize("seed", range(4))
def test_images_that_look_alike_stay_together(seed: int, tmp_path: Path) -> None:
    root = _folder_of_bursts(tmp_path / "bursts")
    splits = load_folder_splits(root, seed=seed)
    assert splits.validation is not None
    train = {f"{p.parent.name}{p.name[0]}" for p in splits.train.paths}
    kept = {f"{p.parent.name}{p.name[0]}" for p in splits.validation.paths}
    assert not train & kept
    assert len(train | kept) == 12
    assert splits.validation.counts().min() >= 3
    assert splits.notes[0].endswith("images that look alike stay together: 24)")
    again, _ = load_folder_test(root, ("cat", "dog"), drawn_from=splits.sha256, seed=seed)
    assert again.paths == splits.validation.paths


def test_a_class_of_images_all_alike(tmp_path: Path) -> None:
    root = _folder_of_bursts(tmp_path / "bursts")
    for path in (root / "dog").iterdir():
        if path.name[0] != "0":
            path.unlink()
    splits = load_folder_splits(root)
    assert splits.validation is not None
    assert splits.train.counts().tolist()[1] == 3  # all to learn from, none to measure on
    for path in (root / "cat").iterdir():
        path.unlink()
        shutil.copy(root / "dog" / "0a.png", path)
    notes = load_folder_splits(root).notes
    assert "all images look alike, so the figures will be too good" in notes[0]


def test_classes_get_other_names(toy_folder: Path, tmp_path: Path) -> None:
    """Two folders may become one class; every way of naming the images keeps to it."""
    green, red, striped = NAMES
    rename = {red: "warm", green: "warm"}
    data = load_image_folder(toy_folder, rename=rename)
    assert data.class_names == (striped, "warm")
    assert data.counts().tolist() == [12, 24]
    splits = load_folder_splits(toy_folder, rename=rename, seed=1)
    assert splits.validation is not None
    assert splits.train.class_names == splits.validation.class_names == data.class_names
    again, _ = load_folder_test(toy_folder, data.class_names, rename=rename, drawn_from=splits.sha256, seed=1)
    assert again.paths == splits.validation.paths
    assert again.labels.tolist() == splits.validation.labels.tolist()
    for path, label in again:
        assert data.class_names[label] == rename.get(path.parent.name, path.parent.name)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{green}/00.png\n{striped}/01.png\n")
    listed_data, _ = load_folder_test(toy_folder, data.class_names, list_file=listed, rename=rename)
    assert listed_data.labels.tolist() == [1, 0]
    # a class that only one of the splits has
    root = tmp_path / "parts"
    shutil.copytree(toy_folder, root / "train")
    shutil.copytree(toy_folder, root / "val")
    shutil.rmtree(root / "val" / green)
    parts = load_folder_splits(root, rename=rename)
    assert parts.validation is not None
    assert (parts.train.counts().tolist(), parts.validation.counts().tolist()) == ([12, 24], [12, 12])
    for wrong, message in (
        ({"gren": "x"}, f"no class 'gren' to rename; did you mean '{green}'"),
        ({red: " "}, "is empty"),
    ):
        for load in (load_image_folder, load_folder_splits):
            with pytest.raises(DatasetError, match=message):
                load(toy_folder, rename=wrong)
