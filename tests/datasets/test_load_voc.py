"""The VOC reader, on folders made here and on the real ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.formats.voc import VOC_CLASS_NAMES, load_voc
from sppnet.errors import DatasetError

CAT = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object>"


def box(name: str, xmin: object, ymin: object, xmax: object, ymax: object, extra: str = "") -> str:
    return (
        f"<object><bndbox><ymax>{ymax}</ymax><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax></bndbox>"
        f"{extra}<name> {name} </name></object>"
    )


class Voc:
    """A small data set in VOC layout."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (home / name).mkdir(parents=True)

    def add(self, image_id: str, objects: str = CAT, *, size: str | None = None, suffix: str = ".jpg") -> Voc:
        size = size if size is not None else "<size><width>100</width><height>50</height></size>"
        xml = f"<annotation><filename>{image_id}.jpg</filename>{size}{objects}</annotation>"
        (self.home / "Annotations" / f"{image_id}.xml").write_text(xml, "utf-8")
        Image.new("RGB", (100, 50)).save(self.home / "JPEGImages" / (image_id + suffix))
        return self

    def list(self, split: str, text: str) -> Voc:
        (self.home / "ImageSets" / "Main" / f"{split}.txt").write_text(text, "utf-8")
        return self


@pytest.fixture
def voc(tmp_path: Path) -> Voc:
    return Voc(tmp_path / "VOCdevkit" / "VOC2007")


def test_boxes_become_zero_based_half_open(voc: Voc) -> None:
    # A box over the whole picture, in VOC's way of counting, is 1..100 x 1..50.
    voc.add("1", box("cat", 1, 1, 100, 50) + box("dog", 11, 21, 12, 30)).list("train", "1\n")
    record = load_voc(voc.home)[0]
    assert record.boxes.tolist() == [[0, 0, 100, 50], [10, 20, 12, 30]]
    assert (record.width, record.height, record.image_id) == (100, 50, "1")
    assert record.path == voc.home.resolve() / "JPEGImages" / "1.jpg"
    assert [VOC_CLASS_NAMES[i] for i in record.labels] == ["cat", "dog"]


def test_what_real_files_have(voc: Voc) -> None:
    part = "<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    objects = (
        box("cat", 0, 0, 10, 20)  # 0 as the minimum
        + box("cat", 11.5, 2.25, 20.75, 30.5)  # decimals
        + box("cat", 90, 40, 120, 70)  # over the edge
        + box("cat", 1, 1, 5, 5, "<difficult>1</difficult>" + part)
        + box("cat", 2, 2, 6, 6, "<difficult>0</difficult><difficult>1</difficult>")
    )
    voc.add("1", objects).list("train", "1")
    record = load_voc(voc.home)[0]
    assert record.boxes.tolist() == [
        [0, 0, 10, 20],
        [10.5, 1.25, 20.75, 30.5],
        [89, 39, 100, 50],
        [0, 0, 5, 5],
        [1, 1, 6, 6],
    ]
    assert record.difficult.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(
    "size", ["", "<size><width>0</width><height>0</height></size>", "<size><width>wide</width></size>"]
)
def test_size_from_the_picture_where_the_file_lacks_it(voc: Voc, size: str) -> None:
    voc.add("1", box("cat", 1, 1, 500, 500), size=size).list("train", "1")
    record = load_voc(voc.home)[0]
    assert (record.width, record.height) == (100, 50)
    assert record.boxes.tolist() == [[0, 0, 100, 50]]


def test_roots(voc: Voc, tmp_path: Path) -> None:
    voc.add("1").list("train", "1")
    for root in (voc.home, voc.home.parent, tmp_path, str(tmp_path)):
        dataset = load_voc(root)
        assert len(dataset) == 1
        assert (dataset.name, dataset.split) == ("VOC2007", "train")
    Voc(tmp_path / "VOCdevkit" / "VOC2012")
    with pytest.raises(DatasetError, match=r"several data sets .*VOC2007.*VOC2012"):
        load_voc(tmp_path, on_error="fail")
    assert len(load_voc(voc.home)) == 1
    with pytest.raises(DatasetError, match="no such folder"):
        load_voc(tmp_path / "nothing", on_error="fail")
    with pytest.raises(DatasetError, match="Annotations"):
        load_voc(voc.home / "JPEGImages", on_error="fail")


