"""Measuring without the command line: counts by hand, calibrated figures of the saved file, the estimate."""

from __future__ import annotations

import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppnet import DetectionDataset, Detections, SelectiveSearch, SPPDetector, evaluate_voc, load_dataset
from sppnet.datasets import seen as seen_module
from sppnet.datasets.records import Drawn, ImageRecord
from sppnet.datasets.seen import DIGITS, count_seen, seen_digests
from sppnet.detection.estimate import TrainingEstimate, check_disk, estimate_training
from sppnet.detection.measure import (
    calibrate_and_measure,
    detect_dataset,
    doubts_about,
    hits_and_misses,
    measured_table,
    split_seed,
)
from sppnet.detection.options import FeatureOptions, HeadOptions, TuningOptions
from sppnet.errors import ArgumentError, DatasetError, ImageError
from tiny_model import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> SPPDetector:
    return SPPDetector.load(save_tiny_model(tmp_path_factory.mktemp("model") / "t.safetensors", ("cat", "cup")))


@pytest.fixture(scope="module")
def val(toy_voc: Path) -> DetectionDataset:
    return load_dataset(toy_voc, "val")


def test_hits_and_misses_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], np.float32)
    record = ImageRecord(Path("a.jpg"), boxes, np.array([0, 0, 1]), np.array([False, False, True]), 60, 60, "a")
    data = DetectionDataset([record], ("cat", "dog"), "set", "val")
    found = Detections(
        np.array([[0, 0, 10, 10], [0, 0, 10, 9], [40, 40, 50, 50], [20, 20, 30, 30], [20, 20, 30, 30]], np.float32),
        np.array([0.9, 0.8, 0.7, 0.6, 0.1], np.float32),
        np.array([0, 0, 1, 1, 0]),
        ("cat", "dog"),
    )
    # cat: one found, the other is below the threshold, one found twice. dog: the difficult one doesn't count
    counts = hits_and_misses([found], data, {"cat": 0.5, "dog": 0.5})
    assert counts.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert hits_and_misses([found], data, {"cat": 0.05, "dog": 0.95}).tolist() == [[2, 0, 1], [0, 0, 0]]
    text = measured_table([evaluate_voc([found], data)], [found], data, {"cat": 0.5, "dog": 0.5})
    assert "measured on set val (1 image)" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("cat"))
    assert row[2:] == ["2", "1", "1", "1", "0.500"]


def test_detect_dataset_leaves_out_what_can_not_be_read(
    detector: SPPDetector, val: DetectionDataset, tmp_path: Path
) -> None:
    records = []
    for record in list(val)[:3]:
        shutil.copy(record.path, tmp_path)
        records.append(replace(record, path=tmp_path / record.path.name))
    records[1].path.write_bytes(b"no image")
    data = replace(val, records=records)
    found, left = detect_dataset(detector, data)
    assert [r.image_id for r in left] == [records[0].image_id, records[2].image_id]
    assert str(records[1].path) in left.problems[0]
    assert found == [detector.detect(r.path, 0.0) for r in left]
    with pytest.raises(ImageError):
        detect_dataset(detector, data, on_error="fail")
    with pytest.raises(DatasetError, match="none of the images can be read"):
        detect_dataset(detector, data.subset([1]))


