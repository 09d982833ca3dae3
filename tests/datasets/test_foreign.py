"""Data sets in formats that are not read: one line says what was found, and which formats are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sppnet.cli.main import main
from sppnet.datasets.loading import FORMATS, detect_format, load_dataset
from sppnet.errors import DatasetError, UnknownFormatError

DOTA = "imagesource:GoogleEarth\ngsd:0.146\n10.0 10.0 40.0 10.0 40.0 30.0 10.0 30.0 small-vehicle 0\n"
BOX2D = [{"category": "car", "id": 1, "box2d": {"x1": 1, "y1": 2, "x2": 30, "y2": 40}}]
BDD = json.dumps([{"name": "a.jpg", "attributes": {"weather": "clear"}, "timestamp": 1, "labels": BOX2D}])
BDD_FRAMES = json.dumps({"name": "a", "frames": [{"timestamp": 1, "objects": BOX2D}]})
WIDER = "0--Parade/0_Parade_1.jpg\n2\n10 10 20 20 0 0 0 0 0 0\n30 30 20 20 0 0 0 0 0 0\n"
OUTLINE = json.dumps({"imgHeight": 120, "imgWidth": 160, "objects": [{"label": "car", "polygon": [[1, 2], [3, 4]]}]})
# name, what the error says, files with their content
FOREIGN = {
    "TFRecord of Roboflow": ("TFRecord (train/cells.tfrecord)", {"train/cells.tfrecord": "\1\2", "train/m.pbtxt": "x"}),
    "TFRecord in pieces": ("TFRecord (train.record-00000-of-00003)", {"train.record-00000-of-00003": "\1\2"}),
    "DOTA": ("DOTA (rotated boxes) (train/labelTxt/P1.txt)",
             {"train/images/P1.png": "", "train/labelTxt/P1.txt": DOTA}),
    "DOTA without a head": ("DOTA (rotated boxes) (labelTxt-v1.0/P1.txt)",
                            {"images/P1.png": "", "labelTxt-v1.0/P1.txt": "10 10 40 10 40 30 10 30 plane 1\n"}),
    "WIDER FACE": ("WIDER FACE (wider_face_split/wider_face_train_bbx_gt.txt)",
                   {"WIDER_train/images/0--Parade/0_Parade_1.jpg": "",
                    "wider_face_split/wider_face_train_bbx_gt.txt": WIDER, "wider_face_split/readme.txt": "hello\n"}),
    "BDD100K": ("BDD100K (labels/bdd100k_labels_images_train.json)",
                {"images/100k/train/a.jpg": "", "labels/bdd100k_labels_images_train.json": BDD}),
    "BDD100K, a file for each image": ("BDD100K (labels/a.json)", {"images/a.jpg": "", "labels/a.json": BDD_FRAMES}),
    "Roboflow's table of classes": ("a table of the classes of whole images (Roboflow's multi-label CSV) (train/_c",
                                    {"train/a.jpg": "", "train/_classes.csv": "filename, cat, dog\na.jpg, 1, 0\n"}),
    "JSON Lines": ("JSON Lines (Hugging Face, Labelbox, SageMaker) (train/metadata.jsonl)",
                   {"train/a.jpg": "", "train/metadata.jsonl": '{"file_name": "a.jpg"}\n'}),
    "Parquet": ("Parquet or Arrow tables (data/train-0.parquet)", {"data/train-0.parquet": "PAR1"}),
    "VisDrone": ("VisDrone or MOT (annotations/a.txt)", {"images/a.jpg": "", "annotations/a.txt": "1,1,2,2,1,4,0,0\n"}),
    "Cityscapes": ("Cityscapes (outlines) (gtFine/a_polygons.json)", {"a.png": "", "gtFine/a_polygons.json": OUTLINE}),
}  # fmt: skip


def make(home: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".png")):
            Image.new("RGB", (160, 120)).save(home / name)
        else:
            (home / name).write_text(content)
    return home


@pytest.mark.parametrize("name", FOREIGN)
def test_what_was_found_is_said(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, files = FOREIGN[name]
    home = make(tmp_path / "data", files)
    assert main(["data", "check", str(home)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"sppnet: {home}: holds {found}")
    assert printed.err.endswith(f"formats that are read: {', '.join(FORMATS)}\n")
    assert printed.err.count("\n") == 1
    assert not printed.out
    with pytest.raises(UnknownFormatError):
        load_dataset(home)


UNKNOWN = ("", "x", "1 2 3\n", "[]", "{}", '[{"name": "a", "labels": 3}]', "filename\n", "about a.jpg\n2\nboxes\n",
           "\0" * 99, '{"name": [], "frames": [3]}')  # fmt: skip


@pytest.mark.parametrize("content", UNKNOWN)
def test_other_files_are_called_by_their_extension(content: str, tmp_path: Path) -> None:
    home = make(tmp_path / "data", {"a.jpg": "", "deep/b.dat": content, "x.json": content, "x.txt": content,
                                    "x.csv": content})  # fmt: skip
    with pytest.raises(UnknownFormatError) as caught:
        detect_format(home)
    assert "holds" not in str(caught.value)
    for text in ("1 image", "1 .json file (such as x.json)", "1 .txt file (such as x.txt)", "looked for", "fiftyone"):
        assert text in str(caught.value)


def test_rotated_boxes_in_a_folder_of_yolo_are_no_labels(tmp_path: Path) -> None:
    """Never read as something else without a word."""
    home = make(tmp_path / "data", {"images/train/a.png": "", "labels/train/a.txt": DOTA})
    with pytest.raises(DatasetError, match=r"a\.txt"):
        load_dataset(home, on_error="fail")
