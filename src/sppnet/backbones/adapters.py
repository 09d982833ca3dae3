"""Backbones of other libraries: any module of your own, torchvision, timm, and Hugging Face transformers.

sppnet doesn't need these libraries, and imports one only when its function here is called. They download weights
themselves; ``pretrained=False`` or a folder of your own prevents that.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sppnet.backbones.base import IMAGENET, Backbone, Preprocess
from sppnet.backbones.receptive_field import receptive_field
from sppnet.errors import ArgumentError, MissingDependencyError

__all__ = ["from_module", "from_timm", "from_torchvision", "from_transformers"]


def from_module(
    module: nn.Module,
    name: str = "custom",
    *,
    preprocess: Preprocess = IMAGENET,
    size: tuple[int, int] = (224, 224),
    size_multiple: int | None = None,
    min_side_px: int = 1,
    trainable: bool = False,
    licence: str = "",
) -> Backbone:
    """Make a :class:`Backbone` of any module that computes a feature map.

    Channels, stride and offset are found by running the module once on the meta device
    (:func:`~sppnet.backbones.receptive_field.receptive_field`). Where that isn't possible (attention, interpolation),
    the cells are assumed to divide the image evenly, and the module is run once.

    Args:
        module: computes a map ``(N, C, h, w)`` of images ``(N, 3, H, W)``. It is used itself, not copied.
        name: any name.
        preprocess: conversion of bytes to its input.
        size: a height and width that it takes, in pixels.
        size_multiple: input sides should be multiples of this many pixels. Default: the stride.
        min_side_px: the smallest side that still gives a cell.
        trainable: whether its parameters take gradients.
        licence: of its weights.

    Returns:
        The backbone.

    Raises:
        ArgumentError: the module computes no map; or its strides are unequal in x and y, or not whole numbers.
    """
    multiple = size_multiple
    try:
        field = receptive_field(module, size)
        strides, offsets = field.stride, field.offset
        channels = _channels_on_meta(module, size)
    except (ArgumentError, NotImplementedError, RuntimeError):
        strides, offsets, channels = _even_cells(module, size)
    if strides[0] != strides[1] or offsets[0] != offsets[1] or strides[0] != int(strides[0]):
        raise ArgumentError(
            f"module: its cells have strides {strides} and offsets {offsets} in x and y at {size}; expected one whole "
            "stride and one offset. Give another size"
        )
    return Backbone(
        name,
        module,
        channels=channels,
        stride=int(strides[0]),
        offset=offsets[0],
        preprocess=preprocess,
        size_multiple=multiple,
        min_side_px=min_side_px,
        native_side_px=min(size),
        licence=licence,
        trainable=trainable,
    )


def _channels_on_meta(module: nn.Module, size: tuple[int, int]) -> int:
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    meta = {name: torch.empty_like(t, device="meta") for name, t in state.items()}
    training = {m: m.training for m in module.modules()}
    try:
        module.eval()
        with torch.no_grad():
            output = torch.func.functional_call(module, meta, (torch.empty(1, 3, *size, device="meta"),))
    finally:
        for m, flag in training.items():
            m.training = flag
    return int(output.shape[1])


def _even_cells(
    module: nn.Module, size: tuple[int, int]
) -> tuple[tuple[float, float], tuple[float, float], int]:  # fmt: skip
    training = {m: m.training for m in module.modules()}
    try:
        module.eval()
        with torch.no_grad():
            output = module(torch.zeros(1, 3, *size))
    finally:
        for m, flag in training.items():
            m.training = flag
    if not isinstance(output, Tensor) or output.ndim != 4:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ArgumentError(f"module: expected one that ends at a map (N, C, H, W), got {got}")
    y, x = (side / cells for side, cells in zip(size, output.shape[2:], strict=True))
    return (x, y), (x / 2, y / 2), int(output.shape[1])


def from_torchvision(
    model: str | nn.Module, *, pretrained: bool = True, size: tuple[int, int] = (224, 224), trainable: bool = False
) -> Backbone:
    """Take the convolutions of a torchvision classifier: its ``features``, or everything before ``avgpool``.

    Args:
        model: a name that ``torchvision.models.get_model`` knows, or a model.
        pretrained: load its default weights, where a name is given.
        size: a height and width that it takes, in pixels.
        trainable: whether its parameters take gradients.

    Returns:
        The backbone.

    Raises:
        MissingDependencyError: torchvision isn't installed (and a name was given).
        ArgumentError: the model has neither ``features`` nor ``avgpool``.
    """
    name = model if isinstance(model, str) else type(model).__name__.lower()
    if isinstance(model, str):
        models: Any = _need("torchvision.models", "torchvision")
        module: nn.Module = models.get_model(model, weights="DEFAULT" if pretrained else None)
    else:
        module = model
    children = dict(module.named_children())
    if "features" in children:
        layers = children["features"]
    elif "avgpool" in children:
        names = list(children)
        layers = nn.Sequential(*(children[n] for n in names[: names.index("avgpool")]))
    else:
        raise ArgumentError(
            f"model: {name} has neither 'features' nor 'avgpool'; cut it yourself and use from_module()"
        )
    return from_module(layers, f"torchvision/{name}", size=size, trainable=trainable)


class _LastMap(nn.Module):
    """Of a module that returns several maps, the last one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        maps: Any = self.module(x)
        maps = getattr(maps, "feature_maps", maps)
        return maps if isinstance(maps, Tensor) else maps[-1]


