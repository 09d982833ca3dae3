"""Images in, class names out: trained on small images of three kinds, kept in a file, found again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sppnet._types import U8
from sppnet.backbones.base import Backbone
from sppnet.backbones.classic import alexnet
from sppnet.backbones.registry import load_backbone
from sppnet.classification import fitting, torch_network
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.classifier_file import FORMAT, FORMAT_VERSION
from sppnet.classification.frozen import cross_validate, fit_scale, folds_of
from sppnet.classification.image_classifier import IMAGENET_VIEWS, ImageClassifier
from sppnet.classification.imagenet import imagenet_class_names, imagenet_classifier
from sppnet.classification.multiview import AnyView, MapViews
from sppnet.classification.torch_network import view_vectors
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.datasets.seen import count_seen
from sppnet.errors import ArgumentError, DatasetError, ImageError, ModelFileError, NotFittedError
from sppnet.images import load_image
from sppnet.storage.envelope import read_envelope, write_envelope

VIEWS = (View(64), View(96, flip=True))


@pytest.fixture(scope="module")
def data(toy_folder: Path) -> ImageFolder:
    return load_image_folder(toy_folder, split="all")


@pytest.fixture(scope="module")
def fitted(data: ImageFolder) -> ImageClassifier:
    """Trained on 8 images of each kind; the other 4 are for tests."""
    train = data.subset([i for i in range(36) if i % 12 < 8])
    return ImageClassifier(levels=(2, 1), views=VIEWS, folds=3).fit(train)


def _held_out(data: ImageFolder) -> ImageFolder:
    return data.subset([i for i in range(36) if i % 12 >= 8])


def test_finds_the_classes_of_images_that_it_has_not_seen(fitted: ImageClassifier, data: ImageFolder) -> None:
    held = _held_out(data)
    guesses = [fitted.classify(path, 3) for path in held.paths]
    assert [g[0].class_id for g in guesses] == held.labels.tolist()
    assert {g[0].class_name for g in guesses} == {"green", "red", "striped"}
    for three in guesses:
        p = [g.probability for g in three]
        assert p == sorted(p, reverse=True)
        assert sum(p) == pytest.approx(1)
        assert p[0] > 0.5
    training = fitted.metadata_["training"]
    assert training["images"] == 24
    assert training["c"] in (1, 10, 100)
    assert training["cross_validation"][f"{training['c']:g}"] == max(training["cross_validation"].values()) > 0.9
    assert fitted.classify(held.paths[0], 1) == guesses[0][:1]
    assert fitted.classify(load_image(held.paths[0]), 3) == guesses[0]


def test_scores_are_the_mean_over_the_views(fitted: ImageClassifier, data: ImageFolder) -> None:
    path = data.paths[11]
    pixels = load_image(path)
    bone = load_backbone("efficientnet-lite0+stride32")
    vectors = []
    with torch.no_grad():
        for view in VIEWS:
            maps = bone(bone.preprocess(view.apply(pixels, 32)))
            v = torch.cat([nn.functional.adaptive_avg_pool2d(maps, n).flatten() for n in (2, 1)])
            vectors.append(v / v.norm())
        last = fitted.network_.fc[-1]
        assert isinstance(last, nn.Linear)
        expected = last.weight @ torch.stack(vectors).mean(0) + last.bias
    np.testing.assert_allclose(fitted.scores(path), expected.numpy(), atol=1e-4)


def test_file_gives_the_same_classifier(fitted: ImageClassifier, data: ImageFolder, tmp_path: Path) -> None:
    path = tmp_path / "toys.safetensors"
    fitted.save(path)
    loaded = ImageClassifier.load(path)
    assert loaded.class_names_ == fitted.class_names_
    assert tuple(loaded.views) == VIEWS
    assert loaded.scale_ == fitted.scale_
    assert loaded.metadata_["training"] == fitted.metadata_["training"]
    for photo in _held_out(data).paths[::3]:
        np.testing.assert_allclose(loaded.scores(photo), fitted.scores(photo), atol=2e-3)  # matrices are float16
    again = tmp_path / "again.safetensors"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert path.stat().st_size < 3 * 5 * 320 * 2 + 4000  # the frozen convolutions are not in it
    assert np.array_equal(ImageClassifier.load(again).scores(data.paths[0]), loaded.scores(data.paths[0]))


def test_it_knows_what_it_learned_from(fitted: ImageClassifier, data: ImageFolder) -> None:
    assert count_seen(data.paths, fitted.metadata_["training"]["seen"])[0] == fitted.metadata_["training"]["images"]


def test_pooled_vectors_are_cached(data: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = data.subset([0, 1, 12, 13])
    network = _tiny(normalise=True)
    classifier = ImageClassifier.from_network(network, ("a", "b", "c"), VIEWS)
    first = classifier.vectors(some.paths, cache=tmp_path)
    plain = classifier.vectors(some.paths)
    assert np.array_equal(first, plain)
    calls: list[int] = []

    def counted(network: SPPClassifier, pixels: U8, views: Sequence[AnyView]) -> torch.Tensor:
        calls.append(1)
        return view_vectors(network, pixels, views)

    monkeypatch.setattr(torch_network, "view_vectors", counted)
    assert np.array_equal(classifier.vectors(some.paths, cache=tmp_path), first)
    assert not calls
    # other weights and another scaling are not taken for these
    other = ImageClassifier.from_network(_tiny(seed=1, normalise=True), ("a", "b", "c"), VIEWS)
    assert not np.allclose(other.vectors(some.paths, cache=tmp_path), first)
    longer = ImageClassifier.from_network(_tiny(normalise=False), ("a", "b", "c"), VIEWS)
    assert not np.allclose(longer.vectors(some.paths, cache=tmp_path), first)
    assert len(calls) == 8
    with pytest.raises(ImageError, match=r"missing\.png"):
        classifier.vectors([Path("missing.png")], cache=tmp_path)


def _tiny(seed: int = 0, name: str = "zf5@0.05", normalise: bool = False, pool: Any = (2, 1)) -> SPPClassifier:
    torch.manual_seed(seed)
    bone = load_backbone(name, pretrained=False, trainable=True)
    return SPPClassifier(bone, pool, 3, hidden=(6,), normalise=normalise)


@pytest.mark.parametrize("pool", [(2, 1), FixedPool(2, 1, (3, 3))], ids=["pyramid", "fixed"])
def test_networks_trained_otherwise_keep_their_convolutions(pool: Any, tmp_path: Path) -> None:
    network = _tiny(pool=pool)
    classifier = ImageClassifier.from_network(network, ("a", "b", "c"), (View(64, "warp"),), scale=2.0)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    expected = classifier.classify(pixels, 3)
    classifier.save(tmp_path / "net.safetensors")
    loaded = ImageClassifier.load(tmp_path / "net.safetensors")
    assert [g.class_name for g in loaded.classify(pixels, 3)] == [g.class_name for g in expected]
    np.testing.assert_allclose(loaded.scores(pixels), classifier.scores(pixels), rtol=1e-2, atol=1e-3)
    for name, value in network.backbone.layers.state_dict().items():
        if value.ndim != 2:
            assert torch.equal(loaded.network_.backbone.layers.state_dict()[name], value)
    x = network.backbone.preprocess(View(64, "warp").apply(pixels, 16))
    with torch.no_grad():
        p = (network(x)[0].double() * 2).softmax(0)
    assert [g.probability for g in expected] == pytest.approx(sorted(p.tolist(), reverse=True), abs=1e-6)


@pytest.mark.parametrize("name", ["squeezenet1.1", "efficientnet-lite0+stride32"])
def test_frozen_convolutions_that_nobody_published_go_into_the_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    bone = load_backbone(name, pretrained=False)
    classifier = ImageClassifier.from_network(SPPClassifier(bone, (2, 1), 3, hidden=()), ("a", "b", "c"), (View(64),))
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    classifier.save(tmp_path / "net.safetensors")
    loaded = ImageClassifier.load(tmp_path / "net.safetensors")
    assert not loaded.network_.backbone.trainable
    np.testing.assert_allclose(loaded.scores(pixels), classifier.scores(pixels), rtol=1e-2, atol=1e-3)


def test_damaged_files_give_one_clear_error(fitted: ImageClassifier, tmp_path: Path) -> None:
    path = tmp_path / "toys.safetensors"
    fitted.save(path)
    whole = path.read_bytes()
    bad = tmp_path / "bad.safetensors"
    for content in (b"", whole[:100], whole[:-50], b"\x80\x04pickle" * 99, whole[:300] + b"\xff" * 40 + whole[340:]):
        bad.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"bad\.safetensors: .*a classifier"):
            ImageClassifier.load(bad)
    with pytest.raises(ModelFileError, match="no such file"):
        ImageClassifier.load(tmp_path / "missing.safetensors")
    stored = read_envelope(path, FORMAT, FORMAT_VERSION, "a classifier")
    tensors, metadata = stored.arrays, stored.metadata
    changes: list[dict[str, Any]] = [
        {"backbone": {"name": "resnet50", "weights_sha256": "", "weights_in_file": False}},
        {"backbone": "efficientnet-lite0"},
        {"pool": {"levels": [[0, 1]], "mode": "avg"}},
        {"pool": {"levels": [[2, 2], [1, 1]], "mode": "median"}},
        {"pool": {"fixed": [3, 0, 13, 13]}},
        {"views": [{"side_px": -5}]},
        {"views": [{"resolution": 7}]},
        {"scale": "much"},
        {"hidden": [4], "dropout": 7.0},
        {"class_names": []},
        {"class_names": ["a", "b"]},
        {"hidden": [-4]},
    ]
    for change in changes:
        write_envelope(bad, tensors, metadata | change, FORMAT, FORMAT_VERSION)
        with pytest.raises(ModelFileError, match=r"bad\.safetensors: "):
            ImageClassifier.load(bad)
    other = {"backbone": metadata["backbone"] | {"weights_sha256": "0" * 64}}
    write_envelope(bad, tensors, metadata | other, FORMAT, FORMAT_VERSION)
    with pytest.raises(ModelFileError, match="made for weights of efficientnet-lite0"):
        ImageClassifier.load(bad)
    infinite = {n: np.full_like(t, np.inf) for n, t in tensors.items()}
    write_envelope(bad, infinite, metadata, FORMAT, FORMAT_VERSION)
    with pytest.raises(ModelFileError, match="not finite"):
        ImageClassifier.load(bad)
    write_envelope(bad, tensors, metadata, "sppnet-detector", 9)
    with pytest.raises(ModelFileError, match="format 'sppnet-detector-9', expected a classifier"):
        ImageClassifier.load(bad)


def test_wrong_use_is_told(fitted: ImageClassifier, data: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="not trained"):
        ImageClassifier().classify(data.paths[0])
    with pytest.raises(NotFittedError):
        ImageClassifier().save(tmp_path / "x")
    for top in (0, 1.5, 2.0, "3"):
        with pytest.raises(ArgumentError, match=f"top: got {top!r}, expected a whole number"):
            fitted.classify(data.paths[0], top)  # type: ignore[arg-type]
    assert len(fitted.classify(data.paths[0], np.int64(2))) == 2  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="missing"):
        fitted.classify(tmp_path / "missing.jpg")
    with pytest.raises(DatasetError, match="at least two classes"):
        ImageClassifier().fit(ImageFolder(data.paths[:2], np.array([0, 0]), ("green",)))
    with pytest.raises(DatasetError, match="class 'red' has 1 images"):
        ImageClassifier().fit(ImageFolder(data.paths[:3], np.array([0, 0, 1]), ("green", "red")))
    with pytest.raises(ArgumentError, match="views: got 'full'"):
        ImageClassifier.from_network(_tiny(), "abc", "full")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="got 1 for 3 outputs"):
        ImageClassifier.from_network(_tiny(), ("a",))
    own = Backbone("mine", nn.Conv2d(3, 4, 3), channels=4, stride=1, offset=1.5, trainable=True)
    classifier = ImageClassifier.from_network(SPPClassifier(own, (1,), 1, hidden=()), ("a",))
    with pytest.raises(ArgumentError, match="backbone: got 'mine'"):  # nobody could load it
        classifier.save(tmp_path / "mine.safetensors")


def test_folds_and_costs() -> None:
    labels = np.repeat([0, 1, 2], [10, 7, 3])
    fold = folds_of(labels, 3)
    for c in range(3):
        counts = np.bincount(fold[labels == c], minlength=3)
        assert counts.max() - counts.min() <= 1
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(20, 8, generator=g) * 0.3 + torch.eye(8)[torch.from_numpy(labels)] * 2
    choice = cross_validate(vectors, labels, 3, (10.0, 0.1), folds=3)
    assert list(choice.accuracy) == [0.1, 10.0]
    assert choice.accuracy[choice.c] == max(choice.accuracy.values()) > 0.9
    hits = choice.margins.argmax(1).numpy() == labels
    assert choice.accuracy[choice.c] == pytest.approx(np.mean([hits[labels == c].mean() for c in range(3)]))
    # the best cost is taken: only a large one looks past strong noise to the weak but faultless sign of a class
    signs = torch.eye(3)[torch.from_numpy(labels)] * 0.2
    noisy = torch.cat([signs, torch.randn(20, 4, generator=g)], 1)
    choice = cross_validate(noisy, labels, 3, (1e-3, 1e3), folds=3)
    assert choice.accuracy[1e3] > choice.accuracy[1e-3] + 0.2
    assert choice.c == 1e3
    # a scale that was put in comes out
    margins = torch.randn(4000, 3, generator=g)
    drawn = torch.multinomial((margins * 3).softmax(1), 1, generator=g)[:, 0].numpy()
    assert fit_scale(margins, drawn) == pytest.approx(3, rel=0.1)
    with pytest.raises(ArgumentError, match="costs"):
        cross_validate(vectors, labels, 3, ())
    same = cross_validate(vectors, labels, 3, np.array([10.0, 0.1]), folds=np.int64(3))  # type: ignore[arg-type]
    assert list(same.accuracy) == [0.1, 10.0]
    with pytest.raises(DatasetError, match="class number 2 has 0 images"):
        cross_validate(vectors[:17], labels[:17], 3)


def test_the_1000_classes() -> None:
    names = imagenet_class_names()
    assert len(names) == 1000
    assert "tench" in names[0]
    assert "tabby" in names[281]
    assert "espresso" in names[967]
    with pytest.raises(ArgumentError, match="expected one with an ImageNet head"):
        imagenet_classifier("vgg16")


@pytest.mark.parametrize(
    ("photo", "expected"),
    [("chelsea", {"Egyptian cat", "tiger cat", "tabby"}), ("coffee", {"espresso"}),
     ("rocket", {"missile", "space shuttle"})],
)  # fmt: skip
def test_images_of_known_things(photo: str, expected: set[str]) -> None:
    """What scikit-image's images show comes first, at several sizes and aspects."""
    pixels = getattr(pytest.importorskip("skimage.data"), photo)()
    imagenet = ImageClassifier.load()
    for side in (192, 224, 256):
        imagenet.views = tuple(View(side, view.how) for view in IMAGENET_VIEWS)
        assert imagenet.classify(pixels, 1)[0].class_name in expected, side
    imagenet.views = IMAGENET_VIEWS
    for size in ((300, 200), (240, 320), (500, 250)):
        assert imagenet.classify(Image.fromarray(pixels).resize(size), 1)[0].class_name in expected, size


