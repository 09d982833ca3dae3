"""The layouts that tools really export: each gives the same box in the same image, and its splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layout_tools import BOX, put
from layouts_of_others import (
    csv_tensorflow,
    fiftyone_coco,
    fiftyone_cvat,
    fiftyone_json,
    fiftyone_kitti,
    fiftyone_open_images,
    fiftyone_voc,
    fiftyone_yolov4,
    fiftyone_yolov5,
    keras_yolo,
    kitti,
    kitti_tao,
    labelme2coco,
    one_folder_above,
    roboflow_yolov4,
    vott_assets,
    vott_csv,
    vott_json,
)
from layouts_of_services import (
    cvat_coco,
    cvat_images,
    cvat_shapes,
    cvat_ultralytics,
    cvat_video,
    cvat_voc,
    cvat_yolo,
    label_studio_coco,
    label_studio_coco_media,
    label_studio_json,
    label_studio_min,
    label_studio_voc,
    label_studio_yolo,
    roboflow_coco,
    roboflow_createml,
    roboflow_darknet,
    roboflow_retinanet,
    roboflow_tf_csv,
    roboflow_voc,
    roboflow_yolo,
)
from layouts_of_tools import (
    any_two_folders_mirrored,
    any_two_folders_voc,
    any_two_folders_yolo,
    coco_2017,
    coco_beside_results,
    coco_float_and_text_ids,
    coco_images_of_splits,
    coco_masks,
    coco_url,
    coco_windows_paths,
    csv_above,
    csv_absolute_elsewhere,
    csv_automl,
    csv_kaggle_list,
    csv_open_images,
    csv_semicolons_utf16,
    csv_train_and_folder,
    labelimg_voc,
    labelme_by_stem,
    labelme_elsewhere,
    oxford_pets,
    supervisely,
    ultralytics_lists,
    via_1,
    via_3_csv,
    via_project,
    voc_lists_with_extension,
    xanylabeling_rotation,
    yolo_glob,
    yolo_keypoints_in_box,
    yolo_obb,
    yolo_polygons_beside,
)
from sppnet.datasets.loading import detect_format, load_dataset, read_dataset

LAYOUTS: dict[Callable[[Path], None], tuple[str, dict[str, int]]] = {
    roboflow_yolo: ("yolo", {"train": 1, "val": 1, "test": 1}),
    roboflow_coco: ("coco", {"train": 1, "valid": 1, "test": 1}),
    roboflow_voc: ("voc", {"train": 1, "valid": 1, "test": 1}),
    roboflow_tf_csv: ("csv", {"train": 1, "valid": 1, "test": 1}),
    roboflow_retinanet: ("csv", {"train": 1, "valid": 1, "test": 1}),
    roboflow_createml: ("createml", {"train": 1, "valid": 1, "test": 1}),
    roboflow_darknet: ("yolo", {"train": 1, "valid": 1, "test": 1}),
    cvat_yolo: ("yolo", {"train": 2}),
    cvat_ultralytics: ("yolo", {"train": 1, "val": 1}),
    cvat_coco: ("coco", {}),
    cvat_voc: ("voc", {"default": 1}),
    cvat_images: ("cvat", {"train": 1, "val": 1}),
    cvat_shapes: ("cvat", {}),
    cvat_video: ("cvat", {}),
    label_studio_yolo: ("yolo", {}),
    label_studio_coco: ("coco", {}),
    label_studio_coco_media: ("coco", {}),
    label_studio_voc: ("voc", {}),
    label_studio_json: ("label-studio", {}),
    label_studio_min: ("label-studio", {}),
    labelimg_voc: ("voc", {}),
    any_two_folders_voc: ("voc", {"train": 1, "val": 1}),
    any_two_folders_mirrored: ("voc", {}),
    any_two_folders_yolo: ("yolo", {}),
    labelme_elsewhere: ("labelme", {}),
    labelme_by_stem: ("labelme", {"train": 1}),
    xanylabeling_rotation: ("labelme", {}),
    via_project: ("via", {}),
    via_1: ("via", {"train": 1, "val": 1}),
    via_3_csv: ("via", {}),
    supervisely: ("supervisely", {"train": 1, "val": 1}),
    coco_2017: ("coco", {"train": 1, "val": 1}),
    coco_images_of_splits: ("coco", {"train": 1, "val": 1}),
    coco_url: ("coco", {}),
    coco_windows_paths: ("coco", {}),
    coco_beside_results: ("coco", {}),
    coco_float_and_text_ids: ("coco", {}),
    coco_masks: ("coco", {}),
    csv_train_and_folder: ("csv", {}),
    csv_kaggle_list: ("csv", {}),
    csv_open_images: ("csv", {}),
    csv_automl: ("csv", {"train": 1, "test": 1}),
    csv_semicolons_utf16: ("csv", {}),
    csv_above: ("csv", {}),
    csv_absolute_elsewhere: ("csv", {}),
    voc_lists_with_extension: ("voc", {"train": 1, "val": 1}),
    oxford_pets: ("voc", {"trainval": 1, "test": 1}),
    ultralytics_lists: ("yolo", {"train": 1, "val": 1}),
    yolo_obb: ("yolo", {"train": 1, "val": 1}),
    yolo_polygons_beside: ("yolo", {}),
    yolo_keypoints_in_box: ("yolo", {"train": 1}),
    yolo_glob: ("yolo", {"train": 1}),
    roboflow_yolov4: ("keras-yolo", {"train": 3, "valid": 3, "test": 3}),
    keras_yolo: ("keras-yolo", {"train": 2, "val": 1}),
    kitti: ("kitti", {"training": 2}),
    kitti_tao: ("kitti", {"train": 1, "val": 1}),
    fiftyone_kitti: ("kitti", {}),
    vott_json: ("vott", {}),
    vott_assets: ("vott", {}),
    vott_csv: ("csv", {}),
    fiftyone_json: ("fiftyone", {}),
    fiftyone_yolov5: ("yolo", {"train": 1, "val": 1}),
    fiftyone_yolov4: ("yolo", {}),
    fiftyone_coco: ("coco", {}),
    fiftyone_voc: ("voc", {}),
    fiftyone_cvat: ("cvat", {}),
    fiftyone_open_images: ("csv", {}),
    csv_tensorflow: ("csv", {"train": 1, "test": 1}),
    labelme2coco: ("coco", {}),
    one_folder_above: ("coco", {"train": 1, "valid": 1, "test": 1}),
}
SOME_EMPTY = (yolo_keypoints_in_box, roboflow_yolov4, keras_yolo)
MORE_IMAGES = (oxford_pets, kitti)  # of which some have no annotation


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_layout(make: Callable[[Path], None], tmp_path: Path) -> None:
    home = tmp_path / "my data"
    home.mkdir()
    make(home)
    format, splits = LAYOUTS[make]
    assert detect_format(home) == format
    raw = read_dataset(home)
    assert {name: len(ids) for name, ids in raw.splits.items()} == splits
    data = load_dataset(home, on_error="fail")
    with_box = [record for record in data if len(record)]
    assert len(with_box) == len(data) or make in SOME_EMPTY
    images = {p for p in home.rglob("*") if p.suffix.lower() in (".jpg", ".png")}
    found = {record.path for record in data}
    assert found <= images
    assert found == images or make in MORE_IMAGES
    for record in data:
        assert {data.class_names[label] for label in record.labels} <= {"red"}
        expected = (15, 30, 65, 80) if make is via_1 else BOX
        for box in record.boxes:
            np.testing.assert_allclose(box, expected, atol=0.01)


# --- the same files as other systems and people keep them ------------------------------------------------------------


def texts(h: Path) -> list[Path]:
    kinds = (".txt", ".csv", ".json", ".xml", ".yaml", ".names", ".data", ".labels")
    found = [p for p in h.rglob("*") if p.is_file() and p.suffix.lower() in kinds]
    return [p for p in found if p.read_bytes()[:2] != b"\xff\xfe"]


def byte_order_marks(h: Path) -> None:
    for path in texts(h):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def line_ends_of_windows(h: Path) -> None:
    for path in texts(h):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def blank_lines_at_the_end(h: Path) -> None:
    for path in texts(h):
        path.write_bytes(path.read_bytes() + b"\n\n  \n")


def utf16(h: Path) -> None:
    for path in texts(h):
        text = path.read_bytes().decode().replace('encoding="utf-8"', 'encoding="utf-16"')
        path.write_bytes(text.encode("utf-16"))


def upper_case_of_images(h: Path) -> None:
    for path in list(h.rglob("*.jpg")):
        path.rename(path.with_suffix(".JPG"))


def other_extension_of_images(h: Path) -> None:
    for path in list(h.rglob("*.jpg")):
        path.rename(path.with_suffix(".jpeg"))


def upper_case_of_labels(h: Path) -> None:
    for path in texts(h):
        if path.suffix in (".txt", ".csv", ".json", ".xml") and path.parent != h:
            path.rename(path.with_suffix(path.suffix.upper()))


def files_of_the_system(h: Path) -> None:
    names = (".DS_Store", "Thumbs.db", "desktop.ini", "._a.txt", "._a.xml", "._a.json", "._a.csv", "._data.yaml")
    for folder in [h, *(p for p in h.rglob("*") if p.is_dir())]:
        for image in [p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".png")]:
            (folder / f"._{image.name}").write_bytes(b"\0\5\x16\7")
        for name in names:
            (folder / name).write_bytes(b"\0\5\x16\7")
        for name in ("__MACOSX", ".ipynb_checkpoints"):
            (folder / name).mkdir()
        (folder / "__MACOSX" / "._a.jpg").write_bytes(b"\0\5\x16\7")


def other_files(h: Path) -> None:
    put(h / "README.txt", "# hello\nworld, this, is\n")
    put(h / "requirements.txt", "torch\n")
    put(h / "package.json", {"name": "x", "version": "1"})
    put(h / "config.json", {"lr": 0.1, "images": 3})
    put(h / "build.xml", "<project><target/></project>")


def a_folder_above(h: Path) -> None:
    inner = h.parent / "inner"
    h.rename(inner)
    h.mkdir()
    inner.rename(h / "dataset-1")


CHANGES = (
    byte_order_marks,
    line_ends_of_windows,
    blank_lines_at_the_end,
    utf16,
    upper_case_of_images,
    other_extension_of_images,
    upper_case_of_labels,
    files_of_the_system,
    other_files,
    a_folder_above,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_kept_by_others(make: Callable[[Path], None], change: Callable[[Path], None], tmp_path: Path) -> None:
    home = tmp_path / "my data"
    home.mkdir()
    make(home)
    before = load_dataset(home)
    if change is other_files and make is one_folder_above:
        pytest.skip("the folder holds more than the data set")
    change(home)
    assert detect_format(home) == LAYOUTS[make][0]
    after = load_dataset(home)
    # LabelMe's JSON files lie among any others
    assert change is other_files or after.problems == before.problems == ()
    assert len(after) == len(before)
    for one, two in zip(after, before, strict=True):
        np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-4)
        assert one.path.stem == two.path.stem
        assert [after.class_names[k] for k in one.labels] == [before.class_names[k] for k in two.labels]
