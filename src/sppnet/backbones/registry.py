"""Backbones by name: ``load_backbone("efficientnet-lite0")`` returns convolutions that end at a feature map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sppnet.backbones.base import IMAGENET, Backbone, Preprocess
from sppnet.backbones.classic import alexnet, convolutions_only, squeezenet, vgg16
from sppnet.backbones.efficientnet_lite import EfficientNetLite, convert_state_dict
from sppnet.backbones.engines.lite import lite_network, split_network
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.backbones.layers import fuse
from sppnet.backbones.paper import PAPER_NETS, paper_net
from sppnet.backbones.sources import DEFAULT_BACKBONE, SOURCES, WeightsSource, sha256_of
from sppnet.backbones.weights import load_weights, load_weights_file
from sppnet.errors import ArgumentError, WeightsError, did_you_mean

__all__ = [
    "DEFAULT_BACKBONE",
    "Backbone",
    "BackboneSpec",
    "backbone_names",
    "backbone_spec",
    "load_backbone",
    "put_tuned",
]


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a backbone without loading it. The fields are those of :class:`Backbone`.

    Attributes:
        layer: the one whose map it gives.
        source: of the weights; None where none are published as a package (give a file of your own).
        build: makes the whole network with random weights.
        convert: changes the names of a weights file into those of the network.
        layers: takes the part that is run out of the network.
    """

    name: str
    layer: str
    channels: int
    stride: int
    offset: float
    preprocess: Preprocess
    source: WeightsSource | None
    build: Callable[[], nn.Module]
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    layers: Callable[[nn.Module], nn.Sequential]
    min_side_px: int = 1
    native_side_px: int = 224
    mid: int | None = None
    mid_channels: int = 0

    def parameters(self) -> int:
        """Count weights and biases up to the feature map."""
        with torch.device("meta"):
            return sum(p.numel() for p in self.layers(self.build()).parameters())


# The endings of an EfficientNet-Lite's name.
# +mid: the map of the last block before the removed stride comes first; it has the same size, and sharper edges.
_MID = "+mid"
_STRIDE32 = "+stride32"  # as published, without dilation: a quarter of the cells, for classification
_HEAD = "+head"  # the same with the 1280 channels of the head (1x1 convolution, ReLU6)

# The centre of cell 0 at stride 16, for sides that are multiples of 16: pixel 15, whose middle is 15.5 from the edge.
# A test checks the offsets against receptive_field(), which takes a second: too long for every start of the program.
_LITE = {"": 15.5, _MID: 15.5, _STRIDE32: 31.5, _HEAD: 31.5}
_LITE_LAYERS = {
    "": "last block, dilated", _MID: "two blocks, dilated", _STRIDE32: "last block", _HEAD: "head"
}  # fmt: skip


def _lite(variant: str, ending: str) -> BackboneSpec:
    with torch.device("meta"):
        shape = EfficientNetLite(variant, head=False)
    dilated = ending in ("", _MID)
    mid = shape.last_strided_block if ending == _MID else None  # in layers, where the stem is 0

    def layers(network: nn.Module) -> nn.Sequential:
        if not isinstance(network, EfficientNetLite):
            raise TypeError(f"expected an EfficientNetLite, got {type(network).__name__}")
        if dilated:
            network.dilate_last_stride()
        head = [network.head] if ending == _HEAD and network.head is not None else []
        return nn.Sequential(network.stem, *network.blocks, *head)

    return BackboneSpec(
        name=variant + ending,
        layer=_LITE_LAYERS[ending],
        channels=1280 if ending == _HEAD else shape.channels,
        stride=16 if dilated else 32,
        offset=_LITE[ending],
        preprocess=Preprocess((127.0,), (128.0,)),
        source=SOURCES[variant],
        build=partial(EfficientNetLite, variant),
        convert=convert_state_dict,
        layers=layers,
        native_side_px=shape.native_side_px,
        mid=mid,
        mid_channels=0 if mid is None else int(getattr(shape.blocks[mid - 1], "channels")),  # noqa: B009 - typed Module
    )


def _whole(network: nn.Module) -> nn.Sequential:
    if not isinstance(network, nn.Sequential):
        raise TypeError(f"expected nn.Sequential, got {type(network).__name__}")
    return network


def _plain(
    name: str, layer: str, channels: int, stride: int, offset: float, min_side_px: int, build: Callable[[], nn.Module]
) -> BackboneSpec:
    return BackboneSpec(
        name, layer, channels, stride, offset, IMAGENET, None, build, convolutions_only, _whole, min_side_px
    )  # fmt: skip


