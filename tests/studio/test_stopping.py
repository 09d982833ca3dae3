"""The studio is stopped a moment after a change: the labels beside the images have it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="needs the extra studio")
from person import Studio, call, free_port

from sppnet.datasets.loading import load_dataset
from sppnet.studio.serving import _ending_by_exceptions


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


def hang_up(started: bool) -> tuple[Any, list[BaseException], bool]:
    """Close the terminal while a stand-in of the server runs: how it ended, what came up in a request, who went on."""

    class Server:
        should_exit = False

    server = Server()
    server.started = started  # type: ignore[attr-defined]
    swallowed: list[BaseException] = []
    went_on = False
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with _ending_by_exceptions(cast(Any, server)):
            try:
                signal.raise_signal(signal.SIGHUP)
            except BaseException as error:  # as uvicorn does around a request
                swallowed.append(error)
                if not started:
                    raise
            went_on = True
    except SystemExit as error:
        return error.code, swallowed, went_on
    finally:
        kept = signal.signal(signal.SIGHUP, before)
    assert kept == signal.SIG_DFL
    return server.should_exit, swallowed, went_on


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_signal_in_the_middle_of_a_request_is_not_swallowed() -> None:
    assert hang_up(started=True) == (128 + signal.SIGHUP, [], True)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_signal_before_serving_ends_the_studio_at_once() -> None:
    code, raised, went_on = hang_up(started=False)
    assert (code, len(raised), went_on) == (128 + signal.SIGHUP, 1, False)
