"""A studio in this process that learns nothing: for tests of the page and the server, it starts at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from person import free_port

from sppnet.errors import ArgumentError
from sppnet.studio.project import Project
from sppnet.studio.server import Events, make_app
from sppnet.studio.serving import _own_names

TOKEN = "t" * 32


class StillTeacher:
    """Answers at once and learns nothing."""

    def __init__(self) -> None:
        self.changed: list[str] = []

    def status(self) -> dict[str, Any]:
        return {
            "features": {"done": 0, "total": 0, "seconds_left": None},
            "teaching": {"state": "waiting", "images": 0, "seconds": None, "message": ""},
            "training": {"state": "none"},
        }

    def overview(self) -> dict[str, dict[str, Any]]:
        return {}

    def suggestions(self, image_id: str) -> list[list[float]] | None:
        return None

    def windows(self, image_id: str) -> dict[str, Any] | None:
        return {"boxes": [[0, 0, 9, 9]], "scores": [1.0]}

    def tighten(self, image_id: str, box: object, class_id: object) -> list[float] | None:
        return None

    def bring_to_front(self, image_id: str) -> None: ...

    def labels_changed(self, image_id: str) -> None:
        self.changed.append(image_id)

    def classes_changed(self) -> None: ...

    def images_changed(self) -> None: ...

    def quality(self) -> dict[str, Any]:
        return {"classes": []}

    def detect(self, data: bytes) -> dict[str, Any]:
        if not data.startswith(b"\xff\xd8"):
            raise ArgumentError("image: is damaged")
        return {"detections": []}

    def compare(self, image_id: str) -> dict[str, Any]:
        return {}

    def start_training(self, options: dict[str, Any]) -> dict[str, Any]:
        return {}

    def cancel_training(self) -> dict[str, Any]:
        return {}

    def export(self, what: dict[str, str]) -> Path:
        raise ArgumentError("what: got nothing")

    def close(self) -> None: ...


class StillStudio:
    """What a page and ``call`` need to know of a studio."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.token = folder, port, TOKEN
        self.address = f"http://127.0.0.1:{port}/?token={TOKEN}"


@contextmanager
def still_studio(folder: Path) -> Iterator[StillStudio]:
    """Serve the images of a folder; a thread of this process does."""
    studio, events = StillStudio(folder, free_port()), Events()
    project = Project(folder, events.publish)
    app = make_app(project, StillTeacher(), events, TOKEN, _own_names(studio.port), "run", studio.port)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=studio.port, log_level="warning", timeout_graceful_shutdown=2, loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < end, "the server doesn't start"
        time.sleep(0.01)
    try:
        yield studio
    finally:
        server.should_exit = True
        thread.join(30)
        project.close()
        assert not thread.is_alive()