_SPECS: dict[str, Callable[[], BackboneSpec]] = {
    **{f"efficientnet-lite{i}{e}": partial(_lite, f"efficientnet-lite{i}", e) for e in _LITE for i in (0, 2)},
    "alexnet": partial(_plain, "alexnet", "conv5", 256, 16, 15.5, 31, alexnet),
    "vgg16": partial(_plain, "vgg16", "conv5_3", 512, 16, 8.0, 16, vgg16),
    "squeezenet1.1": partial(_plain, "squeezenet1.1", "fire9", 512, 16, 15.5, 17, squeezenet),
    **{
        name: partial(
            _plain, name, f"conv{len(net.layers)}", net.channels, net.stride, net.offset, net.min_side_px,
            partial(paper_net, name),
        )
        for name, net in PAPER_NETS.items()
    },
}  # fmt: skip


def backbone_names() -> tuple[str, ...]:
    """List the names that :func:`load_backbone` takes."""
    return tuple(_SPECS)


def backbone_spec(name: str) -> BackboneSpec:
    """Describe a backbone without loading it.

    Args:
        name: one of :func:`backbone_names`. The nets of the paper may have ``@width`` at the end of their name:
            ``zf5@0.25`` has a quarter of the channels.

    Returns:
        The description.

    Raises:
        ArgumentError: no backbone has that name.
    """
    base, _, width = name.partition("@")
    if width and base in PAPER_NETS:
        try:
            narrow = float(width)
        except ValueError:
            narrow = 0.0
        if not 0 < narrow <= 4:
            raise ArgumentError(f"backbone: got {name!r}, expected a width from 0 to 4 after the @, as in {base}@0.25")
        with torch.device("meta"):
            net = paper_net(base, narrow)
        channels = [m.out_channels for m in net if isinstance(m, nn.Conv2d)][-1]
        return replace(_SPECS[base](), name=name, channels=channels, build=partial(paper_net, base, narrow))
    if name not in _SPECS:
        raise ArgumentError(f"backbone: got {name!r}; {did_you_mean(name, _SPECS)}expected one of {', '.join(_SPECS)}")
    return _SPECS[name]()


def load_backbone(
    name: str = DEFAULT_BACKBONE, path: Path | None = None, *, pretrained: bool = True, trainable: bool = False
) -> Backbone:
    """Load the backbone ``name``, frozen, with batch normalisation folded into its convolutions.

    Args:
        name: one of :func:`backbone_names`.
        path: a weights file. ``.safetensors`` holds weights of your own. ``.pth`` is the published file, or for a
            network without published weights one of your own, for instance torchvision's for ``vgg16``. None finds the
            published file in its installed package.
        pretrained: False gives random weights (from torch's generator) where there is no ``path``.
        trainable: True lets parameters take gradients and keeps batch normalisation.

    Returns:
        Convolutions that end at a feature map.

    Raises:
        ArgumentError: no backbone has that name.
        WeightsError: the weights are missing, not the published ones, or don't fit; or none are published, and neither
            ``path`` nor ``pretrained=False`` was given.
    """
    spec = backbone_spec(name)
    sha256 = ""
    if pretrained and path is None and spec.source is None:
        raise WeightsError(
            f"backbone {name}: there are no published weights for it. Give a weights file of your own (.safetensors or "
            ".pth), or train it from nothing (pretrained=False)"
        )
    state: Mapping[str, Tensor] | None = None
    if path is not None and (path.suffix == ".safetensors" or spec.source is None):
        state = load_weights_file(path)
        sha256 = sha256_of(path)
    elif pretrained and spec.source is not None:
        state, sha256 = load_weights(spec.source, path), spec.source.sha256
    network = spec.build()
    if state is not None:
        try:
            network.load_state_dict(spec.convert(state))
        except RuntimeError as error:
            where = path or (spec.source.file if spec.source else name)
            raise WeightsError(f"backbone weights {where}: they don't fit {name} ({error})") from None
    layers = spec.layers(network)
    if not trainable:
        fuse(layers.eval())
        layers = layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Backbone(
        name,
        layers,
        channels=spec.channels,
        stride=spec.stride,
        offset=spec.offset,
        preprocess=spec.preprocess,
        min_side_px=spec.min_side_px,
        native_side_px=spec.native_side_px,
        mid=spec.mid,
        mid_channels=spec.mid_channels,
        weights_sha256=sha256,
        licence=spec.source.licence if spec.source else "",
        trainable=trainable,
    )


def put_tuned(backbone: Backbone, tuned: TunedConvolutions) -> None:
    """Give the last blocks of an EfficientNet-Lite weights of their own, in place.

    Args:
        backbone: of :func:`load_backbone`, frozen.
        tuned: in any precision; float32 is what it becomes.

    Raises:
        ArgumentError: these are weights of another network.
    """
    network = lite_network(backbone.name)
    folded = tuned.folded(network)
    for layer in split_network(network, tuned.blocks)[1]:
        block, part = layer.name.split(".")
        conv = getattr(backbone.layers[1 + int(block)], part).conv  # the first layer is the stem
        kernel, bias = (torch.from_numpy(value) for value in folded[layer.name])
        conv.weight.data.copy_(kernel)
        conv.bias.data.copy_(bias)
