"""Annotations that look like others: what they mean is found out, or refused; nothing is taken for something else."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.duplicates import duplicate_groups
from sppnet.datasets.folder_splits import load_folder_splits
from sppnet.datasets.loading import load_dataset, read_dataset
from sppnet.datasets.locating import ImageIndex
from sppnet.drawing import encode_image
from sppnet.errors import ArgumentError, DatasetError
from sppnet.images import load_image


def photo(path: Path, width: int = 100, height: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)


def test_frames_that_are_all_alike_take_little_memory() -> None:
    hashes = np.tile(np.array([1, 2, 3, 4], np.uint64), (3000, 1))
    hashes[::3] = np.array([2**63, 7, 9, 2**40], np.uint64) * np.uint64(3)  # others, which are alike as well
    tracemalloc.start()
    groups = duplicate_groups(hashes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(groups[::3]) == {0}
    assert set(groups[1::3]) == set(groups[2::3]) == {1}
    assert peak < 200e6  # as pairs: 3.7 million tuples


@pytest.mark.parametrize("closed", [False, True])
def test_four_corners_are_an_outline(closed: bool, tmp_path: Path) -> None:
    """Not a box and keypoints in it, though the corners may lie so."""
    x0, y0, x1, y1 = 0.40, 0.42, 0.60, 0.58
    corners = [x0, y0, x1, y0, x1, y1, x0, y1, *([x0, y0] if closed else [])]
    for k in range(4):
        photo(tmp_path / "images" / f"{k}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{k}.txt").write_text(f"0 {' '.join(map(str, corners))}\n")
    for record in load_dataset(tmp_path, format="yolo"):
        np.testing.assert_allclose(record.boxes, [[40, 42, 60, 58]], atol=0.01)


def test_labels_of_one_image_are_not_those_of_another(tmp_path: Path) -> None:
    for camera in ("camA", "camB"):
        photo(tmp_path / camera / "img" / "001.png")
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    (tmp_path / "camA" / "txt").mkdir()
    (tmp_path / "camA" / "txt" / "001.txt").write_text("0 0.5 0.5 0.2 0.2\n")

    def objects() -> dict[str, int]:
        found = load_dataset(tmp_path, format="yolo", on_error="skip")
        return {record.path.parent.parent.name: len(record) for record in found}

    assert objects() == {"camA": 1, "camB": 0}
    (tmp_path / "camB" / "txt").mkdir()
    (tmp_path / "camB" / "txt" / "001.txt").write_text("0 0.5 0.5 0.2 0.2\n0 0.2 0.2 0.2 0.2\n")
    assert objects() == {"camA": 1, "camB": 2}


def test_a_label_file_of_two_copies_of_an_image(tmp_path: Path) -> None:
    """Neither copy is nearer to it, so it is about both."""
    for folder in ("img", "small"):
        photo(tmp_path / folder / "001.png")
    (tmp_path / "txt").mkdir()
    (tmp_path / "txt" / "001.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    data = read_dataset(tmp_path, "yolo")
    assert [len(image.objects) for image in data.images.values()] == [1, 1]
    assert [problem.kind for problem in data.problems] == ["shared label file"]


def test_an_empty_image_beside_one_of_its_name_in_capitals(tmp_path: Path) -> None:
    for name in ("IMG", "img"):
        photo(tmp_path / "images" / f"{name}.png")
    if len(list((tmp_path / "images").iterdir())) < 2:
        pytest.skip("this system doesn't tell capitals")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "IMG.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    found = {record.path.stem: len(record) for record in load_dataset(tmp_path, format="yolo")}
    assert found == {"IMG": 1, "img": 0}


def test_poses_of_two_points(tmp_path: Path) -> None:
    """As many numbers as four corners have; a box may stick out of the image."""
    rows = [(0.5, 0.5, 0.2, 0.2, 0.45, 0.45, 0.55, 0.5), (0.3, 0.6, 0.2, 0.4, 0.25, 0.7, 0.35, 0.5),
            (0.6, 0.4, 0.3, 0.2, 0.5, 0.4, 0.7, 0.35), (0.5, 0.5, 0.3, 0.2, 0.4, 0.5, 0.6, 0.55),
            (0.05, 0.5, 0.2, 0.2, 0.0, 0.55, 0.1, 0.45)]  # fmt: skip
    for k, row in enumerate(rows):
        photo(tmp_path / "images" / f"{k}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{k}.txt").write_text(f"0 {' '.join(map(str, row))}\n")
    first = load_dataset(tmp_path, format="yolo", on_error="skip")[0]
    np.testing.assert_allclose(first.boxes, [[40, 40, 60, 60]], atol=0.01)


def test_names_that_differ_in_capitals(tmp_path: Path) -> None:
    for name, centre in (("IMG", 0.3), ("img", 0.7)):
        photo(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text(f"0 {centre} 0.5 0.2 0.2\n")
    if len(list((tmp_path / "images").iterdir())) < 2:
        pytest.skip("this system doesn't tell capitals")
    found = {record.path.stem: record.boxes[0, 0] for record in load_dataset(tmp_path, format="yolo")}
    assert found == {"IMG": pytest.approx(20), "img": pytest.approx(60)}


def test_an_image_may_be_called_like_a_comment(tmp_path: Path) -> None:
    photo(tmp_path / "#1.png")
    photo(tmp_path / "2.png")
    rows = ["image,x0,y0,x1,y1,label", "# made by hand", "#1.png,10,10,50,50,cat", "2.png,1,1,9,9,cat", "#",
            "# 2.png,1,1,9,9,dog", "#3.png,1,1,9,9,dog"]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert [(record.path.name, len(record)) for record in load_dataset(tmp_path)] == [("#1.png", 1), ("2.png", 1)]


def test_rows_that_begin_with_a_number_sign(tmp_path: Path) -> None:
    """A class or a number of a box may begin so, and images may lie in a split, or have another extension."""
    photo(tmp_path / "images" / "train" / "#1.png")
    photo(tmp_path / "images" / "train" / "2.png")
    for text in (
        "image,x0,y0,x1,y1,label,split\n#1.jpg,10,10,50,50,cat,train\n2.png,1,1,9,9,cat,train\n",
        "label,image,x0,y0,x1,y1,split\n#9 bolt,#1.png,10,10,50,50,train\n# a comment\nnut,2.png,1,1,9,9,train\n",
    ):
        (tmp_path / "labels.csv").write_text(text)
        assert [len(record) for record in load_dataset(tmp_path, "train")] == [1, 1]


def test_tracks_of_several_tasks_are_refused(tmp_path: Path) -> None:
    photo(tmp_path / "frame_000000.png")
    box = '<box frame="0" outside="0" occluded="0" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    track = '<track id="{0}" label="cat" task_id="{0}">' + box + "</track>"
    for tasks in ((1, 1), (1, 2)):
        tracks = "".join(track.format(task) for task in tasks)
        (tmp_path / "annotations.xml").write_text(f"<annotations><version>1.1</version>{tracks}</annotations>")
        if tasks == (1, 1):
            assert len(load_dataset(tmp_path)[0]) == 2
        else:
            with pytest.raises(DatasetError, match="holds tracks of several tasks"):
                read_dataset(tmp_path)


@pytest.mark.parametrize(("suffix", "side"), [(".jpg", 65_501), (".webp", 16_384)])
def test_a_drawing_that_its_format_can_t_hold(suffix: str, side: int) -> None:
    with pytest.raises(ArgumentError, match=r"a side; use \.png, or draw less at once"):
        encode_image(Image.new("L", (1, side)), suffix)
    assert encode_image(Image.new("L", (1, side - 1)), suffix)


def test_the_image_of_another_split_is_not_taken_for_one_that_is_missing(tmp_path: Path) -> None:
    """As where splits are numbered alike: boxes would be drawn on another image, and both splits would hold it."""
    for split, names in (("train", ("1.png", "2.png", "3.png")), ("valid", ("1.png",))):
        for name in names:
            photo(tmp_path / split / name)
        annotated = ("1.png", "2.png")
        document = {
            "images": [
                {"id": k, "file_name": name, "width": 100, "height": 100} for k, name in enumerate(annotated)
            ],
            "annotations": [
                {"id": k, "image_id": k, "category_id": 0, "bbox": [10, 10, 20 + k, 20]} for k in range(2)
            ],
            "categories": [{"id": 0, "name": "cat"}],
        }  # fmt: skip
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(document))
    valid = load_dataset(tmp_path, "val", on_error="skip")
    assert [record.path.relative_to(tmp_path).as_posix() for record in valid] == ["valid/1.png"]
    assert any("the other images of this annotation lie elsewhere" in problem for problem in valid.problems)
    train = load_dataset(tmp_path, "train", on_error="skip")
    assert [len(record) for record in train] == [1, 1]


def coco(names: list[str]) -> str:
    return json.dumps({
        "images": [{"id": k, "file_name": name, "width": 100, "height": 100} for k, name in enumerate(names)],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 0, "bbox": [10, 10, 20, 20]} for k in range(len(names))
        ],
        "categories": [{"id": 0, "name": "cat"}],
    })  # fmt: skip


def found_in(root: Path, **options: Any) -> list[str]:
    data = load_dataset(root, on_error="skip", **options)
    return [record.path.relative_to(root).as_posix() for record in data if len(record)]


def test_images_of_one_annotation_in_several_folders(tmp_path: Path) -> None:
    """They are found, as long as the folders aren't numbered alike."""
    for name in ("images/a1", "images/a2", "images/night/b1", "images/night/b2"):
        photo(tmp_path / f"{name}.png")
    (tmp_path / "annotations.json").write_text(coco(["a1.png", "a2.png", "b1.png", "b2.png"]))
    assert found_in(tmp_path) == [f"images/{name}.png" for name in ("a1", "a2", "night/b1", "night/b2")]
    different(
        tmp_path / "images" / "night" / "a1.png", 1
    )  # so is a1 of the night another one, and perhaps b1 of the day
    assert found_in(tmp_path) == ["images/a1.png", "images/a2.png"]


