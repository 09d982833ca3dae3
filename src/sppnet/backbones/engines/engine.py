"""Frozen convolutions as the detector and the classifier run them: an image in, a map out, without torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sppnet.backbones.engines.graphs import float_graph, int8_graph
from sppnet.backbones.engines.lite import VARIANTS, LiteNetwork
from sppnet.backbones.engines.published import Folded
from sppnet.backbones.engines.quantised import QuantisedLayers
from sppnet.errors import ArgumentError
from sppnet.runtime.session import OnnxSession

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PRECISIONS", "LiteEngine", "MapEngine", "Precision"]

Precision = Literal["int8", "float32"]
PRECISIONS: tuple[Precision, ...] = ("int8", "float32")


@runtime_checkable
class MapEngine(Protocol):
    """What runs frozen convolutions.

    Attributes:
        name: of the backbone.
        weights_sha256: of the weights file; empty where there is none.
        device: ``cpu``, or a CUDA device.
        channels: of the map.
        stride: pixels between neighbouring cells.
        offset: pixels from the edge of the image to the centre of cell 0.
        size_multiple: sides of images should be multiples of this many pixels.
        step, zero: float32 ``(channels,)``: a byte of the map stands for ``(byte - zero) * step``; None where maps are
            float32.
    """

    name: str
    weights_sha256: str
    device: str
    channels: int
    stride: int
    offset: float
    size_multiple: int
    step: NDArray[np.float32] | None
    zero: NDArray[np.float32] | None

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells its maps from those of others."""
        ...

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[Any] | Tensor:
        """Compute the map ``(h, w, channels)`` of ``image (H, W, 3)``, RGB bytes; or of a batch of images.

        Returns:
            An array, or a tensor on a CUDA device.
        """
        ...


class LiteEngine:
    """EfficientNet-Lite in ONNX Runtime. The attributes are those of :class:`MapEngine`.

    Args:
        network: its layers.
        weights: kernels and biases (float32), or quantised layers (int8).
        weights_sha256: of the published file that they were made from.
        threads: of ONNX Runtime; None: :func:`sppnet.threads.num_threads`.
    """

    def __init__(
        self,
        network: LiteNetwork,
        weights: Folded | QuantisedLayers,
        weights_sha256: str = "",
        threads: int | None = None,
    ) -> None:
        self.network = network
        self.weights = weights
        self.name = network.name
        self.weights_sha256 = weights_sha256
        self.device = "cpu"
        self.channels = network.channels
        self.stride = self.size_multiple = network.stride
        self.offset = network.stride - 0.5  # a test finds it by perturbing pixels
        self.native_side_px = VARIANTS[network.variant][2]
        self.step: NDArray[np.float32] | None = None
        self.zero: NDArray[np.float32] | None = None
        self.precision: Precision = "int8" if isinstance(weights, QuantisedLayers) else "float32"
        if isinstance(weights, QuantisedLayers):
            self.step, self.zero = weights.map_scale(network)
            model = int8_graph(network, weights)
        else:
            model = float_graph(network, weights)
        self._digest = hashlib.sha256(model).hexdigest()
        self._session = OnnxSession(model, threads)

    @property
    def identity(self) -> tuple[str, ...]:
        """Name of the network, precision, and the SHA-256 of its graph with all weights."""
        return self.name, self.precision, self._digest

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Compute a map.

        Args:
            image: uint8 ``(H, W, 3)``, RGB, or a batch ``(n, H, W, 3)``.

        Returns:
            ``(h, w, channels)``, or ``(n, h, w, channels)`` of a batch; uint8 (``int8`` precision) or float32.

        Raises:
            ArgumentError: another shape or dtype.
        """
        if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
            raise ArgumentError(f"image: expected uint8 (H, W, 3) or (n, H, W, 3), got {image.dtype} {image.shape}")
        found = self._session({"image": image if image.ndim == 4 else image[None]})[0]
        return found if image.ndim == 4 else found[0]
