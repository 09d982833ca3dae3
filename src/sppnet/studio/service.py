"""``sppnet serve``: a detector as an HTTP service, also for Label Studio's ML backend protocol.

``POST /api/detect`` takes an image file as the body. ``/health``, ``/setup`` and ``/predict`` answer Label Studio, so
that people who have that tool get suggestions there. Images are taken from the request, from a folder that was named,
or from the one Label Studio server that was named: from nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import numpy as np
from defusedxml import ElementTree
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import sppnet
from sppnet.detection.detections import Detections
from sppnet.detection.detector import SPPDetector
from sppnet.errors import ArgumentError, ImageError, SppnetError
from sppnet.images import load_image
from sppnet.storage.names import real_path
from sppnet.studio.replies import AsciiJSON

__all__ = ["Sources", "make_service"]

MAX_IMAGE_BYTES = 64 << 20
_MAX_TASKS = 256
_FETCH_WITHIN_S = 30.0

_log = logging.getLogger("sppnet.serve")


@dataclass(frozen=True)
class Sources:
    """Where images of Label Studio's tasks may come from.

    Attributes:
        folder: root of its local files (``/data/local-files/?d=...``), or None.
        label_studio: address of its server, or None. Nothing else is ever asked.
        api_key: of that server.
    """

    folder: Path | None = None
    label_studio: str | None = None
    api_key: str | None = None

    def load(self, address: str) -> bytes:
        """Give the bytes of an image that a task names.

        Raises:
            ArgumentError: the address leads elsewhere.
            ImageError: it can't be read.
        """
        if address.startswith("data:"):
            _, _, text = address.partition("base64,")
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error:
                raise ImageError("data: the image is not valid base64") from None
        parts = urlsplit(address)
        if parts.path.endswith("/local-files/") and self.folder is not None:
            return self._from_folder(unquote(parse_qs(parts.query).get("d", [""])[0]))
        return self._from_label_studio(address)

    def _from_folder(self, name: str) -> bytes:
        root = real_path(str(self.folder))
        path = real_path(root / name.lstrip("/"))
        if not path.is_relative_to(root):
            raise ArgumentError(f"{name!r:.80} leads out of the folder {root}")
        try:
            if not path.is_file() or path.stat().st_size > MAX_IMAGE_BYTES:
                raise ImageError(f"{path}: no such image, or larger than {MAX_IMAGE_BYTES >> 20} MB")
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: can't be read ({error.strerror})") from None

    def _from_label_studio(self, address: str) -> bytes:
        if not self.label_studio:
            raise ArgumentError(
                f"{address!r:.80}: images are not fetched from there; start `sppnet serve` with --label-studio ADDRESS "
                "or --images FOLDER"
            )
        base = urlsplit(self.label_studio)
        whole = urljoin(self.label_studio.rstrip("/") + "/", address)
        if urlsplit(whole)[:2] != base[:2] or base.scheme not in ("http", "https"):
            raise ArgumentError(f"{address!r:.80} is not on {self.label_studio}")
        headers = {"authorization": f"Token {self.api_key}"} if self.api_key else {}
        request = urllib.request.Request(whole, headers=headers)  # noqa: S310 - scheme and host were checked
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=_FETCH_WITHIN_S) as answer:
                data = bytes(answer.read(MAX_IMAGE_BYTES + 1))
        except (OSError, ValueError) as error:
            raise ImageError(f"{address!r:.80}: Label Studio did not give it ({error})") from None
        if len(data) > MAX_IMAGE_BYTES:
            raise ImageError(f"{address!r:.80}: larger than {MAX_IMAGE_BYTES >> 20} MB")
        return data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        """Follow nothing: a redirect could lead to any address."""
        return


class _Service:
    def __init__(self, detector: SPPDetector, name: str, sources: Sources) -> None:
        self.detector, self.name, self.sources = detector, name, sources

    def describe(self, request: Request, body: bytes) -> Any:
        """What is served."""
        return {
            "model": self.name, "sppnet_version": sppnet.__version__, "class_names": list(self.detector.class_names_),
            "thresholds": self.detector.thresholds_,
        }  # fmt: skip

    def health(self, request: Request, body: bytes) -> Any:
        """Label Studio: alive."""
        return {"status": "UP", "model_class": "sppnet"}

    def setup(self, request: Request, body: bytes) -> Any:
        """Label Studio: a project is connected."""
        return {"model_version": self.name}

    def detect(self, request: Request, body: bytes) -> Any:
        """Objects in the image that is the body. ``?threshold=0.3`` shows those above it."""
        started = time.perf_counter()
        text = request.query_params.get("threshold")
        try:
            threshold = None if text is None else float(text)
        except ValueError:
            raise ArgumentError(f"threshold: got {text!r:.20}, expected a number from 0 to 1") from None
        pixels = _decode(body, "the image of the request")
        found = self.detector.detect(pixels, threshold)
        return {
            "width": pixels.shape[1], "height": pixels.shape[0], "detections": _rows(found),
            "milliseconds": round(1000 * (time.perf_counter() - started), 1),
        }  # fmt: skip

    def predict(self, request: Request, body: bytes) -> Any:
        """Label Studio: suggestions for tasks."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            raise ArgumentError("the request is not JSON") from None
        tasks = document.get("tasks") if isinstance(document, dict) else None
        if not isinstance(tasks, list) or len(tasks) > _MAX_TASKS:
            raise ArgumentError(f"tasks: expected a list of at most {_MAX_TASKS} tasks")
        names = _names_of_tags(str(document.get("label_config") or ""))
        return {"results": [self._predict(task, *names) for task in tasks]}

    def _predict(self, task: Any, from_name: str, to_name: str, key: str) -> dict[str, Any]:
        try:
            data = task["data"]
            address = data.get(key) or next(v for v in data.values() if isinstance(v, str))
        except (TypeError, KeyError, AttributeError, StopIteration):
            raise ArgumentError("tasks: a task has no data with the address of an image") from None
        pixels = _decode(self.sources.load(str(address)), str(address)[:80])
        found = self.detector.detect(pixels)
        height, width = pixels.shape[:2]
        results = [
            {
                "from_name": from_name, "to_name": to_name, "type": "rectanglelabels", "score": row["confidence"],
                "original_width": width, "original_height": height, "image_rotation": 0,
                "value": {
                    "x": 100 * row["box"][0] / width, "y": 100 * row["box"][1] / height,
                    "width": 100 * (row["box"][2] - row["box"][0]) / width,
                    "height": 100 * (row["box"][3] - row["box"][1]) / height,
                    "rotation": 0, "rectanglelabels": [row["class"]],
                },
            }
            for row in _rows(found)
        ]  # fmt: skip
        score = float(np.mean(found.confidence)) if len(found) else 0.0
        return {"result": results, "score": round(score, 4), "model_version": self.name}


