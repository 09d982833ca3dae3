"""The classifier's outputs: the same alone, in a batch and in a ragged list, and equal to the parts put together."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sppnet.backbones.base import Backbone
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.errors import ArgumentError


def _backbone(trainable: bool = False) -> Backbone:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Conv2d(3, 6, 5, 4, 2), nn.ReLU(), nn.Conv2d(6, 7, 3, 2, 1), nn.ReLU())
    return Backbone("tiny", layers, channels=7, stride=8, offset=0.5, trainable=trainable)


def _images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(3, h, w, generator=g) for h, w in sizes]


@pytest.mark.parametrize(
    ("mode", "levels", "normalise"), list(product(("max", "avg"), ((3, 2, 1), ((2, 3),)), (False, True)))
)
def test_is_convolutions_adaptive_pools_and_fc(mode: str, levels: Any, normalise: bool) -> None:
    torch.manual_seed(0)
    network = SPPClassifier(_backbone(), levels, 5, mode=mode, hidden=(9,), normalise=normalise).eval()
    x = torch.stack(_images((40, 72), (40, 72)))
    pool: Any = nn.functional.adaptive_max_pool2d if mode == "max" else nn.functional.adaptive_avg_pool2d
    with torch.no_grad():
        maps = network.backbone.layers(x)
        assert maps.shape == (2, 7, 5, 9)
        vectors = torch.cat([pool(maps, level).flatten(1) for level in levels], 1)
        if normalise:
            vectors = vectors / vectors.norm(dim=1, keepdim=True)
        assert vectors.shape == (2, network.dims)
        torch.testing.assert_close(network.pooled(x), vectors, rtol=1e-5, atol=1e-6)
        _, first, _, last = network.fc
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        expected = (vectors @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_alone_in_a_batch_and_in_a_ragged_list() -> None:
    torch.manual_seed(1)
    network = SPPClassifier(_backbone(), (2, 1), 4, hidden=(8,)).eval()
    sizes = [(40, 72), (33, 64), (40, 72), (8, 8), (64, 33), (33, 64)]  # groups that interleave
    images = _images(*sizes)
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in images])
        together = network(images)
        assert together.shape == (6, 4)
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
        backwards = network(images[::-1]).flip(0)
        torch.testing.assert_close(backwards, alone, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(network(torch.stack([images[0], images[2]])), alone[[0, 2]], rtol=1e-5, atol=1e-6)
    assert len(alone.unique(dim=0)) == 6


def test_more_pixels_than_go_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SPPClassifier(_backbone(), (1,), 4, hidden=()).eval()
    x = torch.stack(_images(*[(24, 16)] * 7))
    with torch.no_grad():
        at_once = network(x)
        seen = []
        network.backbone.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
        monkeypatch.setattr("sppnet.classification.classifier._BATCH_PIXELS", 3 * 24 * 16)
        torch.testing.assert_close(network(x), at_once)
    assert seen == [3, 3, 1]


def test_fixed_pooling_takes_one_size() -> None:
    torch.manual_seed(0)
    pool = FixedPool(3, 2, (5, 9))
    assert (pool.bins, pool.out_features(7)) == (2 * 4, 2 * 4 * 7)
    network = SPPClassifier(_backbone(), pool, 3, hidden=()).eval()
    x = torch.stack(_images((40, 72)))
    with torch.no_grad():
        windows = network.backbone.layers(x).unfold(2, 3, 2).unfold(3, 3, 2)  # (1, 7, 2, 4, 3, 3)
        torch.testing.assert_close(network.pooled(x), windows.amax((4, 5)).flatten(1))
        with pytest.raises(ArgumentError, match=r"takes feature maps of \(5, 9\) cells only, got \(9, 5\)"):
            network(_images((72, 40)))
    with pytest.raises(ArgumentError, match="at least 6 rows"):
        FixedPool(6, 2, (5, 9))
    for size in ([5, 9], np.array([5, 9])):
        same: Any = FixedPool(np.int64(3), 2, size)  # type: ignore[arg-type]
        assert same.map_size == (5, 9)
        with torch.no_grad():
            torch.testing.assert_close(same(network.backbone.layers(x)), network.pooled(x))
    with pytest.raises(ArgumentError, match="stride: got 0, expected a whole number"):
        FixedPool(3, 0, (5, 9))
    with pytest.raises(ArgumentError, match="map_size: got 5"):
        FixedPool(3, 2, 5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"map_size: got \(5, 9, 9\), expected two numbers"):
        FixedPool(3, 2, (5, 9, 9))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("levels", "mode"), [((2, 1), "max"), ((2, 1), "avg"), (FixedPool(3, 2, (5, 9)), "max")], ids=str
)
@pytest.mark.parametrize("trainable", [False, True])
def test_gradients_end_where_the_backbone_is_frozen(levels: Any, mode: str, trainable: bool) -> None:
    network = SPPClassifier(_backbone(trainable), levels, 3, mode=mode, hidden=(4,), dropout=0.0).train()
    x = torch.stack(_images((40, 72), (40, 72)))
    nn.functional.cross_entropy(network(x), torch.tensor([0, 2])).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.fc.parameters())
    assert all((p.grad is not None) == trainable for p in network.backbone.parameters())


def test_last_layer_can_be_set() -> None:
    network = SPPClassifier(_backbone(), (1,), 2, hidden=())
    weight, bias = torch.randn(2, 7), torch.tensor([1.0, -1.0])
    assert network.set_last_layer(weight, bias) is network
    (x,) = _images((16, 16))
    with torch.no_grad():
        torch.testing.assert_close(network([x]), network.pooled([x]) @ weight.T + bias)


def test_wrong_images_are_told() -> None:
    network = SPPClassifier(_backbone(), (1,), 2, hidden=())
    with pytest.raises(ArgumentError, match=r"expected \(N, 3, H, W\).*got \(3, 8, 8\)"):
        network(torch.zeros(3, 8, 8))
    with pytest.raises(ArgumentError, match="N >= 1"):
        network(torch.zeros(0, 3, 8, 8))
    with pytest.raises(ArgumentError, match="at least one pixel"):
        network([torch.zeros(3, 0, 8)])
    with pytest.raises(ArgumentError, match="empty list"):
        network([])
    with pytest.raises(ArgumentError, match=r"number 1 is \(1, 8, 8\)"):
        network([torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)])
    with pytest.raises(ArgumentError, match="number 0 is str"):
        network(["cat.jpg"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_classes": 0}, "num_classes: got 0"),
        ({"num_classes": 3.0}, "num_classes: got 3.0"),
        ({"levels": (n for n in (2, 1))}, "levels: expected a sequence"),
        ({"levels": (2.0, 1)}, "levels: expected ints"),
        ({"hidden": 8}, "hidden: got 8"),
        ({"hidden": (-1,)}, "hidden: got -1"),
        ({"dropout": 1.5}, "dropout: got 1.5"),
        ({"backbone": "zf5"}, "backbone: got str"),
    ],
)
def test_wrong_parameters_are_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SPPClassifier(**{"backbone": _backbone()} | values)


def test_numbers_of_numpy_make_the_same_network() -> None:
    levels: Any = np.array([[2, 3], [1, 1]])
    network = SPPClassifier(_backbone(), levels, np.int64(4), hidden=np.array([8]), dropout=np.float32(0.25))  # type: ignore[arg-type]
    assert (network.pool.levels, network.dims) == (((2, 3), (1, 1)), 7 * 7)
    assert json.dumps([network.hidden, network.dropout, network.num_classes]) == "[[8], 0.25, 4]"
