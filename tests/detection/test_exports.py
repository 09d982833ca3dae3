"""Detections for other tools, read back by independent readers; conversions to other libraries' types."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image
from pycocotools.coco import COCO

from sppnet.datasets.loading import load_dataset
from sppnet.detection.detections import Detections
from sppnet.detection.exports import EXPORT_FORMATS, format_of, write_results
from sppnet.detection.results import FailedImage, ImageResult
from sppnet.errors import ArgumentError, DatasetError, MissingDependencyError, OutputError

NAMES = ("cat", "cüp & <saucer>")


@pytest.fixture
def found(tmp_path: Path) -> list[ImageResult]:
    """Three photos: two objects, none, one that fills a picture of another size with the same stem as the first."""
    boxes = np.array([[10.25, 20.5, 110.75, 99.125], [0, 0, 1.2, 0.4]], np.float32)
    score, label = np.array([0.875, 0.5], np.float32), np.array([1, 0])
    root = tmp_path / "photos"
    none = Detections(boxes[:0], score[:0], label[:0], NAMES)
    whole = Detections(np.array([[0, 0, 64, 48]], np.float32), score[:1], label[1:], NAMES)
    return [
        ImageResult(root / "a.jpg", 200, 100, Detections(boxes, score, label, NAMES)),
        ImageResult(root / "b.jpg", 200, 100, none),
        ImageResult(root / "more" / "a.png", 64, 48, whole),
    ]


def write(found: list[ImageResult], tmp_path: Path, format: str, name: str = "out") -> Path:
    target = tmp_path / name
    write_results(target, found, NAMES, format=format, root=tmp_path / "photos")
    return target


def root(path: Path) -> Element:
    """Of an XML file."""
    found: Element | None = ElementTree.parse(path).getroot()
    assert found is not None
    return found


def child(element: Element, name: str) -> Element:
    found = element.find(name)
    assert found is not None
    return found


def test_coco_by_pycocotools(found: list[ImageResult], tmp_path: Path) -> None:
    truth = COCO(str(write(found, tmp_path, "coco", "gt.json")))
    results = truth.loadRes(str(write(found, tmp_path, "coco-results", "dt.json")))
    assert [i["file_name"] for i in truth.loadImgs([1, 2, 3])] == ["a.jpg", "b.jpg", "more/a.png"]
    assert {c["name"] for c in truth.loadCats([1, 2])} == set(NAMES)
    for coco in (truth, results):
        got = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
        assert [a["category_id"] for a in got] == [2, 1]
        np.testing.assert_allclose(got[0]["bbox"], [10.25, 20.5, 100.5, 78.625], atol=0.01)
        assert got[0]["score"] == 0.875
        assert len(coco.getAnnIds()) == 3
    # an outline would make polygons of the boxes where labelling tools import them
    assert all(a["segmentation"] == [] for a in json.loads((tmp_path / "gt.json").read_text())["annotations"])


def test_voc_by_our_reader(found: list[ImageResult], tmp_path: Path) -> None:
    folder = write(found, tmp_path, "voc")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.xml")) == ["a.xml", "b.xml", "more/a.xml"]
    tree = root(folder / "a.xml")
    corners = [[int(b.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax")] for b in tree.iter("bndbox")]
    assert corners == [[11, 21, 111, 99], [1, 1, 1, 1]]  # 1-based, both ends inside
    assert [o.findtext("name") for o in tree.iter("object")] == [NAMES[1], NAMES[0]]
    whole = root(folder / "more" / "a.xml")
    assert [whole.findtext(f"object/bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")] == ["1", "1", "64", "48"]


def test_yolo_and_csv_and_lines(found: list[ImageResult], tmp_path: Path) -> None:
    folder = write(found, tmp_path, "yolo")
    label, *numbers = (folder / "labels" / "a.txt").read_text().splitlines()[0].split()
    assert label == "1"
    np.testing.assert_allclose([float(v) for v in numbers], [0.3025, 0.598125, 0.5025, 0.78625], atol=1e-6)
    assert (folder / "labels" / "b.txt").read_text() == ""
    assert (folder / "labels" / "more" / "a.txt").read_text() == "0 0.500000 0.500000 1.000000 1.000000\n"
    assert NAMES[1] in (folder / "data.yaml").read_text(encoding="utf-8")
    with write(found, tmp_path, "csv", "f.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["label"]) for r in rows] == [
        ("a.jpg", NAMES[1]), ("a.jpg", "cat"), ("b.jpg", ""), ("more/a.png", "cat")
    ]  # fmt: skip
    assert float(rows[0]["x0"]) == 10.25
    assert set(rows[2].values()) == {"b.jpg", ""}  # an image without objects is not lost
    lines = write(found, tmp_path, "jsonl", "f.jsonl").read_text(encoding="utf-8").splitlines()
    assert [len(json.loads(line)["detections"]) for line in lines] == [2, 0, 1]
    assert len(json.loads(write(found, tmp_path, "json", "f.json").read_text(encoding="utf-8"))["images"]) == 3


def test_counts(found: list[ImageResult], tmp_path: Path) -> None:
    path = write(found, tmp_path, "counts", "c.csv")
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "objects found", *NAMES],
            ["a.jpg", "2", "1", "1"],
            ["b.jpg", "0", "0", "0"],
            ["more/a.png", "1", "1", "0"],
        ]
    frame = replace(found[0], path=tmp_path / "photos" / "clip.mp4", time_s=1.5)
    with write([frame, found[1]], tmp_path, "counts", "c.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["objects found"], row["video"], row["time_s"]) for row in rows] == [
        ("2", "clip.mp4", "1.500"),
        ("0", "", ""),
    ]
    names = ("image", "objects found", "time_s")  # classes of the names of the table's own columns
    named = replace(frame, detections=replace(frame.detections, class_names=names))
    write_results(path, [named], names, format="counts")
    with path.open(encoding="utf-8", newline="") as file:
        titles = next(csv.reader(file))
    own = [f"{name} (class)" for name in names]
    assert titles == ["image", "objects found", *own, "video", "time_s"]
    with pytest.raises(DatasetError) as info:  # no labels, and no table of another tool's classes
        load_dataset(path)
    assert "Roboflow" not in str(info.value)


@pytest.mark.parametrize(("format", "photos"), [("voc", "."), ("yolo", "images"), ("coco", "images"), ("csv", ".")])
def test_labels_beside_their_photos_are_a_data_set(
    found: list[ImageResult], tmp_path: Path, format: str, photos: str
) -> None:
    """Photos of one name in two folders keep their own boxes."""
    home = tmp_path / "set"
    write_results(home / {"coco": "labels.json", "csv": "labels.csv"}.get(format, ""), found, NAMES, format=format,
                  root=tmp_path / "photos")  # fmt: skip
    for f in found:
        place = home / photos / f.path.relative_to(tmp_path / "photos")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (f.width, f.height)).save(place)
    data = load_dataset(home, on_error="skip")  # VOC calls a box of one pixel a stray click
    boxes = {r.path.relative_to(home / photos).as_posix(): r.boxes for r in data}
    np.testing.assert_allclose(boxes["a.jpg"][0], [10.25, 20.5, 110.75, 99.125], atol=0.5 if format == "voc" else 0.01)
    np.testing.assert_allclose(boxes["more/a.png"], [[0, 0, 64, 48]], atol=0.01)
    assert len(boxes["b.jpg"]) == 0


def test_label_studio(found: list[ImageResult], tmp_path: Path) -> None:
    """As its documentation has pre-annotations: percent of the picture, names that the labelling config declares."""
    path = write(found, tmp_path, "label-studio", "tasks.json")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert [t["data"]["image"] for t in tasks] == [
        f"/data/local-files/?d={n}" for n in ("a.jpg", "b.jpg", "more/a.png")
    ]
    result = tasks[0]["predictions"][0]["result"][0]
    value = result["value"]
    np.testing.assert_allclose(
        [value[k] for k in ("x", "y", "width", "height")], [5.125, 20.5, 50.25, 78.625], atol=1e-3
    )
    assert (result["original_width"], result["original_height"], result["type"]) == (200, 100, "rectanglelabels")
    assert tasks[1]["predictions"][0]["result"] == []
    config = root(path.with_suffix(".config.xml"))
    labels = child(config, "RectangleLabels")
    assert (labels.get("name"), labels.get("toName")) == (result["from_name"], result["to_name"])
    assert child(config, "Image").get("name") == result["to_name"]
    assert child(config, "Image").get("value") == "$image"
    assert {label.get("value") for label in labels} >= set(value["rectanglelabels"])


def test_names_in_addresses(found: list[ImageResult], tmp_path: Path) -> None:
    odd = [replace(found[0], path=tmp_path / "photos" / "my dog #1 & 50%.jpg")]
    for prefix, name in (
        ("/data/local-files/?d=", "my%20dog%20%231%20%26%2050%25.jpg"),
        ("https://a.org/x/", "my%20dog%20%231%20%26%2050%25.jpg"),
        ("s3://bucket/", "my dog #1 & 50%.jpg"),
    ):
        path = tmp_path / "tasks.json"
        write_results(path, odd, NAMES, format="label-studio", root=tmp_path / "photos", image_url=prefix)
        assert json.loads(path.read_text(encoding="utf-8"))[0]["data"]["image"] == prefix + name


def test_cvat(found: list[ImageResult], tmp_path: Path) -> None:
    """As the format called CVAT for images 1.1 has it."""
    tree = root(write(found, tmp_path, "cvat", "annotations.xml"))
    assert tree.findtext("version") == "1.1"
    assert [label.findtext("name") for label in tree.iter("label")] == list(NAMES)
    images = tree.findall("image")
    assert [(i.get("id"), i.get("name"), i.get("width")) for i in images][2] == ("2", "more/a.png", "64")
    box = child(images[0], "box")
    assert [float(box.get(k, "")) for k in ("xtl", "ytl", "xbr", "ybr")] == [10.25, 20.5, 110.75, 99.12]
    assert box.get("label") == NAMES[1]


def test_names_and_formats(found: list[ImageResult], tmp_path: Path) -> None:
    for format in EXPORT_FORMATS:  # nothing found at all is no error
        write([], tmp_path, format, f"empty-{format}")
    assert [format_of(f"a.{e}") for e in ("json", "JSONL", "csv")] == ["json", "jsonl", "csv"]
    with pytest.raises(ArgumentError, match="format: got 'xml', expected one of json"):
        write(found, tmp_path, "xml")


def test_to_coco(found: list[ImageResult]) -> None:
    d = found[0].detections
    assert [item["category_id"] for item in d.to_coco("x", [7, 9])] == [9, 7]
    with pytest.raises(ArgumentError, match="category_ids: got 1"):
        d.to_coco("x", [7])


def test_to_pandas(found: list[ImageResult]) -> None:
    pytest.importorskip("pandas")
    table = found[0].detections.to_pandas()
    assert list(table.columns) == ["x0", "y0", "x1", "y1", "confidence", "class_id", "class_name"]
    assert table.class_name.tolist() == [NAMES[1], NAMES[0]]
    assert table.x1.tolist() == [110.75, np.float32(1.2)]
    nothing = found[0].detections[:0].to_pandas()
    assert list(nothing.dtypes) == list(table.dtypes)


def test_to_supervision(found: list[ImageResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real package where it is installed, else with the shape of its class."""
    try:
        import supervision  # noqa: F401
    except ImportError:
        fake = ModuleType("supervision")
        fake.Detections = SimpleNamespace  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "supervision", fake)
    got = found[0].detections.to_supervision()
    assert np.array_equal(got.xyxy, found[0].detections.xyxy)
    assert got.class_id.tolist() == [1, 0]
    assert got.confidence.tolist() == [0.875, 0.5]
    assert got.data["class_name"].tolist() == [NAMES[1], NAMES[0]]
    got.xyxy[0] = 0  # a copy
    assert found[0].detections.xyxy[0, 0] == 10.25


