"""Backbones of other libraries, through stand-ins with the same interface (the libraries themselves aren't needed)."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sppnet.backbones.adapters import from_module, from_timm, from_torchvision, from_transformers
from sppnet.backbones.base import IMAGENET
from sppnet.errors import ArgumentError, MissingDependencyError


def _convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1))


class _Patches(nn.Module):
    """As a vision transformer: attention, whose receptive field can't be told cell by cell."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        tokens = y.flatten(2).transpose(1, 2)
        tokens = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return tokens.transpose(1, 2).reshape(y.shape)


def test_any_module() -> None:
    layers = _convolutions()
    net = from_module(layers, "mine")
    assert (net.name, net.channels, net.stride, net.offset, net.size_multiple) == ("mine", 16, 8, 0.5, 8)
    x = net.preprocess(np.zeros((64, 96, 3), np.uint8))
    torch.testing.assert_close(net(x), layers(x))
    assert not any(p.requires_grad for p in net.parameters())
    assert from_module(_convolutions(), trainable=True).training


def test_attention_shares_out_the_image() -> None:
    net = from_module(_Patches())
    assert (net.channels, net.stride, net.offset) == (12, 16, 8.0)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "ends at a map"),
        (nn.Conv2d(3, 4, 3, (1, 2)), "one whole stride"),
        (nn.Conv2d(3, 4, 3, 1, (1, 0)), "one offset"),
    ],
)
def test_modules_without_one_stride_are_refused(module: nn.Module, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        from_module(module)


def _fake(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = ModuleType(name)
    vars(module).update(contents)
    if "." in name:
        parent = name.partition(".")[0]
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, name, module)


def test_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Vgg(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.avgpool = _convolutions(), nn.AdaptiveAvgPool2d(7)

    class Resnet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.layer1 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1)
            self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 2)

    def get_model(name: str, weights: str | None) -> nn.Module:
        asked.append((name, weights))
        return Vgg() if name == "vgg11" else Resnet()

    _fake(monkeypatch, "torchvision.models", get_model=get_model)
    net = from_torchvision("vgg11")
    assert (net.name, net.channels, net.stride) == ("torchvision/vgg11", 16, 8)
    net = from_torchvision("resnet18", pretrained=False)
    assert (net.channels, net.stride, net.preprocess) == (6, 4, IMAGENET)
    assert asked == [("vgg11", "DEFAULT"), ("resnet18", None)]
    assert from_torchvision(Vgg()).channels == 16
    with pytest.raises(ArgumentError, match="neither 'features' nor 'avgpool'"):
        from_torchvision(nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.25), "input_size": (3, 96, 96), "license": "mit"}

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = _convolutions()
            self.pretrained_cfg = cfg

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.body(x)]

    def create_model(name: str, pretrained: bool, features_only: bool, out_indices: tuple[int, ...]) -> nn.Module:
        assert (name, pretrained, features_only, out_indices) == ("any", True, True, (-2,))
        return Features()

    _fake(monkeypatch, "timm", create_model=create_model)
    net = from_timm("any", out_index=-2)
    assert (net.channels, net.stride, net.native_side_px, net.licence) == (16, 8, 96, "mit")
    assert net.preprocess.mean == (127.5, 127.5, 127.5)
    white = net.preprocess(np.full((8, 8, 3), 255, np.uint8))
    assert white[0, :, 0, 0].tolist() == [1, 1, 2]


def test_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = _convolutions()

        def forward(self, x: Tensor) -> SimpleNamespace:
            return SimpleNamespace(feature_maps=(x, self.body(x)))

    def from_pretrained(name: str, **options: Any) -> nn.Module:
        assert options == {"out_features": ["stage4"]}
        return Model()

    def no_processor(name: str) -> None:
        raise OSError("no preprocessor_config.json")

    _fake(
        monkeypatch, "transformers",
        AutoBackbone=SimpleNamespace(from_pretrained=from_pretrained),
        AutoImageProcessor=SimpleNamespace(from_pretrained=no_processor),
    )  # fmt: skip
    net = from_transformers("some/model", out_feature="stage4")
    assert (net.name, net.channels, net.stride, net.preprocess) == ("transformers/some/model", 16, 8, IMAGENET)


@pytest.mark.parametrize(
    ("function", "package"),
    [(from_torchvision, "torchvision"), (from_timm, "timm"), (from_transformers, "transformers")],
)
def test_missing_libraries(monkeypatch: pytest.MonkeyPatch, function: Any, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        function("name")
