"""The studio is stopped a moment after a change: the labels beside the images have it."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="needs the extra studio")
from person import Studio

from sppnet.datasets.loading import load_dataset


def call(studio: Studio, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{studio.port}{path}", None if body is None else json.dumps(body).encode(),
        {"authorization": f"Bearer {studio.token}"}, method=method,
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)])
def test_what_was_changed_last_is_written(tmp_path: Path, number: signal.Signals, status: int) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    studio = Studio(folder, port, tmp_path / "state")
    try:
        kind = call(studio, "POST", "/api/classes", {"name": "cat"})["id"]
        for image in call(studio, "GET", "/api/images")["images"]:
            key = image["id"] if isinstance(image, dict) else image[0]
            change = {"version": 0, "boxes": [[1, 1, 30, 30, kind]], "done": True, "rejected": []}
            call(studio, "PUT", f"/api/images/{key}/labels", change)
        studio.process.send_signal(number)
        assert studio.process.wait(60) == status
    finally:
        studio.kill()
    assert [record.boxes.tolist() for record in load_dataset(folder)] == [[[1, 1, 30, 30]]] * 3
