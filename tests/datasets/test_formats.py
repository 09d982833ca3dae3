"""Every format: recognised, read by its convention, written, and read again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.datasets.assembling import assemble
from sppnet.datasets.loading import detect_format, load_dataset, read_dataset, split_names
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.datasets.writing import WRITTEN_FORMATS, write_dataset
from sppnet.errors import ArgumentError, DatasetError


def make_picture(path: Path, width: int = 100, height: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


def objects(data: DetectionDataset) -> dict[str, list[tuple[str, list[float], bool]]]:
    return {
        r.image_id: [
            (data.class_names[label], box.tolist(), bool(hard))
            for box, label, hard in zip(r.boxes, r.labels, r.difficult, strict=True)
        ]
        for r in data
    }


# --- each by its convention: the same box, (10, 20, 30, 45) ----------------------------------------------------------

BOX = [10.0, 20.0, 30.0, 45.0]


def test_coco(tmp_path: Path) -> None:
    make_picture(tmp_path / "train2017" / "a.jpg")
    document = {
        "images": [{"id": 900, "file_name": "a.jpg", "width": 100, "height": 50}],
        "annotations": [
            {"id": 5, "image_id": 900, "category_id": 44, "bbox": [10, 20, 20, 25], "iscrowd": 0},
            {"id": 6, "image_id": 900, "category_id": 2, "bbox": [0, 0, 100.5, 50], "iscrowd": 1},
        ],
        "categories": [{"id": 44, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(document))
    data = load_dataset(tmp_path, "train")
    assert detect_format(tmp_path) == "coco"
    assert data.class_names == ("cat", "dog")  # in the order of ids, gaps or not
    assert objects(data) == {"a": [("dog", BOX, False), ("cat", [0, 0, 100, 50], True)]}
    assert objects(load_dataset(file)) == objects(data)


def test_yolo(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        make_picture(tmp_path / split / "images" / f"{split}.jpg")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / f"{split}.txt").write_text("1 0.2 0.65 0.2 0.5\n0 .1 .4 .3 .4 .3 .9 .1 .9\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['no', dog]\n")
    data = load_dataset(tmp_path, "train")
    assert data.class_names == ("no", "dog")  # YAML's "no" is a name here
    found = objects(data)["train"]
    assert [name for name, _, _ in found] == ["dog", "no"]
    for _, box, _ in found:
        assert box == pytest.approx(BOX, abs=1e-4)
    assert list(objects(load_dataset(tmp_path / "data.yaml", "valid"))) == ["valid"]
    # without data.yaml, and without labels for one picture
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("no\ndog\n")
    make_picture(tmp_path / "train" / "images" / "b.jpg")
    again = load_dataset(tmp_path, "train")
    assert again.class_names == ("no", "dog")
    assert objects(again)["b"] == []


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(tmp_path: Path, separator: str) -> None:
    make_picture(tmp_path / "sub" / "a.jpg")
    make_picture(tmp_path / "b.jpg")
    lines = ["x1,image,y0,x0,y1,label", "30,sub/a.jpg,20,10,45,dog", ",b.jpg,,,,", "40,sub\\a.jpg,1,2,9.5,cat"]
    (tmp_path / "t.csv").write_text("\ufeff" + "\r\n".join(lines).replace(",", separator))
    data = load_dataset(tmp_path, on_error="fail")
    assert detect_format(tmp_path) == detect_format(tmp_path / "t.csv") == "csv"
    assert objects(data) == {"a": [("dog", BOX, False), ("cat", [2, 1, 40, 9.5], False)], "b": []}


@pytest.mark.parametrize("first", ["sep=;", "SEP=;\r", '"sep=;"'])
def test_excel_names_the_separator_in_a_line_of_its_own(first: str, tmp_path: Path) -> None:
    make_picture(tmp_path / "a.jpg")
    rows = ["image;x0;y0;x1;y1;label", "a.jpg;10;20;30;45;dog", "a.jpg;1;2;3;;cat"]
    (tmp_path / "t.csv").write_text("\n".join([first, *rows]) + "\n")
    data = load_dataset(tmp_path)
    assert objects(data) == {"a": [("dog", BOX, False)]}
    assert "line 4 has y1 ''" in data.problems[0]


@pytest.mark.parametrize(
    ("more", "size"), [("", None), (";image_width;image_height", (100, 50)), (";img_width;img_height", (100, 50))]
)
def test_the_size_of_a_box_is_not_that_of_its_image(more: str, size: tuple[int, int] | None, tmp_path: Path) -> None:
    make_picture(tmp_path / "a.jpg")
    (tmp_path / "t.csv").write_text(
        f"image;x;y;width;height;label{more}\na.jpg;10;20;20;25;dog{';100;50' * bool(more)}\n"
    )
    raw = read_dataset(tmp_path)
    assert raw.images["a"].size == size
    assert objects(load_dataset(tmp_path, on_error="fail")) == {"a": [("dog", BOX, False)]}


def test_labelme(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.jpg")
    shapes = [
        {"label": "dog", "points": [[30, 20], [10, 45]], "shape_type": "rectangle", "flags": {"difficult": True}},
        {"label": "cat", "points": [[50, 25], [50, 30]], "shape_type": "circle"},
        {"label": "cat", "points": [[1, 2], [5, 9], [3, 12]], "shape_type": "polygon"},
    ]
    text = json.dumps({"imagePath": "..\\photos\\a.jpg", "imageWidth": 100, "imageHeight": 50, "shapes": shapes})
    (tmp_path / "a.json").write_text(text)
    data = load_dataset(tmp_path)
    found = [("dog", BOX, True), ("cat", [45, 20, 55, 30], False), ("cat", [1, 2, 5, 12], False)]
    assert objects(data) == {"a": found}


def test_voc_beside_pictures(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.jpg")
    corners = "<xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>45</ymax>"
    (tmp_path / "a.xml").write_text(
        f"<annotation><object><name>dog</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    assert objects(load_dataset(tmp_path)) == {"a": [("dog", BOX, False)]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "a.xml").rename(tmp_path / "annotations" / "a.xml")
    (tmp_path / "a.jpg").rename(tmp_path / "images" / "a.jpg")
    assert detect_format(tmp_path) == "voc"
    assert objects(load_dataset(tmp_path)) == {"a": [("dog", BOX, False)]}


VOC_XML = (
    "<annotation>{}<object><name>dog</name><bndbox>"
    "<xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>45</ymax></bndbox></object></annotation>"
)


def test_voc_in_folders_below(tmp_path: Path) -> None:
    """XML beside pictures in folders, as Roboflow exports it: train, valid and test are splits."""
    for folder, name in (("train", "a"), ("train/day 2", "a"), ("valid", "b"), ("test", "c")):
        make_picture(tmp_path / folder / f"{name}.jpg")
        (tmp_path / folder / f"{name}.xml").write_text(VOC_XML.format(""))
    for other in ("pom.xml", "._a.xml"):  # of something else
        (tmp_path / "train" / other).write_text("<project/>")
    assert detect_format(tmp_path) == "voc"
    raw = read_dataset(tmp_path)
    assert raw.splits == {"test": ("test/c",), "train": ("train/a", "train/day 2/a"), "valid": ("valid/b",)}
    assert len(load_dataset(tmp_path)) == 4
    data = load_dataset(tmp_path, "val")
    assert objects(data) == {"valid/b": [("dog", BOX, False)]}
    assert data[0].path == tmp_path / "valid" / "b.jpg"


@pytest.mark.parametrize("names", [("Annotations", "JPEGImages"), ("annotations", "images")])
@pytest.mark.parametrize("split_first", [True, False])
def test_voc_with_a_folder_for_each_split(tmp_path: Path, names: tuple[str, str], split_first: bool) -> None:
    for split in ("train", "val"):
        annotations, pictures = (Path(split, n) if split_first else Path(n, split) for n in names)
        make_picture(tmp_path / pictures / "x.jpg")
        make_picture(tmp_path / pictures / f"{split}-2.jpg")
        (tmp_path / annotations).mkdir(parents=True)
        (tmp_path / annotations / "x.xml").write_text(VOC_XML.format(""))
        # named otherwise than its picture
        (tmp_path / annotations / "y.xml").write_text(VOC_XML.format(f"<filename>{split}-2.jpg</filename>"))
    assert detect_format(tmp_path) == "voc"
    data = load_dataset(tmp_path)
    assert [r.image_id for r in data] == ["train/x", "train/y", "val/x", "val/y"]
    assert [r.path.stem for r in data] == ["x", "train-2", "x", "val-2"]
    assert list(objects(load_dataset(tmp_path, "val")).values()) == [[("dog", BOX, False)]] * 2
    assert load_dataset(tmp_path).name == tmp_path.name


def test_yolo_beside_pictures(tmp_path: Path) -> None:
    """As labelImg leaves it; and CVAT's YOLO 1.1, with folders of its own names."""
    for folder, names in (("mine", "classes.txt"), ("cvat", "obj.names")):
        for part in ("obj_train_data", "obj_valid_data") if folder == "cvat" else (".",):
            make_picture(tmp_path / folder / part / "a.jpg")
            (tmp_path / folder / part / "a.txt").write_text("1 0.2 0.65 0.2 0.5\n")
            make_picture(tmp_path / folder / part / "b.jpg")  # not labelled
        (tmp_path / folder / names).write_text("no\ndog\n")
        assert detect_format(tmp_path / folder) == "yolo"
    (mine, mine_b) = load_dataset(tmp_path / "mine")
    assert mine.boxes == pytest.approx(np.array([BOX]), abs=1e-4)
    assert len(mine_b) == 0
    raw = read_dataset(tmp_path / "cvat")
    assert raw.class_names == ("no", "dog")
    assert {name: len(ids) for name, ids in raw.splits.items()} == {"train": 2, "valid": 2}


