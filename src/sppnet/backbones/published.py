"""AlexNet, VGG16 and SqueezeNet 1.1 up to their last map, and how the names in their weights files become ours.

The files come from other frameworks: kernels are stored as ``(height, width, in, out)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["alexnet", "convert_flax", "convert_squeezenet", "squeezenet", "vgg16"]


def alexnet() -> nn.Sequential:
    """The five convolutions of AlexNet in one tower (Krizhevsky, 2014, "One weird trick"); ends after the last ReLU."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(inplace=True),
    )  # fmt: skip


def vgg16() -> nn.Sequential:
    """The thirteen convolutions of VGG16 (Simonyan and Zisserman, 2014); ends after the ReLU of conv5_3."""
    parts: list[nn.Module] = []
    inputs = 3
    for stage, (repeats, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        if stage:
            parts.append(nn.MaxPool2d(2, 2))
        for _ in range(repeats):
            parts += [nn.Conv2d(inputs, channels, 3, 1, 1), nn.ReLU(inplace=True)]
            inputs = channels
    return nn.Sequential(*parts)


class _Fire(nn.Module):
    """1x1 squeeze, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze1x1(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def squeezenet() -> nn.Sequential:
    """SqueezeNet 1.1 (Iandola et al., 2016) up to fire9. Its poolings round up, as those of Caffe do."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(inplace=True), pool(),
        _Fire(64, 16, 64), _Fire(128, 16, 64), pool(),
        _Fire(128, 32, 128), _Fire(256, 32, 128), pool(),
        _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
    )  # fmt: skip


_FIRES = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}  # number of the module: place in squeezenet()


def convert_flax(layers: nn.Sequential, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``AlexNet_0.Conv_2.kernel`` to ``6.weight``: the n-th convolution of ``layers``. Other entries are left out."""
    places = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    out = {}
    for name, value in state.items():
        net, _, rest = name.partition(".")
        words = rest.split(".")
        if not net.startswith(("AlexNet", "VGG")) or not words[0].startswith("Conv_"):
            continue
        place = places[int(words[0].removeprefix("Conv_"))]
        out[f"{place}.{'weight' if words[1] == 'kernel' else 'bias'}"] = _kernel(value)
    return out


def convert_squeezenet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``fire2/expand1x1/fire2/expand1x1_W:0`` to ``3.expand1x1.weight``. The classifier (conv10) is left out."""
    out = {}
    for name, value in state.items():
        words = name.split("/")
        kind = "weight" if words[-1].split("_")[-1].startswith("W") else "bias"
        if words[0] == "conv1":
            out[f"0.{kind}"] = _kernel(value)
        elif words[0].startswith("fire"):
            out[f"{_FIRES[int(words[0].removeprefix('fire'))]}.{words[1]}.{kind}"] = _kernel(value)
    return out


def _kernel(value: Tensor) -> Tensor:
    """``(height, width, in, out)`` to ``(out, in, height, width)``; biases as they are."""
    return value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
