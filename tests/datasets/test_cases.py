"""Small data sets as people have them: each gives the value that its README tells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.check import check_dataset
from sppnet.datasets.loading import detect_format, load_dataset, read_dataset
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.training_splits import load_training_splits
from sppnet.images import list_images

CASES = Path(__file__).parent / "cases"
FILES = json.loads((CASES / "files.json").read_text("utf-8"))
TURNED = 6  # EXIF orientation of the images of voc_exif_size


def noise(path: Path, size: tuple[int, int] = (160, 120), seed: int = 0) -> None:
    """An image that looks like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *path.name.encode()])
    small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
    exif = Image.Exif()
    if "voc_exif_size" in path.parts:
        exif[0x0112] = TURNED
    small.resize(size).save(path, "JPEG", exif=exif)


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of the data set, with its images and links."""
    name: str = request.param
    shutil.copytree(CASES / name, tmp_path / name)
    for k, image in enumerate(FILES["images"].get(name, [])):
        noise(tmp_path / name / image, seed=k)
    for link, target in FILES["links"].get(name, {}).items():
        (tmp_path / name / link).symlink_to(target)
    return tmp_path / name / "data"


def boxes(data: DetectionDataset) -> dict[str, list[tuple[str, list[float]]]]:
    """Class and box of every object by the path of its image below the data set."""
    return {
        record.image_id: [
            (data.class_names[label], box) for label, box in zip(record.labels, record.boxes.tolist(), strict=True)
        ]
        for record in data
    }


def usual(record_id: str, name: str = "red") -> list[tuple[str, list[float]]]:
    """The object of image ``a7``: all cases are made so."""
    stem = record_id.rpartition("/")[2]
    k = 5 if stem == "b6" else int("".join(c for c in stem if c.isdigit()))  # the lone image of a second split
    return [(name, [20.0 + k, 30.0, 60.0 + k, 80.0])]


ONE_OBJECT = {
    # name: format, images, splits
    "coco_no_bbox_polygons": ("coco", 6, {}),
    "coco_string_ids": ("coco", 6, {}),
    "createml": ("createml", 1, {"train": 1}),
    "csv_split_uppercase": ("csv", 10, {"train": 6, "validation": 2, "test": 2}),
    "csv_train_labels": ("csv", 9, {"train": 6, "test": 3}),
    "csv_x1y1x2y2": ("csv", 6, {}),
    "cvat_images_xml": ("cvat", 1, {}),
    "labelimg_classes_in_labels_train": ("yolo", 6, {"train": 4, "val": 2}),
    "labelme_imagedata_only": ("labelme", 6, {}),
    "labelme_point_and_line": ("labelme", 6, {}),
    "labelstudio_local_files": ("coco", 6, {}),
    "makesense_csv": ("makesense", 1, {}),
    "names_case_of_extension": ("coco", 6, {}),
    "names_nfd_on_disk": ("coco", 6, {}),
    "roboflow_no_test_folder": ("yolo", 11, {"train": 8, "val": 3}),
    "supervisely": ("supervisely", 1, {}),
    "symlink_yolo_split": ("yolo", 5, {"train": 5}),
    "via_csv": ("via", 1, {}),
    "voc_annotations_xmls": ("voc", 6, {}),
    "voc_annots_images": ("voc", 6, {}),
    "voc_resized": ("voc", 3, {}),
    "xanylabeling_difficult": ("labelme", 6, {}),
    "yolo_names_file": ("yolo", 6, {}),
    "yolo_pose_keypoints": ("yolo", 7, {"train": 6, "val": 1}),
    "yolo_pose_visibility": ("yolo", 7, {"train": 6, "val": 1}),
    "yolo_train_is_val": ("yolo", None, None),
    "yolo_yaml_absolute_elsewhere": ("yolo", None, None),
    "yolo_yaml_backslash": ("yolo", None, None),
}


@pytest.mark.parametrize("case", ONE_OBJECT, indirect=True)
def test_every_image_has_its_object(case: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    format, count, splits = ONE_OBJECT[case.parent.name]
    assert detect_format(case) == format
    raw = read_dataset(case)
    data = load_dataset(case, on_error="fail")
    files = len(FILES["images"].get(case.parent.name, [])) or 6
    assert len(data) == (files if count is None else count)
    if splits is not None:
        assert {name: len(ids) for name, ids in raw.splits.items()} == splits
    for name, objects in boxes(data).items():
        if case.parent.name == "labelme_imagedata_only":  # called by the digest of the image
            continue
        expected = usual(name)
        assert [label for label, _ in objects] == ["red"], name
        np.testing.assert_allclose(objects[0][1], expected[0][1], atol=0.002)
    # The file itself may be named, too
    for file in sorted(case.iterdir()):
        if file.suffix in (".json", ".yaml", ".csv", ".xml") and format in ("coco", "yolo", "cvat", "via", "makesense"):
            assert len(load_dataset(file)) == len(data)
    # data check and training judge by one rule
    assert check_dataset(case).accepted


@pytest.mark.parametrize("case", ["coco_wrong_picture_by_name"], indirect=True)
def test_an_image_is_never_found_in_another_folder(case: Path) -> None:
    data = load_dataset(case)
    assert {record.path.relative_to(case).as_posix() for record in data} == {
        "images/camA/001.jpg", "images/camA/002.jpg",
    }  # fmt: skip
    assert len(data.problems) == 1
    assert "002.jpg: no such image" in data.problems[0]


@pytest.mark.parametrize("case", ["csv_resized", "voc_resized"], indirect=True)
def test_a_size_that_disagrees_is_reported_for_every_format(case: Path) -> None:
    report = check_dataset(case)
    sizes = [problem for problem in report.problems if problem.kind == "size disagrees"]
    assert len(sizes) == report.images
    assert all("80x60, but the image is 160x120, which is used" in problem.what for problem in sizes)
    # only the boxes of the table are those of 80x60
    stops = case.parent.name == "csv_resized"
    assert ("6 of 6 images have sides that are 2.00 times" in report.stop) == stops == (not report.accepted)


@pytest.mark.parametrize("case", ["labelimg_two_classes_txt"], indirect=True)
def test_each_folder_has_its_own_list_of_classes(case: Path) -> None:
    data = load_dataset(case, on_error="fail")
    found = {name.rpartition("/")[2]: objects[0][0] for name, objects in boxes(data).items()}
    numbers = {p.stem: int(p.read_text().split()[0]) for p in case.rglob("*.txt") if p.name != "classes.txt"}
    lists = {folder: (case / folder / "classes.txt").read_text().split() for folder in ("folder_a", "folder_b")}
    assert found == {stem: lists["folder_a" if stem.startswith("a") else "folder_b"][n] for stem, n in numbers.items()}
    assert set(found.values()) == {"red"}
    assert set(numbers.values()) == {0, 1}
    assert set(data.class_names) == {"red", "blue"}


@pytest.mark.parametrize("case", ["labelme_imagedata_only"], indirect=True)
def test_images_inside_annotations_are_used(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = load_dataset(case, on_error="fail")
    assert sorted(objects[0][1] for objects in boxes(data).values()) == [
        [20.0 + k, 30, 60 + k, 80] for k in range(len(data))
    ]
    assert all(record.path.is_relative_to(tmp_path / "cache") for record in data)
    assert not list(case.glob("*.jpg"))


@pytest.mark.parametrize("case", ["labelme_point_and_line"], indirect=True)
def test_points_and_lines_are_warnings(case: Path) -> None:
    kinds = [problem.kind for image in read_dataset(case).images.values() for problem in image.problems]
    assert kinds == ["no box"] * 12


@pytest.mark.parametrize("case", ["symlink_photos_folder"], indirect=True)
def test_a_linked_folder_of_images_is_listed(case: Path) -> None:
    assert [path.relative_to(case).as_posix() for path in list_images([case])] == ["here.jpg", "2024/there.jpg"]


@pytest.mark.parametrize("case", ["voc_two_xml_one_picture"], indirect=True)
def test_two_annotations_of_one_image_are_joined(case: Path) -> None:
    data = load_dataset(case, on_error="fail")
    assert boxes(data) == {"a": [("red", [20, 30, 60, 80]), ("red", [25, 30, 65, 80])]}
    (problem,) = [p for p in check_dataset(case).problems if p.kind == "annotated twice"]
    assert "a.jpg is annotated by a.xml and by b.xml" in problem.what


@pytest.mark.parametrize("case", ["voc_exif_size"], indirect=True)
def test_boxes_of_the_stored_image_are_refused(case: Path) -> None:
    report = check_dataset(case)
    assert not report.accepted
    assert {problem.kind for problem in report.errors} >= {"EXIF orientation"}


@pytest.mark.parametrize("case", ["xanylabeling_difficult"], indirect=True)
def test_difficult_at_the_shape_itself(case: Path) -> None:
    flags = {p.stem: json.loads(p.read_text())["shapes"][0]["difficult"] for p in case.glob("*.json")}
    data = load_dataset(case)
    assert {record.image_id: bool(record.difficult[0]) for record in data} == flags
    assert any(flags.values())


@pytest.mark.parametrize("case", ["yolo_pose_even"], indirect=True)
def test_a_pose_without_its_shape_is_recognised(case: Path) -> None:
    raw = read_dataset(case)
    data = load_dataset(case, on_error="fail")
    np.testing.assert_allclose(data[0].boxes, [[20, 30, 60, 80]], atol=0.002)
    assert raw.extras["keypoints"] == 1


@pytest.mark.parametrize("case", ["yolo_train_is_val"], indirect=True)
def test_train_that_is_val_warns(case: Path) -> None:
    raw = read_dataset(case)
    assert raw.splits["train"] == raw.splits["val"]
    assert any("training images mean little" in problem.what for problem in raw.problems)
    splits = load_training_splits(raw)
    assert splits.validation is not None
    assert any("mean" in note or "say" in note for note in splits.notes)


@pytest.mark.parametrize("case", ["csv_split_uppercase"], indirect=True)
def test_check_and_training_agree_on_splits(case: Path) -> None:
    splits = load_training_splits(read_dataset(case))
    assert (len(splits.train), len(splits.validation or ())) == (6, 2)
    assert check_dataset(case).images_by_split == {"train": 6, "validation": 2, "test": 2}


def test_every_case_is_tested() -> None:
    text = Path(__file__).read_text("utf-8")
    names = [path.name for path in CASES.iterdir() if path.is_dir()]
    assert [name for name in names if f'"{name}"' not in text] == []
    assert len(names) >= 35
