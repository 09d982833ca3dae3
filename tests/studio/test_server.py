"""The studio's server: what it refuses, and what its API answers."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra studio")
from starlette.testclient import TestClient
from still import TOKEN, StillTeacher

from sppnet.errors import ArgumentError
from sppnet.studio.project import Project
from sppnet.studio.server import MAX_BODY_BYTES, Events, make_app
from sppnet.studio.serving import _own_names

HOST = "127.0.0.1:8787"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / name)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    project = Project(folder)
    yield project
    project.close()


@pytest.fixture
def client(project: Project) -> TestClient:
    app = make_app(project, StillTeacher(), Events(), TOKEN, frozenset({HOST}), "run", 8787)
    return TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)


def auth(**more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}", **more}


def test_the_token_in_the_address_becomes_a_cookie(client: TestClient) -> None:
    assert client.get("/").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    answer = client.get(f"/?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("sppnet_studio_8787=")  # browsers tell cookies by the host alone: two studios, two names
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert client.get("/static/app.js").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"cookie": "sppnet_studio_8787=wrong"}, 401),
        (auth(host="evil.example:8787"), 421),  # DNS rebinding
        (auth(host="127.0.0.1:9999"), 421),
        (auth(origin="http://evil.example"), 403),
        (auth(origin="null"), 403),
        (auth(**{"sec-fetch-site": "cross-site"}), 403),
        (auth(origin=f"http://{HOST}", **{"sec-fetch-site": "same-origin"}), 200),
        (auth(), 200),
    ],
)
def test_who_may_ask(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/api/project", headers=headers).status_code == status


@pytest.mark.parametrize(
    "path",
    ["/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/%2e%2e/secret.txt", "/..%2f..%2fsecret.txt",
     "/api/images/..%2f..%2fsecret.txt/view", "/api/images/%00/view", "/api/images/a.jpg/view", "//etc/passwd"],
)  # fmt: skip
def test_no_path_leads_out(client: TestClient, path: str) -> None:
    answer = client.get(path, headers=auth())
    assert answer.status_code in (400, 404)
    assert "secret" not in answer.text.replace("secret.txt", "")


def test_large_bodies_are_refused(client: TestClient) -> None:
    answer = client.post("/api/detect", headers=auth(**{"content-length": str(MAX_BODY_BYTES + 1)}), content=b"x")
    assert answer.status_code == 413
    assert client.get("/api/project", headers=auth()).status_code == 200


def test_labels_by_the_api(client: TestClient, project: Project) -> None:
    cat = client.post("/api/classes", headers=auth(), json={"name": "cat", "key": "1"}).json()
    assert cat == {"id": 0, "name": "cat", "color": "", "key": "1"}
    image = client.get("/api/images", headers=auth()).json()["images"][0]
    at = f"/api/images/{image['id']}/labels"
    change = {"version": 0, "boxes": [[1, 1, 20, 20, 0, "snapped"]], "done": True, "rejected": []}
    assert client.put(at, headers=auth(), json=change).json() == {"version": 1}
    again = client.put(at, headers=auth(), json=change)
    assert again.status_code == 409
    assert again.json()["present"]["boxes"] == [[1, 1, 20, 20, 0, "snapped"]]
    detail = client.get(f"/api/images/{image['id']}", headers=auth()).json()
    assert (detail["width"], detail["height"], detail["done"]) == (60, 40, True)
    assert client.patch("/api/classes/0", headers=auth(), json={"name": "lion"}).json()["name"] == "lion"
    assert client.delete("/api/classes/0", headers=auth()).json() == {"boxes": 1}
    assert project.snapshots()[0]["why"] == "before a class was removed"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/classes", b"{"),
        ("POST", "/api/classes", b"[" * 100_000),
        ("POST", "/api/classes", b"[]"),
        ("POST", "/api/classes", json.dumps({"name": "\x00"}).encode()),
        ("POST", "/api/classes", json.dumps({"name": "x" * 10_000}).encode()),
        ("POST", "/api/classes", json.dumps({"name": ["cat"]}).encode()),
        ("POST", "/api/snapshots/restore", json.dumps({"name": "../../x"}).encode()),
        ("DELETE", "/api/classes/99", b""),
        ("PATCH", "/api/classes/99", b"{}"),
        ("GET", "/api/export?what=/etc/passwd", b""),
        ("POST", "/api/detect", b"no image"),
    ],
)
def test_odd_requests_get_a_sentence(client: TestClient, method: str, path: str, body: bytes) -> None:
    answer = client.request(method, path, headers=auth(), content=body)
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["error"]) > 10


def test_thumbnails(client: TestClient, project: Project) -> None:
    by_name = {i.name: i.image_id for i in project.images}
    answer = client.get(f"/api/images/{by_name['a.jpg']}/thumbnail", headers=auth())
    assert answer.status_code == 200
    assert answer.content.startswith(b"\xff\xd8")
    broken = client.get(f"/api/images/{by_name['broken.jpg']}/thumbnail", headers=auth())
    assert broken.status_code == 400
    assert "broken.jpg" in broken.json()["error"]


def test_labels_come_with_an_archive(client: TestClient, project: Project) -> None:
    """Classes are those that are there already, whatever the case; labels that a person made stay."""
    cat = project.add_class("Cat").class_id
    image, archive = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), 30, np.uint8)).save(image, "PNG")
    voc = (
        "<annotation><filename>one.png</filename><size><width>60</width><height>40</height><depth>3</depth></size>"
        "<object><name>cat</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>25</ymax></bndbox></object>"
        "<object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        "</annotation>"
    )
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("one.png", image.getvalue())
        out.writestr("one.xml", voc)
    for again in (False, True):
        answer = client.post("/api/images?name=pets.zip", content=archive.getvalue(), headers=auth()).json()
        assert answer["labelled"] == (0 if again else 1)
        assert answer["added"] == ([] if again else ["pets/one.png"])
        (row,) = (r for r in client.get("/api/images", headers=auth()).json()["images"] if r["name"] == "pets/one.png")
        assert row["done"]
        found = client.get(f"/api/images/{row['id']}", headers=auth()).json()["boxes"]
        classes = {c["name"]: c["id"] for c in client.get("/api/project", headers=auth()).json()["classes"]}
        assert set(classes) == {"Cat", "dog"}
        assert classes["Cat"] == cat
        assert found == [[10, 5, 30, 25, cat, "imported"], [0, 0, 9, 9, classes["dog"], "imported"]]


def test_labels_alone_are_taken_by_name_and_replace_nothing(client: TestClient, project: Project) -> None:
    project.add_class("cat")
    rows = b"filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,60,40,cat,1,2,30,32\n"
    body = json.dumps({"files": [["labels.csv", len(rows)]], "images": {}}).encode() + b"\n" + rows
    answer = client.post("/api/labels", content=body, headers=auth()).json()
    assert (answer["labelled"], answer["skipped"]) == (1, [])
    answer = client.post("/api/labels", content=body, headers=auth()).json()
    assert answer["labelled"] == 0
    assert answer["skipped"] == [{"name": "labels", "why": "its images have labels already, which stay as they are"}]
    body = body.replace(b"a.jpg,60", b"q.jpg,60")
    answer = client.post("/api/labels", content=body, headers=auth()).json()
    why = "none of its images came with it, and it names none of the images here"
    assert answer["skipped"] == [{"name": "labels.csv", "why": why}]


def test_images_say_when_they_were_written(client: TestClient, project: Project) -> None:
    os.utime(project.folder / "a.jpg", (1_000_000, 1_234_567))
    client.post("/api/rescan", json={}, headers=auth())
    rows = {r["name"]: r for r in client.get("/api/images", headers=auth()).json()["images"]}
    assert rows["a.jpg"]["modified"] == 1_234_567


def test_names_that_are_not_utf_8(client: TestClient, project: Project) -> None:
    source = project.folder / "a.jpg"
    try:
        (project.folder / os.fsdecode(b"b\xff.jpg")).write_bytes(source.read_bytes())
    except OSError:
        pytest.skip("this system has no such names")
    project.rescan()
    answer = client.get("/api/images", headers=auth())
    assert answer.status_code == 200
    assert len(answer.json()["images"]) == len(project.images)


def test_the_standard_port_of_http_is_left_out_by_browsers() -> None:
    assert {"127.0.0.1", "localhost:80"} <= _own_names(80)
    assert "127.0.0.1" not in _own_names(8787)


def test_images_whose_labels_are_refused_are_told_to_the_teacher(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the folder all the same."""
    teacher, told = StillTeacher(), []
    monkeypatch.setattr(teacher, "images_changed", lambda: told.append(len(project.images)))

    def refuse(*_: object) -> int:
        raise ArgumentError("too many classes")

    monkeypatch.setattr(project, "import_labels", refuse)
    app = make_app(project, teacher, Events(), TOKEN, frozenset({HOST}), "run", 8787)
    client = TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)
    picture, packed = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (40, 40), (1, 200, 3)).save(picture, "PNG")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("new.png", picture.getvalue())
        archive.writestr("labels.csv", "image,x0,y0,x1,y1,label\nnew.png,1,1,9,9,cat\n")
    before = len(project.images)
    answer = client.post("/api/images?name=a.zip", content=packed.getvalue(), headers=auth())
    assert "too many classes" in answer.text
    assert told == [before + 1]
