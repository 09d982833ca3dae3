"""Receptive fields: stride, offset and size of the units of any stack of convolutions and poolings.

Unit ``i`` of a map (along one axis) sees the pixels ``start + stride * i`` to ``start + stride * i + size - 1``, less
those outside the image or dropped at the far edge by a layer on the way; its centre is ``offset + stride * i`` with
``offset = start + size / 2``. This is a coordinate of boxes: pixel ``p`` lies between ``p`` and ``p + 1``, so the image
itself has offset 0.5. A layer with padding ``floor(k / 2)`` and odd ``k`` leaves the offset as it is, which is what the
paper (appendix A) assumes of every layer; without padding it adds ``stride * (k - 1) / 2``.

The module is run once on the meta device (shapes without numbers), and every operator on the way is looked at. So
padding that a module computes from the size of its input ("SAME" of TensorFlow), ``torch.nn.functional`` calls and
branches are seen as they are, and a module need not tell anything about itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from sppnet.checking import check_wholes
from sppnet.errors import ArgumentError

__all__ = ["LayerField", "ReceptiveField", "receptive_field"]


@dataclass(frozen=True)
class LayerField:
    """What the units of one layer's output see. Pairs are (x, y), in pixels of the input image.

    Attributes:
        name: of the layer in the module.
        kind: name of its class.
        stride: distance from unit to unit.
        offset: position of the centre of unit 0; 0.5 is the centre of pixel 0, as in boxes.
        size: pixels that a unit sees.
        map_size: number of units.
    """

    name: str
    kind: str
    stride: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]
    map_size: tuple[int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """Stride, offset and size of a module's output, and of every layer on the way.

    Attributes:
        stride: as of :class:`LayerField`; :func:`sppnet.pooling.windows.pool_windows` takes it.
        offset: as of :class:`LayerField`; ``pool_windows`` takes it, too.
        size: as of :class:`LayerField`.
        layers: every layer on the way.
    """

    stride: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]
    layers: tuple[LayerField, ...]

    def __str__(self) -> str:
        lines = [f"{'layer':40} {'map':>11} {'stride':>11} {'offset':>13} {'size':>11}"]
        for layer in self.layers:
            pairs = (layer.map_size, layer.stride, layer.offset, layer.size)
            cells = [f"{x:g} x {y:g}" for x, y in pairs]
            name = f"{layer.name} ({layer.kind})"
            lines.append(f"{name:40} {cells[0]:>11} {cells[1]:>11} {cells[2]:>13} {cells[3]:>11}")
        return "\n".join(lines)


def receptive_field(module: nn.Module, size: tuple[int, int] = (224, 224), channels: int = 3) -> ReceptiveField:
    """Find stride, offset and size of the units of ``module(image)``, a feature map ``(N, C, H, W)``.

    Branches that meet (addition, concatenation) must have one stride; a unit then sees what any branch sees. A gate
    computed from the whole map (squeeze and excitation: a mean over all cells that scales channels) is ignored, though
    through it a unit depends weakly on the whole image.

    Args:
        module: is run on the meta device; its parameters and its training flag stay as they are.
        size: height and width of the image in pixels. Matters only for modules whose padding depends on it.
        channels: of the image.

    Returns:
        What a unit of the output sees, and the same of every layer.

    Raises:
        ArgumentError: the result isn't a feature map; branches of unequal stride meet; or an operator moves or mixes
            cells in a way that isn't known (transposed convolution, interpolation, reshaping), which the message names.

    >>> field = receptive_field(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.MaxPool2d(2)))
    >>> field.stride, field.offset, field.size
    ((4.0, 4.0), (1.5, 1.5), (5, 5))
    """
    sides = check_wholes("size", size, 1, 1 << 24)
    if len(sides) != 2:
        raise ArgumentError(f"size: got {size!r}, expected height and width")
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    image = torch.empty(1, channels, *sides, device="meta", dtype=dtype)
    tracker = _Tracker()
    tracker.fields[image] = (_Axis(1, 0, 0), _Axis(1, 0, 0))
    layers: list[LayerField] = []

    def record(name: str, kind: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            field = tracker.fields.get(output) if isinstance(output, Tensor) else None
            if field not in (None, _GLOBAL):
                layers.append(_layer(name, kind, field, output))

        return hook

    handles = [
        m.register_forward_hook(record(name or "(module)", type(m).__name__))
        for name, m in module.named_modules()
        if not any(True for _ in m.children())
    ]
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    meta = {name: torch.empty_like(t, device="meta") for name, t in state.items()}
    training = {m: m.training for m in module.modules()}
    try:
        module.eval()
        with torch.no_grad(), tracker:
            output = torch.func.functional_call(module, meta, (image,))
    finally:
        for m, flag in training.items():
            m.training = flag
        for handle in handles:
            handle.remove()
    field = tracker.fields.get(output) if isinstance(output, Tensor) else None
    if field in (None, _GLOBAL):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ArgumentError(f"module: expected one that ends at a map (N, C, H, W), got {got}")
    result = _layer("", "", field, output)
    return ReceptiveField(result.stride, result.offset, result.size, tuple(layers))


@dataclass(frozen=True)
class _Axis:
    """Along one axis: unit ``i`` sees pixels ``first + stride * i`` to ``last + stride * i``."""

    stride: int
    first: int
    last: int

    def layer(self, kernel: int, stride: int, padding: int, dilation: int) -> _Axis:
        first = self.first - padding * self.stride
        last = self.last + (dilation * (kernel - 1) - padding) * self.stride
        return _Axis(self.stride * stride, first, last)


_Field = tuple[_Axis, _Axis]  # y, x


def _layer(name: str, kind: str, field: _Field, output: Tensor) -> LayerField:
    y, x = field
    return LayerField(
        name,
        kind,
        (float(x.stride), float(y.stride)),
        ((x.first + x.last + 1) / 2, (y.first + y.last + 1) / 2),
        (x.last - x.first + 1, y.last - y.first + 1),
        (output.shape[-1], output.shape[-2]),
    )


_GLOBAL = "global"
_POOLS = {"max_pool2d_with_indices", "avg_pool2d", "max_pool2d"}
_MOVES = {"permute", "transpose", "t", "flip", "roll", "reflection_pad2d_backward"}
_PADS = {"constant_pad_nd", "reflection_pad2d", "replication_pad2d"}


class _Tracker(TorchDispatchMode):
    """Follows the field of every tensor that holds a map. ``_GLOBAL`` marks what was computed from a whole map."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch has no types for it
        self.fields: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and self.fields.get(t) is not None]
        if inputs:
            name = func.overloadpacket.__name__
            for tensor in tree_leaves(output):
                if isinstance(tensor, Tensor):
                    self.fields[tensor] = self._apply(name, args, inputs, tensor)
        return output

    def _apply(self, name: str, args: Any, inputs: list[Tensor], output: Tensor) -> Any:
        maps = [t for t in inputs if self.fields[t] != _GLOBAL]
        if not maps or output.ndim < 3:
            return _GLOBAL
        field: _Field = self.fields[maps[0]]
        if name == "convolution":
            kernel = args[1].shape[2:]
            if args[6] or len(kernel) != 2:
                raise ArgumentError("module: receptive fields through transposed or 3-D convolutions are not known")
            return _through(field, kernel, args[3], args[4], args[5])
        if name in _POOLS:
            stride = args[2] if len(args) > 2 and len(args[2]) else args[1]
            padding = args[3] if len(args) > 3 else [0]
            dilation = args[4] if len(args) > 4 and name != "avg_pool2d" else [1]
            return _through(field, args[1], stride, padding, dilation)
        if name in _PADS:
            left, _, top, _ = [*args[1], 0, 0, 0, 0][:4]
            return _shift(field[0], -top), _shift(field[1], -left)
        if name == "slice" and len(args) > 1 and args[1] % args[0].ndim >= args[0].ndim - 2:
            begin = args[2] if len(args) > 2 and args[2] is not None else 0
            step = args[4] if len(args) > 4 else 1
            axis = args[1] % args[0].ndim - args[0].ndim + 2
            moved = _shift(field[axis], begin + args[0].shape[args[1]] if begin < 0 else begin)
            moved = _Axis(moved.stride * step, moved.first, moved.last)
            return (moved, field[1]) if axis == 0 else (field[0], moved)
        shape = output.shape[-2:]
        if any(t.shape[-2:] != shape for t in maps) or name in _MOVES:
            if tuple(shape) == (1, 1) and name in {
                "mean",
                "sum",
                "amax",
                "_adaptive_avg_pool2d",
                "adaptive_max_pool2d",
            }:
                return _GLOBAL
            sizes = [tuple(t.shape) for t in maps]
            raise ArgumentError(
                f"module: receptive fields through {name} ({sizes} -> {tuple(output.shape)}) are not known"
            )
        for other in maps[1:]:
            field = _union(field[0], self.fields[other][0]), _union(field[1], self.fields[other][1])
        return field


def _through(
    field: _Field, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> _Field:
    y, x = (
        axis.layer(
            kernel[i % len(kernel)], stride[i % len(stride)], padding[i % len(padding)], dilation[i % len(dilation)]
        )
        for i, axis in enumerate(field)
    )
    return y, x


def _shift(axis: _Axis, units: int) -> _Axis:
    return _Axis(axis.stride, axis.first + units * axis.stride, axis.last + units * axis.stride)


def _union(a: _Axis, b: _Axis) -> _Axis:
    if a.stride != b.stride:
        raise ArgumentError(f"module: expected branches of one stride where they meet, got {a.stride} and {b.stride}")
    return _Axis(a.stride, min(a.first, b.first), max(a.last, b.last))