def test_frozen_convolutions_with_weights_of_ones_own(data: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"alexnet: has no published weights.*\(--weights\)"):
        ImageClassifier("alexnet").fit(data)
    torch.manual_seed(1)
    torch.save(alexnet().state_dict(), tmp_path / "mine.pth")
    classifier = ImageClassifier("alexnet", (2, 1), "max", costs=(1.0,), folds=2, weights=tmp_path / "mine.pth")
    classifier.fit(data)
    right = [classifier.classify(path, 1)[0].class_id == label for path, label in data]
    assert np.mean(right) > 0.8  # even random convolutions tell the toys apart on images that were trained on
    same = classifier.as_saved()
    np.testing.assert_allclose(same.scores(data.paths[0]), classifier.scores(data.paths[0]), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("old", [False, True], ids=["new file", "file without parameters"])
def test_parameters_come_back_so_a_loaded_one_can_be_fitted_again(
    data: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    some = data.subset([i for i in range(36) if i % 12 < 3])
    parameters: dict[str, Any] = {"levels": np.array([2, 1]), "mode": "max", "costs": np.array([10.0, 1.0]),
                                  "folds": np.int64(3), "seed": np.int64(7)}  # fmt: skip
    first = ImageClassifier(views=[View(np.int64(48))], **parameters).fit(some)  # type: ignore[arg-type]
    if old:
        del first.metadata_["training"]["parameters"]
    first.save(tmp_path / "toys.safetensors")
    by_engine = ImageClassifier.load(tmp_path / "toys.safetensors")
    by_torch = ImageClassifier.from_network(by_engine.network_, some.class_names, [View(48)], metadata=first.metadata_)
    for loaded in (by_engine, by_torch, by_engine.as_saved()):
        assert (loaded.levels, loaded.mode, loaded.folds, loaded.seed) == ((2, 1), "max", 3, 7)
        assert sorted(loaded.costs) == [1.0, 10.0]
        assert loaded.views == (View(48),)
    again = by_engine.fit(some)
    assert torch.equal(again.network_.last.weight, first.network_.last.weight)
    assert again.scale_ == first.scale_


def test_loads_what_was_trained_otherwise(tmp_path: Path, data: ImageFolder) -> None:
    for training in (3, {"parameters": 3}, {"parameters": {"costs": [-1]}}, {"cross_validation": {"x": 1}}):
        bare = ImageClassifier.from_network(_tiny(), "abc", (View(64),), metadata={"training": training})
        assert (bare.costs, bare.folds, bare.seed) == ((1.0, 10.0, 100.0), 5, 0)
        assert (bare.levels, bare.mode) == ((2, 1), "max")
    pairs = ImageClassifier.from_network(_tiny(pool=((2, 3), 1)), "abc", (View(64),), scale=np.float32(2))  # type: ignore[arg-type]
    assert pairs.as_saved().levels == ((2, 3), 1)
    assert pairs.as_saved().scale_ == 2
    with pytest.raises(ArgumentError, match=r"weights: this classifier has convolutions zf5@0\.05 of its own"):
        pairs.fit(data)
    fixed = ImageClassifier.from_network(_tiny(pool=FixedPool(2, 1, (3, 3))), "abc", (View(64, "warp"),))
    with pytest.raises(ArgumentError, match="has a network without pyramid"):
        fixed.fit(data)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"levels": (65,)}, r"levels: got \(\(65, 65\),\), expected at most 16, of at most 64 rows"),
        ({"levels": (1,) * 17}, "levels: got .*can be saved"),
        ({"levels": 3}, "levels: expected a sequence"),
        ({"levels": (2.0,)}, "levels: expected ints"),
        ({"mode": "median"}, "mode: got 'median'"),
        ({"views": (View(48),) * 17}, "views: got 17, expected at most 16"),
        ({"views": (View(2000),)}, r"views: got View\(side_px=2000.*pixels.*can be saved"),
        ({"views": (MapViews((64,) * 17),)}, "views: got MapViews.*16 scales"),
        ({"views": View(48)}, r"views: got View\(side_px=48.*expected a sequence"),
        ({"views": "full"}, "views: got 'full', expected a sequence"),
        ({"views": ("full",)}, "views: got 'full' among them"),
        ({"views": ()}, r"views: got \(\)"),
        ({"costs": ()}, r"costs: got \(\)"),
        ({"costs": 10.0}, r"costs: got 10\.0"),
        ({"costs": np.array([1.0, -1.0])}, "costs: got .*-1"),
        ({"folds": 3.0}, r"folds: got 3\.0"),
        ({"folds": 1}, "folds: got 1"),
        ({"seed": 0.0}, r"seed: got 0\.0"),
    ],
)
def test_what_no_file_holds_is_refused_before_training(
    data: ImageFolder, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(fitting, "load_backbone", None)  # nothing is loaded or computed before
    with pytest.raises(ArgumentError, match=message):
        ImageClassifier(**parameters).fit(data)


def test_class_names_that_no_file_holds_are_refused_before_training(
    data: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "load_backbone", None)
    with pytest.raises(DatasetError, match="control character"):
        ImageClassifier().fit(ImageFolder(data.paths, data.labels, ("green", "red\n", "striped")))


def test_autocast_of_the_caller_changes_nothing(fitted: ImageClassifier, data: ImageFolder) -> None:
    plain = fitted.scores(data.paths[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(fitted.scores(data.paths[0]), plain)


def test_devices(fitted: ImageClassifier, data: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted.as_saved().device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "tpu"):
        with pytest.raises(ArgumentError, match=f"device: got '{device}'"):
            ImageClassifier.load(device=device)
        with pytest.raises(ArgumentError, match=f"device: got '{device}'"):
            ImageClassifier(device=device).fit(data)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_probabilities(fitted: ImageClassifier, data: ImageFolder, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    fitted.save(tmp_path / "toys.safetensors")
    on_gpu = ImageClassifier.load(tmp_path / "toys.safetensors", device="cuda")
    assert next(on_gpu.network_.parameters()).device.type == "cuda"
    for path in data.paths[::7]:
        got, expected = on_gpu.classify(path, 3), fitted.classify(path, 3)
        assert [g.class_id for g in got] == [g.class_id for g in expected]
        assert [g.probability for g in got] == pytest.approx([g.probability for g in expected], abs=2e-3)
    again = ImageClassifier(levels=(2, 1), views=VIEWS, folds=3, device="cuda")
    again.fit(data.subset([i for i in range(36) if i % 12 < 8]))
    torch.testing.assert_close(again.network_.last.weight.cpu(), fitted.network_.last.weight, rtol=0.05, atol=0.02)


def test_what_is_found_is_logged(data: ImageFolder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="sppnet"):
        ImageClassifier(levels=(1,), views=(View(48),), costs=(1.0, 10.0), folds=2).fit(data)
    lines = [record.getMessage() for record in caplog.records if record.name == "sppnet"]
    assert [line.partition(":")[0] for line in lines if line.startswith("C = ")] == ["C = 1", "C = 10"]


def test_threads_copies_and_pickles_give_the_same_scores(fitted: ImageClassifier, data: ImageFolder) -> None:
    paths = data.paths[::3]
    alone = [fitted.scores(path) for path in paths]
    with ThreadPoolExecutor(6) as pool:
        for got, expected in zip(pool.map(fitted.scores, paths), alone, strict=True):
            assert np.array_equal(got, expected)
    for other in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(other.scores(paths[0]), alone[0])
