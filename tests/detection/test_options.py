"""Parameters of the detector: checked when they are given, and as scikit-learn's estimators have them."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from sppnet import SelectiveSearch, SPPDetector
from sppnet.detection.options import FeatureOptions, FinetuneOptions, HeadOptions, SuppressionOptions, SvmOptions
from sppnet.errors import ArgumentError, NotFittedError

FINETUNE = FinetuneOptions(epochs=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureOptions(method="fast"), "method: got 'fast', expected one of spp, rcnn"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: FeatureOptions(levels=()), "levels: got none"),
        (lambda: FeatureOptions(levels=(0,)), "levels: got 0, expected a whole number from 1 to 64"),
        (lambda: FeatureOptions(levels="421"), "levels: got '421', expected whole numbers"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: FeatureOptions(short_sides_px=(608.5,)), "short_sides_px: got 608.5, expected a whole number"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: FeatureOptions(short_sides_px=(9,)), "short_sides_px: got 9, expected a whole number from 16"),
        (lambda: FeatureOptions(flip_short_sides_px=(True,)), "flip_short_sides_px: got True"),
        (lambda: HeadOptions(hidden=0), "hidden: got 0 (no fully connected layer) with classifier='softmax'"),
        (lambda: HeadOptions(layers=3), "layers: got 3, expected one of 1, 2"),
        (lambda: HeadOptions(layers=True), "layers: got True, expected one of 1, 2"),
        (lambda: HeadOptions(dropout=1.0), "dropout: got 1"),
        (lambda: HeadOptions(classifier="tree"), "classifier: got 'tree', expected one of softmax, svm"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: HeadOptions(box_regression="no"), "box_regression: got 'no', expected one of joint, ridge"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: HeadOptions(rank=0), "rank: got 0"),
        (lambda: SuppressionOptions(nms_iou=1.5), "nms_iou: got 1.5, expected a number from 0 to 1"),
        (lambda: SuppressionOptions(soft_sigma=float("nan")), "soft_sigma: got nan"),
        (lambda: SuppressionOptions(refinements=11), "refinements: got 11, expected a whole number from 0 to 10"),
        (lambda: FinetuneOptions(epochs=0), "epochs: got 0"),
        (lambda: FinetuneOptions(learning_rate=-1), "learning_rate: got -1"),
        (lambda: SvmOptions(c=0), "c: got 0"),
        (lambda: SvmOptions(per_image=0), "per_image: got 0"),
        (lambda: SPPDetector(backbone="resnet"), "backbone: got 'resnet'"),
        (lambda: SPPDetector(features=(4, 2, 1)), "features: got (4, 2, 1), expected FeatureOptions(...)"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: SPPDetector(proposer="fast"), "proposer: got 'fast', expected a function"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: SPPDetector(seed=-1), "seed: got -1"),
        (lambda: SPPDetector(device="gpu"), "device: got 'gpu', expected 'cpu' or 'cuda'"),
        (lambda: SPPDetector(device="cuda:"), "device: got 'cuda:', expected 'cpu' or 'cuda'"),
        (lambda: SPPDetector(device=0), "device: got 0, expected 'cpu' or 'cuda'"),  # type: ignore[arg-type]  # wrong on purpose
    ],
)
def test_wrong_values_are_refused_at_once(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)):
        make()


def test_no_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ArgumentError, match="torch finds no CUDA device here; use device='cpu'"):
        SPPDetector(device="cuda")
    with pytest.raises(ArgumentError, match="no CUDA device"):
        SPPDetector.load(device="cuda")


def test_sequences_become_tuples() -> None:
    options = FeatureOptions(levels=[3, 1], short_sides_px=np.array([240, 480]))  # type: ignore[arg-type]  # lists are taken too
    assert (options.levels, options.short_sides_px) == ((3, 1), (240, 480))
    with pytest.raises(FrozenInstanceError):
        options.levels = (1,)  # type: ignore[misc]  # frozen


def test_parameters_as_scikit_learn() -> None:
    detector = SPPDetector(features=FeatureOptions(levels=(3, 1)), finetune=FINETUNE, seed=7)
    params = detector.get_params()
    assert params["features"].levels == params["features__levels"] == (3, 1)
    assert params["finetune"] is FINETUNE
    assert params["suppression__nms_iou"] == 0.5
    assert params["proposer__max_windows"] == 2000
    assert set(detector.get_params(deep=False)) == {name for name in params if "__" not in name}
    detector.class_names_ = ("a",)
    copy = clone(detector)
    assert copy.get_params() == params
    assert not hasattr(copy, "class_names_")
    with pytest.raises(NotFittedError):
        _ = copy.thresholds_
    assert repr(detector) == (f"SPPDetector(features={FeatureOptions(levels=(3, 1))!r}, finetune={FINETUNE!r}, seed=7)")


def test_set_params() -> None:
    detector = SPPDetector(seed=7)
    copy = clone(detector)
    assert copy.set_params(seed=8, suppression__nms_iou=0.4, proposer__mode="quality") is copy
    assert (copy.seed, copy.suppression, detector.seed) == (8, SuppressionOptions(nms_iou=0.4), 7)
    assert copy.proposer == SelectiveSearch("quality")
    copy.set_params(head=HeadOptions(rank=9), head__hidden=5)
    assert asdict(copy.head) == asdict(HeadOptions(rank=9, hidden=5))
    for wrong, message in (
        ({"leves": 3}, r"SPPDetector has no parameter 'leves', expected one of .*features"),
        ({"features__leves": 3}, r"features of SPPDetector has no field 'leves', expected one of .*levels"),
        ({"seed__x": 3}, "seed of SPPDetector has no field 'x', expected one of none"),
        ({"suppression__nms_iou": 2}, "nms_iou: got 2"),
        ({"device": "tpu"}, "device: got 'tpu'"),
    ):
        before = copy.get_params()
        with pytest.raises(ArgumentError, match=message):
            copy.set_params(**({"seed": 9} | wrong))
        assert copy.get_params() == before  # all or nothing


def test_max_windows_belongs_to_the_proposer() -> None:
    with pytest.raises(TypeError):
        SPPDetector(max_windows=77)  # type: ignore[call-arg]  # was ignored beside a proposer
    detector = SPPDetector(proposer=SelectiveSearch("quality", max_windows=77))
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert len(detector.propose(pixels)) <= 77
    assert np.array_equal(detector.propose(pixels), SelectiveSearch("quality", max_windows=77)(pixels))
