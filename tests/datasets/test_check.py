"""What `sppnet data check` finds, and the parts that training takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from sppnet.cli.main import main
from sppnet.datasets.check import check_dataset, find_warnings
from sppnet.datasets.class_spelling import nearly_alike, spelt_alike
from sppnet.datasets.duplicates import look_alikes, perceptual_hash
from sppnet.datasets.example import make_example
from sppnet.datasets.loading import load_dataset, read_dataset
from sppnet.datasets.readable import without_damaged
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.datasets.splitting import split_dataset
from sppnet.datasets.training_splits import load_training_splits, load_validation_split
from sppnet.datasets.writing import write_dataset
from sppnet.detection.detections import Detections
from sppnet.detection.exports import write_results
from sppnet.detection.results import ImageResult
from sppnet.errors import ArgumentError, DatasetError
from sppnet.images import load_image


def photo(path: Path, seed: int) -> Path:
    """A smooth random picture: no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(cells).resize((240, 180), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


def table(home: Path, rows: list[str], head: str = "image,x0,y0,x1,y1,label,split") -> Path:
    (home / "boxes.csv").write_text("\n".join([head, *rows]) + "\n")
    return home


def test_all_problems_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(14):
        photo(tmp_path / f"{i}.jpg", i)
    Image.open(tmp_path / "0.jpg").resize((200, 150)).save(tmp_path / "again.jpg", quality=80)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:900])
    photo(tmp_path / "forgotten.jpg", 99)
    rows = [f"{i}.jpg,10,10,90,90,helmet,train" for i in range(12)]
    rows += [f"{i}.jpg,100,20,200,150,person,train" for i in range(12)]
    rows += [
        "12.jpg,10,10,90,90,helmit,train",
        "again.jpg,10,10,90,90,helmet,val",
        "13.jpg,,,,,,val",
        "cut.jpg,1,1,9,9,helmet,val",
        "gone.jpg,1,1,9,9,helmet,val",
        "3.jpg,90,10,10,90,helmet,train",
        "4.jpg,10,10,10,90,helmet,train",
        "5.jpg,500,10,600,90,helmet,train",
        "6.jpg,200,10,300,90,helmet,train",
        "7.jpg,20,20,22,50,helmet,train",
        "8.jpg,10,10,90,90,helmet,train",
    ]
    report = check_dataset(table(tmp_path, rows))
    kinds = [problem.kind for problem in report.errors]
    assert sorted(kinds) == ["missing image", "no area", "outside", "reversed box", "unreadable image"]
    warned = {problem.kind: str(problem) for problem in report.warnings}
    assert set(warned) == {
        *("over the edge", "tiny", "repeated object", "duplicate across splits", "not annotated", "misspelt class"),
        *("few objects", "empty images"),
    }
    assert "class 'helmit' (1 objects) is spelt almost like 'helmet'" in warned["misspelt class"]
    assert "0.jpg: (in train) looks the same as" in warned["duplicate across splits"]
    assert "forgotten.jpg" in warned["not annotated"]
    assert "13.jpg" in warned["empty images"]
    assert "line" not in warned["tiny"]
    assert "only 2 x 30 pixels" in warned["tiny"]
    assert (report.images, report.usable, report.accepted) == (17, 15, False)
    assert report.counts["train"] == {"helmet": 15, "helmit": 1, "person": 12}
    assert report.empty == {"train": 0, "val": 1}
    # the same on the command line, and as data
    out = tmp_path / "report.json"
    assert main(["data", "check", str(tmp_path), "--json", str(out), "--classes", "helmet,person", "--quiet"]) == 1
    text = capsys.readouterr().out
    assert "error: unknown class (1)" in text
    assert "did you mean 'helmet'?" in text
    assert "training stops:" in text
    found = json.loads(out.read_text())
    assert len([p for p in found["problems"] if p["level"] == "error"]) == 6
    assert all(p["file"] and p["what"] and p["advice"] for p in found["problems"])
    # what the check refuses, the reader refuses; what it counts, the reader gives
    with pytest.raises(DatasetError):
        load_dataset(tmp_path, on_error="fail")
    data = load_dataset(tmp_path, on_error="skip")
    good = without_damaged(data)
    assert len(good) == report.usable
    problems = good.problems[len(data.problems) :]
    assert "cut.jpg" in problems[0]
    assert len(problems) == 1
    with pytest.raises(DatasetError, match=r"cut\.jpg"):
        without_damaged(data, on_error="fail")


