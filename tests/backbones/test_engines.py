"""The engines of ONNX Runtime against torch, and int8 layers against whole numbers computed here."""

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from sppnet.backbones.engines import reference, rounding
from sppnet.backbones.engines.engine import LiteEngine
from sppnet.backbones.engines.graphs import float_graph, int8_graph
from sppnet.backbones.engines.lite import ENDINGS, VARIANTS, ConvLayer, LiteNetwork, lite_network
from sppnet.backbones.engines.load import has_engine, load_engine
from sppnet.backbones.engines.published import Folded, fold_layers, read_published
from sppnet.backbones.engines.quantise import _convolve, _padded, quantise
from sppnet.backbones.engines.quantised import QuantisedLayers, load_shipped
from sppnet.backbones.engines.rounding import PAIR_MOST, InputProducts, dense_steps
from sppnet.backbones.registry import load_backbone
from sppnet.backbones.sources import SOURCES, find_weights
from sppnet.errors import ArgumentError, WeightsError

NAMES = [variant + ending for variant in VARIANTS for ending in ENDINGS if ending != "+dilated-head"]


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random colours, so that all layers have something to see."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.ascontiguousarray(small.repeat(8, 0).repeat(8, 1)[:height, :width])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [(96, 128), (70, 99)])
def test_float_graph_equals_torch(name: str, side: tuple[int, int]) -> None:
    network, engine = load_backbone(name), load_engine(name, "float32", threads=1)
    image = noise(*side)
    expected = network(network.preprocess(image))[0].permute(1, 2, 0).numpy()
    got = engine(image)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=2e-4)
    for attribute in ("name", "channels", "stride", "offset", "size_multiple", "native_side_px"):
        assert getattr(engine, attribute) == getattr(network, attribute)


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_files_are_read_as_torch_reads_them(variant: str) -> None:
    source = SOURCES[variant]
    path = find_weights(source)
    state = torch.load(path, map_location="cpu", weights_only=True)
    read = read_published(path, source.sha256)
    assert read.keys() == {name for name, value in state.items() if value.is_floating_point()}
    for name, value in read.items():
        np.testing.assert_array_equal(value, state[name].numpy())
    with pytest.raises(WeightsError, match="sha256"):
        read_published(path, "0" * 64)


