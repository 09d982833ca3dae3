"""What a classifier computes with: pooled vectors of the views of an image, and the outputs of vectors.

Frozen EfficientNet-Lites run in ONNX Runtime on the CPU, without torch; everything else is a network of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from sppnet._types import F32, U8
from sppnet.backbones.engines.engine import LiteEngine
from sppnet.classification.multiview import AnyView, MapViews
from sppnet.classification.views import View
from sppnet.errors import ArgumentError
from sppnet.pooling.bins import Levels, normalise_levels, num_bins
from sppnet.pooling.pyramid import by_channel, spatial_pyramid_pool
from sppnet.pooling.windows import pool_windows
from sppnet.runtime.onnx_graph import OnnxGraph
from sppnet.runtime.session import OnnxSession

__all__ = ["EngineNetwork", "Layers", "Network"]

Layers = Sequence[tuple[F32, F32]]
"""Fully connected layers: matrix ``(outputs, inputs)`` and bias ``(outputs,)`` of each."""


class Network(Protocol):
    """What a classifier computes with.

    Attributes:
        name: of the backbone.
        num_classes: outputs.
        linear: whether the outputs are one matrix product with vectors of unit length.
        has_pyramid: whether windows of a feature map can be pooled.
    """

    name: str
    num_classes: int
    linear: bool
    has_pyramid: bool

    @property
    def dims(self) -> int:
        """Length of a pooled vector."""
        ...

    def identity(self) -> tuple[Any, ...]:
        """What tells its vectors from those of others."""
        ...

    def vectors(self, pixels: U8, views: Sequence[AnyView]) -> F32:
        """Pool the views of one image.

        Args:
            pixels: uint8 ``(H, W, 3)``.
            views: of the image. Those of a :class:`MapViews` come scale by scale, first the windows of the image, then
                those of its mirror image.

        Returns:
            Vectors ``(V, dims)``, in the order of the views.

        Raises:
            ArgumentError: no view; or windows of feature maps are asked of a network without pyramid, or of an image
                that is smaller than the backbone takes.
        """
        ...

    def outputs(self, vectors: F32) -> F32:
        """Compute the outputs ``(V, num_classes)`` of vectors ``(V, dims)``."""
        ...


class EngineNetwork:
    """A frozen EfficientNet-Lite in ONNX Runtime, pyramid pooling, and fully connected layers behind it: no torch.

    The attributes are those of :class:`Network`.

    Args:
        engine: runs the convolutions, in float32.
        levels: of the pyramid.
        mode: ``max`` or ``avg`` pooling.
        normalise: scale every pooled vector to unit length.
        layers: behind the pooling; a ReLU stands between them.
    """

    def __init__(self, engine: LiteEngine, levels: Levels, mode: str, normalise: bool, layers: Layers) -> None:
        self.engine = engine
        self.name = engine.name
        self.levels, self.mode, self.normalise = normalise_levels(levels), mode, normalise
        self.num_classes = len(layers[-1][1]) if layers else 0
        self.linear = normalise and len(layers) == 1
        self.has_pyramid = True
        self._fc = OnnxSession(_fc_graph(self.dims, layers)) if layers else None

    @property
    def dims(self) -> int:
        """Length of a pooled vector."""
        return self.engine.channels * num_bins(self.levels)

    def with_layers(self, layers: Layers) -> EngineNetwork:
        """Give the same convolutions with other layers behind the pooling."""
        return EngineNetwork(self.engine, self.levels, self.mode, self.normalise, layers)

    def identity(self) -> tuple[Any, ...]:
        """What tells its vectors from those of others."""
        return *self.engine.identity, self.levels, self.mode, self.normalise

    def vectors(self, pixels: U8, views: Sequence[AnyView]) -> F32:
        """Pool the views of one image, see :class:`Network`."""
        if not views:
            raise ArgumentError("views: expected at least one")
        return np.concatenate([self._view(pixels, view) for view in views])

    def outputs(self, vectors: F32) -> F32:
        """Compute the outputs of vectors, see :class:`Network`."""
        if self._fc is None:
            raise RuntimeError("there are no layers yet")
        return self._fc({"vectors": vectors})[0]

    def _view(self, pixels: U8, view: AnyView) -> F32:
        if isinstance(view, View):
            return self._scaled(spatial_pyramid_pool(self._map(pixels, view), self.levels, self.mode)[None])
        return np.concatenate([self._windows(pixels, view, one) for one in view.passes()])

    def _windows(self, pixels: U8, views: MapViews, one: View) -> F32:
        image = one.apply(pixels, self.engine.size_multiple)
        found = self.engine(image).transpose(2, 0, 1)
        windows = views.windows(*image.shape[:2])
        pooled = pool_windows(
            found, windows, self.levels, self.mode, stride=self.engine.stride, offset=self.engine.offset
        )
        return self._scaled(by_channel(pooled, self.levels))

    def _map(self, pixels: U8, view: View) -> F32:
        found: F32 = self.engine(view.apply(pixels, self.engine.size_multiple)).transpose(2, 0, 1)
        return found

    def _scaled(self, vectors: F32) -> F32:
        if not self.normalise:
            return vectors
        # as torch.nn.functional.normalize: a vector of zeros stays what it is
        length = np.sqrt((vectors.astype(np.float64) ** 2).sum(1, keepdims=True))
        scaled: F32 = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
        return scaled


def _fc_graph(dims: int, layers: Layers) -> bytes:
    """Fully connected layers as an ONNX model: ONNX Runtime's products don't depend on the number of threads."""
    graph = OnnxGraph("fc")
    x = graph.input("vectors", "float32", ("n", dims))
    for i, (weight, bias) in enumerate(layers):
        if i:
            x = graph.node("Relu", [x], f"{i}.relu")
        constants = [graph.constant(f"{i}.weight", weight), graph.constant(f"{i}.bias", bias)]
        x = graph.node("Gemm", [x, *constants], "outputs" if i == len(layers) - 1 else f"{i}.linear", transB=1)
    graph.output("outputs", "float32", ("n", len(layers[-1][1])))
    return graph.to_bytes()
