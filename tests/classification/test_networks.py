"""Classifiers in ONNX Runtime: the same as in torch, at any number of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as photos

from sppnet._types import U8
from sppnet.backbones.engines.load import load_engine
from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.image_classifier import IMAGENET_VIEWS, ImageClassifier
from sppnet.classification.imagenet import imagenet_class_names, imagenet_classifier
from sppnet.classification.multiview import TEN_VIEWS, AnyView, MapViews
from sppnet.classification.networks import EngineNetwork, Layers
from sppnet.classification.torch_network import TorchNetwork
from sppnet.classification.views import View
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.storage.envelope import read_envelope, write_envelope

VIEWS: tuple[AnyView, ...] = (View(96), MapViews((64, 128), 64, 5), View(80, "crop", flip=True), View(64, "warp"))


@pytest.fixture(scope="module")
def photo() -> U8:
    image: U8 = np.ascontiguousarray(photos.chelsea()[:180, :260])
    return image


def layers_of(network: SPPClassifier) -> Layers:
    parts = [part for part in network.fc if isinstance(part, torch.nn.Linear)]
    return [(p.weight.detach().numpy(), p.bias.detach().numpy()) for p in parts]


@pytest.mark.parametrize(("mode", "normalise", "hidden"), [("max", True, ()), ("avg", False, (16, 8))])
def test_engine_and_torch_compute_the_same(photo: U8, mode: str, normalise: bool, hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    bone = load_backbone("efficientnet-lite0+stride32")
    network = SPPClassifier(bone, (3, (1, 2)), 5, mode=mode, hidden=hidden, normalise=normalise).eval()
    engine = load_engine("efficientnet-lite0+stride32", "float32")
    quick, slow = EngineNetwork(engine, (3, (1, 2)), mode, normalise, layers_of(network)), TorchNetwork(network)
    assert (quick.dims, quick.num_classes, quick.linear, quick.has_pyramid) == (
        slow.dims, slow.num_classes, slow.linear, slow.has_pyramid
    )  # fmt: skip
    found, expected = (one.vectors(photo, VIEWS) for one in (quick, slow))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    got, wanted = quick.outputs(expected), slow.outputs(expected)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * float(np.abs(wanted).max()))


def test_imagenet_without_torch_is_imagenet_with_torch(photo: U8) -> None:
    quick = ImageClassifier.load()
    slow = ImageClassifier.from_network(imagenet_classifier(), imagenet_class_names(), IMAGENET_VIEWS)
    for views in (None, "10"):
        a, b = (one.with_views(views) for one in (quick, slow))
        np.testing.assert_allclose(a.scores(photo), b.scores(photo), atol=2e-3)
        assert [g.class_name for g in a.classify(photo, 3)] == [g.class_name for g in b.classify(photo, 3)]
    assert torch.equal(quick.network_.last.weight, slow.network_.last.weight)


def test_results_do_not_depend_on_the_number_of_threads(photo: U8) -> None:
    found = []
    for threads in (1, 2, 3):
        engine = load_engine("efficientnet-lite0+stride32", "float32", threads)
        weight = np.random.default_rng(0).normal(size=(7, 5 * 320)).astype(np.float32)
        network = EngineNetwork(engine, (2, 1), "avg", True, [(weight, np.zeros(7, np.float32))])
        vectors = network.vectors(photo, [*VIEWS, TEN_VIEWS])
        found.append((vectors, network.outputs(vectors)))
    for vectors, outputs in found[1:]:
        assert np.array_equal(vectors, found[0][0])
        assert np.array_equal(outputs, found[0][1])


def test_no_view_is_refused(photo: U8) -> None:
    network = EngineNetwork(load_engine("efficientnet-lite0+stride32", "float32"), (1,), "avg", True, [])
    with pytest.raises(ArgumentError, match="views: expected at least one"):
        network.vectors(photo, [])


@pytest.mark.parametrize("kind", ["shape", "missing", "nan", "too large", "extra", "integers", "two pools"])
def test_damaged_matrices_are_refused_without_torch_too(kind: str, tmp_path: Path) -> None:
    network = SPPClassifier(load_backbone("efficientnet-lite0+stride32"), (2, 1), 3, hidden=(4,))
    path = tmp_path / "c.safetensors"
    ImageClassifier.from_network(network, ("a", "b", "c"), (View(64),)).save(path)
    stored = read_envelope(path, "sppnet-classifier", 2, "a classifier")
    arrays = {name: array.copy() for name, array in stored.arrays.items()}
    if kind == "shape":
        arrays["fc.1.weight"] = arrays["fc.1.weight"][:, 1:]
    elif kind == "missing":
        del arrays["fc.3.bias"]
    elif kind == "nan":
        arrays["fc.3.weight"][0, 0] = np.nan
    elif kind == "too large":  # for float32
        arrays["fc.3.weight"] = np.full(arrays["fc.3.weight"].shape, 1e300)
    elif kind == "two pools":  # the fixed one counts, as it always did
        stored.metadata["pool"]["fixed"] = [3, 2, 3, 3]
    elif kind == "extra":
        arrays["fc.9.weight"] = arrays["fc.3.weight"]
    else:
        arrays["fc.3.bias"] = arrays["fc.3.bias"].astype(np.int32)
    write_envelope(path, arrays, stored.metadata, "sppnet-classifier", 2)
    with pytest.raises(ModelFileError, match=r"c\.safetensors: .*the file is damaged"):
        ImageClassifier.load(path)
