"""Frozen convolutions in torch, where ONNX Runtime has no graph of them or a CUDA device runs them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet.backbones.base import Backbone
from sppnet.devices import plain_inference

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TorchEngine"]


class TorchEngine:
    """A backbone of torch. The attributes are those of :class:`sppnet.backbones.engines.engine.MapEngine`.

    Args:
        backbone: frozen, on the device that is to run it.
        changes: what tells its weights from those of their file; empty where they are the same.
    """

    def __init__(self, backbone: Backbone, changes: str = "") -> None:
        self.backbone = backbone
        self.changes = changes
        self.name = backbone.name
        self.channels = int(backbone.channels)
        self.stride, self.offset, self.size_multiple = backbone.stride, backbone.offset, backbone.size_multiple
        self.native_side_px = backbone.native_side_px
        self.weights_sha256 = backbone.weights_sha256
        self.step: NDArray[np.float32] | None = None
        self.zero: NDArray[np.float32] | None = None
        self.device = str(next((p.device for p in backbone.parameters()), torch.device("cpu")))

    @property
    def identity(self) -> tuple[str, ...]:
        """Name of the convolutions, and the SHA-256 of their file or, where they come from none, of their weights."""
        if self.weights_sha256:
            return (self.name, self.weights_sha256, self.changes) if self.changes else (self.name, self.weights_sha256)
        digest = hashlib.sha256()
        for name, value in sorted(self.backbone.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}\0".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return self.name, digest.hexdigest()

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[Any] | Tensor:
        """Compute the map ``(h, w, channels)`` of ``image (H, W, 3)``, or a batch of them, float32.

        Returns:
            An array; a tensor on the device, where that is a CUDA device.
        """
        with plain_inference():
            found: Tensor = self.backbone(self.backbone.preprocess(image).to(self.device)).permute(0, 2, 3, 1)
            found = found if image.ndim == 4 else found[0]
            return found.numpy() if self.device == "cpu" else found
