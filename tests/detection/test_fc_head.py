"""The fully connected layers: what is trained is what a file computes, with fc7 and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet import SPPDetector, load_voc
from sppnet.detection.fc_head import FcHead
from sppnet.detection.heads import HeadEngine
from sppnet.detection.options import FeatureOptions, FinetuneOptions, HeadOptions
from sppnet.detection.torch_head import TorchHead
from sppnet.detection.weights import DetectorWeights
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.proposals.search import SelectiveSearch


@pytest.mark.parametrize("layers", [1, 2])
def test_weights_compute_what_the_head_does(layers: int) -> None:
    torch.manual_seed(0)
    head = FcHead(30, 3, rank=8, hidden=16, layers=layers).eval()
    x = torch.randn(50, 30) * 3 + 1
    head.standardise(x)
    with torch.no_grad():
        h, logits, deltas = head(x)
    weights = head.weights()
    for computed in (HeadEngine(weights.arrays()), TorchHead(weights)):
        features = computed.fc(x.numpy())
        np.testing.assert_allclose(features, h.numpy(), rtol=1e-4, atol=1e-4)
        margins, moves = computed.scores(features)
        np.testing.assert_allclose(margins, (logits[:, :3] - logits[:, 3:]).numpy(), rtol=1e-4, atol=1e-4)
        expected = deltas.numpy() * np.array([0.1, 0.1, 0.2, 0.2], np.float32)
        np.testing.assert_allclose(moves, expected, rtol=1e-4, atol=1e-4)
    assert ("fc7_weight" in weights.arrays()) == (layers == 2)
    assert DetectorWeights(**weights.arrays()).features == 16


def test_fc7_is_trained_kept_and_read(toy_voc: Path, tmp_path: Path) -> None:
    train = load_voc(toy_voc, "train").subset(range(8))
    detector = SPPDetector(
        features=FeatureOptions(short_sides_px=(128,), flip_short_sides_px=()),
        head=HeadOptions(rank=16, hidden=32, layers=2), proposer=SelectiveSearch(max_windows=100),
        finetune=FinetuneOptions(epochs=2, images_per_batch=4, windows_per_image=16),
    ).fit(train)  # fmt: skip
    path = tmp_path / "m.safetensors"
    detector.save(path, "float32")
    loaded = SPPDetector.load(path)
    assert loaded.head.layers == 2
    assert loaded.weights_.fc7_weight.shape == (32, 32)
    x = np.random.default_rng(0).random((20, detector.window_features().dims), np.float32)
    assert np.array_equal(loaded.fc(x), detector.fc(x))
    tensors = detector.weights_.arrays()
    with pytest.raises(ModelFileError, match="fc7_bias is missing"):
        DetectorWeights.from_arrays({n: v for n, v in tensors.items() if n != "fc7_bias"}, "f")
    with pytest.raises(ModelFileError, match="fc7_weight has shape"):
        DetectorWeights.from_arrays(tensors | {"fc7_weight": np.zeros((32, 31), np.float32)}, "f")
    with pytest.raises(ArgumentError, match="layers: got 3"):
        SPPDetector(head=HeadOptions(layers=3))