def test_lists(voc: Voc) -> None:
    for name in ("b", "a", "c d", "e 1"):
        voc.add(name)
    voc.list("train", "\ufeffb\r\n\r\na\r\n").list("cat_train", "a  1\nc d -1\ne 1\nb 0\n").list("empty", "\n")
    assert [item.image_id for item in load_voc(voc.home)] == ["b", "a"]
    assert [item.image_id for item in load_voc(voc.home, "cat_train")] == ["a", "c d", "e 1", "b"]
    assert [item.image_id for item in load_voc(voc.home, "all")] == ["a", "b", "c d", "e 1"]
    with pytest.raises(DatasetError, match=r"trian\.txt: no such list; did you mean 'train'\? available: cat_train"):
        load_voc(voc.home, "trian", on_error="fail")
    with pytest.raises(DatasetError, match="the list is empty"):
        load_voc(voc.home, "empty", on_error="fail")
    with pytest.raises(DatasetError, match="lists 'a' 2 times"):
        load_voc(voc.list("twice", "a\nb\na\n").home, "twice", on_error="fail")


def test_class_names(voc: Voc) -> None:
    voc.add("1", box("dog", 1, 1, 5, 5)).add("2", box("cat", 1, 1, 5, 5))
    voc.list("train", "1").list("val", "2")
    assert load_voc(voc.home).class_names == VOC_CLASS_NAMES
    assert load_voc(voc.home)[0].labels.tolist() == [VOC_CLASS_NAMES.index("dog")]
    # A name that isn't VOC's, in another split: the classes are those found anywhere, the same for each split.
    voc.add("3", box("zebra", 1, 1, 5, 5))
    for split, label in (("train", 1), ("val", 0)):
        dataset = load_voc(voc.home, split)
        assert dataset.class_names == ("cat", "dog", "zebra")
        assert dataset[0].labels.tolist() == [label]


def test_classes_asked_for(voc: Voc) -> None:
    voc.add("1", box("dog", 1, 1, 5, 5) + box("cat", 1, 1, 6, 6) + box("dog", 2, 2, 9, 9)).list("train", "1")
    dataset = load_voc(voc.home, class_names=["person", "cat"])
    assert dataset.class_names == ("person", "cat")
    assert dataset[0].labels.tolist() == [1]
    assert dataset[0].boxes.tolist() == [[0, 0, 6, 6]]
    assert len(dataset.problems) == 1
    assert "dog 2" in dataset.problems[0]
    with pytest.raises(DatasetError, match=r"no object is of a class in class_names \(Cat\); .* have cat, dog"):
        load_voc(voc.home, class_names=["Cat"], on_error="fail")


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (box("cat", 5, 5, 5, 9), r"object 2 \(cat\) has box xmin=5 ymin=5 xmax=5 ymax=9"),
        (box("cat", 9, 5, 5, 9), r"object 2 \(cat\)"),
        (box("cat", 150, 5, 160, 9), "inside the image of 100x50"),
        (box("", 1, 1, 5, 9), "object 2 has no name"),
        ("<object><name>cat</name></object>", r"object 2 \(cat\) has no bndbox"),
        (box("cat", "one", 1, 5, 9), "xmin 'one', expected a number"),
        (box("cat", 1, 1, "nan", 9), "xmax 'nan', expected a number"),
        (box("cat", 1, 1, "", 9), "xmax '', expected a number"),
        (box("cat", 1, 1, 5, 9, "<difficult>maybe</difficult>"), "difficult 'maybe', expected 0 or 1"),
    ],
)
def test_bad_objects(voc: Voc, objects: str, message: str) -> None:
    voc.add("1", CAT + objects + CAT).list("train", "1")
    with pytest.raises(DatasetError, match=message) as caught:
        load_voc(voc.home, on_error="fail")
    assert str(Path("Annotations", "1.xml")) in str(caught.value)
    assert 'on_error="skip"' in str(caught.value)
    dataset = load_voc(voc.home, on_error="skip")
    assert len(dataset[0]) == 2
    assert len(dataset.problems) == 1
    assert "1.xml: object 2" in dataset.problems[0]