def from_timm(
    name: str, *, out_index: int = -1, pretrained: bool = True, size: tuple[int, int] | None = None,
    trainable: bool = False,
) -> Backbone:  # fmt: skip
    """Take a feature map of any timm model that has ``features_only``.

    Args:
        name: of the model.
        out_index: which of its maps; -1 is the last (usually stride 32), -2 the one before.
        pretrained: load its default weights.
        size: a height and width that it takes, in pixels. Default: the model's own.
        trainable: whether its parameters take gradients.

    Returns:
        The backbone.

    Raises:
        MissingDependencyError: timm isn't installed.
    """
    timm: Any = _need("timm", "timm")
    model = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=(out_index,))
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    side = config.get("input_size", (3, 224, 224))[1:]
    return from_module(
        _LastMap(model),
        f"timm/{name}",
        preprocess=_from_fractions(config.get("mean"), config.get("std")),
        size=size or (int(side[0]), int(side[1])),
        trainable=trainable,
        licence=str(config.get("license", "")),
    )


def from_transformers(
    name: str, *, out_feature: str | None = None, size: tuple[int, int] = (224, 224), trainable: bool = False
) -> Backbone:
    """Take a feature map of a backbone of Hugging Face transformers (``AutoBackbone``).

    Args:
        name: of a model, or a folder with one.
        out_feature: name of the stage. Default: the last.
        size: a height and width that it takes, in pixels.
        trainable: whether its parameters take gradients.

    Returns:
        The backbone.

    Raises:
        MissingDependencyError: transformers isn't installed.
    """
    transformers: Any = _need("transformers", "transformers")
    options = {} if out_feature is None else {"out_features": [out_feature]}
    model = transformers.AutoBackbone.from_pretrained(name, **options)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name)
        mean, std = processor.image_mean, processor.image_std
    except (OSError, ValueError, AttributeError):  # a model without a processor: what nearly all use
        mean = std = None
    return from_module(
        _LastMap(model), f"transformers/{name}", preprocess=_from_fractions(mean, std), size=size, trainable=trainable
    )


def _from_fractions(mean: Sequence[float] | None, std: Sequence[float] | None) -> Preprocess:
    """Means and deviations of pixels in [0, 1] as those of bytes."""
    if mean is None or std is None:
        return IMAGENET
    return Preprocess(tuple(255.0 * v for v in mean), tuple(255.0 * v for v in std))


def _need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(
            f"this backbone needs {package}, which isn't installed; pip install {package}"
        ) from None
