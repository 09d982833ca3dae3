"""A corpus of broken data sets and images: each gives its one clear error, or its known result."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.check import check_dataset
from sppnet.datasets.loading import load_dataset
from sppnet.errors import DatasetError, ImageError
from sppnet.images import load_image

W, H = 40, 30


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    Image.fromarray(rng.integers(0, 255, (H, W, 3), np.uint8)).save(path)


# --- one good data set of each format, with a place to break it ------------------------------------------------------


def coco(home: Path, **parts: Any) -> None:
    picture(home / "a.png")
    document = {
        "images": [{"id": 7, "file_name": "a.png", "width": W, "height": H}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 10]},
            {"id": 2, "image_id": 7, "category_id": 9, "bbox": [5, 5, 20.5, 20]},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    document.update(parts)
    (home / "coco.json").write_text(json.dumps(document))


def one(**change: Any) -> dict[str, Any]:
    """A good annotation of COCO and a changed one."""
    good = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 10]}
    return {"annotations": [good, good | {"id": 2, "bbox": [3, 3, 9, 9]} | change]}


def yolo(home: Path, line: str | bytes = "", yaml: str | None = "train: images/train\nnames: [cat, dog]\n") -> None:
    picture(home / "images/train/a.png")
    label = home / "labels/train/a.txt"
    label.parent.mkdir(parents=True)
    label.write_bytes(b"0 0.5 0.5 0.5 0.5\n" + (line.encode() if isinstance(line, str) else line))
    if yaml is not None:
        (home / "data.yaml").write_text(yaml)


def table(home: Path, row: str | bytes = "", head: str = "image,x0,y0,x1,y1,label") -> None:
    picture(home / "a.png")
    rest = row if isinstance(row, bytes) else row.encode()
    (home / "boxes.csv").write_bytes(f"{head}\na.png,1,2,11,12,cat\n".encode() + rest)


def labelme(home: Path, shape: Any = None, **parts: Any) -> None:
    picture(home / "a.png")
    shapes = [{"label": "cat", "points": [[1, 2], [11, 12]], "shape_type": "rectangle"}]
    shapes += [] if shape is None else [shape]
    document = {"imagePath": "a.png", "imageWidth": W, "imageHeight": H, "shapes": shapes} | parts
    (home / "a.json").write_text(json.dumps(document))


def rectangle(**change: Any) -> dict[str, Any]:
    return {"label": "cat", "points": [[2, 2], [9, 9]], "shape_type": "rectangle"} | change


def voc(home: Path, extra: str = "", size: str = f"<size><width>{W}</width><height>{H}</height></size>") -> None:
    picture(home / "JPEGImages" / "a.png")
    (home / "Annotations").mkdir()
    body = box("cat", 2, 3, 11, 12)
    text = f"<annotation><filename>a.png</filename>{size}{body}{extra}</annotation>"
    (home / "Annotations" / "a.xml").write_text(text)


def box(name: str, *values: object, extra: str = "") -> str:
    keys = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, values, strict=False))
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def then(make: Callable[[Path], None], *changes: Callable[[Path], object]) -> Callable[[Path], None]:
    def do(home: Path) -> None:
        make(home)
        for change in changes:
            change(home)

    return do


# What one reads of a file with one bad object: the message, and that the good object is still there.
OBJECTS: dict[str, tuple[Callable[[Path], None], str]] = {
    # COCO, every field
    "coco no bbox": (lambda h: coco(h, **one(bbox=None)), r"annotation 2 \(id 2\) \(cat\) has bbox None"),
    "coco short bbox": (lambda h: coco(h, **one(bbox=[1, 2, 3])), "bbox a list of 3, expected .x, y, width, height"),
    "coco text in bbox": (lambda h: coco(h, **one(bbox=[1, 2, "x", 4])), "bbox width 'x', expected a number"),
    "coco nan in bbox": (lambda h: coco(h, **one(bbox=[1, float("nan"), 3, 4])), "bbox y nan, expected a number"),
    "coco infinite bbox": (lambda h: coco(h, **one(bbox=[1, 1, float("inf"), 4])), "bbox width inf"),
    "coco huge number": (lambda h: coco(h, **one(bbox=[1, 1, 10**400, 4])), "bbox width 1000.*, expected a number"),
    "coco true as number": (lambda h: coco(h, **one(bbox=[True, 1, 3, 4])), "bbox x True, expected a number"),
    "coco negative width": (lambda h: coco(h, **one(bbox=[9, 9, -3, 4])), r"\(cat\) has box \[9, 9, -3, 4\]"),
    "coco no area": (lambda h: coco(h, **one(bbox=[9, 9, 0, 4])), "width > 0 and height > 0 inside"),
    "coco outside": (lambda h: coco(h, **one(bbox=[90, 9, 5, 4])), f"inside the image of {W}x{H}"),
    "coco unknown image": (lambda h: coco(h, **one(image_id=8)), "image_id 8, expected the id of one of 1 images"),
    "coco image id as list": (lambda h: coco(h, **one(image_id=[7])), "has image_id a list of 1"),
    "coco unknown class": (lambda h: coco(h, **one(category_id=4)), "category_id 4, expected one of: 3 cat, 9 dog"),
    "coco class as list": (lambda h: coco(h, **one(category_id=[3])), "category_id a list of 1"),
    "coco annotation is text": (
        lambda h: coco(h, annotations=[one()["annotations"][0], "x"]),
        "is 'x', expected an obj",
    ),
    "coco image without id": (
        lambda h: coco(h, images=[{"id": 7, "file_name": "a.png"}, {"file_name": "b.png"}]),
        "image 2 has id None and file_name 'b.png'",
    ),
    "coco image without name": (
        lambda h: coco(h, images=[{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": None}]),
        "image 2 has id 8 and file_name None",
    ),
    "coco image id twice": (
        lambda h: coco(h, images=[{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}]),
        r"image 2 \('b.png'\) has the id 7 of another",
    ),
    "coco missing image": (
        lambda h: coco(h, images=[{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}]),
        "b.png: no such image",
    ),
    "coco category without name": (
        lambda h: coco(h, categories=[{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 1}]),
        "category 3 is a dict of 1 with id 1 and name None",
    ),
    "coco category id twice": (
        lambda h: coco(h, categories=[{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 3, "name": "x"}]),
        "two categories of id 3: 'cat' and 'x'",
    ),
    # YOLO, every field
    "yolo few numbers": (lambda h: yolo(h, "0 0.5 0.5 0.2\n"), "line 2 has 4 numbers, expected class cx cy width"),
    "yolo prediction": (lambda h: yolo(h, "0 0.5 0.5 0.2 0.2 0.9\n"), "is it a prediction with a score"),
    "yolo pixels": (lambda h: yolo(h, "0 20 15 10 10\n"), "fractions from 0 to 1 .are these pixels"),
    "yolo class too high": (lambda h: yolo(h, "2 0.5 0.5 0.2 0.2\n"), r"class '2', expected one of the 2 numbers"),
    "yolo class negative": (lambda h: yolo(h, "-1 0.5 0.5 0.2 0.2\n"), "has class '-1'"),
    "yolo class a fraction": (lambda h: yolo(h, "0.5 0.5 0.5 0.2 0.2\n"), "has class '0.5'"),
    "yolo class a name": (lambda h: yolo(h, "cat 0.5 0.5 0.2 0.2\n"), "has class 'cat', expected a number"),
    "yolo not a number": (lambda h: yolo(h, "0 nan 0.5 0.2 0.2\n"), "has coordinate 'nan', expected a number"),
    "yolo negative width": (lambda h: yolo(h, "0 0.5 0.5 -0.2 0.2\n"), "line|box 0.5 0.5 -0.2 0.2, expected cx cy"),
    "yolo no area": (lambda h: yolo(h, "0 0.5 0.5 0 0.2\n"), "has box 0.5 0.5 0 0.2, expected"),
    "yolo outside": (lambda h: yolo(h, "0 1.5 0.5 0.2 0.2\n"), f"inside the image of {W}x{H}"),
    # CSV, every field
    "csv text as number": (lambda h: table(h, "a.png,one,2,3,4,cat\n"), "line 3 has x0 'one', expected a number"),
    "csv decimal comma": (
        lambda h: table(h, 'a.png,"1,5",2,3,4,cat\n'),
        "line 3 has x0 '1,5', expected a number: write decimal points, not commas; correct or remove the line",
    ),
    "csv number missing": (lambda h: table(h, "a.png,1,,3,4,cat\n"), "line 3 has y0 '', expected a number"),
    "csv short row": (lambda h: table(h, "a.png,1,2\n"), "line 3 has no label"),
    "csv no label": (lambda h: table(h, "a.png,1,2,3,4,\n"), "line 3 has no label"),
    "csv no image": (lambda h: table(h, ",1,2,3,4,cat\n"), "line 3 has no image"),
    "csv reversed": (lambda h: table(h, "a.png,9,2,3,4,cat\n"), r"\(9, 2, 3, 4\), expected x0 < x1"),
    "csv no area": (lambda h: table(h, "a.png,9,2,9,4,cat\n"), r"\(9, 2, 9, 4\), expected x0 < x1"),
    "csv outside": (lambda h: table(h, "a.png,-9,2,-1,4,cat\n"), f"inside the image of {W}x{H}"),
    "csv missing image": (lambda h: table(h, "b.png,1,2,3,4,cat\n"), "b.png: no such image"),
    "csv difficult": (
        lambda h: table(h, "a.png,1,2,9,9,cat,maybe\n", "image,x0,y0,x1,y1,label,difficult"),
        "difficult 'maybe', expected 0 or 1",
    ),
    "csv two splits": (
        lambda h: table(h, "a.png,1,2,9,9,cat,val\n", "image,x0,y0,x1,y1,label,split"),
        "puts 'a.png' into split 'val'",
    ),
    # LabelMe, every field
    "labelme no label": (lambda h: labelme(h, rectangle(label=None)), "object 2 has label None, expected the name"),
    "labelme no points": (lambda h: labelme(h, rectangle(points=None)), "has points None, expected a list"),
    "labelme one point": (lambda h: labelme(h, rectangle(points=[[1, 1]])), "has 1 points, expected 2"),
    "labelme points flat": (lambda h: labelme(h, rectangle(points=[1, 1, 2, 2])), "has points a list of 4"),
    "labelme text in point": (lambda h: labelme(h, rectangle(points=[[1, "y"], [2, 2]])), "has y 'y', expected a num"),
    "labelme star": (lambda h: labelme(h, rectangle(shape_type="star")), "is a 'star', expected a shape with an area"),
    "labelme no area": (lambda h: labelme(h, rectangle(points=[[2, 2], [2, 9]])), "expected two different corners"),
    "labelme outside": (lambda h: labelme(h, rectangle(points=[[50, 2], [60, 9]])), f"inside the image of {W}x{H}"),
    "labelme shape is text": (lambda h: labelme(h, "x"), "object 2 is 'x', expected an object"),
    # VOC: more of it in test_load_voc.py
    "voc stray click": (lambda h: voc(h, box("dog", 5, 5, 5, 5)), r"object 2 \(dog\) has box xmin=5"),
    "voc reversed": (lambda h: voc(h, box("dog", 9, 5, 5, 9)), "expected xmin < xmax and ymin < ymax"),
    "voc hexadecimal": (lambda h: voc(h, box("dog", "0x5", 5, 7, 9)), "has xmin '0x5', expected a number"),
    "voc corner missing": (lambda h: voc(h, box("dog", 1, 5, 7)), "has ymax '', expected a number"),
    "voc no name": (lambda h: voc(h, box("", 1, 5, 7, 9)), "object 2 has no name"),
    "voc difficult": (lambda h: voc(h, box("dog", 1, 5, 7, 9, extra="<difficult>2</difficult>")), "difficult '2'"),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_bad_objects(case: str, tmp_path: Path) -> None:
    make, message = OBJECTS[case]
    make(tmp_path)
    format = case.split()[0]
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(tmp_path, format=format, on_error="fail")
    assert str(tmp_path) in str(caught.value)  # the file is named
    assert "; " in str(caught.value)  # and what to do
    dataset = load_dataset(tmp_path, format=format, on_error="skip")
    assert len(dataset.problems) == 1
    good = dataset.records[0]
    assert len(good) in (1, 2)
    assert (good.width, good.height) == (W, H)
    report = check_dataset(tmp_path, format=format)
    assert [str(problem) for problem in report.errors] == list(dataset.problems)
    assert report.accepted  # training goes on without the one bad object


# What can't be read at all
FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "not json": (then(coco, lambda h: (h / "coco.json").write_text("{images")), "coco", "not JSON"),
    "json cut off": (
        then(coco, lambda h: (h / "coco.json").write_text((h / "coco.json").read_text()[:-9])),
        "coco", "not JSON",
    ),
    "json nested": (then(coco, lambda h: (h / "coco.json").write_text("[" * 200_000)), "coco", "not JSON"),
    "json in latin-1": (
        then(coco, lambda h: (h / "coco.json").write_bytes(b'{"a": "\xe9"}')), "coco", "in UTF-8",
    ),
    "json of digits": (then(coco, lambda h: (h / "coco.json").write_text("[" + "9" * 9999 + "]")), "coco", "not JSON"),
    "json half a character": (
        lambda h: coco(h, categories=[{"id": 3, "name": "c\ud800"}]), "coco", "'c.ud800' holds half a character",
    ),
    "yaml half a character": (lambda h: yolo(h, yaml='names: ["\\ud800"]\n'), "yolo", "data.yaml: not YAML"),
    "yaml in itself": (
        lambda h: yolo(h, yaml="a: &a [*a]\nnames: *a\ntrain: images/train\n"), "yolo", "not YAML|names is a list",
    ),
    "yaml of a million": (
        lambda h: yolo(h, yaml="a0: &a0 x\n" + "".join(
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)) + "names: *a29\n"),
        "yolo", "names is a list of 10",
    ),
    "json empty": (then(coco, lambda h: (h / "coco.json").write_text("")), "coco", "not JSON"),
    "categories missing": (lambda h: coco(h, categories=None), "coco", "categories is None, expected a list"),
    "annotations an object": (lambda h: coco(h, annotations={}), "coco", "annotations is a dict of 0, expected a list"),
    "images not a list": (lambda h: coco(h, images={}), "coco", "no COCO annotations"),
    "no images": (lambda h: coco(h, images=[], annotations=[]), "coco", "without images"),
    "two files": (
        then(coco, lambda h: (h / "other.json").write_bytes((h / "coco.json").read_bytes())),
        "coco", "several COCO files about the same images .coco.json, other.json",
    ),
    "yaml broken": (lambda h: yolo(h, yaml="names: [cat\n"), "yolo", "data.yaml: not YAML"),
    "yaml code": (lambda h: yolo(h, yaml="names: !!python/object/apply:os.getcwd []\n"), "yolo", "names is"),
    "yaml bomb": (
        lambda h: yolo(h, yaml="a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: *c\ntrain: images/train\n"),
        "yolo", "names is a list of 2, expected the names",
    ),
    "yaml nested": (lambda h: yolo(h, yaml="names: " + "[" * 5000), "yolo", "data.yaml: not YAML"),
    "yaml a list": (lambda h: yolo(h, yaml="- cat\n"), "yolo", "holds a list of 1"),
    "yaml without names": (lambda h: yolo(h, yaml="train: images/train\n"), "yolo", "names is None"),
    "yaml numbers below 0": (lambda h: yolo(h, yaml="names: {-1: a, 2: b}\n"), "yolo", "names is"),
    "yaml name twice": (lambda h: yolo(h, yaml="names: [a, a]\ntrain: images/train\n"), "yolo", "has 'a' 2 times"),
    "yaml no folders": (lambda h: yolo(h, yaml="names: [a]\n"), "yolo", "none of train, val and test"),
    "yaml wrong folder": (lambda h: yolo(h, yaml="names: [a]\ntrain: img\n"), "yolo", "train is 'img', but there"),
    "yaml folder a number": (lambda h: yolo(h, yaml="names: [a]\ntrain: {a: b}\n"), "yolo", "train is a dict of 1"),
    "yaml folder above": (lambda h: yolo(h, yaml="names: [a]\ntrain: /\n"), "yolo", "a folder above the data set"),
    "csv name of a folder": (lambda h: table(h, "..,1,2,3,4,cat\na/..,1,2,3,4,cat\n"), "csv", "no such image"),
    "label file binary": (lambda h: yolo(h, b"\xff\xfe\x00"), "yolo", "a.txt: can't be read as text"),
    "csv column missing": (lambda h: table(h, head="image,x0,y0,x1,label"), "csv", "no such table|first line"),
    "csv quote open": (lambda h: table(h, 'a.png,1,2,3,4,"cat\n'), "csv", "line 3 can't be read"),
    "csv latin-1": (lambda h: table(h, b"a.png,1,2,3,4,caf\xe9\n"), "csv", 'in UTF-8 .*save it as "CSV UTF-8"'),
    "labelme broken": (then(labelme, lambda h: (h / "a.json").write_text("{")), "labelme", "no LabelMe annotations"),
    "labelme shapes": (lambda h: labelme(h, shapes={}), "labelme", "shapes is a dict of 0, expected a list"),
    "labelme picture inside": (
        then(lambda h: labelme(h, imageData="AAAA"), lambda h: (h / "a.png").unlink()),
        "labelme", "a.png: no such image.*imageData can't be used: not an image",
    ),
    "labelme picture missing": (then(labelme, lambda h: (h / "a.png").unlink()), "labelme", "a.png: no such image"),
    "voc entity bomb": (
        then(voc, lambda h: (h / "Annotations/a.xml").write_text(
            '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><annotation>&d;</annotation>')),
        "voc", "a.xml: not readable as XML",
    ),
    "voc wrong xml": (then(voc, lambda h: (h / "Annotations/a.xml").write_text("<svg/>")), "voc", "expected <ann"),
    "voc empty xml": (then(voc, lambda h: (h / "Annotations/a.xml").write_text("")), "voc", "not readable"),
    "voc encoding": (
        then(voc, lambda h: (h / "Annotations/a.xml").write_bytes(b'<?xml version="1.0" encoding="klingon"?><a/>')),
        "voc", "not readable",
    ),
    "voc missing image": (then(voc, lambda h: (h / "JPEGImages/a.png").unlink()), "voc", "no such image"),
    "voc empty picture": (then(voc, lambda h: (h / "JPEGImages/a.png").write_bytes(b"")), "voc", "the file is empty"),
    "voc text as picture": (then(voc, lambda h: (h / "JPEGImages/a.png").write_text("hi")), "voc", "not an image"),
    "nothing there": (lambda h: None, "", "is an empty folder; name one with images"),
    "other things": (lambda h: (h / "notes.md").write_text("hello"), "", "no annotations in a format that is known"),
    "only pictures": (lambda h: picture(h / "a.png"), "", "1 image, but no annotations"),
    "no such folder": (lambda h: h.rmdir(), "", "no such file or folder"),
    "two formats": (then(coco, lambda h: yolo(h)), "", "may be read as coco or yolo"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_bad_files(case: str, tmp_path: Path) -> None:
    make, format, message = FILES[case]
    home = tmp_path / "data"
    home.mkdir()
    make(home)
    with pytest.raises(DatasetError, match=f"(?s){message}") as caught:
        load_dataset(home, format=format or None, on_error="fail")
    assert str(home) in str(caught.value)
    assert len(str(caught.value)) < 2500


def test_a_picture_that_is_damaged_behind_its_header(tmp_path: Path) -> None:
    voc(tmp_path)
    file = tmp_path / "JPEGImages/a.png"
    file.write_bytes(file.read_bytes()[:-900])
    assert len(load_dataset(tmp_path)) == 1  # the header is whole
    report = check_dataset(tmp_path)
    assert [p.kind for p in report.errors if p.kind != "no objects"] == ["unreadable image"]
    assert "a.png" in str(report.errors[0])


def test_size_that_disagrees_and_exif_told_apart(tmp_path: Path) -> None:
    # Another size: the picture's own counts, with a warning
    voc(tmp_path, size="<size><width>80</width><height>60</height></size>")
    record = load_dataset(tmp_path)[0]
    assert (record.width, record.height) == (W, H)
    report = check_dataset(tmp_path)
    assert report.accepted
    assert "size disagrees" in {p.kind for p in report.warnings}
    # The picture as stored, which EXIF turns: nobody knows which way the boxes lie
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "JPEGImages/a.png"
    Image.open(file).save(tmp_path / "JPEGImages/a.jpg", exif=exif)
    file.unlink()
    (tmp_path / "Annotations/a.xml").unlink()
    (tmp_path / "Annotations").rmdir()
    voc(tmp_path)
    (tmp_path / "JPEGImages/a.png").unlink()
    with pytest.raises(DatasetError, match=f"its EXIF orientation shows it as {H}x{W}"):
        load_dataset(tmp_path, on_error="fail")
    # Annotated upright: all is well
    xml = tmp_path / "Annotations/a.xml"
    xml.write_text(xml.read_text().replace(f"<width>{W}", "<width>T").replace(f"<height>{H}", f"<height>{W}"))
    xml.write_text(xml.read_text().replace("<width>T", f"<width>{H}"))
    record = load_dataset(tmp_path)[0]
    assert (record.width, record.height) == (H, W)
    assert not [p for p in check_dataset(tmp_path).problems if p.kind != "few objects"]


# --- pictures of every mode and damage -------------------------------------------------------------------------------


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_every_mode(mode: str, tmp_path: Path) -> None:
    # a file where the mode can be stored, else the Pillow image itself
    image = Image.fromarray(np.arange(H * W, dtype=np.uint8).reshape(H, W) % 200)
    image = image.convert("RGB").convert("P") if mode == "PA" else image
    image = image.convert("RGB").convert(mode) if mode in ("LAB", "HSV", "YCbCr", "CMYK") else image.convert(mode)
    source: Any = image
    try:
        image.save(tmp_path / "a.tif")
        source = tmp_path / "a.tif"
    except (OSError, KeyError, ValueError):
        pass
    pixels = load_image(source)
    assert pixels.shape == (H, W, 3)
    assert pixels.dtype == np.uint8


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda b: b"", "the file is empty"),
    "half": (lambda b: b[: len(b) // 2], "damaged or incomplete"),
    "header only": (lambda b: b[:24], "damaged or incomplete|not an image"),
    "text": (lambda b: b"hello", "not an image"),
    "zeros": (lambda b: bytes(len(b)), "not an image"),
    "huge": (lambda b: _png(30_000, 30_000), "too many pixels"),
    "no pixels": (lambda b: _png(0, 5), "damaged|not an image|no pixels"),
    "pixels missing": (lambda b: _png(50, 50), "damaged or incomplete"),
    "crc": (lambda b: b[:29] + b"\0\0\0\0" + b[33:], "damaged or incomplete|not an image"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_pictures(damage: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    change, message = DAMAGE[damage]
    (tmp_path / "a.png").write_bytes(change((tmp_path / "a.png").read_bytes()))
    with pytest.raises(ImageError, match=message) as caught:
        load_image(tmp_path / "a.png")
    assert str(tmp_path / "a.png") in str(caught.value)