def resized(home: Path, said: tuple[int, int], box: str, count: int = 5) -> Path:
    """Images of 240x180 whose annotations say another size."""
    for i in range(count):
        photo(home / f"{i}.jpg", i)
    rows = [f"{i}.jpg,{box},cat,{said[0]},{said[1]}" for i in range(count)]
    return table(home, rows, "image,x0,y0,x1,y1,label,width,height")


@pytest.mark.parametrize(
    ("said", "box", "factor"),
    [
        ((160, 120), "60,50,150,110", "1.50"),  # made larger, boxes as before
        ((480, 360), "200,100,400,300", "0.50"),  # made smaller
        ((160, 120), "60,50,220,170", ""),  # the boxes are those of the image: only the size is wrong
        ((480, 360), "100,50,200,150", ""),
        ((236, 177), "60,50,220,170", ""),  # about 1
        ((200, 200), "60,50,150,110", ""),  # another shape: perhaps cut out
        ((0, 0), "60,50,150,110", ""),  # not known
    ],
)
def test_images_resized_after_annotation_stop_training(
    said: tuple[int, int], box: str, factor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check_dataset(resized(tmp_path, said, box))
    raw = read_dataset(tmp_path)
    kinds = {problem.kind for problem in report.errors}
    assert ("resized images" in kinds) == bool(factor)
    if not factor:
        load_training_splits(raw)
        return
    message = f"5 of 5 images have sides that are {factor} times those in their annotations"
    assert message in report.stop
    for read in (lambda: load_training_splits(raw), lambda: load_validation_split(raw, None, ["cat"])):
        with pytest.raises(DatasetError, match=message):
            read()
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path, on_error="fail", limit_bad=True)
    load_dataset(tmp_path)  # so that `data show` draws them
    assert main(["data", "check", str(tmp_path), "--quiet"]) == 1
    assert f"training stops: {tmp_path}: {message}" in capsys.readouterr().out


def test_a_few_wrong_sizes_do_not_stop(tmp_path: Path) -> None:
    resized(tmp_path, (160, 120), "60,50,150,110", 2)
    assert check_dataset(tmp_path).accepted
    rows = [f"{i}.jpg,60,50,150,110,cat,160,120" for i in range(5)]
    rows += [f"{i}.jpg,60,50,150,110,cat,240,180" for i in range(5, 7)]
    for i in range(7):
        photo(tmp_path / f"{i}.jpg", i)
    assert check_dataset(table(tmp_path, rows, "image,x0,y0,x1,y1,label,width,height")).accepted


