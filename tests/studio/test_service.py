"""``sppnet serve``: detections over HTTP, and Label Studio's ML backend protocol."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra studio")
from starlette.testclient import TestClient

from sppnet.detection.detections import Detections
from sppnet.errors import ArgumentError
from sppnet.studio.service import Sources, make_service
from sppnet.studio.serving import run_service

CONFIG = (
    '<View><Image name="img" value="$photo"/>'
    '<RectangleLabels name="box" toName="img"><Label value="a"/></RectangleLabels></View>'
)


class OneBox:
    """Finds the left upper quarter of any image."""

    def __init__(self) -> None:
        self.class_names_ = ("cat",)
        self.thresholds_ = {"cat": 0.5}

    def detect(self, image: np.ndarray[Any, Any], threshold: float | None = None) -> Detections:
        height, width = image.shape[:2]
        return Detections(
            np.array([[0, 0, width / 2, height / 2]], np.float32), np.array([0.9], np.float32), np.array([0]), ("cat",)
        )


def png(width: int = 80, height: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 99, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def client(**sources: Any) -> TestClient:
    return TestClient(make_service(OneBox(), "tiny", Sources(**sources)))  # type: ignore[arg-type]  # a stand-in


def test_detect() -> None:
    answer = client().post("/api/detect", content=png()).json()
    assert (answer["width"], answer["height"]) == (80, 40)
    assert answer["detections"] == [{"box": [0.0, 0.0, 40.0, 20.0], "class": "cat", "confidence": 0.9}]
    bad = client().post("/api/detect", content=b"nothing")
    assert bad.status_code == 400
    assert "image" in bad.json()["error"]
    assert client().post("/api/detect?threshold=x", content=png()).status_code == 400


def test_label_studio_gets_per_cent_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a b.png").write_bytes(png())
    inline = "data:image/png;base64," + base64.b64encode(png(100, 50)).decode()
    tasks = [{"id": 1, "data": {"photo": "/data/local-files/?d=deep/a%20b.png"}}, {"id": 2, "data": {"photo": inline}}]
    service = client(folder=tmp_path)
    assert service.get("/health").json()["status"] == "UP"
    assert service.post("/setup", json={"project": "1"}).json() == {"model_version": "tiny"}
    answer = service.post("/predict", json={"tasks": tasks, "label_config": CONFIG}).json()
    assert len(answer["results"]) == 2
    (region,) = answer["results"][0]["result"]
    assert (region["from_name"], region["to_name"], region["type"]) == ("box", "img", "rectanglelabels")
    assert region["value"] == {
        "x": 0.0, "y": 0.0, "width": 50.0, "height": 50.0, "rotation": 0, "rectanglelabels": ["cat"],
    }  # fmt: skip
    assert (region["original_width"], region["original_height"]) == (80, 40)
    assert answer["results"][1]["result"][0]["original_width"] == 100


@pytest.mark.parametrize(
    "address",
    ["/data/local-files/?d=../secret.png", "/data/local-files/?d=/../../etc/passwd", "http://evil.example/x.png",
     "file:///etc/passwd", "ftp://127.0.0.1/x", "data:image/png;base64,%%%", "//evil.example/x.png"],
)  # fmt: skip
def test_images_come_from_nowhere_else(tmp_path: Path, address: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    service = client(folder=tmp_path / "images", label_studio="http://127.0.0.1:1")
    answer = service.post("/predict", json={"tasks": [{"data": {"photo": address}}]})
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 10


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"tasks": 3}', b'{"tasks": [{}]}', b'{"tasks": [{"data": {}}]}'])
def test_odd_requests_get_a_sentence(body: bytes) -> None:
    answer = client().post("/predict", content=body)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 10


def test_an_open_address_needs_a_token() -> None:
    with pytest.raises(ArgumentError, match="--token"):
        run_service(None, host="192.0.2.1")