def integer_network(network: LiteNetwork, layers: QuantisedLayers, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The integer network in int64, with float32 only where sums become bytes."""
    tensors = {"image": image.transpose(2, 0, 1).astype(np.int64)}

    def requantised(value: NDArray[np.floating], name: str) -> NDArray[np.int64]:
        whole: NDArray[np.int64] = np.clip(np.rint(value) + int(layers.tensors[name][1]), 0, 255).astype(np.int64)
        return whole

    for layer in network.layers:
        part, (step, zero) = layers.layers[layer.name], layers.tensors[layer.source]
        x = torch.from_numpy(tensors[layer.source] - int(zero))[None].double()
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = (-(-size // layer.stride) - 1) * layer.stride + layer.dilation * (layer.kernel - 1) + 1 - size
            pads += [max(total, 0) // 2, max(total, 0) - max(total, 0) // 2]
        sums = torch.nn.functional.conv2d(
            torch.nn.functional.pad(x, pads), torch.from_numpy(part.kernel).double(),
            torch.from_numpy(part.bias).double(), layer.stride, 0, layer.dilation,
            layer.inputs if layer.depthwise else 1,
        )[0].numpy()  # fmt: skip
        assert np.abs(sums).max() < 2**31
        factor = step * part.kernel_scale / layers.tensors[layer.name][0]
        tensors[layer.name] = requantised(sums.astype(np.float32) * factor[:, None, None], layer.name)
        if layer.added:
            both = [
                (tensors[name] - int(layers.tensors[name][1])).astype(np.float32) * layers.tensors[name][0]
                for name in (layer.name, layer.added)
            ]
            tensors[layer.result] = requantised((both[0] + both[1]) / layers.tensors[layer.result][0], layer.result)
    whole = np.concatenate([tensors[name] for name in network.outputs])
    return whole.transpose(1, 2, 0).astype(np.uint8)


def test_int8_graph_equals_whole_numbers() -> None:
    """Not a byte of 100 differs, and none by more than rounding at a tie carries on."""
    network, layers = lite_network("efficientnet-lite0+mid"), load_shipped("efficientnet-lite0")
    image = noise(96, 112)
    expected = integer_network(network, layers, image).astype(int)
    got = LiteEngine(network, layers, threads=1)(image)
    assert got.dtype == np.uint8
    difference = np.abs(got.astype(int) - expected)
    assert (difference > 0).mean() < 0.01
    assert difference.max() <= 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_shipped_layers_fit_their_network_and_cannot_overflow(variant: str) -> None:
    layers = load_shipped(variant)
    network = lite_network(f"{variant}+dilated-head")
    assert layers.layers.keys() == {layer.name for layer in network.layers}
    for layer in network.layers:
        part = layers.layers[layer.name]
        assert part.kernel.shape == layer.weight_shape
        assert part.kernel.dtype == np.int8
        rows = part.kernel.astype(int).transpose(0, 2, 3, 1).reshape(layer.outputs, -1)
        assert np.abs(rows).max() <= 127
        if not layer.depthwise:  # neighbouring products of bytes and weights fit into 16 bits
            for most in (np.maximum(rows, 0), np.maximum(-rows, 0)):
                assert (255 * (most[:, 1:] + most[:, :-1])).max() < 2**15
        fan_in = np.abs(part.kernel.astype(np.int64)).reshape(layer.outputs, -1).sum(1)
        assert (255 * fan_in + np.abs(part.bias.astype(np.int64)) < 2**31).all()
        if layer.relu6:  # clipping is done by the range of a byte
            step, zero = layers.tensors[layer.name]
            assert zero == 0
            assert 255 * step <= 6.0001
    for ending in ("", "+mid", "+stride32", "+head"):
        onnx.checker.check_model(onnx.load_from_string(int8_graph(lite_network(variant + ending), layers)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_maps_are_near_the_float_ones(variant: str) -> None:
    skimage_data = pytest.importorskip("skimage.data")
    image = np.ascontiguousarray(skimage_data.coffee()[:224, 100:420])
    for ending, most in (("+mid", 0.12), ("+head", 0.3)):
        exact = load_engine(variant + ending, "float32", threads=1)(image)
        engine = load_engine(variant + ending, threads=1)
        assert engine.step is not None
        assert engine.zero is not None
        got = (engine(image) - engine.zero) * engine.step
        assert np.linalg.norm(got - exact) < most * np.linalg.norm(exact)
        assert np.corrcoef(got.ravel(), exact.ravel())[0, 1] > 0.95


def small_network() -> tuple[LiteNetwork, Folded]:
    rng = np.random.default_rng(3)
    layers = (
        ConvLayer("stem", "image", 3, 8, kernel=3, stride=2),
        ConvLayer("0.expand", "stem", 8, 24),
        ConvLayer("0.depthwise", "0.expand", 24, 24, kernel=5, dilation=2, depthwise=True),
        ConvLayer("0.project", "0.depthwise", 24, 8, relu6=False, added="stem"),
        ConvLayer("1.project", "0.project.sum", 8, 4, relu6=False),
    )
    folded = {
        layer.name: (
            (rng.normal(size=layer.weight_shape) / np.sqrt(np.prod(layer.weight_shape[1:]))).astype(np.float32),
            rng.normal(size=layer.outputs).astype(np.float32),
        )
        for layer in layers
    }
    return LiteNetwork("small", "efficientnet-lite0", layers, ("0.project.sum", "1.project"), 16), folded


def test_quantising_a_network() -> None:
    network, folded = small_network()
    images = [noise(64, 80, seed) for seed in range(3)]
    layers = quantise(network, folded, images)
    image = noise(48, 64, 9)
    exact = LiteEngine(network, folded, threads=1)(image)
    engine = LiteEngine(network, layers, threads=1)
    assert engine.step is not None
    assert engine.zero is not None
    got = (engine(image) - engine.zero) * engine.step
    assert np.linalg.norm(got - exact) < 0.05 * np.linalg.norm(exact)

    again = quantise(network, folded, images).arrays()
    assert again.keys() == layers.arrays().keys()
    for name, value in layers.arrays().items():
        assert value.tobytes() == again[name].tobytes()
    back = QuantisedLayers.from_arrays(layers.arrays())
    assert int8_graph(network, back) == int8_graph(network, layers)
    with pytest.raises(ArgumentError, match="images"):
        quantise(network, folded, [])


def test_means_of_channels_are_kept() -> None:
    """What one layer with coarse kernels gives has, in each channel, the mean of the float layer."""
    network, folded = small_network()
    network = dataclasses.replace(network, layers=network.layers[:1], outputs=("stem",))
    folded = {"stem": (folded["stem"][0], folded["stem"][1] + 3)}  # no clipping, which moves means
    image = noise(64, 80)
    exact = LiteEngine(network, folded, threads=1)(image)
    engine = LiteEngine(network, quantise(network, folded, [image]), threads=1)
    assert engine.step is not None
    inside = (exact > 0.1).all((0, 1)) & (exact < 5.9).all((0, 1))
    assert inside.any()
    got = engine(image)[..., inside].mean((0, 1)) * engine.step[inside]
    np.testing.assert_allclose(got, exact[..., inside].mean((0, 1)), atol=float(engine.step[0]) / 20)


def test_rounding_together_beats_rounding_each() -> None:
    rng = np.random.default_rng(0)
    seen = np.rint(rng.normal(size=(2000, 6)) @ rng.normal(size=(6, 40)) * 20)  # 40 inputs that go together
    inputs = InputProducts(seen.T @ seen)
    rows = rng.normal(size=(16, 40))
    step = np.abs(rows).max(1) / 7
    together = inputs.round(rows, step)
    apart = np.rint(rows / step[:, None])
    errors = [np.linalg.norm((w * step[:, None] - rows) @ seen.T) for w in (together, apart)]
    assert errors[0] < 0.5 * errors[1]
    whole = rng.integers(-7, 8, (16, 40)).astype(float)
    np.testing.assert_array_equal(inputs.round(whole, np.ones(16)), whole)


@pytest.mark.parametrize(("size", "outputs"), [(1, 1), (2, 5), (33, 8), (150, 20)])
def test_kernels_of_rounding_equal_the_reference(size: int, outputs: int) -> None:
    rng = np.random.default_rng(size)
    seen = rng.normal(size=(3 * size, size))
    products, rows = seen.T @ seen + np.eye(size), rng.normal(size=(outputs, size))
    upper = reference.upper_factor(products)
    np.testing.assert_array_equal(rounding._upper_factor_of(products.copy()), upper)
    np.testing.assert_allclose(np.linalg.inv(upper.T @ upper), products, atol=1e-6 * np.abs(products).max())
    np.testing.assert_array_equal(rounding._times(rows, upper.T), reference.times(rows, upper.T))
    step = np.abs(rows).max(1) / 9
    whole = np.zeros(rows.shape)
    rounding._round_rows(0, outputs, rows.copy(), step, upper, 7, whole)
    np.testing.assert_array_equal(whole, reference.round_rows(rows, step, upper, 7))
    assert np.abs(whole).max() == 7  # some are cut


@pytest.mark.parametrize(
    "layer", [layer for layer in lite_network("efficientnet-lite0").layers if layer.depthwise][:14:3]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_convolutions_of_channels_are_exact(layer: ConvLayer, dtype: type) -> None:
    """Of whole numbers, as torch makes them."""
    rng = np.random.default_rng(0)
    values: NDArray[Any] = np.rint(rng.normal(size=(13, 18, layer.inputs)) * 1000).astype(dtype)
    rows = np.rint(rng.normal(size=(layer.outputs, layer.kernel**2)) * 4000)
    found = _convolve(layer, values, rows)
    padded, size = _padded(layer, values.astype(np.float64))
    kernel = torch.from_numpy(rows).view(layer.outputs, 1, layer.kernel, layer.kernel)
    image = torch.from_numpy(padded).permute(2, 0, 1)[None]
    expected = torch.nn.functional.conv2d(
        image, kernel, stride=layer.stride, dilation=layer.dilation, groups=layer.outputs
    )[0].permute(1, 2, 0)
    assert found.shape == (*size, layer.outputs)
    np.testing.assert_array_equal(found, expected.numpy()[: size[0], : size[1]])


def test_pairs_of_weights_fit_into_16_bits() -> None:
    rng = np.random.default_rng(1)
    seen = rng.integers(-20, 100, (500, 31)).astype(float)
    rows = rng.normal(size=(64, 31)) ** 3
    step = dense_steps(rows)
    whole = InputProducts(seen.T @ seen).round(rows, step).astype(int)
    assert (np.abs(whole).max(1) > 60).all()  # as fine as is allowed
    tight = InputProducts(seen.T @ seen).round(rows, step * 0.9).astype(int)  # so that some are cut
    for rounded in (whole, tight):
        same = np.sign(rounded[:, 1:]) == np.sign(rounded[:, :-1])
        assert (np.abs(rounded[:, 1:] + rounded[:, :-1]) * same).max() <= PAIR_MOST
        assert np.abs(rounded * step[:, None] - rows).max() < 0.5 * np.abs(rows).max()
    assert dense_steps(rows[:, :1]).shape == (64,)


def test_refitting_makes_up_for_errors_of_inputs() -> None:
    rng = np.random.default_rng(2)
    exact = rng.normal(size=(3000, 12)) @ rng.normal(size=(12, 12))
    seen = 0.8 * exact + 0.3 * np.roll(exact, 1, 1)  # what the layers before gave instead
    rows = rng.normal(size=(5, 12))
    refitted = InputProducts(seen.T @ seen).refit(rows, exact.T @ seen)
    before, after = (np.linalg.norm(seen @ w.T - exact @ rows.T) for w in (rows, refitted))
    assert after < 0.3 * before
    np.testing.assert_allclose(InputProducts(seen.T @ seen).refit(rows, seen.T @ seen), rows)


def test_batches_and_bad_images() -> None:
    engine = load_engine("efficientnet-lite0", threads=1)
    images = np.stack([noise(32, 48, seed) for seed in range(3)])
    np.testing.assert_array_equal(engine(images), np.stack([engine(image) for image in images]))
    shapes: list[tuple[tuple[int, ...], Any]] = [
        ((32, 32), np.uint8),
        ((32, 32, 3), np.float32),
        ((0, 32, 3), np.uint8),
    ]
    for shape, dtype in shapes:
        with pytest.raises(ArgumentError, match="image"):
            engine(np.zeros(shape, dtype))
    with pytest.raises(ArgumentError, match="precision"):
        load_engine("efficientnet-lite0", "int4")  # type: ignore[arg-type]  # what a user may write
    with pytest.raises(ArgumentError, match="backbone"):
        load_engine("zf5")
    assert has_engine("efficientnet-lite2+mid")
    assert not has_engine("vgg16")


def test_engines_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np; from sppnet.backbones.engines.load import load_engine\n"
        "image = np.zeros((32, 32, 3), np.uint8)\n"
        "for p in ('int8', 'float32'): print(load_engine('efficientnet-lite0+mid', p)(image).shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == ["(2, 2, 432)"] * 2, run.stderr


def test_float_graph_gives_tensors_between() -> None:
    network = lite_network("efficientnet-lite0")
    source = SOURCES["efficientnet-lite0"]
    folded = fold_layers(network, read_published(find_weights(source), source.sha256))
    model = onnx.load_from_string(float_graph(network, folded, ("stem",)))
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.output] == ["map", "stem"]
