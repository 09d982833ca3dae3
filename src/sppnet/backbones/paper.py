"""The convolutional nets of the paper (section 3.1, table 1), as definitions: their weights were never on PyPI.

Each ends at its last convolution (with ReLU). The paper's table, for an image of 224 x 224:

    name         conv1            conv2           conv3        conv4    conv5    conv6, 7   map
    zf5          96 7x7 /2        256 5x5 /2      384 3x3      384 3x3  256 3x3  -          13 x 13
                 LRN, pool 3 /2   LRN, pool 3 /2
    convnet5     96 11x11 /4      256 5x5         384 3x3      384 3x3  256 3x3  -          13 x 13
                 LRN              LRN, pool 3 /2  pool 3 /2
    overfeat5    96 7x7 /2        256 5x5         512 3x3      512 3x3  512 3x3  -          18 x 18
                 pool 3 /3, LRN   pool 2 /2
    overfeat7    as overfeat5                                                    512 3x3    18 x 18

"The padding is adjusted to produce the expected output feature map size", says the paper, and so it is here: 55, 27 and
13 cells, or 36 and 18.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sppnet.errors import ArgumentError

__all__ = ["PAPER_NETS", "LocalResponseNorm", "PaperNet", "paper_net"]


class LocalResponseNorm(nn.Module):
    """Local response normalisation across channels of maps ``(N, C, H, W)``, equal to ``nn.LocalResponseNorm``.

    Computed by slices of the channels: faster than torch's three-dimensional pooling, and
    :func:`~sppnet.backbones.receptive_field.receptive_field` can follow it.

    Args:
        size: number of channels that are summed.
        alpha: factor of the mean of squares.
        beta: exponent.
        k: constant that is added.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (N, C, H, W)``."""
        before = self.size // 2
        square = nn.functional.pad(x * x, (0, 0, 0, 0, before, self.size - 1 - before))
        total = sum((square[:, i : i + x.shape[1]] for i in range(self.size)), torch.zeros_like(x))
        return x * (total * (self.alpha / self.size) + self.k) ** -self.beta


@dataclass(frozen=True)
class _Layer:
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 1
    after: tuple[str | tuple[int, int], ...] = ()  # "lrn", or (kernel, stride) of a pooling


@dataclass(frozen=True)
class PaperNet:
    """One column of the table.

    Attributes:
        layers: its convolutions.
        channels: of the feature map.
        stride: of the map's cells, as of :class:`~sppnet.backbones.base.Backbone`.
        offset: of the map's cells, likewise.
        min_side_px: the smallest side of an image that gives a cell.
        fixed_pool: kernel and stride of the last pooling of the network without pyramid, which makes the map of an
            image of 224 x 224 pixels 6 x 6.
    """

    layers: tuple[_Layer, ...]
    channels: int
    stride: int
    offset: float
    min_side_px: int
    fixed_pool: tuple[int, int]


_OVERFEAT = (_Layer(96, 7, 2, 1, ((3, 3), "lrn")), _Layer(256, 5, 1, 2, ((2, 2),)))
PAPER_NETS = {
    "zf5": PaperNet(
        (
            _Layer(96, 7, 2, 3, ("lrn", (3, 2))),
            _Layer(256, 5, 2, 1, ("lrn", (3, 2))),
            _Layer(384, 3),
            _Layer(384, 3),
            _Layer(256, 3),
        ),
        256, 16, 14.5, 29, (3, 2),
    ),
    "convnet5": PaperNet(
        (
            _Layer(96, 11, 4, 2, ("lrn",)),
            _Layer(256, 5, 1, 2, ("lrn", (3, 2))),
            _Layer(384, 3, 1, 1, ((3, 2),)),
            _Layer(384, 3),
            _Layer(256, 3),
        ),
        256, 16, 15.5, 31, (3, 2),
    ),
    "overfeat5": PaperNet((*_OVERFEAT, *(_Layer(512, 3),) * 3), 512, 12, 7.5, 15, (3, 3)),
    "overfeat7": PaperNet((*_OVERFEAT, *(_Layer(512, 3),) * 5), 512, 12, 7.5, 15, (3, 3)),
}  # fmt: skip


def paper_net(name: str, width: float = 1.0) -> nn.Sequential:
    """Build the convolutions of a net of the paper, with random weights (He initialisation, from torch's generator).

    Args:
        name: a key of :data:`PAPER_NETS`.
        width: factor on the number of channels of every layer (rounded to multiples of 8), for small experiments.

    Returns:
        The layers.

    Raises:
        ArgumentError: an unknown name or a width that isn't positive.
    """
    if name not in PAPER_NETS:
        raise ArgumentError(f"name: got {name!r}, expected one of {', '.join(PAPER_NETS)}")
    if not width > 0:
        raise ArgumentError(f"width: got {width!r}, expected a positive number")
    parts: list[nn.Module] = []
    inputs = 3
    for layer in PAPER_NETS[name].layers:
        outputs = max(8, round(layer.channels * width / 8) * 8)
        conv = nn.Conv2d(inputs, outputs, layer.kernel, layer.stride, layer.padding)
        nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        parts += [conv, nn.ReLU(inplace=True)]
        for what in layer.after:
            parts.append(LocalResponseNorm() if isinstance(what, str) else nn.MaxPool2d(*what))
        inputs = outputs
    return nn.Sequential(*parts)