@pytest.mark.parametrize("name", ["pandas", "supervision"])
def test_missing_libraries(found: list[ImageResult], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {name}"):
        getattr(found[0].detections, f"to_{name}")()


def test_cells_that_a_spreadsheet_would_run_are_written_safely(tmp_path: Path) -> None:
    names = ("=HYPERLINK(1)", "+1", "cat")
    boxes, scores = np.array([[0, 0, 9, 9]] * 3, np.float32), np.full(3, 0.5, np.float32)
    found = [ImageResult(tmp_path / "=cmd.jpg", 20, 20, Detections(boxes, scores, np.arange(3), names))]
    write_results(tmp_path / "found.csv", found, names, root=tmp_path)
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["'=HYPERLINK(1)", "'+1", "cat"]
    assert {row["image"] for row in rows} == {"./=cmd.jpg"}


@pytest.mark.parametrize("format", ["voc", "cvat"])
def test_names_that_xml_cannot_hold_are_refused(format: str, found: list[ImageResult], tmp_path: Path) -> None:
    odd = replace(found[0], path=found[0].path.with_name("a\x01.jpg"))
    with pytest.raises(ArgumentError, match=r"'a\\x01\.jpg' holds a character that XML can't \(U\+0001\)"):
        write_results(tmp_path / "out", [odd], NAMES, format=format)


@pytest.mark.parametrize("format", ["voc", "yolo"])
def test_annotations_of_the_user_stay(format: str, found: list[ImageResult], tmp_path: Path) -> None:
    out = tmp_path / "out"
    mine = out / ("a.xml" if format == "voc" else "labels/a.txt")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match="is there already, and sppnet didn't write it"):
        write_results(out, found, NAMES, format=format)
    assert mine.read_text() == "mine"
    mine.unlink()
    for _ in range(2):
        assert mine in write_results(out, found, NAMES, format=format)


