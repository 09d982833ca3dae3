"""The API's document names what the server has, and the server answers as the document says."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra studio")
pytest.importorskip("jsonschema", reason="needs jsonschema")
import httpx
from api_document import ApiDocument
from jsonschema import Draft202012Validator, ValidationError
from person import Studio
from PIL import Image
from skimage.data import astronaut
from starlette.testclient import TestClient

from sppnet import SPPDetector
from sppnet.datasets.example import make_example
from sppnet.studio.server import StudioServer
from sppnet.studio.service import Sources, make_service

DOCUMENT, SERVICE = ApiDocument(), ApiDocument("serve-api.yaml")


def served(routes: Sequence[Any] | None = None) -> set[tuple[str, str]]:
    """Methods and paths of routes; of the studio's server without them."""
    if routes is None:
        routes = StudioServer.routes(StudioServer.__new__(StudioServer))
    found = set()
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        found |= {(method, path) for method in route.methods or () if method != "HEAD"}
    return found


def test_every_route_is_documented_and_the_reverse() -> None:
    assert served() == set(DOCUMENT.operations())
    service = make_service(SPPDetector.load(), "voc20")
    assert served(service.routes) == set(SERVICE.operations())


@pytest.mark.parametrize("document", [DOCUMENT, SERVICE], ids=["studio", "serve"])
def test_the_document_is_sound(document: ApiDocument) -> None:
    """Schemas are schemas, references lead somewhere, names are used once, variables of paths are declared."""
    seen = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert document.follow(value) is not None
            assert None not in value.values(), f"a comma that is not in quotes: {value}"
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document.content)
    for schema in document.content["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for (_, path), operation in document.operations().items():
        seen.append(operation["operationId"])
        assert operation["summary"].endswith(".")
        given = (*document.content["paths"][path].get("parameters", ()), *operation.get("parameters", ()))
        declared = {p["name"] for p in map(document.follow, given) if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), path
    assert len(seen) == len(set(seen))


def test_the_check_notices_what_differs() -> None:
    good = {"id": 0, "name": "cat", "color": "", "key": "1"}
    DOCUMENT.check({"$ref": "#/components/schemas/Class"}, good)
    for bad in (good | {"id": "0"}, good | {"more": 1}, {"id": 0}):
        with pytest.raises(ValidationError):
            DOCUMENT.check({"$ref": "#/components/schemas/Class"}, bad)


def test_answers_of_the_service(tmp_path: Path) -> None:
    """Each operation is asked, with a right and a wrong request."""
    client = TestClient(make_service(SPPDetector.load(), "voc20", Sources(folder=tmp_path)))
    picture = io.BytesIO()
    Image.fromarray(astronaut()).save(picture, "JPEG")
    (tmp_path / "a.jpg").write_bytes(picture.getvalue())
    tasks = {"tasks": [{"id": 1, "data": {"image": "/data/local-files/?d=a.jpg"}}]}
    asked: set[tuple[str, str]] = set()
    for method, address, body, status in (
        ("GET", "/api/model", None, 200),
        ("GET", "/", None, 200),
        ("GET", "/health", None, 200),
        ("POST", "/setup", {"project": "1"}, 200),
        ("POST", "/predict", tasks, 200),
        ("POST", "/predict", {"tasks": 3}, 400),
        ("POST", "/api/detect?threshold=0.1", picture.getvalue(), 200),
        ("POST", "/api/detect?threshold=2", picture.getvalue(), 400),
        ("POST", "/api/detect", b"nothing", 400),
    ):
        sent = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        answer = client.request(method, address, **sent)
        assert answer.status_code == status, answer.text
        asked.add(SERVICE.check_answer(method, address, status, answer.json()))
        if status == 200 and address.startswith("/api/detect"):
            assert answer.json()["detections"]
        if status == 200 and address == "/predict":
            assert answer.json()["results"][0]["result"]
    assert asked == set(SERVICE.operations())


@pytest.mark.slow
def test_answers_of_a_real_server(tmp_path: Path) -> None:
    """A session over HTTP: each answer is what the document says, and each JSON operation is asked at least once."""
    data = make_example(tmp_path / "digits", 5, 2, 0)
    for file in (tmp_path / "digits").iterdir():
        if file.suffix != ".jpg":
            file.unlink()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Studio(tmp_path / "digits", port, tmp_path / "state")
    asked = set()
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def ask(method: str, address: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        sent = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        answer = client.request(
            method, address, headers={"authorization": f"Bearer {server.token}"} | headers, **sent
        )  # fmt: skip
        assert answer.status_code == status, answer.text
        asked.add(DOCUMENT.check_answer(method, address, status, answer.json()))
        return answer.json()

    try:
        ask("GET", "/api/project", status=401, authorization="Bearer wrong")
        ids = {row["name"]: row["id"] for row in ask("GET", "/api/images")["images"]}
        numbers = [ask("POST", "/api/classes", {"name": name, "key": None})["id"] for name in data.class_names]
        ask("POST", "/api/classes", {"name": data.class_names[0]}, status=400)
        ask("PATCH", f"/api/classes/{numbers[0]}", {"color": "#102030"})
        first = ids[data[0].path.name]
        for record in data.records[:4]:
            rows = [
                [*box, numbers[c], "drawn"]
                for box, c in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
            ]
            change = {"version": 0, "boxes": rows, "done": True, "rejected": [], "author": "me"}
            DOCUMENT.check({"$ref": "#/components/schemas/LabelsChange"}, change)
            ask("PUT", f"/api/images/{ids[record.path.name]}/labels", change)
        ask("PUT", f"/api/images/{first}/labels", {"version": 0, "boxes": [], "done": False}, status=409)
        ask("GET", "/api/images/0000000000000000", status=400)
        last = ids[data[4].path.name]
        end = time.monotonic() + 120
        while ask("GET", "/api/project")["status"]["teaching"]["state"] != "ready":
            assert time.monotonic() < end
            time.sleep(0.2)
        while not ask("GET", f"/api/images/{last}")["suggestions"]:
            assert time.monotonic() < end
            time.sleep(0.2)
        while not (windows := ask("GET", f"/api/images/{last}/windows")["windows"]):  # they follow the suggestions
            assert time.monotonic() < end
            time.sleep(0.2)
        assert len(windows["boxes"]) == len(windows["scores"]) > 0
        ask("POST", f"/api/images/{first}/tighten", {"box": data[0].boxes[0].tolist(), "class": numbers[0]})
        found = ask("POST", "/api/detect", data[0].path.read_bytes())
        assert (found["width"], found["height"]) == (320, 240)
        ask("POST", "/api/detect", b"no image", status=400)
        ask("GET", "/api/quality")
        ask("GET", "/api/statistics")
        ask("GET", f"/api/images/{first}/compare", status=400)
        added = ask("POST", "/api/images?name=more/new.jpg", data[0].path.read_bytes())
        assert added == {"added": ["more/new.jpg"], "skipped": [], "labelled": 0, "place": "more/new.jpg"}
        assert ask("POST", "/api/rescan", {}) == {"new": 1}
        ask("POST", "/api/labels", b'{"files": [], "images": {}}\n')
        ask("POST", "/api/labels", b"nothing", status=400)
        (tmp_path / "digits" / "clip.mov").write_bytes(b"no video")
        assert ask("GET", "/api/project")["videos"] == ["clip.mov"]
        ask("POST", "/api/videos", {"name": "clip.mov"}, status=400)
        ask("POST", "/api/videos", {"name": "../clip.mov"}, status=400)
        ask("DELETE", "/api/videos")
        assert (tmp_path / "digits" / "clip.mov").read_bytes() == b"no video"
        ask("POST", "/api/images?name=../new.jpg", b"x", status=400)
        name = ask("POST", "/api/snapshots", {})["name"]
        assert ask("GET", "/api/snapshots")["snapshots"][0]["name"] == name
        ask("DELETE", f"/api/classes/{numbers[1]}?into={numbers[0]}")
        ask("POST", "/api/snapshots/restore", {"name": name})
        ask("POST", "/api/train", {})
        ask("DELETE", "/api/train")
        assert ask("GET", "/api/status")["training"]["state"] in ("cancelled", "running")
        ask("GET", "/api/export?what=nothing", status=400)
    finally:
        client.close()
        server.stop()
    others = {"/", "/static/{name}", "/api/events", "/api/images/{image_id}/thumbnail", "/api/images/{image_id}/view"}
    assert {path for _, path in served() - asked} == others
