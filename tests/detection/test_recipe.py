"""A saved detector comes back with its whole recipe, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sppnet import GridProposer, ModelFileError, SelectiveSearch, SPPDetector, load_backbone
from sppnet.backbones.base import Backbone
from sppnet.detection.model_file import read_model, write_model
from sppnet.detection.options import (
    FeatureOptions,
    FinetuneOptions,
    HeadOptions,
    SuppressionOptions,
    SvmOptions,
    TuningOptions,
)
from sppnet.errors import ArgumentError, WeightsError
from sppnet.proposals.search import COLOUR, SIZE, Mode
from tiny_model import save_tiny_model

PROPOSERS: list[Any] = [
    SelectiveSearch(mode="quality", max_windows=77),
    SelectiveSearch("single", 50, min_side=20, seed=3, working_side=300),
    SelectiveSearch(Mode(("hsv", "rgi"), (120.0, 300.0), (COLOUR | SIZE, SIZE), sigma=0.7, min_size=50, overlap=0.8)),
    GridProposer(300, 24, (0.5, 1.0), 1.4, 0.5),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.mark.parametrize("proposer", PROPOSERS, ids=lambda p: type(p).__name__)
def test_everything_is_restored(proposer: Any, tiny: Path, tmp_path: Path) -> None:
    detector = SPPDetector.load(tiny).set_params(
        features=FeatureOptions("spp", (2, 1), (144, 160), (128,)),
        head__dropout=0.25,
        head__classifier="svm",
        head__box_regression="ridge",
        suppression=SuppressionOptions(0.4, 0.2, refinements=2, box_voting=False),
        finetune=FinetuneOptions(3, 4, 5, 0.5, 1e-3, 1e-2),
        svm=SvmOptions(c=0.01, retrain_every=7),
        proposer=proposer,
        seed=11,
    )
    path = tmp_path / "kept.safetensors"
    detector.save(path, "float32")
    loaded = SPPDetector.load(path)
    assert loaded.get_params(deep=False) == detector.get_params(deep=False)
    assert type(loaded.proposer) is type(proposer)
    pixels = np.random.default_rng(1).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    assert np.array_equal(loaded.propose(pixels), proposer(pixels))
    again = tmp_path / "again.safetensors"
    loaded.save(again, "float32")
    assert again.read_bytes() == path.read_bytes()


def test_rcnn_is_restored(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "rcnn.safetensors"
    SPPDetector.load(tiny).set_params(features__method="rcnn").save(path)
    assert SPPDetector.load(path).features.method == "rcnn"


def test_earlier_files_say_it_elsewhere(tiny: Path, tmp_path: Path) -> None:
    tensors, metadata = read_model(tiny)
    old = {
        key: metadata[key]
        for key in ("backbone", "class_names", "levels", "short_sides_px", "nms_iou", "sppnet_version")
    }
    old["proposer"] = {"name": "selective search", "mode": "fast", "max_windows": 120}
    old["training"] = {
        "seed": 4, "classifier": "svm", "box_regression": "ridge", "finetune": {"epochs": 9}, "svm": {"c": 0.5},
        "flip_short_sides_px": [130],
    }  # fmt: skip
    path = tmp_path / "old.safetensors"
    write_model(path, tensors, old, "float32")
    loaded = SPPDetector.load(path)
    assert (loaded.seed, loaded.finetune.epochs, loaded.svm.c) == (4, 9, 0.5)
    assert loaded.features == FeatureOptions("spp", (2, 1), (160,), (130,), "float32")  # there was no other
    assert loaded.head == HeadOptions(24, 48, classifier="svm", box_regression="ridge")
    assert loaded.suppression == SuppressionOptions(0.5, 0.0, refinements=0, box_voting=False)
    assert loaded.proposer == SelectiveSearch("fast", 120)


def test_what_is_switched_off_stays_off(tiny: Path, tmp_path: Path) -> None:
    """Nothing of the file that a detector came from outlives another choice."""
    tensors, metadata = read_model(tiny)
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    del metadata["refinements"]
    write_model(old, tensors, metadata | {"second_look": True, "mirror": True}, "float32")
    detector = SPPDetector.load(old)
    assert (detector.suppression.refinements, detector.features.mirror) == (1, True)
    detector.set_params(features__mirror=False, suppression__refinements=0).save(new)
    again = SPPDetector.load(new)
    assert (again.suppression.refinements, again.features.mirror) == (0, False)
    assert not {"mirror", "second_look"} & read_model(new)[1].keys()


def test_numbers_of_numpy_are_written(tiny: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"suppression__refinements": np.int64(2), "proposer__max_windows": np.int32(70)}
    SPPDetector.load(tiny).set_params(**changes, suppression__nms_iou=np.float32(0.5)).save(tmp_path / "n.safetensors")
    again = SPPDetector.load(tmp_path / "n.safetensors")
    assert (again.suppression.refinements, again.suppression.nms_iou) == (2, 0.5)
    assert again.proposer == SelectiveSearch(max_windows=70)


def test_the_default_model() -> None:
    detector = SPPDetector.load()
    fresh = SPPDetector(tuning=TuningOptions())
    assert detector.get_params(deep=False) == fresh.get_params(deep=False)


def test_a_backbone_without_weights_names_the_file(tiny: Path, tmp_path: Path) -> None:
    tensors, metadata = read_model(tiny)
    path = tmp_path / "mine.safetensors"
    write_model(path, tensors, metadata | {"backbone": {"name": "vgg16", "weights_sha256": "0"}}, "float32")
    with pytest.raises(WeightsError, match=r"mine\.safetensors: backbone vgg16: there are no published weights"):
        SPPDetector.load(path)


def test_a_proposer_of_your_own_is_refused(tiny: Path, tmp_path: Path) -> None:
    detector = SPPDetector.load(tiny).set_params(proposer=lambda image: np.zeros((0, 4), np.float32))
    with pytest.raises(ArgumentError, match=r"proposer of your own .*set_params\(proposer=SelectiveSearch\(\)\)"):
        detector.save(tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_of_your_own(tiny: Path, tmp_path: Path) -> None:
    own = load_backbone("efficientnet-lite0+mid")
    detector = SPPDetector.load(tiny).set_params(features__precision="float32")
    pixels = np.random.default_rng(1).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    other = SPPDetector.load(tiny, backbone=own)
    assert other.backbone is own
    ours, theirs = detector.detect(pixels, 0.0), other.detect(pixels, 0.0)
    np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-4)  # torch sums in another order
    np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)
    nameless = Backbone("mine", torch.nn.Conv2d(3, own.channels, 16, 16), channels=own.channels, stride=16, offset=8.0)
    with pytest.raises(ArgumentError, match="comes from no weights file"):
        detector.set_params(backbone=nameless).save(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"head": {"rank": 24, "colour": 1}},
        {"head": 3},
        {"finetune": {"epochs": -1}},
        {"svm": {"c": "x"}},
        {"seed": "x"},
        {"seed": -1},
        {"flip_short_sides_px": [1]},
        {"second_look": 3},
        {"maps": "int4"},
        {"maps": ["int8"]},
        {"maps": None},
        {"backbone": {"name": "efficientnet-lite9", "weights_sha256": "0"}},
        {"proposer": {"name": "magic"}},
        {"proposer": {"name": "selective search", "mode": {"spaces": ["hsv"], "ks": [1e9], "mixes": [99]}}},
        {"proposer": {"name": "selective search", "speed": 1}},
        {"proposer": {"name": "grid", "aspects": [0]}},
    ],
    ids=json.dumps,
)
def test_wrong_recipes_are_refused(change: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    tensors, metadata = read_model(tiny)
    path = tmp_path / "wrong.safetensors"

    def write_and_read() -> None:  # refused by either
        write_model(path, tensors, metadata | change, "float32")
        SPPDetector.load(path)

    with pytest.raises((ModelFileError, ArgumentError), match=r"wrong\.safetensors"):
        write_and_read()
