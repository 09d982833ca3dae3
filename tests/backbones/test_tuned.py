"""Networks cut in two, their last blocks in torch, and last blocks with weights of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sppnet._types import U8
from sppnet.backbones.engines.engine import LiteEngine
from sppnet.backbones.engines.lite import lite_network, split_network
from sppnet.backbones.engines.load import load_engine, published_layers
from sppnet.backbones.engines.published import Folded
from sppnet.backbones.engines.quantise import quantise_from
from sppnet.backbones.engines.quantised import QuantisedLayers
from sppnet.backbones.engines.torch_engine import TorchEngine
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.backbones.registry import load_backbone, put_tuned
from sppnet.backbones.tail import ConvTail
from sppnet.errors import ArgumentError

NAME = "efficientnet-lite0+mid"
NETWORK = lite_network(NAME)


@pytest.fixture(scope="module")
def folded() -> Folded:
    return published_layers(NAME)


@pytest.fixture(scope="module")
def image() -> U8:
    coarse = np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1))


@pytest.fixture(scope="module")
def changed(folded: Folded) -> TunedConvolutions:
    """The last seven blocks, each weight moved a little."""
    rng = np.random.default_rng(5)
    moved = {
        layer.name: tuple(
            (value * rng.uniform(0.9, 1.1, value.shape)).astype(np.float32) for value in folded[layer.name]
        )
        for layer in split_network(NETWORK, 7)[1]
    }
    return TunedConvolutions(NAME, 7, {name: (kernel, bias) for name, (kernel, bias) in moved.items()})


@pytest.fixture(scope="module")
def quantised(changed: TunedConvolutions, image: U8) -> TunedConvolutions:
    """The same in integers."""
    tuned, engine = changed, load_engine(NAME)
    early, layers = split_network(NETWORK, tuned.blocks)
    read = LiteEngine(early, engine.weights)(image)
    assert isinstance(engine.weights, QuantisedLayers)
    assert not isinstance(tuned.weights, QuantisedLayers)
    source = layers[0].source
    found = quantise_from(layers, tuned.weights, source, [read], engine.weights.tensors[source])
    return TunedConvolutions(NAME, tuned.blocks, found)


@pytest.mark.parametrize("blocks", [5, 7, 11, 15])
def test_early_layers_and_the_tail_are_the_network(blocks: int, folded: Folded, image: U8) -> None:
    early, late = split_network(NETWORK, blocks)
    assert [layer.name for layer in (*early.layers, *late)] == [layer.name for layer in NETWORK.layers]
    read = LiteEngine(early, folded)(image)
    tail = ConvTail(NETWORK, folded, blocks)
    with torch.no_grad():
        found = tail(torch.from_numpy(np.ascontiguousarray(read)).permute(2, 0, 1)[None])
    wanted = LiteEngine(NETWORK, folded)(image)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), wanted, atol=2e-4)


def test_every_weight_of_the_tail_learns(folded: Folded) -> None:
    tail = ConvTail(NETWORK, folded, 7)
    torch.manual_seed(0)
    tail(torch.randn(1, 112, 5, 6)).square().mean().backward()
    still = [name for name, value in tail.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


@pytest.mark.parametrize("blocks", [0, 4, 16, 99])
def test_blocks_out_of_range(blocks: int) -> None:
    with pytest.raises(ArgumentError, match=rf"blocks: got {blocks}, expected 5 to 15"):
        split_network(NETWORK, blocks)


def test_tuned_weights_in_each_engine(changed: TunedConvolutions, quantised: TunedConvolutions, image: U8) -> None:
    floats = load_engine(NAME, "float32", tuned=changed)
    plain = load_engine(NAME, "float32")(image)
    wanted = floats(image)
    assert np.abs(wanted - plain).max() > 0.5
    backbone = load_backbone(NAME)
    put_tuned(backbone, changed)
    np.testing.assert_allclose(TorchEngine(backbone)(image), wanted, atol=2e-4)
    assert TorchEngine(backbone, changed.digest).identity != TorchEngine(backbone).identity
    assert floats.identity != load_engine(NAME, "float32").identity

    engine = load_engine(NAME, "int8", tuned=quantised)
    assert engine.step is not None
    assert engine.zero is not None
    scaled = (engine(image).astype(np.float32) - engine.zero) * engine.step
    spread = wanted.std()
    assert np.abs(scaled - wanted).mean() < 0.15 * spread
    # what the integers stand for, in float32
    again = load_engine(NAME, "float32", tuned=quantised)(image)
    assert np.abs(again - wanted).mean() < 0.1 * spread
    early = LiteEngine(split_network(NETWORK, 7)[0], engine.weights)(image)
    assert np.array_equal(early, LiteEngine(split_network(NETWORK, 7)[0], load_engine(NAME).weights)(image))


def test_arrays_and_back(changed: TunedConvolutions, quantised: TunedConvolutions) -> None:
    for tuned in (changed, quantised):
        again = TunedConvolutions.from_arrays(NETWORK, 7, tuned.arrays())
        assert again.digest == tuned.digest
        assert again.precision == tuned.precision
    assert changed.digest != quantised.digest


def test_arrays_of_a_stranger_are_refused(changed: TunedConvolutions, quantised: TunedConvolutions) -> None:
    for tuned in (changed, quantised):
        good = tuned.arrays()
        name = "11.expand.kernel"
        attacks = [
            {k: v for k, v in good.items() if k != name},
            good | {"more": np.zeros(3, np.float32)},
            good | {name: good[name][:-1]},
            good | {name: good[name].astype(np.float64)},
            good | {"11.expand.bias": np.zeros(1, good["11.expand.bias"].dtype)},
        ]
        if tuned.precision == "int8":
            attacks += [
                good | {"11.expand.scale": np.full_like(good["11.expand.scale"], value)} for value in (np.nan, 0, -1)
            ]
            attacks += [good | {"11.expand:step": np.array([np.inf], np.float32)}]
        else:
            attacks += [good | {name: np.full_like(good[name], np.nan)}]
        for arrays in attacks:
            with pytest.raises(ArgumentError, match="tuned convolutions: "):
                TunedConvolutions.from_arrays(NETWORK, 7, arrays)


def test_tuned_weights_of_another_network_or_precision(changed: TunedConvolutions) -> None:
    for name in ("efficientnet-lite2+mid", "efficientnet-lite0"):
        with pytest.raises(ArgumentError, match=r"backbone: got .* tuned convolutions of this detector are those of"):
            load_engine(name, "float32", tuned=changed)
    with pytest.raises(ArgumentError, match=r"precision: got int8, but the tuned convolutions"):
        load_engine(NAME, "int8", tuned=changed)
    with pytest.raises(ArgumentError, match=r"backbone: got"):
        put_tuned(load_backbone("efficientnet-lite0"), replace(changed, network="efficientnet-lite2"))
