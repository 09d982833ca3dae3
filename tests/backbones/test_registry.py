"""All backbones: what the table says of them is what their layers do; weights files of one's own."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from sppnet.backbones.base import Backbone, Preprocess
from sppnet.backbones.paper import PAPER_NETS, LocalResponseNorm, paper_net
from sppnet.backbones.receptive_field import receptive_field
from sppnet.backbones.registry import backbone_names, backbone_spec, load_backbone
from sppnet.errors import ArgumentError


def _load(name: str) -> Backbone:
    """With its weights where they are installed."""
    source = backbone_spec(name).source
    if source is not None and importlib.util.find_spec(source.package) is None:
        pytest.skip(f"needs {source.requirement}")
    return load_backbone(name, pretrained=source is not None)


# looking at every operator takes seconds: of the EfficientNets only one with every ending (the plain one is looked at
# in test_efficientnet_lite.py)
LOOKED_AT = [n for n in backbone_names() if not n.startswith("efficientnet") or n.startswith("efficientnet-lite0+")]


@pytest.mark.parametrize("name", LOOKED_AT)
def test_table_is_what_the_layers_do(name: str) -> None:
    """Channels, stride, offset and the least side, of all definitions, without their weights."""
    spec = backbone_spec(name)
    with torch.device("meta"):
        layers = spec.layers(spec.build()).eval()
    multiple = spec.stride
    size = (224 // multiple * multiple, 320 // multiple * multiple)
    field = receptive_field(layers, size)
    assert field.stride == (spec.stride, spec.stride)
    assert field.offset == (spec.offset, spec.offset)
    x = torch.empty(1, 3, *size, device="meta")
    assert layers(x).shape[1] == spec.channels
    least = torch.empty(1, 3, spec.min_side_px, 100, device="meta")
    assert layers(least).shape[2] == 1
    if spec.min_side_px > 1:
        with pytest.raises(RuntimeError):
            assert layers(least[:, :, 1:]).shape[2] > 0
    assert spec.parameters() == sum(p.numel() for p in layers.parameters())


@pytest.mark.parametrize("name", ["efficientnet-lite2", "efficientnet-lite0+head"])
def test_pretrained_maps_tell_images_apart(name: str) -> None:
    """Weights that were read in a wrong order or layout give maps that know nothing.

    Two crops of a cat and two of a rocket: within a kind the pooled maps are alike, between the kinds they aren't.
    """
    net = _load(name)
    cat, rocket = data.chelsea(), data.rocket()
    crops = [cat[20:276, 60:316], cat[40:296, 100:356], rocket[40:296, 200:456], rocket[80:336, 180:436]]
    maps = net(net.preprocess(np.stack(crops)))
    spec = backbone_spec(name)
    assert maps.shape[1] == spec.channels == net.channels
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(maps).all()
    v = nn.functional.normalize(maps.mean((2, 3)) - maps.mean((0, 2, 3)), dim=1)
    alike = v @ v.T
    assert min(alike[0, 1], alike[2, 3]) > 0.5 > 0 > max(alike[0, 2], alike[1, 3])
    assert net.weights_sha256 == spec.source.sha256  # type: ignore[union-attr]
    assert net.licence


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("zf5", {55, 27, 13}), ("convnet5", {55, 27, 13}), ("overfeat5", {36, 18}), ("overfeat7", {36, 18})],
)
def test_paper_nets_have_the_maps_of_the_table(name: str, sizes: set[int]) -> None:
    with torch.device("meta"):
        net = paper_net(name)
        x = torch.empty(1, 3, 224, 224)
    seen = []
    for layer in net:
        x = layer(x)
        seen.append(x.shape[-1])
    assert sizes <= set(seen)
    assert x.shape[-1] == min(sizes)
    kernel, stride = PAPER_NETS[name].fixed_pool
    assert nn.functional.max_pool2d(x, kernel, stride).shape[-2:] == (6, 6)
    convs = [m for m in net if isinstance(m, nn.Conv2d)]
    assert len(convs) == int(name[-1])


def test_narrow_paper_net() -> None:
    wide, narrow = paper_net("zf5"), paper_net("zf5", 0.25)
    assert [c.out_channels for c in narrow if isinstance(c, nn.Conv2d)] == [24, 64, 96, 96, 64]
    assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in wide.parameters()) / 14
    with pytest.raises(ArgumentError, match="width"):
        paper_net("zf5", 0)
    with pytest.raises(ArgumentError, match="'zf6', expected one of zf5"):
        paper_net("zf6")


def test_local_response_norm_is_torchs() -> None:
    x = torch.randn(2, 12, 5, 4)
    for size in (5, 4, 1):
        torch.testing.assert_close(LocalResponseNorm(size, 0.3)(x), nn.LocalResponseNorm(size, 0.3)(x))


def test_stride_32_is_every_second_cell_of_the_dilated_map() -> None:
    dense, coarse, both = (load_backbone(f"efficientnet-lite0{e}") for e in ("", "+stride32", "+mid"))
    x = dense.preprocess(np.ascontiguousarray(data.chelsea()[:288, :416]))
    torch.testing.assert_close(dense(x)[..., 1::2, 1::2], coarse(x), rtol=1e-4, atol=1e-3)
    assert torch.equal(both(x)[:, -320:], dense(x))
    assert both.channels == 432
    assert both.mid is not None
    head = load_backbone("efficientnet-lite0+head")(x)
    assert head.shape == (1, 1280, 9, 13)
    assert 0 <= head.min() < head.max() <= 6


def test_preprocess() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    got = Preprocess((1.0, 2.0, 3.0), (2.0,), bgr=True)(image)
    assert got.shape == (1, 3, 2, 3)
    assert got[0, 0, 0, 0] == (2 - 1) / 2  # blue comes first, and has the first mean
    assert got[0, 2, 1, 2] == (15 - 3) / 2
    assert torch.equal(Preprocess((1.0,), (2.0,))(np.stack([image, image]))[1], (got.flip(1) * 0 + _planes(image))[0])
    with pytest.raises(ArgumentError, match="uint8"):
        Preprocess((0.0,), (1.0,))(image.astype(np.float32))


def _planes(image: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(image).float().permute(2, 0, 1)[None] - 1) / 2


def test_images_smaller_than_a_cell_still_give_one() -> None:
    net = load_backbone("zf5", pretrained=False)
    assert net(torch.randn(1, 3, 7, 40)).shape[2] == 1
    assert net.map_size(224, 320) == tuple(net(torch.randn(1, 3, 224, 320)).shape[2:]) == (13, 19)


def test_trainable_and_frozen() -> None:
    frozen = load_backbone("zf5", pretrained=False).train()
    assert not frozen.training
    assert not any(p.requires_grad for p in frozen.parameters())
    net = load_backbone("efficientnet-lite0+stride32", trainable=True)
    assert net.training
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    x = torch.randn(2, 3, 64, 64)
    # the same in evaluation, with and without batch normalisation folded in
    torch.testing.assert_close(net.eval()(x), load_backbone("efficientnet-lite0+stride32")(x), rtol=1e-3, atol=1e-3)
    net.train()(x).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_names_that_mean_nothing() -> None:
    with pytest.raises(ArgumentError, match=r"got 'efficientnet-lite9'; did you mean 'efficientnet-lite"):
        backbone_spec("efficientnet-lite9")
    for width in ("x", "0", "9"):
        with pytest.raises(ArgumentError, match=r"expected a width from 0 to 4 after the @, as in zf5@0\.25"):
            backbone_spec(f"zf5@{width}")
    spec = backbone_spec("zf5@0.5")
    assert (spec.channels, spec.stride, spec.source) == (128, 16, None)
    assert repr(load_backbone("zf5@0.05", pretrained=False)).startswith(
        "Backbone(\n  'zf5@0.05', channels=16, stride=16"
    )
