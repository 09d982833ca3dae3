"""Classes added, removed and renamed: they are found, and the others don't change by a bit, in any precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sppnet import SPPDetector, evaluate_voc, load_voc
from sppnet.cli.main import main
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.model_file import read_stored
from sppnet.detection.options import FeatureOptions, FinetuneOptions, HeadOptions
from sppnet.detection.training.add_classes import _folds
from sppnet.detection.weights import CLASS_ROWS
from sppnet.errors import ArgumentError, DatasetError, NotFittedError
from sppnet.images import load_image
from sppnet.proposals.search import SelectiveSearch


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def train(toy_voc: Path) -> DetectionDataset:
    return load_voc(toy_voc, "train")


@pytest.fixture(scope="module")
def cats(train: DetectionDataset, toy_voc: Path, cache: Path) -> SPPDetector:
    """Knows cats only, calibrated."""
    detector = SPPDetector(
        features=FeatureOptions(short_sides_px=(240,), flip_short_sides_px=()), head=HeadOptions(rank=32, hidden=600),
        proposer=SelectiveSearch(max_windows=300), finetune=FinetuneOptions(epochs=6, windows_per_image=32),
    )  # fmt: skip
    detector.fit(train.with_classes(["cat"]), cache=cache)
    val = load_voc(toy_voc, "val").with_classes(["cat"])
    detector.calibrate([detector.detect(r.path, threshold=0.0) for r in val], val)
    return detector


@pytest.fixture(scope="module")
def both(cats: SPPDetector, train: DetectionDataset, cache: Path) -> SPPDetector:
    return cats.add_classes(train, cache=cache)


def test_the_new_class_is_found(both: SPPDetector, toy_voc: Path) -> None:
    assert both.class_names_ == ("cat", "cup")
    val = load_voc(toy_voc, "val")
    found = [both.detect(r.path, threshold=0.0) for r in val]
    ap = dict(zip(both.class_names_, evaluate_voc(found, val, protocol="voc-area").ap, strict=True))
    assert ap["cup"] > 0.8
    # calibrated: at its own threshold most cups are shown, and most of what is shown is right
    shown = [both.detect(r.path) for r in val]
    cups = sum(int((d.class_id == 1).sum()) for d in shown)
    objects = int(val.count_objects()[1])
    assert 0.6 * objects <= cups <= 1.5 * objects
    assert set(both.thresholds_) == {"cat", "cup"}
    change = both.metadata_["changes"][-1]
    assert change["added"] == ["cup"]
    assert change["objects"]["cup"] == 19
    assert change["cross_validation"]["voc-area"]["cup"] > 0.5


@pytest.mark.parametrize(
    "precision",
    [pytest.param("float32", marks=pytest.mark.slow), pytest.param("float16", marks=pytest.mark.slow), "int8"],
)
def test_old_classes_stay_the_same_in_the_file(
    cats: SPPDetector, train: DetectionDataset, cache: Path, tmp_path: Path, precision: str
) -> None:
    one, two, three = (tmp_path / f"{n}.safetensors" for n in ("one", "two", "three"))
    cats.save(one, precision)
    loaded = SPPDetector.load(one)
    loaded.add_classes(train, cache=cache).save(two, precision)
    a, b = read_stored(one), read_stored(two)
    for name, value in a.tensors.items():
        other = b.tensors[name]
        rows = CLASS_ROWS.get(name.removesuffix(".scale"))
        assert other.dtype == value.dtype, name
        if rows is None:
            assert np.array_equal(other, value), name
        else:
            assert len(other) == len(value) + rows
            assert np.array_equal(other[: len(value)], value), name
    again = SPPDetector.load(two)
    for record in list(train)[:4]:
        for threshold in (0.0, None):
            before, after = loaded.detect(record.path, threshold), again.detect(record.path, threshold)
            mine = after.class_id == 0
            assert np.array_equal(after.confidence[mine], before.confidence)
            assert np.array_equal(after.xyxy[mine], before.xyxy)
    # and removing it again gives the same tensors as at first
    again.remove_classes(["cup"]).save(three, precision)
    c = read_stored(three).tensors
    assert c.keys() == a.tensors.keys()
    assert all(np.array_equal(c[name], value) for name, value in a.tensors.items())


def test_same_seed_same_file(cats: SPPDetector, both: SPPDetector, train: DetectionDataset, cache: Path) -> None:
    again = cats.add_classes(train, cache=cache)
    assert all(np.array_equal(value, getattr(again.weights_, name)) for name, value in both.weights_.arrays().items())
    assert again.metadata_ == both.metadata_
    assert cats.class_names_ == ("cat",)  # untouched
    assert "changes" not in cats.metadata_


def test_remove_and_rename(both: SPPDetector, train: DetectionDataset) -> None:
    pixels = load_image(train[1].path)
    whole = both.detect(pixels, 0.0)
    cups = both.remove_classes(["cat"])
    assert cups.class_names_ == ("cup",)
    assert list(cups.metadata_["thresholds"]) == ["cup"]
    got = cups.detect(pixels, 0.0)
    mine = whole.class_id == 1
    assert np.array_equal(got.xyxy, whole.xyxy[mine])
    assert np.array_equal(got.confidence, whole.confidence[mine])
    mugs = both.rename_class("cup", "mug")
    assert mugs.class_names_ == ("cat", "mug")
    assert mugs.thresholds_["mug"] == both.thresholds_["cup"]
    assert mugs.metadata_["training"]["objects"].keys() == {"cat"}
    assert np.array_equal(mugs.detect(pixels, 0.0).confidence, whole.confidence)
    assert [list(c) for c in mugs.metadata_["changes"]][-1] == ["sppnet_version", "renamed"]


def test_background_that_knows_nothing_of_the_class(cats: SPPDetector, train: DetectionDataset, cache: Path) -> None:
    some = train.subset(range(6))
    rest = train.subset(range(4, 12)).with_classes(["cat"])  # two pictures are in both
    got = cats.add_classes(some, background=rest, folds=2, cache=cache)
    change = got.metadata_["changes"][-1]
    assert (change["images"], change["background_images"]) == (6, 6)
    assert change["objects"] == {"cup": int(some.count_objects()[1])}


def test_one_picture_is_enough_but_cannot_be_measured(
    cats: SPPDetector, train: DetectionDataset, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = next(i for i, r in enumerate(train) if (r.labels == 1).any())
    with caplog.at_level("INFO", "sppnet"):
        got = cats.add_classes(train.subset([first]), cache=cache)
    assert got.class_names_ == ("cat", "cup")
    assert got.thresholds_["cup"] == 0.5
    assert "too few images" in caplog.messages[-1]
    assert got.weights_.slope[1] == cats.weights_.slope.mean()


def test_parts_are_stratified(train: DetectionDataset) -> None:
    parts = _folds(train, 4, 0)
    assert max(np.bincount(parts)) - min(np.bincount(parts)) <= 2
    cup = [int(p) for p, r in zip(parts, train, strict=True) if (r.labels == 1).any()]
    assert max(np.bincount(cup)) - min(np.bincount(cup)) <= 1


def test_refusals(both: SPPDetector, cats: SPPDetector, train: DetectionDataset) -> None:
    with pytest.raises(ArgumentError, match="has every class of the data set already"):
        both.add_classes(train)
    with pytest.raises(ArgumentError, match="has a class 'cat' already"):
        cats.add_classes(train, class_names=["cat"])
    with pytest.raises(ArgumentError, match="no class 'mug' in the data set; there are cat, cup"):
        cats.add_classes(train, class_names=["mug"])
    with pytest.raises(ArgumentError, match="folds: got 1"):
        cats.add_classes(train, folds=1)
    with pytest.raises(ArgumentError, match="seed: got -1"):
        cats.add_classes(train, seed=-1)
    without = train.subset([i for i, r in enumerate(train) if not (r.labels == 1).any()])
    with pytest.raises(DatasetError, match="class 'cup' has no object"):
        cats.add_classes(without)
    with pytest.raises(ArgumentError, match="class 'dog' isn't in the detector; it has cat, cup"):
        both.remove_classes(["dog"])
    with pytest.raises(ArgumentError, match="at least one class"):
        both.remove_classes(["cat", "cup"])
    with pytest.raises(ArgumentError, match="'cat' exists already"):
        both.rename_class("cup", "cat")
    with pytest.raises(ArgumentError, match="empty"):
        both.rename_class("cup", " ")
    with pytest.raises(NotFittedError):
        SPPDetector().rename_class("a", "b")


@pytest.mark.slow
def test_verbs(
    cats: SPPDetector, toy_voc: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c, d = (str(tmp_path / f"{n}.safetensors") for n in "abcd")
    cats.save(a, "float16")
    command = ["add-class", str(toy_voc), "--model", a, "--split", "train", "--output", b]
    assert main([*command, "--background", str(toy_voc / "JPEGImages"), "--cache", str(cache)]) == 0
    text, messages = capsys.readouterr()
    assert "cup: whatever isn't annotated as such, in 24 images and 32 of" in text
    assert "counts as background" in text
    assert "in cross-validation" in messages
    assert main(["rename-class", "cup", "mug", "--model", b, "-o", c]) == 0
    assert main(["remove-class", "cat", "--model", c, "--output", d]) == 0
    assert "1 classes: mug" in capsys.readouterr().out
    assert SPPDetector.load(d).metadata_["precision"] == "float16"
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{n}.safetensors" for n in "abcd"]
    assert main(["add-class", str(toy_voc), "--model", b, "--output", c]) == 2
    assert "has every class" in capsys.readouterr().err
    assert main(["remove-class", "dog", "--model", b, "--output", c]) == 2
    assert main(["add-class", str(toy_voc), "--model", b, "--output", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