def test_bad_pictures_and_files(voc: Voc) -> None:
    voc.add("good").add("broken").add("bomb").add("nopicture").add("nosize", size="")
    annotations = voc.home / "Annotations"
    (annotations / "broken.xml").write_text("<annotation><object></annotation>")
    (annotations / "bomb.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    (annotations / "svg.xml").write_text("<svg/>")
    (annotations / "encoding.xml").write_bytes(b'<?xml version="1.0" encoding="utf-8"?><annotation>\xff</annotation>')
    (voc.home / "JPEGImages" / "encoding.jpg").touch()
    (voc.home / "JPEGImages" / "nopicture.jpg").unlink()
    (voc.home / "JPEGImages" / "nosize.jpg").write_text("text")
    voc.list("train", "good\nbroken\nbomb\nsvg\nencoding\nnopicture\nnosize\nunlisted\n")
    with pytest.raises(DatasetError) as caught:
        load_voc(voc.home, on_error="fail")
    message = str(caught.value)
    assert "7 problems" in message
    assert "and 2 more" in message
    dataset = load_voc(voc.home, on_error="skip")
    assert [item.image_id for item in dataset] == ["good"]
    listed = "\n".join(dataset.problems)
    for part in (
        "broken.xml: not readable",
        "bomb.xml: not readable",
        "svg.xml: the outermost element is",
        "encoding.xml: not readable",
        "nopicture.jpg: no such image",
        "nosize.jpg: not an image",
        "unlisted.xml: no such file, but train.txt",
    ):
        assert part in listed
    with pytest.raises(DatasetError, match="on_error"):
        load_voc(voc.home, on_error="ignore")  # type: ignore[arg-type]


def test_other_extensions_and_filename(voc: Voc) -> None:
    voc.add("1", suffix=".png").add("2", suffix=".JPEG").list("train", "1\n2\n3")
    voc.add("3")
    (voc.home / "JPEGImages" / "3.jpg").rename(voc.home / "JPEGImages" / "photo.jpg")
    file = voc.home / "Annotations" / "3.xml"
    file.write_text(file.read_text().replace("3.jpg", "photo.jpg"))
    assert [item.path.name for item in load_voc(voc.home)] == ["1.png", "2.JPEG", "photo.jpg"]


def test_no_objects_at_all(voc: Voc) -> None:
    voc.add("1", "").list("train", "1")
    assert len(load_voc(voc.home)[0]) == 0


# --- real data -------------------------------------------------------------------------------------------------------


def test_voc2007(shared_data: Path) -> None:
    root = shared_data / "voc2007"
    train, val = load_voc(root, "train"), load_voc(root, "val")
    assert (len(train), len(val)) == (2500, 1753)
    assert train.class_names == val.class_names == VOC_CLASS_NAMES
    assert not train.problems
    assert not {item.image_id for item in train} & {item.image_id for item in val}
    # Counted again, straight from the files.
    found: Counter[str] = Counter()
    for item in val.subset(range(0, 1753, 50)):
        tree = ElementTree.parse(item.path.parents[1] / "Annotations" / f"{item.image_id}.xml")
        corners = [
            [float(node.findtext(f"bndbox/{k}") or "") for k in ("xmin", "ymin", "xmax", "ymax")]
            for node in tree.iter("object")
        ]
        assert np.array_equal(item.boxes, np.array(corners) - [1, 1, 0, 0])
        found.update(node.findtext("name") or "" for node in tree.iter("object"))
        found.subtract(val.class_names[i] for i in item.labels)
    assert not any(found.values())


def test_bccd(shared_data: Path) -> None:
    root = shared_data / "bccd"
    assert load_voc(root, "train", class_names=["RBC"], on_error="skip").class_names == ("RBC",)
    assert load_voc(root, "test").class_names == ("Platelets", "RBC", "WBC")
    with pytest.raises(
        DatasetError, match=r"BloodImage_00338\.xml: object 13 \(RBC\) .*(\n.*)*BloodImage_00343\.xml: object 4"
    ):
        load_voc(root, "all", on_error="fail")
    dataset = load_voc(root, "all", on_error="skip")
    assert (len(dataset), len(dataset.problems)) == (364, 2)
