"""Convolutions trained through the pooling: what is learned, kept, resumed and shared between processes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from sppnet import SPPDetector, load_voc
from sppnet._types import no_progress
from sppnet.backbones.engines.lite import lite_network
from sppnet.backbones.engines.load import load_engine
from sppnet.backbones.engines.torch_engine import TorchEngine
from sppnet.backbones.registry import load_backbone
from sppnet.cli.main import main
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.building import build_engine
from sppnet.detection.detections import Detections
from sppnet.detection.fc_head import FcHead
from sppnet.detection.features import WindowFeatures
from sppnet.detection.measure import doubts_about
from sppnet.detection.model_card import describe_model
from sppnet.detection.model_file import read_stored
from sppnet.detection.options import FeatureOptions, FinetuneOptions, HeadOptions, SvmOptions, TuningOptions
from sppnet.detection.training import tuning as tuning_module
from sppnet.detection.training.fit import fit_detector
from sppnet.detection.training.images import TrainingImages
from sppnet.detection.training.tuning import ViewSource, jitter_colours, tunable_engine, tune
from sppnet.errors import ArgumentError, ModelFileError, WeightsError
from sppnet.export.detector import export_onnx
from sppnet.proposals.search import SelectiveSearch
from sppnet.storage.checkpoints import Checkpoints
from sppnet.storage.envelope import write_envelope
from sppnet.storage.feature_cache import FeatureCache
from sppnet.threads import threads_limited
from toy_data import write_toy_voc

T = TypeVar("T")
TUNING = TuningOptions(blocks=6, epochs=2, images_per_batch=2, windows_per_image=24, learning_rate=1e-3,
                       head_learning_rate=1e-3, average=0.5, precision="float32")  # fmt: skip
NO_LAYER = HeadOptions(hidden=0, classifier="svm", box_regression="ridge")
OPTIONS: dict[str, Any] = {
    "features": FeatureOptions(short_sides_px=(96, 160), flip_short_sides_px=(128,)),
    "head": HeadOptions(rank=16, hidden=48), "proposer": SelectiveSearch(max_windows=100),
    "finetune": FinetuneOptions(epochs=1, images_per_batch=4, windows_per_image=16), "tuning": TUNING,
}  # fmt: skip


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def train(toy_voc: Path) -> DetectionDataset:
    return load_voc(toy_voc, "train").subset(range(10))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tuned(train: DetectionDataset, cache: Path, one_thread: None) -> SPPDetector:
    return SPPDetector(**OPTIONS).fit(train, cache=cache)


@pytest.fixture(scope="module")
def floats(train: DetectionDataset, cache: Path, one_thread: None) -> SPPDetector:
    return in_floats().fit(train, cache=cache)


def in_floats(**options: Any) -> SPPDetector:
    """Quantising takes longer than all of this training."""
    return SPPDetector(**OPTIONS | options).set_params(features__precision="float32")


def same(one: Detections, other: Detections) -> bool:
    return np.array_equal(one.xyxy, other.xyxy) and np.array_equal(one.confidence, other.confidence)


def test_both_are_trained(tuned: SPPDetector, train: DetectionDataset, cache: Path) -> None:
    assert tuned.tuned_ is not None
    assert (tuned.tuned_.blocks, tuned.tuned_.precision) == (6, "int8")
    losses = tuned.metadata_["training"]["tuning_losses"]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    frozen = SPPDetector(**OPTIONS | {"tuning": None}).fit(train, cache=cache)
    assert frozen.tuned_ is None
    assert not np.array_equal(frozen.weights_.fc6_weight, tuned.weights_.fc6_weight)
    image = train[0].path
    one, other = (d.feature_maps(image).float().maps[0] for d in (frozen, tuned))
    assert np.abs(np.asarray(one) - np.asarray(other)).max() > 0.1


def test_precision_may_change_from_int8_only(tuned: SPPDetector, floats: SPPDetector, train: DetectionDataset) -> None:
    exact = copy.copy(tuned).set_params(features__precision="float32")
    one, other = (np.asarray(d.feature_maps(train[0].path).float().maps[1]) for d in (tuned, exact))
    assert 0 < np.abs(one - other).mean() < 0.1 * other.std()
    with pytest.raises(ArgumentError, match=r"precision: got int8, but the tuned convolutions"):
        copy.copy(floats).set_params(features__precision="int8").detect(train[0].path)


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_the_file_keeps_it(
    tuned: SPPDetector, floats: SPPDetector, train: DetectionDataset, tmp_path: Path, precision: str
) -> None:
    detector = tuned if precision == "int8" else floats
    path, image = tmp_path / "tuned.safetensors", train[1].path
    detector.save(path, "float32")
    loaded = SPPDetector.load(path)
    assert same(loaded.detect(image, 0), detector.detect(image, 0))
    assert loaded.tuning == TUNING
    again = tmp_path / "again.safetensors"
    loaded.save(again, "float32")
    assert again.read_bytes() == path.read_bytes()
    # small files hold float kernels as float16
    detector.save(path)
    stored = {n: v.dtype.name for n, v in read_stored(path).tensors.items() if n.endswith("expand.kernel")}
    assert set(stored.values()) == {"int8" if precision == "int8" else "float16"}
    assert len(SPPDetector.load(path).detect(image, 0)) > 0


def test_an_untuned_file_says_nothing_of_it(tuned: SPPDetector, train: DetectionDataset, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    tuned.save(path)
    loaded = SPPDetector.load(path).set_params(tuning=None)
    loaded.tuned_ = None
    loaded.save(path)
    metadata = read_stored(path).metadata
    assert "tuned" not in metadata
    assert "tuning" not in metadata
    assert SPPDetector.load(path).tuned_ is None


def test_files_that_somebody_changed(tuned: SPPDetector, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    tuned.save(path)
    good = read_stored(path)
    name = "tuned/12.expand.kernel"
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({k: v for k, v in good.tensors.items() if k != name}, good.metadata, "12.expand.kernel"),
        (good.tensors | {name: good.tensors[name][:5]}, good.metadata, "12.expand.kernel"),
        (good.tensors, {k: v for k, v in good.metadata.items() if k != "tuned"}, "tuned convolutions"),
        ({k: v for k, v in good.tensors.items() if not k.startswith("tuned/")}, good.metadata, "tuned convolutions"),
        (good.tensors, good.metadata | {"tuned": {"blocks": 5}}, "tuned convolutions"),
        (good.tensors, good.metadata | {"tuned": {"blocks": 4}}, "blocks"),
        (good.tensors, good.metadata | {"tuned": {"blocks": "6"}}, "tuned in its metadata"),
        (good.tensors, good.metadata | {"tuned": []}, "tuned in its metadata"),
        (good.tensors, good.metadata | {"tuning": {"epochs": 0}}, "epochs"),
        (good.tensors, good.metadata | {"tuning": {"speed": 1}}, "speed"),
    ]
    for tensors, metadata, message in cases:
        write_envelope(path, tensors, metadata, "sppnet-detector", good.version)
        with pytest.raises(ModelFileError, match=message):
            SPPDetector.load(path)


def test_stopped_again_and_again(
    floats: SPPDetector, train: DetectionDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoints, "due", lambda self: self.folder is not None)
    left, stops = {"n": 0}, []

    def interrupted(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
        for item in items:
            if what == "convolutions":
                if left["n"] == 0:
                    stops.append(what)
                    raise StoppedError
                left["n"] -= 1
            yield item

    detector = in_floats()
    for _ in range(9):
        left["n"] = 3
        try:
            detector = in_floats().fit(train, cache=tmp_path / "cache", progress=interrupted)
            break
        except StoppedError:
            continue
    assert len(stops) >= 3
    for name, one in (("a", floats), ("b", detector)):
        one.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_else_works_with_it(tuned: SPPDetector, train: DetectionDataset, cache: Path, tmp_path: Path) -> None:
    image = train[2].path
    found = tuned.detect(image, 0)
    classes = tuned.remove_classes(tuned.class_names_[:1])
    assert classes.tuned_ is tuned.tuned_
    taught = classes.add_classes(train, folds=2, cache=cache)
    assert taught.tuned_ is tuned.tuned_
    assert set(taught.class_names_) == set(tuned.class_names_)
    # in float32 its integers are what they stand for
    engine = build_engine(tuned.backbone, "float32", "cpu", tuned.tuned_)
    assert isinstance(tuned.backbone, str)
    pixels = np.zeros((64, 96, 3), np.uint8)
    assert not isinstance(engine, TorchEngine)
    assert np.array_equal(
        np.asarray(engine(pixels)), load_engine(tuned.backbone, "float32", tuned=tuned.tuned_)(pixels)
    )
    exported = tmp_path / "tuned.onnx"
    export_onnx(tuned, exported)
    assert exported.stat().st_size > 100_000
    assert len(found) > 0


def test_svms_see_the_tuned_convolutions(train: DetectionDataset, cache: Path, floats: SPPDetector) -> None:
    head = HeadOptions(rank=16, hidden=48, classifier="svm", box_regression="ridge")
    svms = in_floats(head=head).fit(train, cache=cache)
    assert svms.tuned_ is not None
    assert floats.tuned_ is not None
    assert svms.tuned_.digest == floats.tuned_.digest
    assert np.array_equal(svms.weights_.fc6_weight, floats.weights_.fc6_weight)
    assert not np.array_equal(svms.weights_.class_weight, floats.weights_.class_weight)


def test_views_depend_on_seed_epoch_and_image_alone(tuned: SPPDetector, train: DetectionDataset, cache: Path) -> None:
    frozen = SPPDetector(**OPTIONS)
    data = frozen.training_images(train, cache)
    views = ViewSource(data, tunable_engine(data.features, "int8", TUNING.blocks), TUNING, 0)
    first = views.view(1, 3)
    views.view(0, 2)
    again = ViewSource(data, tunable_engine(data.features, "int8", TUNING.blocks), TUNING, 0).view(1, 3)
    assert np.array_equal(first.early, again.early)
    assert np.array_equal(first.windows, again.windows)
    shapes = {views.view(epoch, 3).early.shape for epoch in range(6)}
    assert len(shapes) > 1  # scales of chance
    assert first.labels.max() <= len(train.class_names)


def test_engines_of_a_device(train: DetectionDataset, cache: Path) -> None:
    """On a CUDA device the maps come from torch; the early blocks run in ONNX Runtime all the same. Here on the CPU."""
    engine = TorchEngine(load_backbone("efficientnet-lite0+mid"))
    features = WindowFeatures(engine, (2, 1), (96,))
    data = TrainingImages(train, features, None, SelectiveSearch(max_windows=100), FeatureCache(cache))
    for precision in ("int8", "float32"):
        assert tunable_engine(features, precision, 6).precision == precision
    once, layers = FinetuneOptions(epochs=1, images_per_batch=4), HeadOptions(rank=8, hidden=16)
    result = fit_detector(
        data, layers, once, SvmOptions(), 0, cache, no_progress, tuning=replace(TUNING, epochs=1), precision="float32"
    )
    assert result.tuned is not None
    assert result.tuned.precision == "float32"


def test_any_number_of_threads_tunes_the_same(train: DetectionDataset, cache: Path, one_thread: None) -> None:
    """Each image of a step is worked on by one thread, and gradients are added up in the order of the images."""
    frozen = in_floats()
    data = frozen.training_images(train.subset(range(4)), cache)
    engine = tunable_engine(data.features, "float32", TUNING.blocks)
    results = []
    for threads in (1, 2):
        torch.manual_seed(0)
        head = FcHead(data.features.dims, len(train.class_names), rank=8, hidden=16)
        with threads_limited(threads, torch_too=True):
            tuned, losses = tune(head, data, replace(TUNING, epochs=1), engine, seed=3)
        results.append([*tuned.arrays().values(), *head.weights().arrays().values(), np.array(losses)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_images_with_nothing_to_learn_from(train: DetectionDataset, cache: Path) -> None:
    """Every window lies on a difficult object, so none is drawn; the others go on."""
    small = train[0]
    whole = np.array([[0, 0, small.width, small.height]], np.float32)
    hard = replace(small, image_id="hard", boxes=whole, labels=np.zeros(1, np.int64), difficult=np.ones(1, bool))
    data = DetectionDataset([hard, *train.records[1:5]], train.class_names, "hard", "train")

    def one_window(image: Any) -> Any:
        return np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)

    detector = in_floats(proposer=one_window).fit(data, cache=cache)
    assert np.isfinite(detector.metadata_["training"]["tuning_losses"]).all()


def test_a_tuned_detector_may_be_trained_again(tuned: SPPDetector, train: DetectionDataset, cache: Path) -> None:
    again = copy.copy(tuned).set_params(tuning=None, backbone="efficientnet-lite0")
    again.fit(train, cache=cache)
    assert again.tuned_ is None
    assert tuned.tuned_ is not None


def test_tuning_goes_on_from_a_detector(train: DetectionDataset, cache: Path, tmp_path: Path, one_thread: None) -> None:
    """Without learning nothing changes; with it, one start gives one file, and its end is a start again."""
    frozen = in_floats(tuning=None).fit(train, cache=cache)
    image, few = train[0].path, train.subset(range(6))
    # steps of no length: layers and convolutions are taken over as they are
    still = frozen.tune(few, tuning=replace(TUNING, learning_rate=0, head_learning_rate=0), cache=cache)
    assert still.tuned_ is not None
    windows = frozen.propose(image)
    before, after = (d.fc_of_windows(d.feature_maps(image), windows) for d in (frozen, still))
    np.testing.assert_allclose(before, after, rtol=1e-3, atol=1e-3)
    kernels = load_engine("efficientnet-lite0+mid", "float32").weights
    for name, (kernel, bias) in still.tuned_.weights.items():  # type: ignore[union-attr]
        assert np.array_equal(kernel, kernels[name][0]), name  # type: ignore[index]
        assert np.array_equal(bias, kernels[name][1]), name  # type: ignore[index]
    # it learns, from the same files to the same bytes, and says what it began with
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        others = few.with_classes(train.class_names[::-1])
        found = frozen.tune(others, tuning=TUNING, cache=tmp_path / f"{path.name}.cache")
        assert found.class_names_ == frozen.class_names_
        found.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    losses = found.metadata_["training"]["tuning_losses"]
    assert losses[-1] < losses[0]
    assert found.metadata_["training"]["began_with"]["images"] == len(train)
    # what the first one learned from is not forgotten
    assert any("4 of 4 images" in doubt for doubt in doubts_about(found, train.subset(range(6, 10))))
    found.save(paths[0])
    assert "a detector that was trained on" in describe_model(read_stored(paths[0]), 1)
    # and from there again
    more = found.tune(few, tuning=replace(TUNING, blocks=7), cache=cache)
    assert more.tuned_ is not None
    assert more.tuned_.blocks == 7
    assert more.metadata_["training"]["tuning_losses"][0] < losses[0]


def test_a_detector_that_can_t_be_tuned_further(floats: SPPDetector, train: DetectionDataset) -> None:
    renamed = floats.rename_class(floats.class_names_[0], "unheard of")
    svms = copy.copy(floats).set_params(head=HeadOptions(rank=16, hidden=48, classifier="svm"))
    own = copy.copy(floats).set_params(backbone=load_backbone("alexnet", pretrained=False))
    cases: list[tuple[SPPDetector, TuningOptions, str]] = [
        (floats, replace(TUNING, blocks=5), "blocks: got 5, expected at least 6"),
        (renamed, TUNING, "of the data set isn't one of the detector's"),
        (floats.remove_classes(floats.class_names_[:1]), TUNING, "of the data set isn't one of the detector's"),
        (svms, TUNING, "only a softmax"),
        (copy.copy(floats).set_params(features__method="rcnn"), TUNING, "got rcnn"),
        (copy.copy(floats).set_params(head=NO_LAYER), TUNING, "hidden: got 0"),
        (own, TUNING, "one of your own"),
        (copy.copy(floats).set_params(head__hidden=32), TUNING, "got hidden 32, but the detector has learned with 48"),
        (copy.copy(floats).set_params(head__rank=8), TUNING, "got rank 8"),
        (copy.copy(floats).set_params(head__layers=2), TUNING, "got layers 2"),
        (copy.copy(floats).set_params(features__levels=(2, 1)), TUNING, r"vectors of \d+ numbers"),
        (floats, {"epochs": 1}, "tuning: got dict, expected TuningOptions"),  # type: ignore[list-item]
    ]
    for detector, options, message in cases:
        with pytest.raises(ArgumentError, match=message):
            detector.tune(train, tuning=options)
    with pytest.raises(ArgumentError, match="isn't seen would be forgotten"):
        floats.tune(train.with_classes(train.class_names[1:]), tuning=TUNING)
    for seed in (-1, 1.5, "a", True):
        with pytest.raises(ArgumentError, match="seed: got"):
            floats.tune(train, tuning=TUNING, seed=seed)  # type: ignore[arg-type]


def test_weights_that_are_missing_are_missed_at_once(
    train: DetectionDataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tuning needs the published file. Int8 convolutions don't, so all else would be trained without it."""

    def missing(source: object) -> Path:
        raise WeightsError("not here")

    def never(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
        raise AssertionError(f"{what}: refused too late")
        yield from items

    monkeypatch.setattr(tuning_module, "find_checked", missing)
    with pytest.raises(WeightsError, match="not here"):
        SPPDetector(**OPTIONS).fit(train, cache=cache, progress=never)


def test_the_command_line_goes_on_from_a_model(
    floats: SPPDetector, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, end = tmp_path / "start.safetensors", tmp_path / "end.safetensors"
    floats.save(start, "float32")
    command = ["train", str(toy_voc), "--split", "train", "--val-split", "none", "-o", str(end), "--model", str(start)]
    assert main(command) == 2
    assert "--model: needs --tune-convolutions" in capsys.readouterr().err
    assert main([*command, "--tune-convolutions", "--scales", "300"]) == 2
    assert "--scales: is that of --model" in capsys.readouterr().err
    assert main([*command[:-1], "voc20", "--tune-convolutions"]) == 2
    assert "isn't one of the detector's" in capsys.readouterr().err
    assert not list(tmp_path.glob("end*"))
    assert main([*command, "--tune-convolutions", "--tune-epochs", "1"]) == 0
    assert "convolutions" in capsys.readouterr().out
    loaded = SPPDetector.load(end)
    assert loaded.metadata_["training"]["began_with"]["images"] == 10
    assert loaded.tuned_ is not None
    assert loaded.tuned_.blocks == 7


def test_colours(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (8, 9, 3), np.uint8)
    assert jitter_colours(pixels, 0.0, rng) is pixels
    found = jitter_colours(pixels, 0.3, rng)
    assert found.shape == pixels.shape
    assert not np.array_equal(found, pixels)
    grey = np.full((8, 9, 3), 100, np.uint8)
    assert 0.7 * 100 - 1 <= jitter_colours(grey, 0.3, rng).mean() <= 1.3 * 100 + 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"backbone": load_backbone("alexnet", pretrained=False)}, "one of your own"),
        ({"backbone": load_engine("efficientnet-lite0+mid")}, "one of your own"),
        ({"features": FeatureOptions(method="rcnn")}, "got rcnn"),
        ({"tuning": TuningOptions(blocks=3)}, "blocks: got 3, expected 5 to 15"),
        ({"backbone": "efficientnet-lite0+head"}, "efficientnet-lite0 with .mid, .stride32 or no ending"),
        ({"head": NO_LAYER}, "hidden: got 0"),
    ],
)
def test_what_can_t_be_tuned(parameters: dict[str, Any], message: str, train: DetectionDataset, cache: Path) -> None:
    def never(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
        raise AssertionError(f"{what}: refused too late")
        yield from items

    with pytest.raises(ArgumentError, match=message):
        SPPDetector(**OPTIONS | parameters).fit(train, cache=cache, progress=never)


def test_a_loss_that_explodes(
    floats: SPPDetector, train: DetectionDataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FcHead, "loss", lambda *_: torch.tensor(np.inf, requires_grad=True))
    with pytest.raises(ArgumentError, match=r"loss is no longer a number at step 0; take a smaller learning_rate"):
        in_floats(tuning=replace(TUNING, epochs=3)).fit(train, cache=cache)


def test_a_field_of_no_options() -> None:
    with pytest.raises(ArgumentError, match=r"tuning: is None, so tuning__epochs can't be set; set tuning first"):
        SPPDetector().set_params(tuning__epochs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tune-epochs", "2"], "--tune-epochs: needs --tune-convolutions"),
        (["--tune-convolutions", "--layers", "pool"], "leave out --layers pool"),
        (["--layers", "pool", "--epochs", "2"], "--epochs: --layers pool has no layer that is trained in epochs"),
        (["--features", "rcnn", "--scales", "96"], "--scales: rcnn cuts out every window, so it has no scales"),
        (["--tune-convolutions", "--features", "rcnn"], "leave out --features rcnn"),
        (["--tune-convolutions", "--backbone", "alexnet"], "got --backbone alexnet, expected an EfficientNet-Lite"),
    ],
)
def test_options_that_exclude_each_other(
    options: list[str], message: str, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused at once, by the names that the user typed."""
    assert main(["train", str(toy_voc), "-o", str(tmp_path / "m.safetensors"), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not captured.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "values",
    [{"average": 1.5}, {"epochs": 0}, {"scale_range": (2, 1)}, {"scale_range": (1,)}, {"scale_range": 1},
     {"scale_range": None}, {"blocks": 65}, {"foreground_share": 2}, {"precision": "float16"},
     {"colour": 2}, {"learning_rate": -1}],
)  # fmt: skip
def test_options_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(values))):
        TuningOptions(**values)


@pytest.mark.slow
def test_two_processes_tune_together(tmp_path: Path) -> None:
    """The same images and windows in each step; only the order of sums differs."""
    data = write_toy_voc(tmp_path / "VOC", {"train": 4})
    common = ["train", str(data), "--scales", "96", "--epochs", "1", "--tune-convolutions", "--tune-epochs", "1",
              "--val-split", "none", "--precision", "float32", "--quiet"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    models = [tmp_path / "alone.safetensors", tmp_path / "both.safetensors"]
    starts = [
        [sys.executable, "-m", "sppnet"],
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "sppnet"],
    ]
    for start, model in zip(starts, models, strict=True):
        subprocess.run([*start, *common, "-o", str(model)], check=True, env=environment, capture_output=True)
    one, other = (SPPDetector.load(model) for model in models)
    assert one.metadata_["training"]["tuning_losses"] == pytest.approx(
        other.metadata_["training"]["tuning_losses"], rel=1e-3
    )
    assert one.tuned_ is not None
    assert other.tuned_ is not None
    a, b = (t.folded(lite_network(t.network)) for t in (one.tuned_, other.tuned_))
    for name, (kernel, _) in a.items():
        assert np.abs(kernel - b[name][0]).mean() < 0.02 * np.abs(kernel).std()