def test_ids_of_images_count_those_that_failed(found: list[ImageResult], tmp_path: Path) -> None:
    """And are those of the sorted names, in whatever order the images came."""
    failed = [FailedImage(tmp_path / "photos" / "aa.jpg", "is damaged")]
    for results in (found, found[::-1]):
        for format in ("coco-results", "coco"):
            target = tmp_path / f"{format}.json"
            write_results(target, results, NAMES, format=format, root=tmp_path / "photos", failed=failed)
            document = json.loads(target.read_text())
            boxes = document if format == "coco-results" else document["annotations"]
            assert {(b["image_id"], b["score"]) for b in boxes} == {(1, 0.875), (1, 0.5), (4, 0.875)}


def test_a_failed_image_whose_name_is_not_utf8(found: list[ImageResult], tmp_path: Path) -> None:
    failed = [FailedImage(tmp_path / "photos" / "caf\udce9.jpg", "caf\udce9.jpg: rename it")]
    write_results(tmp_path / "r.json", found, NAMES, root=tmp_path / "photos", failed=failed)
    (told,) = json.loads((tmp_path / "r.json").read_text())["failed"]
    assert told == {"image": r"caf\udce9.jpg", "error": r"caf\udce9.jpg: rename it"}


@pytest.mark.parametrize("format", ["voc", "yolo"])
def test_results_of_images_of_one_name_are_read_back(format: str, tmp_path: Path) -> None:
    images, results = tmp_path / "images", []
    for k, folder in enumerate(("", "sub")):
        (images / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100 + 50 * k, 80)).save(images / folder / "a.png")
        boxes = np.array([[10, 10, 40 + 60 * k, 50]], np.float32)
        item = Detections(boxes, np.array([0.9], np.float32), np.array([0]), ("cat",))
        results.append(ImageResult(images / folder / "a.png", 100 + 50 * k, 80, item))
    write_results(tmp_path / "out", results, ("cat",), format=format, root=images)
    data = load_dataset(tmp_path / "out", images=images)
    assert [record.path.relative_to(images).as_posix() for record in data] == ["a.png", "sub/a.png"]
    for record, result in zip(data, results, strict=True):
        np.testing.assert_allclose(record.boxes, result.detections.xyxy, atol=1)