def test_csv_in_folders_of_splits(tmp_path: Path) -> None:
    """As Roboflow exports it."""
    for split in ("train", "valid"):
        make_picture(tmp_path / split / f"{split}.jpg")
        (tmp_path / split / "_annotations.csv").write_text(
            f"filename,width,height,class,xmin,ymin,xmax,ymax\n{split}.jpg,100,50,dog,10,20,30,45\n"
        )
    assert detect_format(tmp_path) == "csv"
    assert objects(load_dataset(tmp_path, "val")) == {"valid": [("dog", BOX, False)]}
    assert len(load_dataset(tmp_path)) == 2


def test_what_to_do_about_nothing_known(tmp_path: Path) -> None:
    make_picture(tmp_path / "set" / "a.jpg")
    with pytest.raises(DatasetError, match=r"(?s)1 image, but no annotations.*no boxes yet.*sppnet studio "):
        detect_format(tmp_path / "set")
    (tmp_path / "set" / "t.csv").write_text("a.jpg,10,10,50,50\n")
    with pytest.raises(DatasetError, match=r"first line of t.csv is 'a.jpg,10,10,50,50' and names no columns"):
        detect_format(tmp_path / "set")
    (tmp_path / "set.zip").touch()
    with pytest.raises(DatasetError, match="is an archive; unpack it"):
        detect_format(tmp_path / "set.zip")