def make_service(detector: SPPDetector, name: str, sources: Sources | None = None) -> Starlette:
    """Build the ASGI application of the service, without a guard.

    Args:
        detector: trained. It is used from several threads.
        name: of the model, for answers.
        sources: where images of Label Studio's tasks may come from.

    Returns:
        The application.
    """
    service = _Service(detector, name, sources or Sources(api_key=os.environ.get("LABEL_STUDIO_API_KEY")))
    return Starlette(
        routes=[
            Route("/api/model", _json(service.describe)),
            Route("/api/detect", _json(service.detect), methods=["POST"]),
            Route("/health", _json(service.health)),
            Route("/", _json(service.health)),
            Route("/setup", _json(service.setup), methods=["POST"]),
            Route("/predict", _json(service.predict), methods=["POST"]),
        ]
    )


def _json(work: Callable[[Request, bytes], Any]) -> Callable[[Request], Any]:
    async def handler(request: Request) -> Response:
        body = await request.body()
        try:
            return AsciiJSON(await run_in_threadpool(work, request, body))
        except SppnetError as error:
            return AsciiJSON({"error": str(error)}, 400)

    return handler


def _decode(data: bytes, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")) as image:
            return load_image(image)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        raise ImageError(f"{name}: is not an image that can be read; send JPEG or PNG") from None


def _rows(found: Detections) -> list[dict[str, Any]]:
    return [
        {"box": [round(float(v), 2) for v in box], "class": str(name), "confidence": round(float(p), 4)}
        for box, name, p in zip(found.xyxy, found.class_name, found.confidence, strict=True)
    ]


def _names_of_tags(config: str) -> tuple[str, str, str]:
    """``from_name``, ``to_name`` and the key of the image in a task, from a labelling configuration."""
    if not config:
        return "label", "image", "image"
    try:
        root = ElementTree.fromstring(config)
    except (ElementTree.ParseError, ValueError) as error:
        raise ArgumentError(f"label_config: is not XML ({error})") from None
    labels, image = root.find(".//RectangleLabels"), root.find(".//Image")
    if labels is None or image is None:
        raise ArgumentError("label_config: expected a RectangleLabels and an Image tag; use the template for boxes")
    return labels.get("name", "label"), image.get("name", "image"), image.get("value", "$image").lstrip("$")
