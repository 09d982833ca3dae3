"""The detector that comes with the package: its file, and what it finds in photos that scikit-image ships."""

from __future__ import annotations

import copy
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from sppnet import SPPDetector
from sppnet.boxes import box_iou
from sppnet.datasets.formats.voc import VOC_CLASS_NAMES
from sppnet.detection import suppression
from sppnet.detection.heads import whole_weights
from sppnet.images import load_image
from sppnet.kernels.native import NativeKernel
from sppnet.pooling.reference import pool_reference
from sppnet.resizing import sizes

PHOTOS = Path(skimage.data.__file__).parent
# Drawn by hand: x0, y0, x1, y1
EXPECTED = {
    "astronaut.png": ("person", (22, 15, 362, 512)),
    "chelsea.png": ("cat", (0, 0, 375, 300)),
    "motorcycle_left.png": ("motorbike", (95, 75, 685, 451)),
}


@pytest.fixture(scope="module")
def detector() -> SPPDetector:
    return SPPDetector.load()


def test_file_explains_itself(detector: SPPDetector) -> None:
    with resources.as_file(resources.files("sppnet") / "models" / "voc20.safetensors") as path:
        assert path.stat().st_size < 16e6
    assert detector.class_names_ == VOC_CLASS_NAMES
    metadata = detector.metadata_
    assert metadata["backbone"]["name"] == "efficientnet-lite0+mid"
    assert len(metadata["backbone"]["weights_sha256"]) == 64
    assert metadata["training"]["images"] == 4253
    assert detector.tuned_ is not None
    assert (detector.tuned_.blocks, detector.tuned_.precision) == (7, "int8")
    for protocol in ("voc07-11pt", "voc-area"):
        measured = metadata["metrics"][protocol]
        assert set(measured["ap"]) == set(VOC_CLASS_NAMES)
        assert "trained on train" in measured["note"]  # the file itself has seen val


@pytest.mark.parametrize("photo", EXPECTED)
def test_finds_what_is_there(detector: SPPDetector, photo: str) -> None:
    name, box = EXPECTED[photo]
    found = detector.detect(PHOTOS / photo, threshold=0.05)
    overlap = box_iou(found.xyxy[:2], np.array([box], np.float32))[:, 0]
    best = [iou for got, iou in zip(found.class_name[:2], overlap, strict=True) if got == name]
    assert best, f"{photo}: {name} expected, got {found.to_dicts()[:3]}"
    assert max(best) > 0.5


def test_warming_up_loads_every_kernel(detector: SPPDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that neither the first image nor the first large one waits for any."""
    kernels = [k for m in (sizes, suppression) for k in vars(m).values() if isinstance(k, NativeKernel)]
    for kernel in kernels:
        monkeypatch.setattr(kernel, "_loaded", {})
    detector.warm_up()
    assert len(kernels) == 3
    assert all(kernel._loaded for kernel in kernels)


def test_every_stage_is_what_it_says(detector: SPPDetector) -> None:
    """The score of one window, computed by the slow definitions, stage by stage, is the detector's."""
    pixels = load_image(PHOTOS / "chelsea.png")
    window = np.array([[40, 10, 360, 290]], np.float32)
    plain = copy.copy(detector).set_params(
        proposer=lambda image: window, suppression__refinements=0, suppression__box_voting=False
    )
    got = plain.detect(pixels, threshold=0.0)
    maps = plain.feature_maps(pixels)
    area = [float((window[0, 2] - window[0, 0]) * sx * (window[0, 3] - window[0, 1]) * sy) for sx, sy in maps.scale]
    best = min(range(len(area)), key=lambda k: abs(np.log(area[k] / 224**2)))  # the scale that the window is seen at
    scale = np.concatenate([maps.scale[best], maps.scale[best]])
    located = (window[0] * scale - 15.5) / 16
    cells = [[int(np.floor(v)) + 1 for v in located[:2]] + [int(np.ceil(v)) for v in located[2:]]]
    levels = [(n, n) for n in detector.features.levels]
    pooled = pool_reference(np.asarray(maps.float().maps[best]), np.array(cells), levels)
    pooled = pooled.reshape(-1)
    w = {k: v.astype(np.float64) for k, v in detector.weights_.arrays().items()}
    assert maps.quantised is not None
    whole, units, _ = whole_weights(detector.weights_.reduce_weight, maps.quantised)  # the layer as it is multiplied
    step = np.tile(maps.quantised.step, len(pooled) // len(maps.quantised.step))
    reduce = whole * units[:, None].astype(np.float64) / step
    h = w["fc6_weight"] @ (reduce @ pooled + w["reduce_bias"]) + w["fc6_bias"]
    h = np.maximum(h, 0)
    margin = w["class_weight"] @ h + w["class_bias"]
    expected = 1 / (1 + np.exp(-(w["slope"] * margin + w["offset"])))
    for label, score in zip(got.class_id, got.confidence, strict=True):
        assert score == pytest.approx(expected[label], abs=1e-4)
    assert got.class_name[0] == "cat"