def test_what_is_measured_is_what_is_saved(detector: SPPDetector, val: DetectionDataset, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    measured = calibrate_and_measure(detector, val, output, cache=tmp_path / "cache")
    saved = SPPDetector.load(output)
    assert saved.metadata_["calibrated_on"] == "VOC val (8 images)"
    assert saved.metadata_["metrics"]["voc-area"]["map"] == round(measured.results[1].map, 4)
    assert saved.thresholds_ == measured.detector.thresholds_
    assert "thresholds" not in detector.metadata_ or detector.thresholds_ != saved.thresholds_  # it stays as it was
    # detections of the file itself, with maps in full precision: about the same
    found, _ = detect_dataset(saved, val)
    again = evaluate_voc(found, val, protocol="voc-area")
    assert again.map == pytest.approx(measured.results[1].map, abs=0.05)
    assert measured.table().splitlines()[2].startswith("class")
    # a second time everything comes from the cache, and the file is the same
    before = output.read_bytes()
    calibrate_and_measure(detector, val, output, cache=tmp_path / "cache")
    assert output.read_bytes() == before


def test_classes_in_another_order_are_told_by_their_names(val: DetectionDataset, tmp_path: Path) -> None:
    """As after a training that went on from a model: its classes keep their order, whatever the data set's."""
    turned = tuple(reversed(val.class_names))
    detector = SPPDetector.load(save_tiny_model(tmp_path / "t.safetensors", turned))
    measured = calibrate_and_measure(detector, val, tmp_path / "m.safetensors", cache=tmp_path / "cache")
    assert measured.dataset.class_names == measured.results[0].class_names == turned
    in_order = calibrate_and_measure(
        detector, val.with_classes(turned), tmp_path / "n.safetensors", cache=tmp_path / "cache"
    )
    assert measured.detector.thresholds_ == in_order.detector.thresholds_
    assert np.array_equal(measured.results[1].ap, in_order.results[1].ap)
    perfect = [
        Detections(r.boxes, np.ones(len(r), np.float32), 1 - r.labels, turned) for r in val
    ]  # fmt: skip
    assert evaluate_voc(perfect, val.with_classes(turned)).map == 1
    with pytest.raises(ArgumentError, match=r"use dataset\.with_classes\(detector\.class_names_\)"):
        evaluate_voc(perfect, val)
    with pytest.raises(DatasetError, match="no class"):
        detector.calibrate(perfect, val.with_classes(turned[:1]))


def test_images_without_an_object_have_no_figures(detector: SPPDetector, val: DetectionDataset, tmp_path: Path) -> None:
    nothing = [
        replace(r, boxes=r.boxes[:0], labels=r.labels[:0], difficult=r.difficult[:0]) for r in val.records[:2]
    ]  # fmt: skip
    measured = calibrate_and_measure(
        detector, replace(val, records=nothing), tmp_path / "m.safetensors", cache=tmp_path / "cache"
    )
    assert "mean / total" in measured.table()
    assert SPPDetector.load(tmp_path / "m.safetensors").metadata_["metrics"] == {}


def test_figures_that_may_be_too_good(detector: SPPDetector, val: DetectionDataset) -> None:
    """The images may be among those that the detector learned from."""

    def drawn_from(split: str) -> DetectionDataset:
        return replace(val, drawn=Drawn(7, "abc", split))

    drawn, of_train = drawn_from(""), drawn_from("train")
    test = replace(val, split="test")
    cases: list[tuple[dict[str, Any], DetectionDataset, str]] = [
        ({"data": "VOC", "split": "train", "drawn": None}, val, ""),
        ({"data": "other", "split": "val", "drawn": None}, val, ""),
        ({"data": "VOC", "split": "val", "drawn": None}, val, "trained on val, so it may have learned from these"),
        ({"data": "VOC", "split": "trainval"}, val, "trained on trainval, so it may have learned from these"),
        ({"data": "VOC", "split": "trainval"}, test, ""),
        ({"data": "VOC", "split": "", "drawn": None}, val, "trained on the whole data set"),
        ({"data": "VOC"}, val, ""),  # a file of an earlier version doesn't say
        ({"data": "VOC", "split": "train", "drawn": {"seed": 7, "images": "abc"}}, test, ""),  # nor this one
        ({"data": "VOC", "split": "validation", "drawn": None}, val, "trained on validation"),
        ({"data": "VOC", "split": "all", "drawn": None}, val, "trained on all"),
        ({"data": "VOC", "split": "trainval"}, replace(val, split="all"), "trained on trainval"),
        # the data set was renamed; what it holds is the same
        ({"data": "old", "split": "train", "drawn": {"seed": 7, "images": "abc", "split": ""}}, drawn, ""),
        ({"data": "old", "split": "", "drawn": None}, drawn, ""),
        # train --split trainval without a split to measure on: four images of five of it, so some of val
        ({"data": "VOC", "split": "train", "drawn": {"seed": 7, "images": "abc", "split": "trainval"}}, val,
         "trained on trainval"),
        ({"data": "VOC", "split": "train", "drawn": {"seed": 7, "images": "abc", "split": "trainval"}}, test, ""),
        ({"data": "VOC", "split": "test", "drawn": None}, of_train, ""),
        ({"data": "VOC", "split": "trainval", "drawn": None}, of_train, "no images were kept to measure on"),
        ({"data": "VOC", "split": "train", "drawn": {"seed": 7, "images": "abd", "split": "train"}}, of_train,
         "or this is another data set of that name"),
        ({"data": "VOC", "split": "train", "drawn": {"seed": 7, "images": "abc"}}, drawn, ""),
        ({"data": "VOC", "split": "train", "drawn": {"seed": 7, "images": "abd"}}, drawn, "added or removed since"),
        ({"data": "VOC", "split": "", "drawn": None}, drawn, "no images were kept to measure on"),
        ({"data": "VOC", "split": "train", "seed": 5}, drawn, ""),  # a file of an earlier version doesn't say
    ]  # fmt: skip
    for training, data, words in cases:
        asked = copy(detector)
        asked.metadata_ = {"training": training}
        doubts = doubts_about(asked, data)
        assert len(doubts) == bool(words)
        assert words in "".join(doubts)
        assert split_seed(asked) == (7 if training.get("drawn") else training.get("seed", 0))
    asked.metadata_ = {"changes": [{"added": ["cup"], "data": "VOC"}, {"added": ["cat"], "data": "other"}]}
    asked.metadata_["changes"].append({"added": ["cat"], "data": "VOC", "split": "train"})
    assert doubts_about(asked, val) == [
        "figures may be too good: these classes were added from images of this data set: cup"
    ]


def test_images_that_were_trained_on_are_known_by_their_content(
    detector: SPPDetector, val: DetectionDataset, tmp_path: Path
) -> None:
    """Copies of images under other names, in a data set of another name."""
    copies = [tmp_path / f"{i}.jpg" for i in range(3)]
    for path, i in zip(copies, (0, 6, 1), strict=True):
        path.write_bytes(val[i].path.read_bytes())
    records = [replace(val[i], path=path, image_id=path.name) for i, path in enumerate(copies)]
    renamed = replace(val, records=records, name="renamed", split="")
    learned = copy(detector)
    learned.metadata_ = {"training": {"data": "old", "split": "", "seen": seen_digests(r.path for r in val[:5])}}
    (doubt,) = doubts_about(learned, renamed)
    assert "2 of 3 images that were compared are among those that the detector learned from" in doubt
    assert not doubts_about(learned, renamed.subset([1]))
    learned.metadata_["training"]["data"] = "renamed"  # the same name, and yet another image
    assert not doubts_about(learned, renamed.subset([1]))
    taught = copy(detector)
    taught.metadata_ = {"changes": [{"added": [val.class_names[0]], "data": "x", "seen": seen_digests([val[1].path])}]}
    assert doubts_about(taught, renamed) == [
        f"figures may be too good: these classes were added from images of this data set: {val.class_names[0]}"
    ]


def test_of_many_images_the_lowest_digests_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "MOST_SEEN", 4)
    paths = [tmp_path / str(i) for i in range(12)]
    for path in paths:
        path.write_text(path.name)
    known = seen_digests([*paths[:8], tmp_path / "gone"])
    assert len(known) == 4 * DIGITS
    assert count_seen(paths[:8], known) == (4, 4)
    seen, compared = count_seen(paths[8:], known)
    assert seen == 0
    assert compared <= 4
    assert count_seen(paths, "") == (0, 0)


