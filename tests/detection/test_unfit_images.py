"""Images that training can't use: gone, or of another size than their records say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet import FeatureOptions, SPPDetector
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.detection.fc_head import FcHead
from sppnet.detection.options import FinetuneOptions, HeadOptions
from sppnet.detection.training.images import TrainingImages
from sppnet.errors import ArgumentError, ImageError
from sppnet.proposals.grid import GridProposer
from sppnet.storage.feature_cache import FeatureCache


def record(path: Path, width: int, height: int) -> ImageRecord:
    return ImageRecord(path, np.array([[2, 2, 30, 20]]), np.array([0]), np.array([False]), width, height, path.stem)


def images(data: DetectionDataset, cache: Path) -> TrainingImages:
    features: Any = None  # windows don't need them
    return TrainingImages(data, features, None, GridProposer(), FeatureCache(cache))


def test_a_missing_image_is_an_image_error(tmp_path: Path) -> None:
    data = DetectionDataset([record(tmp_path / "gone.jpg", 64, 48)], ("cat",))
    with pytest.raises(ImageError, match=r"gone\.jpg: can't be read \(No such file"):
        images(data, tmp_path / "cache").windowed(0)
    options = FeatureOptions(short_sides_px=(64,), flip_short_sides_px=())
    with pytest.raises(ImageError, match=r"gone\.jpg: can't be read \(No such file"):
        SPPDetector("efficientnet-lite0", options, proposer=GridProposer()).fit(data)


def test_a_record_of_another_size_is_told(tmp_path: Path) -> None:
    """Also where the cache knows everything of the file."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (320, 240)).save(path)
    fine = record(path, 320, 240)
    assert images(DetectionDataset([fine], ("cat",)), tmp_path / "cache").windowed(0).width == 320
    for width, height in ((160, 120), (240, 320)):
        wrong = DetectionDataset([replace(fine, width=width, height=height)], ("cat",))
        for cache in ("cache", "new"):
            with pytest.raises(ImageError, match=rf"a\.jpg: its record says {width}x{height}, but .* is 320x240"):
                images(wrong, tmp_path / cache).windowed(0)


def test_turned_images_of_a_data_set_are_taken(tmp_path: Path) -> None:
    """EXIF shows the image upright, and so do the readers of data sets; a wrong size in an XML file doesn't count."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (320, 240)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (320, 240)).save(tmp_path / "b.jpg")
    for name, (width, height) in (("a", (240, 320)), ("b", (160, 120))):
        (tmp_path / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height></size>"
            "<object><name>cat</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>90</xmax><ymax>110</ymax></bndbox>"
            "</object></annotation>"
        )
    data = load_dataset(tmp_path)
    seen = images(data, tmp_path / "cache")
    assert [(seen.windowed(i).width, seen.windowed(i).height) for i in range(2)] == [(240, 320), (320, 240)]
    assert seen.windowed(0).boxes.tolist() == [[9, 19, 90, 110]]


@pytest.mark.parametrize("tiny", [1, 2])
def test_a_step_without_windows_changes_nothing(tmp_path: Path, tiny: int) -> None:
    """All windows of an image may lie on difficult objects; the loss of none of them is no number."""
    options = FeatureOptions(levels=(1,), short_sides_px=(64,), flip_short_sides_px=())
    records = []
    for i in range(2 + tiny):
        side = 8 if i < tiny else 96
        pixels = np.random.default_rng(i).integers(0, 255, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(path := tmp_path / f"{i}.png")
        box = np.array([[0, 0, side, side]] if i < tiny else [[20, 20, 70, 70]])
        records.append(ImageRecord(path, box, np.array([0]), np.array([i < tiny]), side, side, str(i)))
    finetune = FinetuneOptions(epochs=2, images_per_batch=1, windows_per_image=16)
    head = HeadOptions(rank=8, hidden=8)
    detector = SPPDetector("efficientnet-lite0", options, proposer=GridProposer(), finetune=finetune, head=head)
    detector.fit(DetectionDataset(records, ("cat",)))
    assert np.isfinite(detector.metadata_["training"]["losses"]).all()
    detector.save(tmp_path / "m.safetensors")


def test_a_loss_that_is_no_number_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FcHead, "loss", lambda self, x, *_: self.reduce(x).sum() * float("nan"))
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(path)
    detector = SPPDetector(
        "efficientnet-lite0", FeatureOptions(levels=(1,), short_sides_px=(64,), flip_short_sides_px=()),
        proposer=GridProposer(), head=HeadOptions(rank=8, hidden=8),
        finetune=FinetuneOptions(epochs=1, images_per_batch=1, windows_per_image=16),
    )  # fmt: skip
    with pytest.raises(ArgumentError, match="finetune: the loss is no longer a number at step"):
        detector.fit(DetectionDataset([record(path, 96, 96)], ("cat",)))
