"""The studio is stopped a moment after a change: the labels beside the images have it."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="needs the extra studio")
from person import Studio, call, free_port

from sppnet.datasets.loading import load_dataset


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_what_was_changed_last_is_written(tmp_path: Path, name: str) -> None:
    if not hasattr(signal, name):
        pytest.skip(f"this system has no {name}")
    number = int(getattr(signal, name))
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    studio = Studio(folder, free_port(), tmp_path / "state")
    try:
        kind = call(studio, "POST", "/api/classes", {"name": "cat"})["id"]
        for image in call(studio, "GET", "/api/images")["images"]:
            key = image["id"] if isinstance(image, dict) else image[0]
            change = {"version": 0, "boxes": [[1, 1, 30, 30, kind]], "done": True, "rejected": []}
            call(studio, "PUT", f"/api/images/{key}/labels", change)
        studio.process.send_signal(number)
        assert studio.process.wait(60) == 128 + number
    finally:
        studio.kill()
    assert [record.boxes.tolist() for record in load_dataset(folder)] == [[[1, 1, 30, 30]]] * 3