# --- writing and reading again ---------------------------------------------------------------------------------------

coordinate = st.floats(0, 1, width=32)
boxes = st.lists(
    st.tuples(coordinate, coordinate, coordinate, coordinate, st.integers(0, 2), st.booleans()), max_size=4
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("pictures")
    return [
        make_picture(home / f"p{i}.jpg", w, h) for i, (w, h) in enumerate([(100, 50), (641, 479), (1, 1), (13, 900)])
    ]


def dataset_of(pictures: list[Path], drawn: list[list[tuple[Any, ...]]]) -> DetectionDataset:
    records = []
    for path, items in zip(pictures, drawn, strict=False):
        width, height = Image.open(path).size
        kept = []
        for a, b, c, d, label, hard in items:
            x0, x1 = sorted((np.float32(a * width), np.float32(c * width)))
            y0, y1 = sorted((np.float32(b * height), np.float32(d * height)))
            if x1 - x0 > 1.01 and y1 - y0 > 1.01:  # thinner ones VOC can't hold
                kept.append(((x0, y0, min(x1, width), min(y1, height)), label, hard))
        records.append(
            ImageRecord(
                path,
                np.array([k[0] for k in kept], np.float32).reshape(-1, 4),
                np.array([k[1] for k in kept], np.int64),
                np.array([k[2] for k in kept], bool),
                width,
                height,
                path.stem,
            )
        )
    return DetectionDataset(records, ("zebra", "a cat & dog", "no"), "drawn")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(boxes, min_size=4, max_size=4))
