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
    from sppnet.boxes import box_iou, nms
    from sppnet.classification.classifier import SPPClassifier
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.measure import measure_classifier
    from sppnet.classification.options import GradientOptions, NetworkOptions
    from sppnet.classification.recipes import train_by_gradient
    from sppnet.classification.run import classify_many
    from sppnet.classification.views import View
    from sppnet.datasets.converting import convert_dataset
    from sppnet.datasets.folder import ImageFolder, load_image_folder
    from sppnet.datasets.formats.voc import load_voc
    from sppnet.datasets.loading import load_dataset
    from sppnet.datasets.records import DetectionDataset, ImageRecord
    from sppnet.datasets.splitting import split_dataset
    from sppnet.datasets.writing import write_dataset
    from sppnet.detection.detections import Detections
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.exports import write_results
    from sppnet.detection.options import (
        FeatureOptions,
        FinetuneOptions,
        HeadOptions,
        SuppressionOptions,
        SvmOptions,
        TuningOptions,
    )
    from sppnet.detection.results import ImageResult
    from sppnet.detection.run import detect_many
    from sppnet.drawing import draw_detections
    from sppnet.errors import (
        ArgumentError,
        DatasetError,
        ImageError,
        InputFileError,
        MissingDependencyError,
        ModelFileError,
        NotFittedError,
        OutputError,
        ProposalError,
        SppnetError,
        UnknownFormatError,
        WeightsError,
    )
    from sppnet.evaluation.coco import evaluate_coco
    from sppnet.evaluation.voc import evaluate_voc
    from sppnet.export.detector import export_onnx
    from sppnet.export.torch_onnx import onnx_translations
    from sppnet.images import load_image
    from sppnet.pooling.pyramid import spatial_pyramid_pool
    from sppnet.pooling.tensors.layers import SpatialPyramidPool, WindowPyramidPool
    from sppnet.pooling.windows import pool_windows, score_windows
    from sppnet.proposals.base import Proposer
    from sppnet.proposals.grid import GridProposer
    from sppnet.proposals.run import propose_many
    from sppnet.proposals.search import SelectiveSearch, selective_search
    from sppnet.proposals.segmentation import graph_segmentation
    from sppnet.proposals.stored import load_proposals
    from sppnet.threads import set_num_threads

_HOMES = {
    "ArgumentError": "errors",
    "DatasetError": "errors",
    "DetectionDataset": "datasets.records",
    "Detections": "detection.detections",
    "FeatureOptions": "detection.options",
    "FinetuneOptions": "detection.options",
    "GradientOptions": "classification.options",
    "GridProposer": "proposals.grid",
    "HeadOptions": "detection.options",
    "ImageClassifier": "classification.image_classifier",
    "ImageError": "errors",
    "ImageFolder": "datasets.folder",
    "ImageRecord": "datasets.records",
    "ImageResult": "detection.results",
    "InputFileError": "errors",
    "MissingDependencyError": "errors",
    "ModelFileError": "errors",
    "NetworkOptions": "classification.options",
    "NotFittedError": "errors",
    "OutputError": "errors",
    "ProposalError": "errors",
    "Proposer": "proposals.base",
    "SPPClassifier": "classification.classifier",
    "SPPDetector": "detection.detector",
    "SelectiveSearch": "proposals.search",
    "SpatialPyramidPool": "pooling.tensors.layers",
    "SppnetError": "errors",
    "SuppressionOptions": "detection.options",
    "SvmOptions": "detection.options",
    "TuningOptions": "detection.options",
    "UnknownFormatError": "errors",
    "View": "classification.views",
    "WeightsError": "errors",
    "WindowPyramidPool": "pooling.tensors.layers",
    "box_iou": "boxes",
    "classify_many": "classification.run",
    "convert_dataset": "datasets.converting",
    "detect_many": "detection.run",
    "draw_detections": "drawing",
    "evaluate_coco": "evaluation.coco",
    "evaluate_voc": "evaluation.voc",
    "export_onnx": "export.detector",
    "graph_segmentation": "proposals.segmentation",
    "load_backbone": "backbones.registry",
    "load_dataset": "datasets.loading",
    "load_image": "images",
    "load_image_folder": "datasets.folder",
    "load_proposals": "proposals.stored",
    "load_voc": "datasets.formats.voc",
    "measure_classifier": "classification.measure",
    "nms": "boxes",
    "onnx_translations": "export.torch_onnx",
    "pool_windows": "pooling.windows",
    "propose_many": "proposals.run",
    "receptive_field": "backbones.receptive_field",
    "score_windows": "pooling.windows",
    "selective_search": "proposals.search",
    "set_num_threads": "threads",
    "spatial_pyramid_pool": "pooling.pyramid",
    "split_dataset": "datasets.splitting",
    "train_by_gradient": "classification.recipes",
    "write_dataset": "datasets.writing",
    "write_results": "detection.exports",
}

__all__ = [
    "ArgumentError",
    "DatasetError",
    "DetectionDataset",
    "Detections",
    "FeatureOptions",
    "FinetuneOptions",
    "GradientOptions",
    "GridProposer",
    "HeadOptions",
    "ImageClassifier",
    "ImageError",
    "ImageFolder",
    "ImageRecord",
    "ImageResult",
    "InputFileError",
    "MissingDependencyError",
    "ModelFileError",
    "NetworkOptions",
    "NotFittedError",
    "OutputError",
    "ProposalError",
    "Proposer",
    "SPPClassifier",
    "SPPDetector",
    "SelectiveSearch",
    "SpatialPyramidPool",
    "SppnetError",
    "SuppressionOptions",
    "SvmOptions",
    "TuningOptions",
    "UnknownFormatError",
    "View",
    "WeightsError",
    "WindowPyramidPool",
    "__version__",
    "box_iou",
    "classify_many",
    "convert_dataset",
    "detect_many",
    "draw_detections",
    "evaluate_coco",
    "evaluate_voc",
    "export_onnx",
    "graph_segmentation",
    "load_backbone",
    "load_dataset",
    "load_image",
    "load_image_folder",
    "load_proposals",
    "load_voc",
    "measure_classifier",
    "nms",
    "onnx_translations",
    "pool_windows",
    "propose_many",
    "receptive_field",
    "score_windows",
    "selective_search",
    "set_num_threads",
    "spatial_pyramid_pool",
    "split_dataset",
    "train_by_gradient",
    "write_dataset",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sppnet' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"sppnet.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from sppnet.errors import NO_TORCH, MissingDependencyError

        raise MissingDependencyError(f"{name}: {NO_TORCH}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
