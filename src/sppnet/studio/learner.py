"""The server's side of the worker process: asks, remembers what it said, and tells the pages."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import multiprocessing
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sppnet.errors import ArgumentError, SppnetError
from sppnet.studio.card import model_card
from sppnet.studio.labels import ImageLabels
from sppnet.studio.project import Project
from sppnet.studio.training import FullTraining
from sppnet.studio.worker_process import start_worker

__all__ = ["Learner"]

_WINDOWS_IN_MEMORY = 64
_ANSWER_WITHIN_S = 60.0
_OVERVIEW_EVERY_S = 0.3
_SURE = 0.5  # suggestions above this are counted on thumbnails
_RESTARTS = 3

_log = logging.getLogger("sppnet.studio")


class Learner:
    """Teacher of the studio. See :class:`sppnet.studio.teacher.Teacher`.

    Args:
        project: images and labels.
        publish: tells the pages.
        model: detector file to start from; None for the one that comes with the package.
        threads: of the worker process.
        seed: of the teaching.
    """

    def __init__(
        self,
        project: Project,
        publish: Callable[[dict[str, Any]], None],
        model: str | None = None,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.project, self.publish, self.model, self.seed = project, publish, model, seed
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
        self.threads = threads or cores
        self._suggestions: dict[str, list[list[float]]] = {}
        self._windows: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._broken: set[str] = set()
        self._overview: dict[str, dict[str, Any]] = {}
        self._news: dict[str, dict[str, Any] | None] = {}
        self._news_at = 0.0
        self._front: str | None = None
        self._features: dict[str, Any] = {"done": 0, "total": len(project.images), "seconds_left": None}
        self._teaching: dict[str, Any] = {"state": "waiting", "images": 0, "seconds": None, "message": ""}
        self._quality: dict[str, Any] | None = None
        self._answers: dict[int, Future[Any]] = {}
        self._numbers = itertools.count()
        self._outbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._closing = False
        self._restarts = 0
        self.training = FullTraining(project, self._training_changed, self._quick_ap)
        self._start()

    # --- the process -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        folder = str(self.project.state / "features")
        self._process = context.Process(
            target=start_worker, args=(theirs, self.model, folder, self.threads, self.seed), daemon=True,
            name="sppnet-studio-worker",
        )  # fmt: skip
        self._process.start()
        theirs.close()
        self._connection: Connection = mine
        self._outbox = queue.Queue()
        threading.Thread(target=self._write, args=(mine, self._outbox), daemon=True).start()
        threading.Thread(target=self._listen, args=(mine,), daemon=True).start()
        self._class_numbers = [c["id"] for c in self.project.class_list()]
        self._told_images: set[str] = set()
        self._tell(op="classes", classes=self._class_numbers)
        self.images_changed()
        if self._front:
            self._tell(op="front", image=self._front)

    def _tell(self, **message: Any) -> None:
        self._outbox.put(message)

    @staticmethod
    def _write(connection: Connection, outbox: queue.Queue[dict[str, Any] | None]) -> None:
        while (message := outbox.get()) is not None:
            try:
                connection.send(message)
            except (OSError, ValueError):
                return

    def _listen(self, connection: Connection) -> None:
        while True:
            try:
                event = connection.recv()
            except (EOFError, OSError):
                break
            try:
                getattr(self, f"_on_{event['type']}")(event)
            except Exception:
                _log.exception("an event of the worker could not be used")
        if self._closing:
            return
        for future in self._answers.values():
            future.set_exception(ArgumentError("the computation stopped; try again"))
        self._answers.clear()
        self._restarts += 1
        if self._restarts <= _RESTARTS:
            _log.warning("the worker process ended; it is started again")
            self._start()
        else:
            self._teaching = self._teaching | {
                "message": "The computation stopped. Labels are safe; restart the studio."
            }
            self._publish_status()

    def _on_status(self, event: dict[str, Any]) -> None:
        self._features, self._teaching = event["features"], event["teaching"]
        self._publish_status()
        self._publish_overview(force=True)

    def _publish_status(self) -> None:
        self.publish({"type": "status", "status": self.status()})

    def _training_changed(self) -> None:
        self._publish_status()

    def _quick_ap(self) -> float | None:
        """Mean average precision of the quick teaching, as it was measured last."""
        known = [row["ap"] for row in (self._quality or {"classes": {}})["classes"].values() if row["ap"] is not None]
        return round(sum(known) / len(known), 4) if known else None

    def _on_forget(self, event: dict[str, Any]) -> None:
        self._suggestions.clear()
        self._news.update(dict.fromkeys(self._overview))
        self._overview.clear()
        self._publish_overview(force=True)

    def _on_described(self, event: dict[str, Any]) -> None:
        image = event["image"]
        if event.get("broken"):
            self._windows[image] = {"boxes": [], "scores": []}
            self._broken.add(image)
            self.publish({"type": "windows", "image": image})
        else:
            self._suggestions[image] = event["suggestions"]
            sure = [row for row in event["suggestions"] if row[5] >= _SURE]
            best = max((row[5] for row in event["suggestions"]), default=0.0)
            self._overview[image] = self._news[image] = {
                "classes": [row[4] for row in sure],
                "best": best,
                "uncertainty": _uncertainty(event["suggestions"]),
            }
            if image == self._front:
                self.publish({"type": "suggestions", "image": image, "suggestions": event["suggestions"]})
        self._publish_overview()

    def _on_windows(self, event: dict[str, Any]) -> None:
        image = event["image"]
        boxes, scores = event["windows"]
        self._windows[image] = {"boxes": boxes.round(1).tolist(), "scores": scores.round(3).tolist()}
        self._windows.move_to_end(image)
        while len(self._windows) > _WINDOWS_IN_MEMORY:
            self._windows.popitem(last=False)
        self.publish({"type": "windows", "image": image})

    def _on_quality(self, event: dict[str, Any]) -> None:
        self._quality = event["quality"]
        self.publish({"type": "quality"})

    def _publish_overview(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._news and (force or now - self._news_at > _OVERVIEW_EVERY_S):
            news, self._news = self._news, {}
            self._news_at = now
            self.publish({"type": "overview", "overview": news})

    def _on_answer(self, event: dict[str, Any]) -> None:
        future = self._answers.pop(event["number"], None)
        if future is None:
            return
        if "error" in event:
            future.set_exception(ArgumentError(event["error"]))
        else:
            future.set_result(event["value"])

    def _ask(self, what: str, **request: Any) -> Any:
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._answers[number] = future
        self._tell(op="request", what=what, number=number, **request)
        try:
            return future.result(_ANSWER_WITHIN_S)
        except TimeoutError:
            raise ArgumentError("the computation takes too long; try again in a moment") from None

    # --- what the server asks ----------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How far everything is."""
        return {"features": self._features, "teaching": self._teaching, "training": self.training.status()}

    def overview(self) -> dict[str, dict[str, Any]]:
        """Suggestions of all images in short."""
        return dict(self._overview)

    def suggestions(self, image_id: str) -> list[list[float]] | None:
        """Suggestions of an image."""
        return self._suggestions.get(image_id)

    def windows(self, image_id: str) -> dict[str, Any] | None:
        """Windows for snapping."""
        known = self._windows.get(image_id)
        if known is None:
            self.bring_to_front(image_id)
        return known

    def tighten(self, image_id: str, box: object, class_id: object) -> list[float] | None:
        """The best box near a rough one."""
        if (
            not isinstance(box, list)
            or len(box) != 4
            or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)
        ):
            raise ArgumentError("tighten: expected a box of four numbers")
        result = self._ask("tighten", image=image_id, box=[float(v) for v in box], **{"class": class_id})
        return None if result is None else [float(v) for v in result]

    def bring_to_front(self, image_id: str) -> None:
        """Compute this image first."""
        self._front = image_id
        self._tell(op="front", image=image_id)

    def labels_changed(self, image_id: str) -> None:
        """Learn from an image if it is finished."""
        self._tell_labels(image_id, self.project.labels(image_id))

    def _tell_labels(self, image_id: str, labels: ImageLabels) -> None:
        self._tell(
            op="labels", image=image_id, done=labels.done,
            boxes=[[b.x0, b.y0, b.x1, b.y1] for b in labels.boxes], labels=[b.class_id for b in labels.boxes],
            rejected=[[b.x0, b.y0, b.x1, b.y1] for b in labels.rejected],
        )  # fmt: skip

    def classes_changed(self) -> None:
        """Hear of other classes, or of labels of many images."""
        numbers = [c["id"] for c in self.project.class_list()]
        if numbers != self._class_numbers:  # otherwise the figures stand until there are new ones
            self._quality, self._class_numbers = None, numbers
        self._tell(op="classes", classes=numbers)
        for image_id, labels in self.project.all_labels().items():
            self._tell_labels(image_id, labels)

    def images_changed(self) -> None:
        """Hear of other images; what is known of those that came back teaches again."""
        for image_id in list(self._broken):  # they may be whole now
            self._broken.discard(image_id)
            self._windows.pop(image_id, None)
        images = self.project.images
        self._tell(op="images", images=[(image.image_id, str(image.path)) for image in images])
        present = {image.image_id for image in images}
        for image_id, labels in self.project.all_labels().items():
            if image_id in present - self._told_images:
                self._tell_labels(image_id, labels)
        self._told_images = present

    def quality(self) -> dict[str, Any]:
        """What became of suggestions in the images finished last, and what was measured on held-out images."""
        from sppnet.studio.quality import quality_of

        return quality_of(self.project, self._quality)

    def _names(self) -> dict[int, str]:
        return {c["id"]: c["name"] for c in self.project.class_list()}

    def detect(self, data: bytes) -> dict[str, Any]:
        """Objects in an image file: the full training's detector looks, or before there is one what was taught."""
        model = str(self.training.model) if self.training.model.is_file() else None
        result: dict[str, Any] = self._ask("detect", data=data, names=self._names(), model=model)
        return result

    def compare(self, image_id: str) -> dict[str, Any]:
        """Detections by the head that was taught and by the detector of the full training."""
        if not self.training.model.is_file():
            raise ArgumentError("there is no trained detector yet; train fully first")
        path, model = str(self.project.image(image_id).path), str(self.training.model)
        result: dict[str, Any] = self._ask("compare", path=path, model=model, names=self._names())
        return result

    def start_training(self, options: dict[str, Any]) -> dict[str, Any]:
        """Start ``sppnet train``."""
        return self.training.start()

    def cancel_training(self) -> dict[str, Any]:
        """Stop it."""
        return self.training.cancel()

    def export(self, what: dict[str, str]) -> Path:
        """Write a file to keep."""
        from sppnet.studio.exporting import export_dataset, export_results, export_text

        folder = self.project.state / "exports"
        folder.mkdir(exist_ok=True)
        kinds: dict[str, Callable[[], Path]] = {  # another kind of file is one more line here and in the page
            "model": lambda: self._export_model(folder),
            "onnx": lambda: self._export_onnx(folder),
            "dataset": lambda: export_dataset(self.project, what.get("format", "coco"), folder),
            "results": lambda: export_results(self.project, self._suggestions, folder),
            "card": lambda: export_text(
                model_card(self.project, self.quality(), self.training.status()), folder / "model-card.md"
            ),
        }
        kind = what.get("what", "")
        if kind not in kinds:
            raise ArgumentError(f"what: got {kind!r:.40}, expected {', '.join(kinds)}")
        return kinds[kind]()

    def _export_onnx(self, folder: Path) -> Path:
        model = self._trained_or_taught()
        path = str(folder / "model.onnx")
        return Path(self._ask("onnx", path=path, model=None if model is None else str(model), names=self._names()))

    def _trained_or_taught(self) -> Path | None:
        """The file of the full training; None where the head that was taught is all there is."""
        if self.training.model.is_file():
            return self.training.model
        if self._teaching["state"] != "ready":
            raise ArgumentError("there is no detector yet; finish two images first")
        return None

    def _export_model(self, folder: Path) -> Path:
        return self._trained_or_taught() or Path(
            self._ask("model", path=str(folder / "model.safetensors"), names=self._names())
        )

    def close(self) -> None:
        """Stop all processes."""
        self._closing = True
        self.training.cancel()
        self._tell(op="stop")
        self._outbox.put(None)
        self._process.join(3)
        if self._process.is_alive():
            self._process.kill()
        with contextlib.suppress(OSError, SppnetError):
            self._connection.close()


def _uncertainty(rows: list[list[float]]) -> float:
    """From 0 (sure) to 1: how near the least sure suggestion worth looking at is to a coin's toss."""
    doubts = [1 - abs(2 * row[5] - 1) for row in rows if row[5] >= 0.15]
    return round(max(doubts, default=0.3), 4)
