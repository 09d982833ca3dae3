"""The layers behind the pooling in torch: on a CUDA device, and where something is trained from them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sppnet._types import F32
from sppnet.detection.weights import BOX_BLOCK, CLASS_BLOCK, DELTA_SCALE, DetectorWeights
from sppnet.devices import plain_inference

__all__ = ["TorchHead"]


class TorchHead:
    """Computes what :class:`sppnet.detection.heads.HeadEngine` computes.

    Args:
        weights: the matrices.
        device: that computes; as in :func:`sppnet.devices.as_device`.
    """

    def __init__(self, weights: DetectorWeights, device: str = "cpu") -> None:
        self.device = device
        self._m = {name: torch.from_numpy(value).to(device) for name, value in weights.arrays().items()}
        self.classes = weights.classes

    def fc(self, pooled: NDArray[np.float32] | Tensor) -> F32:
        """Fc features ``(K, H)`` of pooled windows ``(K, D)``, float32."""
        with plain_inference():
            return self.features(self._tensor(pooled)).cpu().numpy()

    def scores(self, features: F32) -> tuple[F32, F32]:
        """Margins ``(K, c)`` and box deltas ``(K, c, 4)`` of fc features ``(K, H)``."""
        with plain_inference():
            h = self._tensor(features)
            deltas = [self._block_deltas(h, block) for block in range(-(-self.classes // BOX_BLOCK))]
            return self.margins(h).cpu().numpy(), torch.cat(deltas, 1)[:, : self.classes].cpu().numpy()

    def reduced(self, pooled: Tensor) -> Tensor:
        """What the first, low-rank layer makes of pooled windows: ``(K, R)``."""
        return torch.addmm(self._m["reduce_bias"], pooled, self._m["reduce_weight"].T)

    def features(self, pooled: Tensor) -> Tensor:
        """Fc features of pooled windows."""
        return self.features_of_reduced(self.reduced(pooled))

    def features_of_reduced(self, reduced: Tensor) -> Tensor:
        """Fc features of what :meth:`reduced` gave."""
        h = reduced
        for layer in ("fc6", "fc7"):
            if len(self._m.get(f"{layer}_bias", ())):
                h = torch.addmm(self._m[f"{layer}_bias"], h, self._m[f"{layer}_weight"].T).relu_()
        return h

    def margins(self, features: Tensor) -> Tensor:
        """Margins ``(K, c)`` of fc features ``(K, H)``."""
        blocks = []
        for start in range(0, self.classes, CLASS_BLOCK):
            weight, bias = (self._m[n][start : start + CLASS_BLOCK] for n in ("class_weight", "class_bias"))
            missing = CLASS_BLOCK - len(bias)
            weight, bias = functional.pad(weight, (0, 0, 0, missing)), functional.pad(bias, (0, missing))
            blocks.append(torch.addmm(bias, features, weight.T)[:, : CLASS_BLOCK - missing])
        return torch.cat(blocks, 1)

    def box_deltas(self, features: Tensor, c: int) -> Tensor:
        """Box deltas ``(K, 4)`` of class ``c`` of fc features ``(K, H)``."""
        mine = slice(4 * c, 4 * c + 4)
        moved = torch.addmm(self._m["box_bias"][mine], features, self._m["box_weight"][mine].T)
        return moved * features.new_tensor(DELTA_SCALE)

    def _block_deltas(self, features: Tensor, block: int) -> Tensor:
        rows = slice(4 * BOX_BLOCK * block, 4 * BOX_BLOCK * (block + 1))
        missing = 4 * BOX_BLOCK - len(self._m["box_bias"][rows])
        weight = functional.pad(self._m["box_weight"][rows], (0, 0, 0, missing))
        deltas = torch.addmm(functional.pad(self._m["box_bias"][rows], (0, missing)), features, weight.T)
        return deltas.view(len(features), BOX_BLOCK, 4) * features.new_tensor(DELTA_SCALE)

    def _tensor(self, values: NDArray[np.float32] | Tensor) -> Tensor:
        return (torch.from_numpy(values) if isinstance(values, np.ndarray) else values).to(self.device)
