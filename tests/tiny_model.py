"""A small detector that was never trained: for tests of all that stands around detection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sppnet import SelectiveSearch, SPPDetector
from sppnet._types import F32
from sppnet.detection.options import FeatureOptions
from sppnet.detection.weights import DetectorWeights

__all__ = ["save_tiny_model"]


def save_tiny_model(path: Path, names: tuple[str, ...] = ("cat", "cup", "dög")) -> Path:
    """Random weights behind the real backbone, at short side 160 with 120 windows; finds something everywhere."""
    detector = SPPDetector(
        features=FeatureOptions(levels=(2, 1), short_sides_px=(160,)), proposer=SelectiveSearch(max_windows=120)
    )
    dims, hidden, classes = detector.window_features().dims, 48, len(names)
    g = torch.Generator().manual_seed(0)

    def some(*shape: int) -> F32:
        return torch.randn(*shape, generator=g).numpy()

    detector.weights_ = DetectorWeights(
        reduce_weight=some(24, dims) * 0.02,
        reduce_bias=np.zeros(24, np.float32),
        fc6_weight=some(hidden, 24) * 0.3,
        fc6_bias=np.zeros(hidden, np.float32),
        class_weight=some(classes, hidden) * 0.3,
        class_bias=np.zeros(classes, np.float32),
        box_weight=some(classes * 4, hidden) * 0.05,
        box_bias=np.zeros(classes * 4, np.float32),
        slope=np.full(classes, 1.5, np.float32),
        offset=np.zeros(classes, np.float32),
    )
    detector.class_names_ = names
    detector.metadata_ = {"sppnet_version": "0.1.0", "thresholds": {"cat": 0.8, "cup": 0.9}}
    detector.save(path)
    return path
