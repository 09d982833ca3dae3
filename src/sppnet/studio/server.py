"""The studio's HTTP server: the page, and the API that the page and programs use (``docs/studio-api.yaml``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from sppnet.errors import ArgumentError, SppnetError
from sppnet.studio.adding import Added, add_file, add_labels
from sppnet.studio.media import ImageViews
from sppnet.studio.project import Project
from sppnet.studio.replies import AsciiJSON, failure, json_handler
from sppnet.studio.security import Guard
from sppnet.studio.statistics import statistics_of
from sppnet.studio.teacher import Teacher
from sppnet.studio.videos import Videos

__all__ = ["Events", "make_app"]

MAX_BODY_BYTES = 64 << 20
MAX_UPLOAD_BYTES = 16 << 30  # of an archive or a video that is added
_STATIC = {
    "": ("index.html", "text/html; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "app.css": ("app.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEARTBEAT_S = 10.0

_log = logging.getLogger("sppnet.studio")


class Events:
    """Server-sent events: what happens is told to every open page."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[str]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def publish(self, event: dict[str, Any]) -> None:
        """Tell all pages. Any thread may call it."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        text = f"data: {json.dumps(event, separators=(',', ':'))}\n\n"
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            loop.call_soon_threadsafe(self._spread, text)

    def _spread(self, text: str) -> None:
        for queue in list(self._queues):
            if queue.qsize() > 1000:  # a page that does not listen: it reloads when it comes back
                self._queues.discard(queue)
                queue.put_nowait("")
            else:
                queue.put_nowait(text)

    async def stream(self, first: dict[str, Any]) -> AsyncIterator[str]:
        """Give the events of one page, with a sign of life now and then."""
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield f"retry: 1000\ndata: {json.dumps(first, separators=(',', ':'))}\n\n"
            while True:
                try:
                    text = await asyncio.wait_for(queue.get(), _HEARTBEAT_S)
                except TimeoutError:
                    text = ": alive\n\n"
                if not text:
                    return
                yield text
        finally:
            self._queues.discard(queue)


class StudioServer:
    """Answers the requests of the page."""

    def __init__(self, project: Project, teacher: Teacher, events: Events, run_id: str) -> None:
        self.project, self.teacher, self.events, self.run_id = project, teacher, events, run_id
        self.views = ImageViews(project.state / "views")
        self.videos = Videos(project.folder, project.state)
        self.unseen = False  # whether files came since the folder was looked at
        shutil.rmtree(project.state / "uploads", ignore_errors=True)  # what a kill left there

    def routes(self) -> list[Route]:
        """All addresses."""
        api = "/api"
        return [
            Route("/", self.static),
            Route("/static/{name}", self.static),
            Route(f"{api}/project", json_handler(self.get_project)),
            Route(f"{api}/images", json_handler(self.get_images)),
            Route(f"{api}/images", self.post_image, methods=["POST"]),
            Route(f"{api}/labels", self.post_labels, methods=["POST"]),
            Route(f"{api}/videos", json_handler(self.post_video), methods=["POST", "DELETE"]),
            Route(f"{api}/images/{{image_id}}", json_handler(self.get_image)),
            Route(f"{api}/images/{{image_id}}/labels", json_handler(self.put_labels), methods=["PUT"]),
            Route(f"{api}/images/{{image_id}}/windows", json_handler(self.get_windows)),
            Route(f"{api}/images/{{image_id}}/tighten", json_handler(self.tighten), methods=["POST"]),
            Route(f"{api}/images/{{image_id}}/thumbnail", self.thumbnail),
            Route(f"{api}/images/{{image_id}}/view", self.view),
            Route(f"{api}/classes", json_handler(self.post_class), methods=["POST"]),
            Route(f"{api}/classes/{{class_id:int}}", json_handler(self.patch_class), methods=["PATCH"]),
            Route(f"{api}/classes/{{class_id:int}}", json_handler(self.delete_class), methods=["DELETE"]),
            Route(f"{api}/rescan", json_handler(self.rescan), methods=["POST"]),
            Route(f"{api}/snapshots", json_handler(self.get_snapshots)),
            Route(f"{api}/snapshots", json_handler(self.post_snapshot), methods=["POST"]),
            Route(f"{api}/snapshots/restore", json_handler(self.restore), methods=["POST"]),
            Route(f"{api}/quality", json_handler(self.quality)),
            Route(f"{api}/statistics", json_handler(self.statistics)),
            Route(f"{api}/status", json_handler(self.status)),
            Route(f"{api}/events", self.get_events),
            *self.teacher_routes(api),
        ]

    def teacher_routes(self, api: str) -> list[Route]:
        """Addresses of training, detecting and exporting."""
        return [
            Route(f"{api}/detect", self.detect, methods=["POST"]),
            Route(f"{api}/images/{{image_id}}/compare", json_handler(self.compare)),
            Route(f"{api}/train", json_handler(self.train), methods=["POST", "DELETE"]),
            Route(f"{api}/export", self.export),
        ]

    # --- the page ----------------------------------------------------------------------------------------------------

    async def static(self, request: Request) -> Response:
        """One of the page's own files. Only listed names exist."""
        name = request.path_params.get("name", "")
        if name not in _STATIC:
            return AsciiJSON({"error": f"there is no file {name!r:.40}"}, 404)
        file, media_type = _STATIC[name]
        content = (resources.files("sppnet.studio") / "static" / file).read_bytes()
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    # --- project -----------------------------------------------------------------------------------------------------

    def get_project(self, request: Request, body: Any) -> Any:
        """Name, classes, and how far everything is."""
        return {
            "name": self.project.folder.name,
            "folder": str(self.project.folder),
            "run": self.run_id,
            "classes": self.project.class_list(),
            "images": len(self.project.images),
            "videos": self.videos.waiting(image.name for image in self.project.images),
            "status": self.teacher.status(),
        }

    def get_images(self, request: Request, body: Any) -> Any:
        """All images in one compact list: the page sorts and filters by itself."""
        self._look_again()
        labels = self.project.all_labels()
        overview = self.teacher.overview()
        rows = []
        for image in self.project.images:
            known = labels.get(image.image_id)
            rows.append({
                "id": image.image_id, "name": image.name, "modified": round(image.modified_s, 3),
                "done": bool(known and known.done), "version": known.version if known else 0,
                "classes": [b.class_id for b in known.boxes] if known else [],
                "suggested": overview.get(image.image_id),
            })  # fmt: skip
        return {"images": rows}

    def get_image(self, request: Request, body: Any) -> Any:
        """One image with its labels and suggestions. It becomes the one that is computed first."""
        image = self.project.image(request.path_params["image_id"])
        self.teacher.bring_to_front(image.image_id)
        width, height = self.project.size(image.image_id)
        return {
            "id": image.image_id, "name": image.name, "width": width, "height": height,
            **self.project.as_dict(image.image_id),
            "suggestions": self.teacher.suggestions(image.image_id),
        }  # fmt: skip

    def put_labels(self, request: Request, body: Any) -> Any:
        """Replace the labels of an image."""
        image_id = request.path_params["image_id"]
        if not isinstance(body, dict) or not isinstance(body.get("version"), int):
            raise ArgumentError("labels: expected an object with version, boxes and done")
        author = str(body.get("author", ""))[:64]
        new = self.project.set_labels(
            image_id, body["version"], body.get("boxes"), bool(body.get("done")), body.get("rejected", []), author
        )
        self.teacher.labels_changed(image_id)
        return {"version": new.version}

    async def post_image(self, request: Request) -> Response:
        """Take a file into the folder: an image, a zip archive, or a video. ``?name=`` is where it was."""
        name = request.query_params.get("name", "")
        return await self._take(
            request, name, lambda file: add_file(self.project.folder, name, file, known=self._names())
        )

    async def post_labels(self, request: Request) -> Response:
        """Read annotations of images that are here: a line of JSON, then one file after the other."""
        return await self._take(
            request, "labels", lambda file: add_labels(self.project.folder, file, known=self._names())
        )

    def _names(self) -> list[str]:
        return [image.name for image in self.project.images]

    async def _take(self, request: Request, name: str, take: Callable[[Path], Added]) -> Response:
        """Keep the body in a file for a while, and do something with it."""
        folder = self.project.state / "uploads"
        try:
            folder.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                file = Path(temporary) / "upload"
                with file.open("wb") as out:
                    async for chunk in request.stream():
                        await run_in_threadpool(out.write, chunk)
                self.unseen = True
                added = await run_in_threadpool(take, file)
            labelled = await run_in_threadpool(self._take_labels, name, added)
        except ClientDisconnect:
            return AsciiJSON({"error": "the file did not come to its end; add it again"}, 400)
        except (SppnetError, OSError) as error:
            return failure(error)
        return AsciiJSON(_what_became(added, labelled))

    def post_video(self, request: Request, body: Any) -> Any:
        """Take an image of every second of a video that lies in the folder, or stop that."""
        if request.method == "DELETE":
            self.videos.stop()
            return {}
        name = _object(body).get("name")
        if not isinstance(name, str):
            raise ArgumentError(f"name: expected the name of a video, got {name!r:.40}")
        try:
            added = self.videos.take(name)
        finally:  # the page that asked may be gone
            self.unseen = True
            self._look_again()
            self.events.publish({"type": "reload"})
        return _what_became(added, 0)

    def _look_again(self) -> None:
        """Look at the folder where files came into it."""
        if self.unseen:
            self.unseen = False
            if self.project.rescan():
                self.teacher.images_changed()

    def _take_labels(self, name: str, added: Added) -> int:
        """Take the labels that came with images. Labels that a person made are never replaced."""
        if added.labels is None or not added.labels.boxes:
            return 0
        if self.project.rescan():  # also where the labels are refused
            self.teacher.images_changed()
        try:
            found = added.labels
            count = self.project.import_labels(found.class_names, found.boxes, found.unfinished)
        except ArgumentError as error:
            added.skipped.append((name, f"its labels can't be used: {error}"))
            return 0
        if not count:
            added.skipped.append((name, "its images have labels already, which stay as they are"))
        self.teacher.images_changed()
        self.teacher.classes_changed()
        self.events.publish({"type": "reload"})
        return count

    def get_windows(self, request: Request, body: Any) -> Any:
        """Windows for snapping, best first: ``boxes`` and ``scores``; null while they are being computed."""
        image = self.project.image(request.path_params["image_id"])
        return {"windows": self.teacher.windows(image.image_id)}

    def tighten(self, request: Request, body: Any) -> Any:
        """The best box near a roughly drawn one."""
        image = self.project.image(request.path_params["image_id"])
        if not isinstance(body, dict):
            raise ArgumentError("tighten: expected an object with box")
        return {"box": self.teacher.tighten(image.image_id, body.get("box"), body.get("class"))}

    async def thumbnail(self, request: Request) -> Response:
        """A small JPEG of an image."""
        return await self._jpeg(request, self.views.thumbnail)

    async def view(self, request: Request) -> Response:
        """A JPEG of an image for the screen."""
        return await self._jpeg(request, lambda path: self.views.view(path)[0])

    async def _jpeg(self, request: Request, make: Callable[[Path], bytes]) -> Response:
        try:
            path = self.project.image(request.path_params["image_id"]).path
            data = await run_in_threadpool(make, path)
        except (SppnetError, OSError) as error:
            return failure(error)
        headers = {"cache-control": "private, max-age=3600"}
        return Response(data, media_type="image/jpeg", headers=headers)

    # --- classes -----------------------------------------------------------------------------------------------------

    def post_class(self, request: Request, body: Any) -> Any:
        """Make a class."""
        data = _object(body)
        new = self.project.add_class(data.get("name"), _text(data.get("color")), _text(data.get("key")))
        self.teacher.classes_changed()
        return new.as_dict()

    def patch_class(self, request: Request, body: Any) -> Any:
        """Change name, colour or key of a class."""
        data = _object(body)
        color, key = (None if data.get(k) is None else _text(data[k]) for k in ("color", "key"))
        new = self.project.edit_class(request.path_params["class_id"], data.get("name"), color, key)
        return new.as_dict()

    def delete_class(self, request: Request, body: Any) -> Any:
        """Remove a class; ``?into=3`` gives its boxes to another one. A snapshot is made first."""
        into = request.query_params.get("into")
        if into is not None and not into.isdigit():
            raise ArgumentError(f"into: expected the number of a class, got {into!r:.40}")
        self.project.classes.get(request.path_params["class_id"])
        self.project.snapshot("before a class was removed")
        count = self.project.merge_class(request.path_params["class_id"], int(into) if into is not None else None)
        self.teacher.classes_changed()
        return {"boxes": count}

    # --- the rest ----------------------------------------------------------------------------------------------------

    def rescan(self, request: Request, body: Any) -> Any:
        """Look for new images in the folder."""
        new = self.project.rescan()
        self.teacher.images_changed()
        self.events.publish({"type": "reload"})
        return {"new": len(new)}

    def get_snapshots(self, request: Request, body: Any) -> Any:
        """List the snapshots."""
        return {"snapshots": self.project.snapshots()}

    def post_snapshot(self, request: Request, body: Any) -> Any:
        """Make a snapshot."""
        return {"name": self.project.snapshot("made by hand")}

    def restore(self, request: Request, body: Any) -> Any:
        """Go back to a snapshot."""
        self.project.restore(_text(_object(body).get("name")))
        self.teacher.classes_changed()
        return {}

    def quality(self, request: Request, body: Any) -> Any:
        """How good the suggestions are."""
        return self.teacher.quality()

    def statistics(self, request: Request, body: Any) -> Any:
        """Boxes of each class in figures, and boxes that look wrong."""
        return statistics_of(self.project)

    def status(self, request: Request, body: Any) -> Any:
        """How far features, teaching and training are."""
        return self.teacher.status()

    async def get_events(self, request: Request) -> Response:
        """The stream of events."""
        first = {"type": "hello", "run": self.run_id, "status": self.teacher.status()}
        return StreamingResponse(
            self.events.stream(first), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def detect(self, request: Request) -> Response:
        """Objects in an image that is sent as the body (JPEG, PNG, ...)."""
        try:
            data = await request.body()
            return AsciiJSON(await run_in_threadpool(self.teacher.detect, data))
        except (SppnetError, OSError) as error:
            return failure(error)

    def compare(self, request: Request, body: Any) -> Any:
        """What the head that was taught finds in an image, and what the trained detector finds."""
        return self.teacher.compare(self.project.image(request.path_params["image_id"]).image_id)

    def train(self, request: Request, body: Any) -> Any:
        """Start the full training, or cancel it."""
        if request.method == "DELETE":
            return self.teacher.cancel_training()
        self.project.flush()
        return self.teacher.start_training(_object(body or {}))

    async def export(self, request: Request) -> Response:
        """A file to keep: ``?what=model``, ``dataset`` (with ``format``), ``results`` or ``card``."""
        try:
            self.project.flush()
            path = await run_in_threadpool(self.teacher.export, dict(request.query_params))
        except (SppnetError, OSError) as error:
            return failure(error)
        return FileResponse(path, filename=path.name)


def make_app(
    project: Project,
    teacher: Teacher,
    events: Events,
    token: str,
    hosts: frozenset[str] | None,
    run_id: str,
    port: int = 0,
) -> Guard:
    """Build the ASGI application.

    Args:
        project: the images and labels.
        teacher: computes features and suggestions.
        events: where the project and the teacher publish.
        token: that requests must know.
        hosts: values of ``Host`` that are this server; None allows each.
        run_id: of this start of the server, so that a page notices a restart.
        port: that it listens on; the name of the cookie has it.

    Returns:
        The application, for uvicorn.
    """
    app = Starlette(routes=StudioServer(project, teacher, events, run_id).routes())
    large = {"/api/images": MAX_UPLOAD_BYTES, "/api/labels": MAX_UPLOAD_BYTES}
    return Guard(
        app, token, hosts, MAX_BODY_BYTES, frozenset({"/static/icon.svg"}), large, cookie=f"sppnet_studio_{port}"
    )


def _what_became(added: Added, labelled: int) -> dict[str, Any]:
    """What the page is told of files that were added."""
    skipped = [{"name": name, "why": why} for name, why in added.skipped]
    return {"added": added.names, "skipped": skipped, "labelled": labelled, "place": added.place}


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ArgumentError("expected a JSON object")
    return body


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 200:
        raise ArgumentError(f"expected a text of at most 200 letters, got {value!r:.40}")
    return value