@pytest.mark.parametrize("format", WRITTEN_FORMATS)
def test_what_is_written_is_read_again(
    format: str, drawn: list[list[tuple[Any, ...]]], pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = dataset_of(pictures, drawn)
    target = tmp_path_factory.mktemp("out") / "set"
    splits = {"train": ["p0", "p2"], "val": ["p1", "p3"]}
    losses = write_dataset(data, target, format, splits=splits, placement="symlink")
    raw = read_dataset(target)
    assert raw.format == format
    again = assemble(raw, None)
    assert {name: sorted(ids) for name, ids in raw.splits.items()} == splits
    before, after = objects(data), objects(again)
    assert before.keys() == after.keys()
    for image_id, found in before.items():
        assert [name for name, _, _ in found] == [name for name, _, _ in after[image_id]]
        for (_, box, hard), (_, box_again, hard_again) in zip(found, after[image_id], strict=True):
            assert box_again == pytest.approx(box, abs=1e-3)
            assert hard == hard_again or format in ("yolo", "cvat")
    if any(hard for found in before.values() for _, _, hard in found) and format in ("yolo", "cvat"):
        assert any("difficult" in loss for loss in losses)
    if raw.declared:
        assert again.class_names == data.class_names
    shutil.rmtree(target.parent)


def test_names_of_files_stay_apart_and_inside(pictures: list[Path], tmp_path: Path) -> None:
    ids = ["../../evil", "a/b", "a_b", "A_b"]
    drawn = dataset_of(pictures, [[]] * 4)
    data = replace(drawn, records=[replace(r, image_id=i) for r, i in zip(drawn, ids, strict=True)])
    for format in WRITTEN_FORMATS:
        write_dataset(data, tmp_path / format, format)
        assert len(load_dataset(tmp_path / format, format=format)) == 4
    assert {p.name for p in tmp_path.iterdir()} == set(WRITTEN_FORMATS)


def test_new_names_of_images_are_told(pictures: list[Path], tmp_path: Path) -> None:
    drawn = dataset_of(pictures, [[]] * 3)
    ids = ['o\'brien "x"', "a/b", "B"]
    data = replace(drawn, records=[replace(r, image_id=i) for r, i in zip(drawn, ids, strict=True)])
    (loss,) = [loss for loss in write_dataset(data, tmp_path / "out", "coco") if "names" in loss]
    suffix = pictures[0].suffix
    told = f"{ids[0]!r} is {f'o{chr(39)}brien _x_{suffix}'!r} now"
    assert loss == f"names that not every system can hold, of 1 images: {told}"


def test_writing_refuses_and_leaves_nothing_behind(pictures: list[Path], tmp_path: Path) -> None:
    data = dataset_of(pictures, [[]] * 4)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ArgumentError, match="isn't an empty folder"):
        write_dataset(data, tmp_path / "full", "voc")
    with pytest.raises(ArgumentError, match="format: got 'vok'"):
        write_dataset(data, tmp_path / "new", "vok")
    gone = replace(data, records=[replace(data[0], path=tmp_path / "gone.jpg"), *data.records[1:]])
    with pytest.raises(OSError):
        write_dataset(gone, tmp_path / "new", "coco")
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_names_of_splits(tmp_path: Path, pictures: list[Path]) -> None:
    data = dataset_of(pictures, [[]] * 4)
    lists = {"trainval": ["p0", "p1"], "train": ["p0"], "val": ["p1"], "test": ["p2", "p3"]}
    write_dataset(data, tmp_path / "voc", "voc", splits=lists)
    raw = read_dataset(tmp_path / "voc")
    assert split_names(raw) == ["train", "val", "test"]
    assert len(load_dataset(tmp_path / "voc", "validation")) == 1
    with pytest.raises(DatasetError, match="no split 'tset'; did you mean 'test'"):
        load_dataset(tmp_path / "voc", "tset", on_error="fail")
    with pytest.raises(DatasetError, match="did you mean 'yolo'"):
        load_dataset(tmp_path, format="yolov5", on_error="fail")


@pytest.mark.parametrize("format", WRITTEN_FORMATS)
def test_ids_of_splits(format: str, pictures: list[Path], tmp_path: Path) -> None:
    data = dataset_of(pictures, [[]] * 4)
    unknown = {"train": ["p0", "nope", *(f"x{i}" for i in range(6))], "val": ["p1"]}
    with pytest.raises(
        DatasetError, match=r"split train: 7 of its 8 ids belong to no image .*\('nope', 'x0', .*\.\.\."
    ):
        write_dataset(data, tmp_path / "out", format, splits=unknown)
    assert not (tmp_path / "out").exists()
    losses = write_dataset(data, tmp_path / "out", format, splits={"train": ["p0", "p0"], "val": ["p1"]})
    assert sum("2 images are in no split" in loss for loss in losses) == 1
    if format == "voc":
        assert (tmp_path / "out" / "ImageSets" / "Main" / "train.txt").read_text() == "p0\n"
        assert len(list((tmp_path / "out" / "Annotations").iterdir())) == 4


@pytest.mark.parametrize(
    "wrong", ["Person sitting 0.00 0 -1.57 1 2 20 18 1 1 1 1 1 1 1", "cat 0 0 0 1 2 20 x 1 1 1 1 1 1 1"]
)
def test_a_class_of_two_words_moves_no_field_of_kitti(wrong: str, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text(f"cat 0.00 0 -1.57 1 2 20 18 1 1 1 1 1 1 1\n{wrong}\n")
    data = load_dataset(tmp_path, format="kitti")
    assert [box.tolist() for box in data[0].boxes] == [[1, 2, 20, 18]]
    assert any("expected a class in one word" in problem for problem in data.problems)


@pytest.mark.parametrize("format", ["yolo", "keras-yolo"])
def test_a_blank_line_between_classes_is_refused(format: str, tmp_path: Path) -> None:
    """Whether it counts as a class differs between programs."""
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    name, line = ("a.txt", "1 .5 .5 .2 .2") if format == "yolo" else ("list.txt", "a.png 1,2,9,9,1")
    (tmp_path / name).write_text(line)
    with pytest.raises(DatasetError, match=r"classes\.txt: line 2 is blank"):
        load_dataset(tmp_path, format=format)
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n \n")
    assert load_dataset(tmp_path, format=format)[0].labels.tolist() == [1]
