"""Training: learns, resumes to the same weights, and gives the same in two processes as in one."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import nn

from sppnet.backbones.base import Backbone
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.curves import plot_history
from sppnet.classification.multisize import aspects_of_groups, augment, batches_of_epoch
from sppnet.classification.options import GradientOptions, NetworkOptions
from sppnet.classification.recipes import train_by_gradient
from sppnet.classification.training import train_network
from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.datasets.folder_splits import FolderSplits
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.storage.envelope import read_envelope, write_envelope

OPTIONS = GradientOptions(epochs=4, batch_size=8, sizes_px=(32, 24), learning_rate=0.05, warmup_epochs=0)
NINETEEN = [*range(0, 36, 2), 1]


def _network(seed: int = 0, dropout: float = 0.3) -> SPPClassifier:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
    backbone = Backbone("tiny", layers, channels=12, stride=8, offset=0.5, trainable=True)
    return SPPClassifier(backbone, (2, 1), 3, hidden=(16,), dropout=dropout)


def _weights(network: SPPClassifier) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_learns_and_goes_on_after_a_kill(toy_folder: Path, tmp_path: Path) -> None:
    data = load_image_folder(toy_folder)
    options = replace(OPTIONS, epochs=6)
    whole, stopped, resumed = _network(), _network(), _network(seed=1)
    history = train_network(whole, data, options)
    assert history[-1]["accuracy"] > 0.9
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert [h["side_px"] for h in history[:3]] == [32, 24, 32]
    path = tmp_path / "state.safetensors"
    assert len(train_network(stopped, data, options, checkpoint=path, stop_after=3)) == 3
    again = train_network(resumed, data, options, checkpoint=path)  # its own random weights are replaced
    assert again == history
    assert torch.equal(_weights(resumed), _weights(whole))
    plot_history(history, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000
    with pytest.raises(ModelFileError, match=r"had learning_rate = 0\.05, now it is 0\.1"):
        train_network(_network(), data, replace(options, learning_rate=0.1), checkpoint=path)
    with pytest.raises(ModelFileError, match=r"had dropout = 0\.3, now it is 0\.0"):
        train_network(_network(dropout=0.0), data, options, checkpoint=path)
    with pytest.raises(ModelFileError, match=r"had images = '36 of 3 classes, .*now it is '19 of 3 classes"):
        train_network(_network(), data.subset(NINETEEN), options, checkpoint=path)
    # what fuzzing found: metadata of other kinds, with a right digest
    good = read_envelope(path, "sppnet-training", 1, "a checkpoint")
    for key, value in (
        ("identity", "x"),
        ("identity", None),
        ("history", 3),
        ("history", [1]),
        ("history", [{"a": []}]),
    ):
        write_envelope(path, good.arrays, good.metadata | {key: value}, "sppnet-training", 1)
        with pytest.raises(ModelFileError, match="is no checkpoint of a training; remove it"):
            train_network(_network(), data, options, checkpoint=path)


def test_mixed_precision_learns_too(toy_folder: Path) -> None:
    data = load_image_folder(toy_folder)
    network = _network()
    history = train_network(network, data, replace(OPTIONS, precision="bf16", size_choice="random"))
    assert history[-1]["loss"] < history[0]["loss"]
    assert next(network.parameters()).dtype == torch.float32
    assert 24 <= min(h["side_px"] for h in history) <= max(h["side_px"] for h in history) <= 32
    if not torch.cuda.is_available():
        with pytest.raises(ArgumentError, match="fp16 needs CUDA"):
            train_network(network, data, replace(OPTIONS, precision="fp16"))


def test_frozen_backbones_stay(toy_folder: Path) -> None:
    network = _network()
    network.backbone.trainable = False
    network.backbone.requires_grad_(False)
    before = network.backbone.layers[0].weight.clone()
    history = train_network(network, load_image_folder(toy_folder), OPTIONS)
    assert torch.equal(network.backbone.layers[0].weight, before)
    assert history[-1]["loss"] < history[0]["loss"]


def _distributed(rank: int, root: Path, init: Path) -> tuple[list[float], torch.Tensor]:
    """Losses and weights of a training that two processes share; this is number ``rank``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{init}", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    try:
        network = _network(dropout=0.0)
        history = train_network(network, load_image_folder(root).subset(NINETEEN), replace(OPTIONS, epochs=2))
    finally:
        dist.destroy_process_group()
    return [h["loss"] for h in history], _weights(network)


