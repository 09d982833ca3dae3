"""AlexNet, VGG16 and SqueezeNet 1.1 up to their last feature map, layer by layer as torchvision has them.

No weights come with them. They take a weights file of your own, for instance torchvision's
(``load_backbone("vgg16", Path("vgg16-397923af.pth"))``); layers have the same numbers and names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["alexnet", "convolutions_only", "squeezenet", "vgg16"]


def alexnet() -> nn.Sequential:
    """Build the five convolutions of AlexNet in one tower (Krizhevsky, 2014, "One weird trick").

    Returns:
        Layers that end after the last ReLU, with random weights.
    """
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(inplace=True),
    )  # fmt: skip


def vgg16() -> nn.Sequential:
    """Build the thirteen convolutions of VGG16 (Simonyan and Zisserman, 2014).

    Returns:
        Layers that end after the ReLU of conv5_3, with random weights.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for stage, (repeats, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        if stage:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(repeats):
            layers += [nn.Conv2d(inputs, channels, 3, 1, 1), nn.ReLU(inplace=True)]
            inputs = channels
    return nn.Sequential(*layers)


class _Fire(nn.Module):
    """1x1 squeeze, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def squeezenet() -> nn.Sequential:
    """Build SqueezeNet 1.1 (Iandola et al., 2016) up to fire9. Its poolings round up, as those of Caffe do.

    Returns:
        Layers with random weights.
    """

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(inplace=True), pool(),
        _Fire(64, 16, 64), _Fire(128, 16, 64), pool(),
        _Fire(128, 32, 128), _Fire(256, 32, 128), pool(),
        _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
    )  # fmt: skip


def convolutions_only(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the convolutions of a whole network's weights: ``features.3.bias`` becomes ``3.bias``.

    Args:
        state: tensors by name, of torchvision's network or of the layers alone.

    Returns:
        The tensors without those of ``classifier``, named as the layers above name them.
    """
    return {
        name.removeprefix("features."): value for name, value in state.items() if not name.startswith("classifier.")
    }
