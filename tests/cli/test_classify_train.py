"""``sppnet classify-train`` and ``sppnet classify-eval``, as they are called."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.classification.classifier import FixedPool
from sppnet.classification.classifier_file import FORMAT, FORMAT_VERSION
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.classification.views import View
from sppnet.cli.main import main
from sppnet.datasets.folder_splits import load_folder_splits
from sppnet.storage.envelope import read_envelope
from toy_data import write_toy_images

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("--method", "sgd", "--from-scratch", "--backbone", "zf5@0.1", "--scales", "64", "48", "--levels", "2", "1",
         "--hidden", "16", "--dropout", "0", "--batch-size", "10", "--learning-rate", "0.03", "--quiet")  # fmt: skip


def _train(data: Path, model: Path, *options: str) -> int:
    return main(["classify-train", str(data), "--output", str(model), *options])


def _training(model: Path) -> dict[str, Any]:
    training: dict[str, Any] = read_envelope(model, FORMAT, FORMAT_VERSION, "a classifier").metadata["training"]
    return training


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More images of the three kinds, 8 each."""
    return write_toy_images(tmp_path_factory.mktemp("unseen") / "more", 8, seed=1)


@pytest.fixture(scope="module")
def svm(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier by SVMs."""
    model = tmp_path_factory.mktemp("svm") / "mine.safetensors"
    options = ["--scales", "64", "--flip", "--levels", "2", "1", "--costs", "1", "10", "--quiet"]
    assert _train(toy_folder, model, *options, "--confusion", str(model.with_name("confusion.png"))) == 0
    return model


@pytest.fixture(scope="module")
def sgd(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 16 epochs."""
    model = tmp_path_factory.mktemp("sgd") / "net.safetensors"
    assert _train(toy_folder, model, *SMALL, "--epochs", "16") == 0
    return model


def _accuracy(model: Path, data: Path, out: Path, *options: str) -> float:
    assert main(["classify-eval", str(data), "--model", str(model), "--json", str(out), "--quiet", *options]) == 0
    top1: float = json.loads(out.read_text(encoding="utf-8"))["top1"]
    return top1


def test_svms_know_images_that_they_have_not_seen(svm: Path, unseen: Path, tmp_path: Path) -> None:
    assert {path.name for path in svm.parent.iterdir()} == {"mine.safetensors", "confusion.png"}  # the cache is gone
    with Image.open(svm.parent / "confusion.png") as picture:
        assert picture.size[0] > 300
    assert _accuracy(svm, unseen, tmp_path / "figures.json") > 0.9
    classifier = ImageClassifier.load(svm)
    assert tuple(classifier.views) == (View(64), View(64, flip=True))
    assert set(_training(svm)["cross_validation"]) == {"1", "10"}


def test_networks_know_images_that_they_have_not_seen(sgd: Path, unseen: Path, tmp_path: Path) -> None:
    assert {path.name for path in sgd.parent.iterdir()} == {"net.safetensors", "net-curve.png"}
    assert _accuracy(sgd, unseen, tmp_path / "figures.json") > 0.8
    training = _training(sgd)
    assert training["images"] == 30
    assert [entry["side_px"] for entry in training["history"][:3]] == [64, 48, 64]
    assert training["history"][-1]["loss"] < 0.5 * training["history"][0]["loss"]
    # squares of 224/256 of the short side were brought to 64 pixels, so the whole short side to 73
    assert ImageClassifier.load(sgd).views == (View(73),)


def test_the_command_that_is_printed_at_the_end_works(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "my net.safetensors"
    assert _train(toy_folder, model, *SMALL, "--epochs", "1", "--val-split", "none") == 0
    out = capsys.readouterr().out
    assert "top-1" not in out
    assert "metrics" not in ImageClassifier.load(model).metadata_
    command = out.splitlines()[-1].strip()
    assert command == f"sppnet classify IMAGE --model '{model}'"
    found = tmp_path / "found.json"
    photo = toy_folder / "red" / "00.png"
    assert main(["classify", str(photo), "--model", str(model), "--json", str(found)]) == 0
    classes = json.loads(found.read_text(encoding="utf-8"))["images"][0]["classes"]
    assert {c["class_name"] for c in classes} == {"green", "red", "striped"}


def test_what_is_told_is_measured_on_images_that_were_kept_for_it(
    sgd: Path, toy_folder: Path, unseen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = ImageClassifier.load(sgd)
    kept = load_folder_splits(toy_folder).validation
    assert kept is not None
    assert kept.counts().tolist() == [2, 2, 2]
    right = np.mean([classifier.classify(p, 1)[0].class_id == label for p, label in kept])
    assert classifier.metadata_["metrics"]["top1"] == pytest.approx(right, abs=1e-4)
    assert _training(sgd)["history"][-1]["validation_accuracy"] == pytest.approx(right, abs=0.2)  # before rounding
    # classify-eval knows the folder again; others it measures whole
    figures = tmp_path / "figures.json"
    _accuracy(sgd, toy_folder, figures)
    assert "only the 6 images of 36 that training with seed 0 kept" in capsys.readouterr().out
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert {k: document[k] for k in ("images", "top1", "class_accuracy")} == {
        k: classifier.metadata_["metrics"][k] for k in ("images", "top1", "class_accuracy")
    }
    _accuracy(sgd, unseen, figures)
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert document["images"] == 24
    assert {name: sum(row.values()) for name, row in document["confusion"].items()} == dict.fromkeys(
        ("green", "red", "striped"), 8
    )
    hits = sum(row.get(name, 0) for name, row in document["confusion"].items())
    assert document["top1"] == pytest.approx(hits / 24, abs=1e-4)
    chosen = tmp_path / "some.txt"
    chosen.write_text("red/00.png\nstriped/01.png\n")
    picture = tmp_path / "confusion.svg"
    _accuracy(sgd, unseen, figures, "--list", str(chosen), "--confusion", str(picture), "--views", "10")
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert document["images"] == 2
    assert document["views"][0]["places"] == 5
    assert picture.read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.slow
def test_killed_and_run_again_it_writes_the_same_file(sgd: Path, toy_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "net.safetensors"
    checkpoint = tmp_path / "net.safetensors.cache" / "training.safetensors"
    command = [sys.executable, "-m", "sppnet", "classify-train", str(toy_folder), "--output", str(model)]
    process = subprocess.Popen(
        [*command, *SMALL, "--epochs", "16"], stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        states: set[int] = set()
        deadline = time.monotonic() + 120
        while len(states) < 3 and process.poll() is None and time.monotonic() < deadline:
            if checkpoint.exists():
                states.add(checkpoint.stat().st_mtime_ns)
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not model.exists()
    done = len(read_envelope(checkpoint, "sppnet-training", 1, "a checkpoint").metadata["history"])
    assert 1 <= done < 16
    assert _train(toy_folder, model, *SMALL, "--epochs", "16") == 0
    assert model.read_bytes() == sgd.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "net-curve.png"}


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(toy_folder: Path, tmp_path: Path) -> None:
    """Whole images in batches of one aspect, 10 over both processes. Sums are added in another order: 1e-4."""
    options = [*SMALL, "--epochs", "3", "--view", "full"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = tmp_path / "both.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    command += ["--master_port", str(port), "-m", "sppnet", "classify-train", str(toy_folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, "--output", str(both), *(o for o in options if o != "--quiet")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1 of 3:") == 1  # only the first one tells
    alone = tmp_path / "alone.safetensors"
    assert _train(toy_folder, alone, *options) == 0
    histories = [_training(path)["history"] for path in (both, alone)]
    for key in ("loss", "accuracy", "validation_accuracy", "side_px"):
        assert [e[key] for e in histories[0]] == pytest.approx([e[key] for e in histories[1]], rel=1e-4), key
    assert histories[0][-1]["loss"] != histories[0][0]["loss"]
    assert [_training(path)["processes"] for path in (both, alone)] == [2, 1]
    weights = [read_envelope(path, FORMAT, FORMAT_VERSION, "a classifier").arrays for path in (both, alone)]
    for name, value in weights[1].items():
        np.testing.assert_allclose(
            weights[0][name].astype(float), value.astype(float), rtol=1e-2, atol=1e-3, err_msg=name
        )


def test_parts_in_folders_in_lists_and_without_pyramid(
    toy_folder: Path, unseen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "parts"
    shutil.copytree(toy_folder, root / "train")
    shutil.copytree(unseen, root / "valid")
    model = tmp_path / "net.safetensors"
    assert _train(root, model, *SMALL, "--epochs", "1", "--precision", "bf16", "--size-choice", "random") == 0
    training = _training(model)
    assert (training["images"], training["options"]["precision"]) == (36, "bf16")
    assert 48 <= training["history"][0]["side_px"] <= 64
    assert ImageClassifier.load(model).metadata_["metrics"]["images"] == 24
    assert main(["classify-eval", str(root), "--model", str(model), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "24 images, 3 classes" in out
    assert "say little" not in out
    lists = {name: tmp_path / f"{name}.txt" for name in ("train", "val")}
    for name, numbers in (("train", range(8)), ("val", range(8, 12))):
        lists[name].write_text("".join(f"{c}/{i:02}.png\n" for c in ("green", "red", "striped") for i in numbers))
    options = ["--train-list", str(lists["train"]), "--val-list", str(lists["val"]), "--cache", str(tmp_path / "kept")]
    fixed = [option for option in SMALL if option not in ("48", "--levels", "2", "1")]
    assert _train(toy_folder, model, *fixed, "--epochs", "1", "--no-pyramid", *options) == 0
    assert (tmp_path / "kept" / "training.safetensors").exists()
    classifier = ImageClassifier.load(model)
    assert isinstance(classifier.network_.pool, FixedPool)
    assert classifier.views == (View(64, "crop"),)
    assert (_training(model)["images"], classifier.metadata_["metrics"]["images"]) == (24, 12)
    capsys.readouterr()
    assert main(["classify-eval", str(toy_folder), "--model", str(model), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "figures may be too good: the classifier learned from 24 of 36 images that were compared" in out
    assert "36 images" in out


def test_a_damaged_image_ends_it_at_once_or_is_left_out(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, model = tmp_path / "toys", tmp_path / "net.safetensors"
    shutil.copytree(toy_folder, root)
    bad = root / "red" / "03.png"
    bad.write_bytes(bad.read_bytes()[:3000])  # its header is whole
    (root / "green" / "text.png").write_text("no picture")
    assert _train(root, model, *SMALL, "--epochs", "1", "--strict") == 2
    assert "text.png: not an image" in capsys.readouterr().err
    (root / "green" / "text.png").unlink()
    assert _train(root, model, *SMALL, "--epochs", "1", "--strict") == 2
    err = capsys.readouterr().err
    assert f"{bad}: damaged or incomplete" in err
    assert "--on-error skip, or on_error" in err
    (root / "green" / "text.png").write_text("no picture")
    assert _train(root, model, *SMALL, "--epochs", "1") == 0
    assert capsys.readouterr().out.count("left out: ") == 2
    images = _training(model)["images"] + ImageClassifier.load(model).metadata_["metrics"]["images"]
    assert images == 35
    assert main(["classify-eval", str(root), "--model", str(model), "--list", str(_list(tmp_path, "red/03.png"))]) == 2
    assert "03.png: damaged" in capsys.readouterr().err
    listed = str(_list(tmp_path, "red/03.png", "red/04.png"))
    assert (
        main(["classify-eval", str(root), "--model", str(model), "--list", listed, "--on-error", "skip", "--quiet"])
        == 0
    )
    assert "1 images, 3 classes" in capsys.readouterr().out


def _list(folder: Path, *photos: str) -> Path:
    path = folder / "list.txt"
    path.write_text("\n".join(photos))
    return path


def test_another_run_s_checkpoint_and_a_loss_that_explodes(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, cache = tmp_path / "net.safetensors", str(tmp_path / "kept")
    options = [*SMALL, "--epochs", "1", "--val-split", "none", "--cache", cache]
    assert _train(toy_folder, model, *options) == 0
    first = model.read_bytes()
    for change, message in (
        (["--learning-rate", "0.2"], "had learning_rate = 0.03, now it is 0.2; give the same data and options"),
        (["--hidden", "17"], "had hidden = [16], now it is [17]"),
        (["--val-list", str(_list(tmp_path, "red/03.png"))], ""),
        (["--split", "none"], "isn't a split"),
    ):
        arguments = [o for o in options if o not in ("--val-split", "none")] if "--val-list" in change else options
        status = _train(toy_folder, model, *arguments, *change)
        err = capsys.readouterr().err
        assert (status, message in err) == ((2, True) if message else (0, True)), change
    assert _train(toy_folder, model, *options, "--seed", "0") == 0
    assert model.read_bytes() == first
    exploding = [*options[:-1], str(tmp_path / "other"), "--learning-rate", "1e30", "--epochs", "3"]
    assert _train(toy_folder, model, *exploding) == 2
    err = capsys.readouterr().err
    assert "the loss is no longer a number" in err
    assert "take a smaller one than 1e+30" in err
    assert model.read_bytes() == first
    assert not (tmp_path / "other" / "training.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE: got 'two', expected a whole number"),
        ("WORLD_SIZE", "-1", "WORLD_SIZE: got '-1'"),
        ("RANK", "3", "expected 0 <= RANK < WORLD_SIZE"),
    ],
)
def test_an_environment_that_torchrun_never_makes(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, value: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(name, value)
    assert _train(toy_folder, tmp_path / "net.safetensors", *SMALL) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_wrong_use_is_one_clear_message(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, one, few, parts = (tmp_path / name for name in ("empty", "one", "few", "parts"))
    empty.mkdir()
    shutil.copytree(toy_folder / "red", one / "red")
    shutil.copytree(toy_folder, few)
    for number in range(2, 12):
        (few / "red" / f"{number:02}.png").unlink()
    shutil.copytree(toy_folder, parts / "train")
    shutil.copytree(toy_folder, parts / "val")
    (parts / "val" / "red").rename(parts / "val" / "rde")
    model, toys = tmp_path / "net.safetensors", toy_folder
    cases: list[tuple[Path, list[str], str]] = [
        (tmp_path / "nothing", [], "nothing: no such folder"),
        (empty, [], "has no folders; expected one a class"),
        (one, [], "one class only (red)"),
        (few, [], "class 'red' has 2 images, expected at least 3"),
        (parts, [], "its class 'rde' is none of the 3 expected"),
        (toys, ["--output", str(tmp_path)], "is a folder; name a file"),
        (toys, ["--split", "red"], "red: isn't a split of the images"),
        (toys, ["--train-list", str(tmp_path / "no.txt")], "no.txt: can't be read as a list"),
        (toys, ["--split", "train", "--train-list", "x"], "--split, --train-list: both say which images"),
        (toys, ["--epochs", "3"], "--epochs: isn't an option of --method svm"),
        (toys, ["--backbone", "zf5"], "has no published weights, so frozen convolutions"),
        (toys, ["--backbone", "zf6"], "got 'zf6'"),
        (toys, ["--confusion", "x.doc"], "x.doc: expected a plot file"),
        (toys, ["--confusion", "x.png", "--val-split", "none"], "nothing to measure on"),
        (toys, ["--method", "sgd", "--costs", "1"], "--costs: isn't an option of --method sgd"),
        (toys, ["--method", "sgd", "--backbone", "zf5"], "random weights (--from-scratch)"),
        (toys, ["--method", "sgd", "--view", "warp"], "--view warp"),
        (toys, ["--method", "sgd", "--no-pyramid", "--mode", "avg"], "--mode: there is no pyramid"),
        (toys, ["--method", "sgd", "--no-pyramid", "--levels", "9"], "--levels: there is no pyramid"),
        (
            toys,
            ["--method", "sgd", "--from-scratch", "--scales", "64", "48", "--no-pyramid"],
            "sizes 64 48 px: a network without pyramid takes one size",
        ),
        (toys, ["--learning-rate", "-1"], "got '-1', expected a number above 0"),
    ]
    if not torch.cuda.is_available():
        cases.append((toys, [*SMALL, "--precision", "fp16"], "fp16 needs CUDA"))
        cases.append((toys, [*SMALL, "--device", "cuda"], "torch finds no CUDA device"))
    for data, options, message in cases:
        assert _train(data, model, *options) == 2, message
        err = capsys.readouterr().err
        assert message in err, err
        assert "Traceback" not in err
        assert not model.exists()
    assert _train(toys, model, "--epochs", "0") == 2


@pytest.mark.slow
def test_classes_are_renamed_in_training_and_measuring(
    toy_folder: Path, unseen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, figures = tmp_path / "m.safetensors", tmp_path / "figures.json"
    rename = ["--rename", "red=warm", "--rename", "striped=warm"]
    command = ["classify-train", str(toy_folder), "--output", str(model), "--scales", "64", "--quiet"]
    assert main([*command, *rename]) == 0
    assert ImageClassifier.load(model).class_names_ == ("green", "warm")
    measure = ["classify-eval", str(unseen), "--model", str(model), "--json", str(figures), "--quiet"]
    assert main([*measure, *rename]) == 0
    assert json.loads(figures.read_text())["top1"] > 0.8
    capsys.readouterr()
    assert main(measure) == 2
    assert "'red' is none of the 2 expected (green, warm)" in capsys.readouterr().err
    assert main([*command, "--rename", "rot=warm"]) == 2
    assert "no class 'rot' to rename" in capsys.readouterr().err