def test_voc_images_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    for place, name in (("", "a1"), ("", "a2"), ("night", "b1")):
        photo(tmp_path / "JPEGImages" / place / f"{name}.png")
        box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><object><name>cat</name>{box}</object></annotation>"
        )
    assert found_in(tmp_path) == ["JPEGImages/a1.png", "JPEGImages/a2.png", "JPEGImages/night/b1.png"]


def test_names_of_another_machine_keep_their_folders(tmp_path: Path) -> None:
    """One whose folder is missing isn't found in another that is numbered alike."""
    for name in ("camA/1", "camA/2", "camB/1", "camB/3"):
        photo(tmp_path / "images" / f"{name}.png")
    names = [f"D:\\work\\{name}.png" for name in ("camA\\1", "camA\\2", "camC\\3")]
    (tmp_path / "annotations.json").write_text(coco(names))
    assert found_in(tmp_path) == ["images/camA/1.png", "images/camA/2.png"]


def test_images_at_several_depths(tmp_path: Path) -> None:
    """As CVAT exports them, and with names of another machine: all of them fit."""
    names = ["1", "2", "night/1", "night/2"]
    for name in names:
        photo(tmp_path / "yolo" / "obj_train_data" / f"{name}.png")
        (tmp_path / "yolo" / "obj_train_data" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        photo(tmp_path / "coco" / "images" / f"{name}.png")
    (tmp_path / "yolo" / "obj.names").write_text("cat\n")
    (tmp_path / "yolo" / "obj.data").write_text("classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n")
    lines = [f"data/obj_train_data/{name}.png\n" for name in names]
    (tmp_path / "yolo" / "train.txt").write_text("".join(lines))
    assert len(found_in(tmp_path / "yolo")) == 4
    for pattern in ("{}.jpg", "D:/helmets/images/{}.jpg", "/content/images/{}.png"):
        (tmp_path / "coco" / "annotations.json").write_text(coco([pattern.format(name) for name in names]))
        assert len(found_in(tmp_path / "coco")) == 4, pattern


def labelme(path: Path, image: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"label": "cat", "points": [[10, 10], [50, 50]], "shape_type": "rectangle"}
    document = {"version": "5", "imagePath": image, "imageData": None, "shapes": [shape]}
    path.write_text(json.dumps(document | {"imageWidth": 100, "imageHeight": 100}))


def test_an_image_that_was_deleted_is_not_that_of_another_camera(tmp_path: Path) -> None:
    for name in ("camA/1", "camA/3", "camB/2"):
        photo(tmp_path / "set" / f"{name}.png")
    for name in ("camA/1", "camA/2", "camA/3", "camB/1", "camB/2"):
        labelme(tmp_path / "set" / f"{name}.json", f"{name[5:]}.png")
    data = load_dataset(tmp_path / "set", format="labelme", on_error="skip")
    assert [record.path.relative_to(tmp_path / "set").as_posix() for record in data] == [
        "camA/1.png", "camA/3.png", "camB/2.png",
    ]  # fmt: skip
    assert [len(record) for record in data] == [1, 1, 1]
    assert len(data.problems) == 2
    # annotations in folders of their own, called like those of the images
    for name in ("camA/1", "camA/2", "camB/2"):
        photo(tmp_path / "apart" / "pics" / f"{name}.png")
    for name in ("camA/1", "camA/2", "camB/1", "camB/2"):
        labelme(tmp_path / "apart" / "json" / f"{name}.json", f"{name[5:]}.png")
    data = load_dataset(tmp_path / "apart", format="labelme", on_error="skip")
    assert [len(record) for record in data] == [1, 1, 1]


def test_labels_of_the_split_in_whose_name_they_are(tmp_path: Path) -> None:
    """An image without objects needs no file, and gets none of the other split."""
    for split, numbers in (("train", (1, 2)), ("val", (1, 3))):
        for k in (1, 2, 3):
            photo(tmp_path / f"{split}_images" / f"{k}.png")
        (tmp_path / f"{split}_labels").mkdir()
        for k in numbers:
            (tmp_path / f"{split}_labels" / f"{k}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: train_images\nval: val_images\nnames: [cat]\n")
    assert found_in(tmp_path, format="yolo", split="val") == ["val_images/1.png", "val_images/3.png"]
    assert found_in(tmp_path, format="yolo", split="train") == ["train_images/1.png", "train_images/2.png"]


def test_trapezoids_are_outlines(tmp_path: Path) -> None:
    """Near the middle of the image, where each would also do as a box with two points in it."""
    rng = np.random.default_rng(0)
    for k in range(20):
        photo(tmp_path / "images" / f"{k}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        corners = np.array([[0.4, 0.58], [0.6, 0.58], [0.62, 0.7], [0.38, 0.7]]) + rng.uniform(-0.02, 0.02, 2)
        (tmp_path / "labels" / f"{k}.txt").write_text("0 " + " ".join(f"{v:.4f}" for v in corners.ravel()) + "\n")
    for record in load_dataset(tmp_path, format="yolo"):
        np.testing.assert_allclose(record.boxes[0, 2:] - record.boxes[0, :2], (24, 12), atol=0.1)


def test_two_folders_of_annotations_of_the_same_images(tmp_path: Path) -> None:
    photo(tmp_path / "pictures" / "a" / "1.png")
    for folder in ("first", "second"):
        labelme(tmp_path / folder / "1.json", "1.png")
    assert len(found_in(tmp_path, format="labelme")) == 1


def test_a_split_whose_images_are_gone_is_not_guessed_into_another(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for name in ("1.png", "2.png"):
            if split == "train":
                photo(tmp_path / "coco" / split / name)
                photo(tmp_path / "csv" / "data" / name)
        (tmp_path / "coco" / split).mkdir(exist_ok=True)
        (tmp_path / "coco" / split / "_annotations.coco.json").write_text(coco(["1.png", "2.png"]))
    assert found_in(tmp_path / "coco") == ["train/1.png", "train/2.png"]
    assert len(read_dataset(tmp_path / "coco").problems) == 0
    assert sum(not image.found for image in read_dataset(tmp_path / "coco").images.values()) == 2
    for split, folder in (("train", "data/"), ("test", "gone/")):
        rows = "".join(f"{folder}{k}.png,10,10,50,50,cat\n" for k in (1, 2))
        (tmp_path / "csv" / f"{split}.csv").write_text(f"image,x0,y0,x1,y1,label\n{rows}")
    assert found_in(tmp_path / "csv") == ["data/1.png", "data/2.png"]


def test_missing_images_of_one_name_are_counted_each(tmp_path: Path) -> None:
    for k in (1, 2, 3):
        photo(tmp_path / "images" / "camA" / f"{k}.png")
    names = [f"cam{c}/{k}.png" for c in "ABC" for k in (1, 2, 3)]
    (tmp_path / "annotations.json").write_text(coco(names))
    assert sum(not image.found for image in read_dataset(tmp_path).images.values()) == 6
    with pytest.raises(DatasetError, match="6 of 9"):
        load_dataset(tmp_path, on_error="skip", limit_bad=True)


def different(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 100), (shade, 90, 90)).save(path)


def test_numbers_of_one_annotation_in_two_folders(tmp_path: Path) -> None:
    """Names of a phone, or running numbers; a folder of which every image is asked for is no other camera's."""
    for k in range(1, 7):
        different(tmp_path / ("images" if k < 4 else "more") / f"IMG_{k}.png", k)
    (tmp_path / "annotations.json").write_text(coco([f"IMG_{k}.png" for k in range(1, 7)]))
    assert len(found_in(tmp_path)) == 6
    different(tmp_path / "more" / "IMG_7.png", 7)  # one that nobody asks for
    assert len(found_in(tmp_path)) == 3


def test_an_image_that_was_copied_beside_its_annotation(tmp_path: Path) -> None:
    for k in (1, 2, 3):
        different(tmp_path / "pics" / f"{k}.png", k)
        labelme(tmp_path / "json" / f"{k}.json", f"{k}.png")
    different(tmp_path / "json" / "1.png", 1)
    assert found_in(tmp_path, format="labelme") == ["json/1.png", "pics/2.png", "pics/3.png"]


def test_an_image_without_labels_gets_none_of_another_camera(tmp_path: Path) -> None:
    for name in ("A/img/1", "B/img/1", "B/img/2"):
        photo(tmp_path / f"{name}.png")
    for name in ("A/txt/1", "A/txt/2", "B/txt/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    assert found_in(tmp_path, format="yolo") == ["A/img/1.png", "B/img/1.png"]


def test_two_cameras_are_not_two_annotators(tmp_path: Path) -> None:
    photo(tmp_path / "B" / "pics" / "1.png")
    for camera in "AB":
        labelme(tmp_path / "json" / camera / "1.json", "1.png")
    assert [len(record) for record in load_dataset(tmp_path, format="labelme", on_error="skip")] == [1]


def test_what_is_certain_comes_before_a_guess(tmp_path: Path) -> None:
    """The image in a LabelMe file, and the one that a VOC file names."""
    different(tmp_path / "labelme" / "camB" / "1.png", 200)
    labelme(tmp_path / "labelme" / "camA" / "1.json", "1.png")
    file = tmp_path / "labelme" / "camA" / "1.json"
    buffer = io.BytesIO()
    Image.new("RGB", (100, 100), (1, 2, 3)).save(buffer, "PNG")
    document = json.loads(file.read_text()) | {"imageData": base64.b64encode(buffer.getvalue()).decode()}
    file.write_text(json.dumps(document))
    (record,) = load_dataset(tmp_path / "labelme", format="labelme")
    assert load_image(record.path)[0, 0].tolist() == [1, 2, 3]
    photo(tmp_path / "voc" / "JPEGImages" / "photo_1.png")
    photo(tmp_path / "voc" / "docs" / "1.png")
    (tmp_path / "voc" / "Annotations").mkdir()
    box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
    (tmp_path / "voc" / "Annotations" / "1.xml").write_text(
        f"<annotation><filename>photo_1.png</filename><object><name>cat</name>{box}</object></annotation>"
    )
    assert found_in(tmp_path / "voc") == ["JPEGImages/photo_1.png"]


def test_a_row_that_was_taken_out(tmp_path: Path) -> None:
    """It costs the others nothing, though its image is there."""
    for k in (1, 2, 3):
        photo(tmp_path / "A" / f"{k}.png")
    rows = [f"data/A/{k}.png,10,10,50,50,cat" for k in (1, 2, 3)]
    (tmp_path / "t.csv").write_text("\n".join(["image,x0,y0,x1,y1,label", *rows, "#data/A/1.png,1,1,9,9,cat"]))
    assert [len(record) for record in load_dataset(tmp_path)] == [1, 1, 1]


def test_more_folders_of_one_name_than_are_compared(tmp_path: Path) -> None:
    for k in range(70):
        photo(tmp_path / f"s{k:02}" / "pics" / "1.png")
        (tmp_path / f"s{k:02}" / "txt").mkdir()
        (tmp_path / f"s{k:02}" / "txt" / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    assert len(found_in(tmp_path, format="yolo")) == 70


def test_a_root_that_is_the_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is written as a relative path."""
    photo(tmp_path / "images" / "1.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "images" / "data.yaml").write_text("train: .\nnames: [cat]\n")
    monkeypatch.chdir(tmp_path / "images")
    for root in (Path(), tmp_path / "images"):
        assert [len(record) for record in load_dataset(root, format="yolo")] == [1]


def test_folders_that_nobody_asks_for_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every name is exact."""
    photo(tmp_path / "images" / "1.png")
    (tmp_path / "annotations.json").write_text(coco(["1.png"]))
    monkeypatch.setattr(ImageIndex, "files", property(lambda self: pytest.fail("it looked")))
    assert found_in(tmp_path) == ["images/1.png"]


def test_annotations_that_are_left_alone_are_told_of(tmp_path: Path) -> None:
    """Beside a file that is called like a split, another one isn't read."""
    for name in ("a", "b"):
        photo(tmp_path / f"{name}.png")
    row = "image,x0,y0,x1,y1,label\n{}.png,10,10,50,50,cat\n"
    (tmp_path / "labels.csv").write_text(row.format("a"))
    (tmp_path / "test_labels.csv").write_text(row.format("b"))
    assert [problem.kind for problem in read_dataset(tmp_path).problems] == ["left alone"]
    for name in ("labels.csv", "test_labels.csv"):
        (tmp_path / name).unlink()
    document = {
        "images": [{"id": 0, "file_name": "a.png", "width": 100, "height": 100}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [10, 10, 20, 20]}],
        "categories": [{"id": 0, "name": "cat"}],
    }
    for name in ("annotations", "val", "captions_val"):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    (told,) = read_dataset(tmp_path).problems
    assert (told.kind, Path(told.file).name) == ("left alone", "annotations.json")


def test_a_class_that_no_model_could_hold_is_refused_before_training(tmp_path: Path) -> None:
    for name in ("x" * 201, "cat"):
        for k in range(6):
            photo(tmp_path / name / f"{k}.png", 20 + k, 30)
    with pytest.raises(DatasetError, match="rename the folder, or give the class another name"):
        load_folder_splits(tmp_path)
    assert load_folder_splits(tmp_path, rename={"x" * 201: "dog"}).train.class_names == ("cat", "dog")


def test_a_region_with_several_labels_is_an_object_of_each(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat", "wet"]}
    region = {"id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": [region]}]}
    (tmp_path / "project.json").write_text(json.dumps([task]))
    data = load_dataset(tmp_path)
    assert sorted(data.class_names[label] for label in data[0].labels) == ["cat", "wet"]
    np.testing.assert_allclose(data[0].boxes, [[10, 20, 40, 60]] * 2)
