"""Pipes, sockets, devices and endless files in the place of any input: one clear error, and nothing is waited for."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sppnet import SPPDetector, load_image, load_proposals
from sppnet.backbones.weights import load_weights_file
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.datasets.loading import load_dataset
from sppnet.errors import SppnetError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such files there")

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "image": ("a.jpg", load_image),
    "detector": ("a.safetensors", SPPDetector.load),
    "classifier": ("a.safetensors", ImageClassifier.load),
    "windows": ("a.json", load_proposals),
    "packed windows": ("a.npz", load_proposals),
    "weights": ("a.pth", load_weights_file),
    "weights without pickle": ("a.safetensors", load_weights_file),
    "COCO": ("a.json", load_dataset),
    "table": ("a.csv", load_dataset),
    "YOLO": ("data.yaml", load_dataset),
}


@pytest.fixture(autouse=True)
def nothing_is_waited_for() -> Iterator[None]:
    """A reader that waits for a pipe would wait for ever."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def make(kind: str, path: Path) -> Path:
    """An odd file of that name."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # addresses of sockets are short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(here)
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        with path.open("wb") as file:  # takes no room on the disk
            file.truncate(1 << 40)
    return path


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "loop", "terabyte"])
@pytest.mark.parametrize("reader", READERS)
def test_one_clear_error(reader: str, kind: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    path = make(kind, tmp_path / name)
    with pytest.raises(SppnetError) as caught:
        read(path)
    assert len(str(caught.value)) < 500
