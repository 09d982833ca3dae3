"""Detection in an image and its mirror image: the mean of both, so it doesn't matter which of them is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage import data as photos

from sppnet import SPPDetector
from sppnet._types import F32, U8
from sppnet.cli.main import main
from sppnet.detection.maps import flip_boxes
from sppnet.detection.measure import _detect_and_keep
from sppnet.detection.model_card import describe_model
from sppnet.detection.model_file import read_stored
from sppnet.errors import ArgumentError
from sppnet.export.detector import export_onnx
from sppnet.proposals import SelectiveSearch
from toy_data import write_toy_voc


class Both:
    """Windows of an image, and mirror images of those of its mirror image: the same for both."""

    def __init__(self) -> None:
        self.search = SelectiveSearch(max_windows=60)

    def __call__(self, image: U8) -> F32:
        turned = np.ascontiguousarray(image[:, ::-1])
        first, second = (self.search(one) for one in (image, turned))
        if image.tobytes() > turned.tobytes():  # the same order for both
            return np.concatenate([flip_boxes(second, image.shape[1]), first])
        return np.concatenate([first, flip_boxes(second, image.shape[1])])


@pytest.fixture(scope="module")
def detector() -> SPPDetector:
    return SPPDetector.load().set_params(features__short_sides_px=(160, 256), proposer=Both())


@pytest.fixture(scope="module")
def photo() -> U8:
    image: U8 = np.ascontiguousarray(photos.chelsea()[20:260, 60:380])
    return image


def test_an_image_and_its_mirror_image_have_the_same_objects(detector: SPPDetector, photo: U8) -> None:
    both = detector.set_params(features__mirror=True)
    found = both.detect(photo, 0.0)
    turned = both.detect(np.ascontiguousarray(photo[:, ::-1]), 0.0)
    assert len(found) > 20
    sure = found.confidence > 0.02
    assert sure.sum() == (turned.confidence > 0.02).sum() > 0
    np.testing.assert_allclose(np.sort(found.confidence[sure]), np.sort(turned.confidence[: sure.sum()]), atol=1e-4)
    best, other = found.xyxy[:1], flip_boxes(turned.xyxy[:1], photo.shape[1])
    np.testing.assert_allclose(best, other, atol=0.5)
    alone = detector.set_params(features__mirror=False).detect(photo, 0.0)
    assert not np.array_equal(alone.xyxy, found.xyxy)
    assert alone.class_name[0] == found.class_name[0] == "cat"


def test_margins_and_deltas_are_the_means(detector: SPPDetector, photo: U8) -> None:
    """By hand, for one window of which nothing else is left."""
    options = {"suppression__refinements": 0, "suppression__box_voting": False}
    both = detector.set_params(features__mirror=True, **options)
    window = np.array([[40, 30, 250, 220]], np.float32)
    maps = both.feature_maps(photo)
    assert maps.mirrored is not None
    head = both._head(quantised=True)
    margins, deltas = head.scores(both.fc_of_windows(maps, window))
    turned_margins, turned_deltas = head.scores(both.fc_of_windows(maps.mirrored, flip_boxes(window, photo.shape[1])))
    mean, moved = (margins + turned_margins) / 2, (deltas + turned_deltas * [-1, 1, 1, 1]) / 2
    found = both.detect_windows(maps, window, 0.0)
    assert len(found) == len(both.class_names_)
    for box, confidence, c in zip(found.xyxy, found.confidence, found.class_id, strict=True):
        slope, offset = both.weights_.slope[c], both.weights_.offset[c]
        assert confidence == pytest.approx(1 / (1 + np.exp(-(slope * mean[0, c] + offset))), abs=1e-5)
        dx, dy, dw, dh = moved[0, c]
        centre = np.array([145 + 210 * dx, 125 + 190 * dy])
        half = np.array([105 * np.exp(dw), 95 * np.exp(dh)])
        wanted = np.clip(np.concatenate([centre - half, centre + half]), 0, [320, 240, 320, 240])
        np.testing.assert_allclose(box, wanted, atol=0.01)
    with pytest.raises(ArgumentError, match="those of the mirror image are missing"):
        both.detect_windows(replace(maps, mirrored=None), window)


def test_a_file_keeps_it_and_a_graph_refuses_it(tmp_path: Path) -> None:
    both = SPPDetector.load().set_params(features__mirror=True)
    both.save(tmp_path / "m.safetensors")
    assert SPPDetector.load(tmp_path / "m.safetensors").features.mirror
    card = describe_model(read_stored(tmp_path / "m.safetensors"), 1)
    assert "scales:        short side 352, 608 px, also of the mirror image\n" in card
    assert not SPPDetector.load().features.mirror
    with pytest.raises(ArgumentError, match=r"features\.mirror"):
        export_onnx(both, tmp_path / "m.onnx")


def test_measuring_and_the_command_line_look_at_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_toy_voc(tmp_path / "voc", {"train": 2, "val": 3})
    from sppnet import load_dataset

    val = load_dataset(data, "val")
    small = SPPDetector.load().set_params(
        features__short_sides_px=(160,), proposer=SelectiveSearch(max_windows=40), features__mirror=True
    )
    kept = _detect_and_keep(small, val, tmp_path / "cache", lambda items, *_, **__: items)
    for record, found in zip(val, kept, strict=True):
        assert np.array_equal(found.xyxy, small.detect(record.path, 0.0).xyxy)
    small.remove_classes(["boat"]).rename_class("sheep", "cup").save(tmp_path / "m.safetensors")
    assert main(["eval", str(data), "--split", "val", "--model", str(tmp_path / "m.safetensors"), "--mirror"]) == 0
    image = str(next(iter(val)).path)
    for extra in ([], ["--mirror"]):
        assert (
            main(
                [
                    "detect",
                    image,
                    "--scales",
                    "160",
                    "--threshold",
                    "0.01",
                    "--json",
                    str(tmp_path / f"{len(extra)}.json"),
                    *extra,
                ]
            )
            == 0
        )
    assert (tmp_path / "0.json").read_text() != (tmp_path / "1.json").read_text()