@pytest.mark.slow
def test_two_processes_are_one_with_the_double_batch(toy_folder: Path, tmp_path: Path) -> None:
    """19 images in batches of 8: the last batch of 3 is shared out unequally, 2 and 1."""
    # one of them is this one: to start a process takes seconds, all the rest doesn't
    other = multiprocessing.get_context("spawn").Process(target=_distributed, args=(1, toy_folder, tmp_path / "init"))
    other.start()
    try:
        losses, weights = _distributed(0, toy_folder, tmp_path / "init")
        other.join(60)
        assert other.exitcode == 0
    finally:
        other.kill()
    alone = _network(dropout=0.0)
    history = train_network(alone, load_image_folder(toy_folder).subset(NINETEEN), replace(OPTIONS, epochs=2))
    assert losses == pytest.approx([h["loss"] for h in history], rel=1e-4)
    torch.testing.assert_close(weights, _weights(alone), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(weights, _weights(_network(dropout=0.0)), atol=1e-3)  # it did learn


def test_every_image_once_and_one_size_a_batch() -> None:
    batches = batches_of_epoch(23, 6, (224, 180), epoch=3, seed=1)
    assert sorted(i for b in batches for i in b.indices) == list(range(23))
    assert {b.side_px for b in batches} == {180}
    assert batches == batches_of_epoch(23, 6, (224, 180), epoch=3, seed=1)
    assert batches != batches_of_epoch(23, 6, (224, 180), epoch=5, seed=1)
    shares = [batches_of_epoch(23, 6, (180, 224), "random", epoch=3, seed=1, rank=r, world=3) for r in range(3)]
    assert sorted(i for s in shares for b in s for i in b.indices) == list(range(23))
    sizes = [[b.side_px for b in s] for s in shares]
    assert sizes[0] == sizes[1] == sizes[2]
    assert len(set(sizes[0])) > 1
    with pytest.raises(ArgumentError, match="can't be divided among 4"):
        batches_of_epoch(23, 6, (224,), world=4)


def test_whole_images_in_batches_of_one_aspect() -> None:
    rng = np.random.default_rng(0)
    aspects = np.exp(rng.uniform(np.log(1 / 3), np.log(3), 400))
    groups = aspects_of_groups(aspects)
    stretch = np.exp(np.abs(np.log(groups / aspects)))
    assert 1.1 < stretch.max() < 1.16
    assert len(set(groups)) == 11
    assert aspects_of_groups([10.0, 0.05, 1.4, 1.0]).tolist() == pytest.approx([3, 1 / 3, 4 / 3, 1])
    # what is rare goes with what is more usual: towards the square, and squares with the commonest
    mixed = aspects_of_groups([1.5] * 20 + [1.33] * 9 + [3.0] * 3 + [1.0] * 2 + [0.7], least=4)
    assert mixed.tolist() == pytest.approx([1.5] * 20 + [4 / 3] * 9 + [1.5] * 3 + [1.5] * 3)
    with pytest.raises(ArgumentError, match="positive"):
        aspects_of_groups([1.0, 0.0])
    batches = batches_of_epoch(400, 8, (64, 48), "random", epoch=2, aspects=groups)
    assert sorted(i for b in batches for i in b.indices) == list(range(400))
    for batch in batches:
        assert {groups[i] for i in batch.indices} == {batch.aspect}
        assert 4 <= len(batch.indices) <= 8  # shared out evenly: no batch of one image
    assert [b.aspect for b in batches] != sorted(b.aspect or 0 for b in batches)
    halves = [batches_of_epoch(400, 8, (64,), epoch=2, rank=r, world=2, aspects=groups) for r in range(2)]
    assert [b.aspect for b in halves[0]] == [b.aspect for b in halves[1]]
    assert sorted(i for half in halves for b in half for i in b.indices) == list(range(400))
    image = np.zeros((60, 100, 3), np.uint8)
    image[:, :50] = 200
    for aspect, shape in ((5 / 3, (48, 80, 3)), (4 / 3, (48, 64, 3)), (0.75, (64, 48, 3))):
        whole = augment(image, 48, np.random.default_rng(1), aspect).astype(int)
        assert whole.shape == shape
        halves_seen = whole[:, : shape[1] // 2 - 2], whole[:, shape[1] // 2 + 2 :]
        assert abs(abs(halves_seen[0].mean() - halves_seen[1].mean()) - 200) < 25  # all of it, left and right


def test_whole_images_are_learned(toy_folder: Path) -> None:
    network, sizes = _network(), set()
    network.backbone.register_forward_pre_hook(lambda _module, inputs: sizes.add(tuple(inputs[0].shape[2:])))
    data = load_image_folder(toy_folder)
    history = train_network(network, data, replace(OPTIONS, epochs=8, how="full"))
    assert history[-1]["accuracy"] > 0.9
    assert {min(size) for size in sizes} == {32, 24}
    assert len(sizes) >= 6  # at both sizes upright, square and wide
    fixed = _network()
    fixed.pool = FixedPool(2, 1, (4, 4))
    with pytest.raises(ArgumentError, match="without pyramid takes one size"):
        train_network(fixed, data, replace(OPTIONS, how="full"))


def test_augmentation_shows_the_same_square_at_every_size() -> None:
    yy, xx = np.mgrid[0:120, 0:200]
    image = np.stack([xx, yy * 2, xx * 0 + 99], 2).astype(np.uint8)
    seen = set()
    for seed in range(40):
        large, small = (augment(image, side, np.random.default_rng(seed)) for side in (96, 48))
        assert large.shape == (96, 96, 3)
        halved = large.reshape(48, 2, 48, 2, 3).mean((1, 3))
        assert np.abs(halved - small).mean() < 2
        flipped = bool(large[50, 0, 0] > large[50, -1, 0])
        seen.add((flipped, round(float(large[..., 0].mean()) / 20), round(float(large[..., 1].mean()) / 20)))
    assert {f for f, _, _ in seen} == {False, True}
    assert len({x for _, x, _ in seen}) >= 3  # left, middle, right
    assert len({y for _, _, y in seen}) >= 2


def test_options_are_checked(toy_folder: Path) -> None:
    with pytest.raises(ArgumentError, match="epochs: got 0"):
        GradientOptions(epochs=0)
    with pytest.raises(ArgumentError, match="precision"):
        GradientOptions(precision="int4")  # type: ignore[arg-type]
    data = load_image_folder(toy_folder)
    assert isinstance(data, ImageFolder)
    with pytest.raises(ArgumentError, match="how"):
        GradientOptions(how="warp")  # type: ignore[arg-type]
    with pytest.raises(
        ArgumentError, match=r"no longer a number, in epoch 1, step 2 of 5; take a smaller one than 1e\+25"
    ):
        train_network(_network(), data, replace(OPTIONS, learning_rate=1e25, clip_norm=1e30))


@pytest.mark.parametrize(
    ("options", "name"),
    [({"momentum": -1}, "momentum"), ({"seed": -1}, "seed"), ({"label_smoothing": 2}, "label_smoothing"),
     ({"epochs": 1.5}, "epochs"), ({"clip_norm": 0}, "clip_norm"), ({"warmup_epochs": float("nan")}, "warmup_epochs"),
     ({"learning_rate": float("inf")}, "learning_rate"), ({"sizes_px": ()}, "sizes_px")],
)  # fmt: skip
def test_each_option_has_a_range(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{name}: got"):
        GradientOptions(**options)


def test_numbers_of_numpy_are_kept_as_plain_ones() -> None:
    options: dict[str, Any] = {"epochs": np.int64(2), "seed": np.uint32(7), "sizes_px": np.array([32, 24]),
                               "learning_rate": np.float32(0.5)}  # fmt: skip
    plain = GradientOptions(epochs=2, seed=7, sizes_px=(32, 24), learning_rate=0.5)
    assert json.dumps(asdict(GradientOptions(**options))) == json.dumps(asdict(plain))
    network: Any = NetworkOptions(levels=np.array([2, 1]), hidden=[np.int64(8)], dropout=np.float32(0))  # type: ignore[arg-type]
    assert json.dumps(asdict(network)) == json.dumps(asdict(NetworkOptions(levels=(2, 1), hidden=(8,), dropout=0.0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"levels": (65,)}, "levels: got 65"), ({"levels": (1,) * 17}, "levels: got 17 of them"),
     ({"hidden": (4,) * 9}, "hidden: got 9 of them"), ({"hidden": (8.0,)}, "hidden: got 8.0")],
)  # fmt: skip
def test_networks_that_no_file_holds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        NetworkOptions(**options)


def test_what_does_not_fit_is_told_before_training(toy_folder: Path, tmp_path: Path) -> None:
    data = load_image_folder(toy_folder)
    network = _network()
    network = SPPClassifier(network.backbone, (1,), 2, hidden=())
    with pytest.raises(ArgumentError, match="network: got 2 outputs, expected at least 3"):
        train_network(network, data, OPTIONS)
    sides = replace(OPTIONS, sizes_px=(2000,))
    small = NetworkOptions("zf5@0.05", from_scratch=True, levels=(1,), hidden=())
    with pytest.raises(ArgumentError, match=r"views: got View\(side_px=2286.*can be saved"):
        train_by_gradient(FolderSplits(data, None, "", ()), small, sides, checkpoint=tmp_path / "state")


def test_without_a_pyramid_its_options_are_refused() -> None:
    with pytest.raises(ArgumentError, match="pyramid: got False with mode 'avg'"):
        NetworkOptions(pyramid=False, mode="avg")
    with pytest.raises(ArgumentError, match="hidden"):
        NetworkOptions(hidden=(-1,))


def test_no_batch_of_one_is_left() -> None:
    """Batch normalisation can't learn from one image whose map is one cell."""
    for count in (17, 32, 33, 49):
        batches = batches_of_epoch(count, 16, (64,))
        assert sorted(i for batch in batches for i in batch.indices) == list(range(count))
        sizes = [len(batch.indices) for batch in batches]
        assert max(sizes) <= 16
        assert max(sizes) - min(sizes) <= 1