def test_classes_are_known_by_their_names(found: list[ImageResult], tmp_path: Path) -> None:
    """In another order, and with more classes than the detector's, every format says the same."""
    names = (NAMES[1], "dog", NAMES[0])  # positions 0 and 2; they were 1 and 0
    told: dict[str, list[str]] = {}
    for format in EXPORT_FORMATS:
        write_results(tmp_path / format, found[:1], names, format=format, root=tmp_path / "photos")
    assert found[0].detections.class_names == NAMES  # what was given stays as it was
    document = json.loads((tmp_path / "coco").read_text(encoding="utf-8"))
    category = {item["id"]: item["name"] for item in document["categories"]}
    assert category == {1: names[0], 2: "dog", 3: names[2]}
    told["coco"] = [category[item["category_id"]] for item in document["annotations"]]
    told["coco-results"] = [category[b["category_id"]] for b in json.loads((tmp_path / "coco-results").read_text())]
    lines = (tmp_path / "yolo" / "labels" / "a.txt").read_text().splitlines()
    told["yolo"] = [names[int(line.split()[0])] for line in lines]
    document = json.loads((tmp_path / "json").read_text(encoding="utf-8"))
    assert document["class_names"] == list(names)
    for format, image in (("json", document["images"][0]), ("jsonl", json.loads((tmp_path / "jsonl").read_text()))):
        assert [names[d["class_id"]] for d in image["detections"]] == [d["class_name"] for d in image["detections"]]
        told[format] = [d["class_name"] for d in image["detections"]]
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        told["csv"] = [row["label"] for row in csv.DictReader(file)]
    with (tmp_path / "counts").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert [row[name] for name in names] == ["1", "0", "1"]
    told["counts"] = [name for name in names if row[name] == "1"]
    told["voc"] = [o.findtext("name", "") for o in root(tmp_path / "voc" / "a.xml").iter("object")]
    told["cvat"] = [box.get("label", "") for box in root(tmp_path / "cvat").iter("box")]
    boxes = json.loads((tmp_path / "label-studio").read_text(encoding="utf-8"))[0]["predictions"][0]["result"]
    told["label-studio"] = [box["value"]["rectanglelabels"][0] for box in boxes]
    assert told.keys() == set(EXPORT_FORMATS)
    assert all(got == [NAMES[1], NAMES[0]] for got in told.values())


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_a_class_without_a_name_is_refused(format: str, found: list[ImageResult], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"class_names: got 1 \(cat\), but .*a\.jpg has a 'cüp & <saucer>'"):
        write_results(tmp_path / "out", found, ("cat",), format=format)
    with pytest.raises(ArgumentError, match="class_names: got 'cat' twice"):
        write_results(tmp_path / "out", found, ("cat", "cat", NAMES[1]), format=format)
    assert not (tmp_path / "out").exists()
    write_results(tmp_path / "out", found[1:], ("cat",), format=format)  # nothing of the other class was found