def test_estimate(val: DetectionDataset, tmp_path: Path) -> None:
    detector = SPPDetector(
        features=FeatureOptions(levels=(2, 1), short_sides_px=(96,), flip_short_sides_px=(80,)),
        proposer=SelectiveSearch(max_windows=50),
    )
    seen: list[tuple[str, int | None]] = []

    def progress(items, what, *, total=None):  # type: ignore[no-untyped-def]  # as Progress, noted
        seen.append((what, total))
        return items

    whole = estimate_training(detector, val, val, progress=progress)
    assert seen == [("estimating", 5)]
    assert (whole.images, whole.validation, whole.measured) == (8, 8, 4)
    # float16 maps of both views, 2000 windows of 16 bytes
    mirrored = copy(detector).set_params(features__short_sides_px=(80,))
    maps = sum(d.window_features().estimated_bytes(240, 320) for d in (detector, mirrored))
    alone = estimate_training(detector, val)
    assert alone.cache_bytes == pytest.approx(8 * (maps + 2000 * 16), rel=0.05)
    assert whole.cache_bytes > alone.cache_bytes
    assert alone.measure_s == 0
    assert "measuring on 8 images" in whole.text(tmp_path)
    assert "measuring" not in alone.text(tmp_path)
    svms = copy(detector).set_params(head=HeadOptions(classifier="svm"), tuning=TuningOptions(epochs=1))
    tuned = estimate_training(svms, val)  # maps of the tuned convolutions are kept, too
    assert tuned.cache_bytes > alone.cache_bytes + 0.8 * 8 * detector.window_features().estimated_bytes(240, 320)
    assert estimate_training(svms, val, processes=4).tuning_s < tuned.tuning_s
    begun = estimate_training(svms, val, begun=True)
    assert begun.cache_bytes > 0
    assert "layers" not in begun.text(tmp_path)  # they aren't trained alone
    # int8 convolutions are quantised, by one process
    svms.set_params(features__precision="float32", tuning__epochs=1)
    floats = estimate_training(svms, val, processes=1000).tuning_s
    svms.set_params(features__precision="int8")
    assert estimate_training(svms, val, processes=1000).tuning_s > floats + 2
    check_disk(alone, tmp_path / "not" / "there")
    huge = TrainingEstimate(1.0, 1.0, 0.0, 1e18, 8, 4, 0)
    assert huge.total_s == 2.0
    with pytest.raises(ArgumentError, match=r"windows and maps need 1000000000\.0 GB"):
        check_disk(huge, tmp_path)