@pytest.mark.parametrize("box", ["300,10,400,90", "10,10,10,90", "90,10,10,90"])
def test_many_lost_objects_stop_training(box: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(4):
        photo(tmp_path / f"{i}.jpg", i)
    good = [f"{i % 4}.jpg,{10 + i},10,90,90,cat" for i in range(16)]
    head = "image,x0,y0,x1,y1,label"
    wrong = [f"{i}.jpg,{box},cat" for i in (0, 1)]
    message = "2 of 18 objects are left out, as their boxes lie outside the image or have no area, more than a tenth"
    report = check_dataset(table(tmp_path, good + wrong, head))
    assert message in report.stop
    with pytest.raises(DatasetError, match=message):
        load_training_splits(read_dataset(tmp_path))
    assert main(["data", "check", str(tmp_path), "-q"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("training stops")]
    assert line.endswith("mend them first")
    # of one image alone, and a tenth
    assert check_dataset(table(tmp_path, good + [wrong[0]] * 3, head)).accepted
    assert check_dataset(table(tmp_path, good + good[:2] + wrong, head)).accepted


def test_errors_of_one_file_are_not_all_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "0.jpg", 0)
    rows = [f"0.jpg,{i},300,{i + 9},400,cat" for i in range(30)]
    table(tmp_path, rows, "image,x0,y0,x1,y1,label")
    for options, shown in (([], 20), (["--all"], 30)):
        assert main(["data", "check", str(tmp_path), "-q", *options]) == 1
        text = capsys.readouterr().out
        assert "error: outside (30)" in text
        assert text.count("boxes.csv: object ") == shown
        assert ("and 10 more" in text) == (shown == 20)


def test_names_that_differ_in_little_are_told_of(tmp_path: Path) -> None:
    photo(tmp_path / "0.jpg", 0)
    names = ["Platelet"] * 8 + ["platelets"] * 9 + ["cat1"] * 5 + ["cat2"] * 5
    rows = [f"0.jpg,{i},10,90,90,{name}" for i, name in enumerate(names)]
    report = check_dataset(table(tmp_path, rows, "image,x0,y0,x1,y1,label"))
    (problem,) = [problem for problem in report.problems if problem.kind == "misspelt class"]
    assert "'Platelet' (8 objects) is spelt almost like 'platelets' (9)" in problem.what
    pairs = [("WBc", "WBC"), (" cat", "cat"), ("mug", "Mugs"), ("traffic-light", "Traffic lights")]
    assert all(spelt_alike(*pair) and nearly_alike(*pair) for pair in pairs)
    assert nearly_alike("helmit", "helmet")
    assert not any(map(nearly_alike, ("cat1", "a", "as", "dog", "?"), ("cat2", "s", "a", "cat", "!")))


def test_images_without_annotation_are_named_by_their_path(tmp_path: Path) -> None:
    photo(tmp_path / "pics" / "in" / "0.jpg", 0)
    photo(tmp_path / "pics" / "in" / "1.jpg", 1)
    photo(tmp_path / "tables" / "unlike.jpg", 2)
    table(tmp_path / "tables", ["0.jpg,10,10,90,90,cat"], "image,x0,y0,x1,y1,label")
    file = tmp_path / "tables" / "boxes.csv"
    (problem,) = [p for p in check_dataset(file, images=tmp_path / "pics").problems if p.kind == "not annotated"]
    assert problem.what == "1 images have no annotation and aren't used: in/1.jpg"
    assert not [p for p in find_warnings(read_dataset(file)) if p.kind == "not annotated"]


def test_warnings_without_decoding_are_those_of_the_check(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,10,10,{90 if i else 300},90,cat" for i in range(3)]
    for i in range(4):
        photo(tmp_path / f"{i}.jpg", i)
    report = check_dataset(table(tmp_path, rows, "image,x0,y0,x1,y1,label"))
    assert find_warnings(read_dataset(tmp_path)) == report.warnings
    assert {problem.kind for problem in report.warnings} == {"over the edge", "not annotated", "few objects"}


@pytest.mark.parametrize("name", ["0.tif", "0.gif"])
def test_images_of_several_pages_are_told_of(name: str, tmp_path: Path) -> None:
    pages = [Image.open(photo(tmp_path / "pages" / f"{i}.jpg", i)) for i in range(3)]
    (tmp_path / "data").mkdir()
    pages[0].save(tmp_path / "data" / name, save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "data" / f"one-{name}")
    rows = [f"{image},10,10,90,90,cat" for image in (name, f"one-{name}")]
    report = check_dataset(table(tmp_path / "data", rows, "image,x0,y0,x1,y1,label"))
    (problem,) = [problem for problem in report.problems if problem.kind == "several pages"]
    assert (Path(problem.file).name, problem.what) == (name, "has 3 pages; the first is used")


def test_two_annotations_of_one_name_are_told_apart(tmp_path: Path) -> None:
    photo(tmp_path / "100%.jpg", 0)
    for folder, x in (("first", 10), ("second", 30)):
        (tmp_path / folder).mkdir()
        box = f"<bndbox><xmin>{x}</xmin><ymin>10</ymin><xmax>90</xmax><ymax>90</ymax></bndbox>"
        (tmp_path / folder / "100%.xml").write_text(
            f"<annotation><filename>100%.jpg</filename><object><name>cat</name>{box}</object></annotation>"
        )
    (problem,) = [p for p in check_dataset(tmp_path).problems if p.kind == "annotated twice"]
    assert "annotated by first/100%.xml and by second/100%.xml" in problem.what


def test_a_good_data_set_is_accepted(toy_voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(toy_voc), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "0 errors" in text
    assert "training accepts it" in text


def test_hash_survives_what_happens_to_pictures(tmp_path: Path) -> None:
    hashes = []
    for i in range(40):
        original = photo(tmp_path / f"{i}.jpg", i)
        picture = Image.open(original)
        picture.save(tmp_path / "q.jpg", quality=40)
        picture.resize((96, 72)).save(tmp_path / "s.png")
        for path in (original, tmp_path / "q.jpg", tmp_path / "s.png"):
            hashes.append(perceptual_hash(load_image(path)))
    pairs = [(i, j) for i, others in look_alikes(np.stack(hashes)) for j in others.tolist()]
    assert pairs == [(3 * i + a, 3 * i + b) for i in range(40) for a, b in ((0, 1), (0, 2), (1, 2))]
    blank = np.stack([perceptual_hash(np.full((50, 60, 3), v, np.uint8)) for v in (0, 0, 9)])
    assert list(look_alikes(blank)) == []


# --- parts -----------------------------------------------------------------------------------------------------------


def drawn(labels: list[list[int]], classes: int) -> DetectionDataset:
    records = [
        ImageRecord(
            Path(f"{i}.jpg"),
            np.tile(np.array([[0, 0, 5, 5]], np.float32), (len(item), 1)),
            np.array(item, np.int64),
            np.zeros(len(item), bool),
            9,
            9,
            f"{i:03d}",
        )
        for i, item in enumerate(labels)
    ]
    return DetectionDataset(records, tuple(f"c{c}" for c in range(classes)))


def test_split_is_stratified_and_seeded() -> None:
    rng = np.random.default_rng(0)
    # class 0 in most pictures, class 4 in two
    labels = [[int(c) for c in np.flatnonzero(rng.random(4) < (0.9, 0.5, 0.2, 0.1))] for _ in range(200)]
    labels[17].append(4)
    labels[90].append(4)
    data = drawn(labels, 5)
    for seed in range(5):
        train, val = split_dataset(data, (0.8, 0.2), seed)
        assert (train.split, val.split) == ("train", "val")
        assert sorted([r.image_id for r in train] + [r.image_id for r in val]) == [r.image_id for r in data]
        assert abs(len(val) - 40) <= 3
        share = val.count_objects() / data.count_objects()
        assert (np.abs(share[:4] - 0.2) < 0.06).all()
        assert (train.count_objects()[4], val.count_objects()[4]) == (1, 1)
        again = split_dataset(data.subset(reversed(range(200))), (0.8, 0.2), seed)
        assert {r.image_id for r in again[1]} == {r.image_id for r in val}
    assert len(split_dataset(drawn([[0]] * 9, 1), (1, 1, 1))) == 3
    with pytest.raises(DatasetError, match="can't be divided"):
        split_dataset(drawn([[0]], 1))
    with pytest.raises(ArgumentError, match="shares"):
        split_dataset(data, (1, -1))
    with pytest.raises(ArgumentError, match=r"names: got None for 4 splits, .* up to 3 .* give 4 names"):
        split_dataset(data, (1, 1, 1, 1))
    assert [part.split for part in split_dataset(data, (1, 1, 1, 1), names="abcd")] == list("abcd")
    with pytest.raises(ArgumentError, match="names: got 1, expected one for each of 2 splits"):
        split_dataset(data, names=["train"])
    for wrong in (-1, 0.5, None):
        with pytest.raises(ArgumentError, match=r"seed: got .*, expected a whole number from 0"):
            split_dataset(data, seed=wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="seed: got -1"):
        make_example(Path("nowhere"), seed=-1)


def test_parts(tmp_path: Path) -> None:
    rows = []
    for i in range(20):
        photo(tmp_path / f"{i}.jpg", i)
        rows.append(f"{i}.jpg,10,10,90,90,{'cat' if i % 2 else 'dog'},")
    raw = read_dataset(table(tmp_path, rows))
    parts = load_training_splits(raw, seed=3)
    assert parts.validation is not None
    assert (len(parts.train), len(parts.validation)) == (16, 4)
    assert parts.validation.count_objects().tolist() == [2, 2]
    assert "4 images of 20 are kept" in parts.notes[0]
    # eval finds the same pictures
    again, note = load_validation_split(raw, None, ["dog"], seed=3)
    assert {r.image_id for r in again} == {r.image_id for r in parts.validation}
    assert "seed 3" in note
    assert parts.train.drawn == parts.validation.drawn == again.drawn == again.spread(1).drawn
    assert again.drawn is not None
    assert again.drawn.seed == 3
    fewer = load_training_splits(read_dataset(table(tmp_path, rows[1:])), seed=3).train.drawn
    assert fewer is not None
    assert fewer.images != again.drawn.images
    assert again.class_names == ("dog",)
    assert load_training_splits(raw, validation="none").validation is None
    # some of the classes: the same pictures, the others' objects are background
    dogs = load_training_splits(raw, seed=3, class_names=["dog"])
    assert dogs.validation is not None
    assert [r.image_id for r in dogs.validation] == [r.image_id for r in parts.validation]
    assert dogs.train.class_names == dogs.validation.class_names == ("dog",)
    assert dogs.train.count_objects().tolist() == [8]
    assert "objects of other classes count as background: cat" in dogs.notes
    with pytest.raises(DatasetError, match="no class 'dgo'; did you mean 'dog'"):
        load_training_splits(raw, class_names=["dgo"], on_error="fail")
    # a class that is only in val can't be learnt; with a split nothing is drawn
    rows = [f"{row[:-1]},{'val' if i > 15 else 'train'}" for i, row in enumerate(rows)]
    rows.append("19.jpg,10,10,50,50,zebra,val")
    raw = read_dataset(table(tmp_path, [row.replace(",,", ",") for row in rows]))
    parts = load_training_splits(raw)
    assert parts.validation is not None
    assert (len(parts.train), len(parts.validation)) == (16, 4)
    assert parts.train.class_names == parts.validation.class_names == ("cat", "dog")
    with pytest.raises(DatasetError, match="no split 'tran'"):
        load_training_splits(raw, "tran", on_error="fail")
    raw = read_dataset(table(tmp_path, ["0.jpg,1,1,20,20,cat,a", "1.jpg,1,1,20,20,cat,b"]))
    with pytest.raises(DatasetError, match="none called train"):
        load_training_splits(raw, on_error="fail")
    raw = read_dataset(table(tmp_path, ["0.jpg,,,,,,train"]))
    with pytest.raises(DatasetError, match="no objects in split train to learn from"):
        load_training_splits(raw, on_error="fail")


def test_each_image_that_leaked_is_told_of(tmp_path: Path) -> None:
    """Also where it is a later one that was copied, and where a split holds several that are alike."""
    rng = np.random.default_rng(0)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    pixels = rng.integers(0, 255, (2, 8, 8, 3), np.uint8).repeat(12, 1).repeat(12, 2)
    splits = {"train": {"a": 0, "b": 1}, "val": {"c": 0, "d": 0, "e": 1}}
    box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
    for split, names in splits.items():
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for name, which in names.items():
            Image.fromarray(pixels[which]).save(tmp_path / "JPEGImages" / f"{name}.png")
            (tmp_path / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.png</filename><object><name>cat</name>{box}</object></annotation>"
            )
    told = [problem for problem in check_dataset(tmp_path).problems if problem.kind == "duplicate across splits"]
    pairs = {(Path(problem.file).stem, Path(problem.what.split()[-3]).stem) for problem in told}
    assert pairs == {("a", "c"), ("a", "d"), ("b", "e")}


@pytest.mark.parametrize("format", ["coco", "csv", "voc"])
def test_predictions_are_told_from_labels(tmp_path: Path, format: Literal["coco", "csv", "voc"]) -> None:
    """What `detect --results` wrote can be read as labels; that is seldom meant."""
    images = [photo(tmp_path / f"{i}.jpg", i) for i in range(3)]
    boxes, labels = np.array([[10, 10, 90, 90], [100, 20, 200, 150]], np.float32), np.array([0, 1])
    found = Detections(boxes, np.array([0.9, 0.4], np.float32), labels, ("cat", "dog"))
    results = [ImageResult(path, 240, 180, found) for path in images]
    place = tmp_path / {"coco": "found.json", "csv": "found.csv", "voc": "found"}[format]
    write_results(place, results, format=format, class_names=("cat", "dog"))
    (flaw,) = [
        p for p in find_warnings(read_dataset(place, images=tmp_path), images=tmp_path) if p.kind == "predictions"
    ]
    assert "6 of 6 objects have a confidence" in flaw.what
    data = make_example(tmp_path / "example", 4, 2, 0)
    write_dataset(data, tmp_path / "labels", format)
    assert not [p for p in find_warnings(read_dataset(tmp_path / "labels")) if p.kind == "predictions"]
