"""A small detector that was never trained: for tests of all that stands around detection."""

from __future__ import annotations

from pathlib import Path

import torch

from sppnet import SelectiveSearch, SPPDetector
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
    detector.weights_ = DetectorWeights(
        reduce_weight=torch.randn(24, dims, generator=g) * 0.02,
        reduce_bias=torch.zeros(24),
        fc6_weight=torch.randn(hidden, 24, generator=g) * 0.3,
        fc6_bias=torch.zeros(hidden),
        class_weight=torch.randn(classes, hidden, generator=g) * 0.3,
        class_bias=torch.zeros(classes),
        box_weight=torch.randn(classes * 4, hidden, generator=g) * 0.05,
        box_bias=torch.zeros(classes * 4),
        slope=torch.full((classes,), 1.5),
        offset=torch.zeros(classes),
    )
    detector.class_names_ = names
    detector.metadata_ = {"sppnet_version": "0.1.0", "thresholds": {"cat": 0.8, "cup": 0.9}}
    detector.save(path)
    return path
