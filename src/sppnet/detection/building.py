"""The parts of a detector, built from its parameters: convolutions, window features, head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sppnet.backbones.engines.engine import MapEngine
from sppnet.backbones.engines.load import has_engine, load_engine
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.detection.features import WindowFeatures
from sppnet.detection.heads import Head, HeadEngine
from sppnet.detection.maps import MapScale
from sppnet.detection.options import FeatureOptions
from sppnet.detection.weights import DetectorWeights
from sppnet.errors import ArgumentError

if TYPE_CHECKING:
    from sppnet.backbones.base import Backbone

__all__ = ["build_engine", "build_features", "build_head", "check_backbone"]


def check_backbone(backbone: str | Backbone | MapEngine) -> None:
    """Refuse what is neither the name of a backbone nor one.

    Raises:
        ArgumentError: it isn't.
    """
    if isinstance(backbone, str):
        if not has_engine(backbone):
            from sppnet.backbones.registry import backbone_spec

            backbone_spec(backbone)
    elif not isinstance(backbone, MapEngine):
        from sppnet.backbones.base import Backbone

        if not isinstance(backbone, Backbone):
            raise ArgumentError(f"backbone: got {type(backbone).__name__}, expected a name or a Backbone")


def build_engine(
    backbone: str | Backbone | MapEngine, precision: str, device: str, tuned: TunedConvolutions | None = None
) -> MapEngine:
    """Load the convolutions: in ONNX Runtime where it has them, otherwise in torch.

    Args:
        backbone: its name, or one of your own.
        precision: see :class:`FeatureOptions`.
        device: ``cpu`` or a CUDA device. There the convolutions always run in torch, in float32.
        tuned: last blocks with weights of their own.

    Raises:
        ArgumentError: tuned convolutions of another backbone.
    """
    on_cpu = device == "cpu"
    if isinstance(backbone, str) and on_cpu and has_engine(backbone):
        return load_engine(backbone, "int8" if precision == "int8" else "float32", tuned=tuned)
    if tuned is not None and not (isinstance(backbone, str) and has_engine(backbone)):
        raise ArgumentError(
            f"backbone: got {backbone!r}, but the tuned convolutions of this detector are those of {tuned.network!r}"
        )
    if not isinstance(backbone, str) and isinstance(backbone, MapEngine):
        if not on_cpu:
            raise ArgumentError(f"device: got {device!r}, but this backbone runs on the CPU only")
        return backbone
    from sppnet.backbones.engines.torch_engine import TorchEngine
    from sppnet.backbones.registry import load_backbone, put_tuned

    if isinstance(backbone, str):
        loaded = load_backbone(backbone)
        if tuned is not None:
            put_tuned(loaded, tuned)
        return TorchEngine(loaded.to(device), "" if tuned is None else tuned.digest)
    # a module moves in place, and this one may be in use elsewhere
    return TorchEngine(backbone if on_cpu else copy.deepcopy(backbone).to(device))


def build_features(engine: MapEngine, options: FeatureOptions, short_sides_px: Sequence[int]) -> WindowFeatures:
    """Give the maps and vectors of ``options.method`` at the scales ``short_sides_px``."""
    if options.method == "rcnn":
        from sppnet.detection.crops import CropFeatures

        return CropFeatures(engine, options.levels)
    return WindowFeatures(engine, options.levels, short_sides_px)


def check_dims(weights: DetectorWeights, dims: int) -> None:
    """Refuse vectors of another length than the layers were trained on.

    Raises:
        ArgumentError: ``dims`` is another one.
    """
    trained = weights.reduce_weight.shape[1]
    if dims != trained:
        raise ArgumentError(
            f"this detector was trained on vectors of {trained} numbers, and its backbone and levels give {dims}; "
            "fit it again, or set backbone and levels to those that it was trained with"
        )


def build_head(weights: DetectorWeights, quantised: MapScale | None, device: str, dims: int | None = None) -> Head:
    """Give the layers behind the pooling.

    Args:
        weights: the matrices.
        quantised: what the bytes of pooled windows stand for, where they are bytes.
        device: ``cpu`` or a CUDA device.
        dims: length of the vectors that it will get, to be checked.

    Raises:
        ArgumentError: the layers were trained on vectors of another length.
    """
    if dims is not None:
        check_dims(weights, dims)
    if device == "cpu":
        return HeadEngine(weights.arrays(), quantised)
    from sppnet.detection.torch_head import TorchHead

    return TorchHead(weights, device)
