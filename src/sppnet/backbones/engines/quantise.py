"""Quantising frozen convolutions: from float32 kernels and a few images to int8 layers, without training.

Activations are uint8 with one scale a tensor, from the least and greatest value that the float network gives on the
calibration images. Kernels are int8 with one scale an output channel, rounded by
:class:`~sppnet.backbones.engines.rounding.InputProducts`. Where the images have many more cells than the kernel has
inputs, it is first refitted to the errors of the layers before it. Biases are corrected so that each channel keeps its
mean.

Kernels that are matrix products are scaled so that the sum of two neighbouring products fits into 16 bits, as
processors without VNNI instructions need it; depthwise kernels are computed otherwise there. So both kinds of processor
give the same bytes.

The same kernels and images give the same layers to the last bit, on every machine: all sums are of whole numbers that
float64 holds exactly, so that their order doesn't matter, or are made element by element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.backbones.engines.lite import ConvLayer, LiteNetwork
from sppnet.backbones.engines.published import Folded
from sppnet.backbones.engines.quantised import QuantisedLayer, QuantisedLayers
from sppnet.backbones.engines.rounding import MOST, InputProducts, dense_steps
from sppnet.errors import ArgumentError
from sppnet.kernels.native import NativeKernel
from sppnet.kernels.run import run_ranges

__all__ = ["quantise", "quantise_from"]

F64 = NDArray[np.float64]
Numbers = NDArray[Any]  # whole numbers in float32 or float64

_convolve_channels = NativeKernel("sppnet.backbones.engines.kernels", "convolve_channels", ("kernels",))

# Values of the float network are kept in this unit, kernels as whole numbers below 2 ** 22: sums of 1152 products of
# both stay below 2 ** 53
_UNIT = 2.0**-12
_KERNEL_BITS = 22
_SAMPLES = 4000  # cells of an image that rounding looks at, about
_REFIT_FROM = 100  # cells for each input of a kernel, from which on it is refitted


@dataclass
class _Tensor:
    """A tensor on all calibration images: in the float network (in units) and in the integer one."""

    exact: list[NDArray[np.float32]]
    whole: list[NDArray[np.uint8]]
    step: np.float32
    zero: int


def quantise(
    network: LiteNetwork,
    folded: Folded,
    images: Sequence[NDArray[np.uint8]],
    progress: Callable[[str], None] = lambda layer: None,
) -> QuantisedLayers:
    """Quantise a network.

    Args:
        network: its layers.
        folded: their kernels and biases.
        images: ``(H, W, 3)`` each, at the sizes at which the network is used; ten to twenty are enough.
        progress: called with the name of each layer.

    Returns:
        The integer layers, and the scale of every tensor.

    Raises:
        ArgumentError: there are no images.
    """
    return quantise_from(network.layers, folded, "image", images, (np.float32(1 / 128), np.uint8(127)), progress)


def quantise_from(
    network_layers: Sequence[ConvLayer],
    folded: Folded,
    source: str,
    inputs: Sequence[NDArray[np.uint8]],
    scale: tuple[np.float32, np.uint8],
    progress: Callable[[str], None] = lambda layer: None,
) -> QuantisedLayers:
    """Quantise the layers that stand behind a quantised tensor.

    Args:
        network_layers: in the order in which they run.
        folded: their kernels and biases.
        source: name of the tensor that the first of them reads.
        inputs: bytes of that tensor on some images, ``(h, w, channels)`` each.
        scale: step and zero of that tensor: a byte stands for ``(byte - zero) * step``.
        progress: called with the name of each layer.

    Returns:
        These layers, and the scale of every tensor from ``source`` on.

    Raises:
        ArgumentError: there are no inputs.
    """
    if not inputs:
        raise ArgumentError("images: got none, expected some to calibrate the int8 layers on")
    step, zero = float(scale[0]), int(scale[1])
    first = [np.rint((values.astype(np.float64) - zero) * step / _UNIT).astype(np.float32) for values in inputs]
    tensors = {source: _Tensor(first, list(inputs), scale[0], zero)}
    layers, scales = {}, {source: scale}
    for i, layer in enumerate(network_layers):
        progress(layer.name)
        layers[layer.name], result = _layer(layer, *folded[layer.name], tensors[layer.source])
        scales[layer.name] = (result.step, np.uint8(result.zero))
        if layer.added:
            result = _sum(result, tensors[layer.added])
            scales[layer.result] = (result.step, np.uint8(result.zero))
        tensors[layer.result] = result
        needed = {name for later in network_layers[i + 1 :] for name in (later.source, later.added)}
        tensors = {name: tensor for name, tensor in tensors.items() if name in needed}
    return QuantisedLayers(layers, scales)


def _layer(
    layer: ConvLayer, kernel: NDArray[np.float32], bias: NDArray[np.float32], source: _Tensor
) -> tuple[QuantisedLayer, _Tensor]:
    rows = _rows(kernel.astype(np.float64))
    # the float network, in whole numbers
    fine = 2.0 ** (_KERNEL_BITS - math.ceil(math.log2(max(float(np.abs(rows).max()), 1e-30))))
    exact_rows = np.rint(rows * fine)
    shift = np.rint(bias.astype(np.float64) * fine / _UNIT)
    exact = []
    for values in source.exact:
        linear = np.rint((_convolve(layer, values, exact_rows) + shift) / fine)
        exact.append((np.clip(linear, 0, 6 / _UNIT) if layer.relu6 else linear).astype(np.float32))
    step, zero = _scale_of(exact)

    source_step = float(source.step)
    centred: list[F64] = [values.astype(np.float64) - source.zero for values in source.whole]
    # no channel's scale so small that its bias would not fit into 32 bits
    least = np.abs(bias.astype(np.float64)) / (source_step * 2.0**30) + 1e-12
    if layer.depthwise:
        kernel_scale = np.maximum(np.abs(rows).max(1) / MOST, least).astype(np.float32)
        steps = kernel_scale.astype(np.float64)
        whole_rows = np.clip(np.rint(rows / steps[:, None]), -MOST, MOST).astype(np.int8)
    else:
        products, cells = _products(layer, centred, centred)
        inputs = InputProducts(products)
        if cells >= _REFIT_FROM * len(products):
            cross, _ = _products(layer, source.exact, centred)
            rows = inputs.refit(rows, cross * (_UNIT / source_step))
        kernel_scale = np.maximum(dense_steps(rows), least).astype(np.float32)
        steps = kernel_scale.astype(np.float64)
        whole_rows = inputs.round(rows, steps)

    # the mean of a channel is what its kernel makes of the mean input
    wanted = _product(layer, exact_rows / fine, _mean_input(layer, source.exact) * _UNIT) + bias.astype(np.float64)
    found = _product(layer, whole_rows.astype(np.float64), _mean_input(layer, centred)) * steps * source_step
    whole_bias = np.rint((wanted - found) / (steps * source_step)).astype(np.int32)

    factor = steps * source_step / float(step)
    whole = []
    for zeroed in centred:
        sums = _convolve(layer, zeroed, whole_rows.astype(np.float64)) + whole_bias
        whole.append(np.clip(np.rint(sums * factor) + zero, 0, 255).astype(np.uint8))
    part = QuantisedLayer(_kernel(layer, whole_rows), kernel_scale, whole_bias)
    return part, _Tensor(exact, whole, step, zero)


def _sum(one: _Tensor, other: _Tensor) -> _Tensor:
    exact = [a + b for a, b in zip(one.exact, other.exact, strict=True)]
    step, zero = _scale_of(exact)
    whole = []
    for a, b in zip(one.whole, other.whole, strict=True):
        value = (a.astype(np.float64) - one.zero) * float(one.step) + (b.astype(np.float64) - other.zero) * float(
            other.step
        )
        whole.append(np.clip(np.rint(value / float(step)) + zero, 0, 255).astype(np.uint8))
    return _Tensor(exact, whole, step, zero)


def _scale_of(values: Iterable[NDArray[np.float32]]) -> tuple[np.float32, int]:
    """Step and zero of bytes from the least to the greatest value; 0 is among them."""
    ranges = [(float(v.min()), float(v.max())) for v in values]
    low, high = min(0.0, *(r[0] for r in ranges)) * _UNIT, max(0.0, *(r[1] for r in ranges)) * _UNIT
    step = np.float32(max(high - low, 1e-6) / 255)
    return step, int(np.clip(np.rint(-low / float(step)), 0, 255))


def _rows(kernel: F64) -> F64:
    """Kernels as rows: ``(outputs, k * k * inputs)``, channels innermost; ``(outputs, k * k)`` of a depthwise layer."""
    return np.ascontiguousarray(kernel.transpose(0, 2, 3, 1)).reshape(len(kernel), -1)


def _kernel(layer: ConvLayer, rows: NDArray[np.int8]) -> NDArray[np.int8]:
    outputs, inputs, k, _ = layer.weight_shape
    return np.ascontiguousarray(rows.reshape(outputs, k, k, inputs).transpose(0, 3, 1, 2))


def _taps(layer: ConvLayer, values: Numbers) -> list[Numbers]:
    """For each position in the kernel, the input ``(h, w, inputs)`` that it meets at each cell. Padding is 0."""
    k, s, d = layer.kernel, layer.stride, layer.dilation
    if k == 1 and s == 1:
        return [values]
    padded, (height, width) = _padded(layer, values)
    rows, columns = s * (height - 1) + 1, s * (width - 1) + 1
    return [padded[d * i : d * i + rows : s, d * j : d * j + columns : s] for i in range(k) for j in range(k)]


def _padded(layer: ConvLayer, values: Numbers) -> tuple[Numbers, tuple[int, int]]:
    """``values (h, w, inputs)`` with a border of zeros, and the height and width of the result of the layer."""
    k, s, d = layer.kernel, layer.stride, layer.dilation
    pads, sizes = [], []
    for size in values.shape[:2]:
        sizes.append(-(-size // s))
        total = max((sizes[-1] - 1) * s + d * (k - 1) + 1 - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(values, (*pads, (0, 0))), (sizes[0], sizes[1])


def _patches(layer: ConvLayer, values: Numbers) -> Numbers:
    taps = _taps(layer, values)
    return taps[0] if len(taps) == 1 else np.concatenate(taps, 2)


def _convolve(layer: ConvLayer, values: Numbers, rows: F64) -> F64:
    """The convolution of ``values (H, W, inputs)`` with rows of whole numbers; exact."""
    if not layer.depthwise:
        return _patches(layer, values).astype(np.float64) @ rows.T
    padded, (height, width) = _padded(layer, values)
    total: F64 = np.zeros((height, width, layer.outputs))
    taps = np.ascontiguousarray(rows.T)
    geometry = layer.kernel, layer.stride, layer.dilation
    run_ranges(_convolve_channels, height, np.ascontiguousarray(padded), taps, *geometry, total)
    return total


def _products(layer: ConvLayer, ones: Sequence[Numbers], others: Sequence[Numbers]) -> tuple[F64, int]:
    """The sum of ``x y^T`` over cells of all images, and how many cells; whole numbers, exact."""
    size, cells = layer.kernel**2 * layer.inputs, 0
    total = np.zeros((size, size))
    for one, other in zip(ones, others, strict=True):
        x, y = (_patches(layer, values).reshape(-1, size).astype(np.float64) for values in (one, other))
        every = max(1, len(x) // _SAMPLES)
        total += x[::every].T @ y[::every]
        cells += len(x[::every])
    return total, cells


def _mean_input(layer: ConvLayer, images: Sequence[Numbers]) -> F64:
    """Mean over all cells of what each place of the kernel meets, ``(k * k, inputs)``."""
    cells, total = 0, np.zeros((layer.kernel**2, layer.inputs))
    for values in images:
        taps = _taps(layer, values)
        total += np.stack([tap.sum((0, 1), dtype=np.float64) for tap in taps])
        cells += taps[0].shape[0] * taps[0].shape[1]
    return total / cells


def _product(layer: ConvLayer, rows: F64, mean: F64) -> F64:
    """The kernel's ``rows`` times a mean input; sums are rounded once, so that their order doesn't matter."""
    terms = rows * (mean.T if layer.depthwise else mean.reshape(-1))
    return np.array([math.fsum(row) for row in terms])
