"""sppnet: spatial pyramid pooling networks (He et al., 2014) for detection and classification.

The public names are loaded when they are first used, so ``import sppnet`` is quick and nobody pays for what they don't
use: the pooling layer alone never loads the detector, and compiled kernels are loaded at their first call.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sppnet.backbones.receptive_field import receptive_field
    from sppnet.backbones.registry import load_backbone
    from sppnet.datasets.formats.voc import load_voc
    from sppnet.datasets.loading import load_dataset
    from sppnet.datasets.records import DetectionDataset, ImageRecord
    from sppnet.datasets.splitting import split_dataset
    from sppnet.detection.detections import Detections
    from sppnet.detection.detector import SPPDetector
    from sppnet.evaluation.coco import evaluate_coco
    from sppnet.evaluation.voc import evaluate_voc
    from sppnet.images import load_image
    from sppnet.pooling.pyramid import SpatialPyramidPool, spatial_pyramid_pool
    from sppnet.pooling.windows import pool_windows, score_windows
    from sppnet.proposals.grid import GridProposer
    from sppnet.proposals.search import SelectiveSearch, selective_search
    from sppnet.proposals.segmentation import graph_segmentation
    from sppnet.proposals.stored import load_proposals

_HOMES = {
    "DetectionDataset": "datasets.records",
    "Detections": "detection.detections",
    "GridProposer": "proposals.grid",
    "ImageRecord": "datasets.records",
    "SPPDetector": "detection.detector",
    "SelectiveSearch": "proposals.search",
    "SpatialPyramidPool": "pooling.pyramid",
    "evaluate_coco": "evaluation.coco",
    "evaluate_voc": "evaluation.voc",
    "graph_segmentation": "proposals.segmentation",
    "load_backbone": "backbones.registry",
    "load_dataset": "datasets.loading",
    "load_image": "images",
    "load_proposals": "proposals.stored",
    "load_voc": "datasets.formats.voc",
    "pool_windows": "pooling.windows",
    "receptive_field": "backbones.receptive_field",
    "score_windows": "pooling.windows",
    "selective_search": "proposals.search",
    "spatial_pyramid_pool": "pooling.pyramid",
    "split_dataset": "datasets.splitting",
}

__all__ = [
    "DetectionDataset",
    "Detections",
    "GridProposer",
    "ImageRecord",
    "SPPDetector",
    "SelectiveSearch",
    "SpatialPyramidPool",
    "__version__",
    "evaluate_coco",
    "evaluate_voc",
    "graph_segmentation",
    "load_backbone",
    "load_dataset",
    "load_image",
    "load_proposals",
    "load_voc",
    "pool_windows",
    "receptive_field",
    "score_windows",
    "selective_search",
    "spatial_pyramid_pool",
    "split_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sppnet' has no attribute {name!r}")
    value = getattr(import_module(f"sppnet.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
