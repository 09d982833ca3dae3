"""Engines by the name of the backbone."""

from __future__ import annotations

from sppnet.backbones.engines.engine import PRECISIONS, LiteEngine, Precision
from sppnet.backbones.engines.lite import ENDINGS, VARIANTS, lite_network
from sppnet.backbones.engines.published import Folded, fold_layers, read_published
from sppnet.backbones.engines.quantised import QuantisedLayers, load_shipped
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.backbones.sources import SOURCES, find_checked
from sppnet.errors import ArgumentError

__all__ = ["has_engine", "load_engine", "published_layers"]


def has_engine(name: str) -> bool:
    """Tell whether the backbone ``name`` runs in ONNX Runtime; others need torch."""
    variant, plus, ending = name.partition("+")
    return variant in VARIANTS and plus + ending in ENDINGS


def published_layers(name: str) -> Folded:
    """Load kernels and biases, float32, of the frozen convolutions ``name``.

    Raises:
        ArgumentError: an unknown name.
        WeightsError: the published file is missing, or another one.
    """
    network = lite_network(name)
    source = SOURCES[network.variant]
    return fold_layers(network, read_published(find_checked(source), source.sha256))


def load_engine(
    name: str, precision: Precision = "int8", threads: int | None = None, tuned: TunedConvolutions | None = None
) -> LiteEngine:
    """Load the frozen convolutions ``name`` with their published weights.

    Args:
        name: ``efficientnet-lite0`` or ``efficientnet-lite2``, with ``+mid``, ``+stride32``, ``+head`` or nothing.
        precision: ``int8``: the quantised layers that come with sppnet, which need no other package; ``float32``: the
            published file.
        threads: of ONNX Runtime; None: as many as this process may use processors.
        tuned: last blocks with weights of their own.

    Returns:
        What computes maps.

    Raises:
        ArgumentError: an unknown name or precision; or tuned convolutions of another network, or of a precision that
            doesn't fit.
        WeightsError: the weights are missing or other ones.
    """
    network = lite_network(name)
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    source = SOURCES[network.variant]
    weights: Folded | QuantisedLayers
    if precision == "int8":
        weights = load_shipped(network.variant)
        weights = weights if tuned is None else tuned.quantised(network, weights)
    else:
        weights = published_layers(name) | ({} if tuned is None else tuned.folded(network))
    return LiteEngine(network, weights, source.sha256, threads)
