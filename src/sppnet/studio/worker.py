"""The process that computes and learns. The server tells it what happened; it tells what it found.

It does one small piece of work after the other and looks at its messages in between: first what a person waits for,
then the image in front of them, then learning, then suggestions for all images, then everything else.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sppnet.datasets.seen import seen_digests
from sppnet.detection.detector import SPPDetector
from sppnet.detection.held_out import HeldOut, HeldOutOptions, Looked, measure_held_out
from sppnet.detection.teaching import HeadTeacher, Lesson
from sppnet.detection.weights import DetectorWeights
from sppnet.errors import ArgumentError, SppnetError
from sppnet.studio.answers import Answers
from sppnet.studio.describe import Describer, Description
from sppnet.studio.measured import quality_event
from sppnet.studio.suggesting import Suggester

__all__ = ["run_worker"]

FIRST_STEPS, NEXT_STEPS, WHOLE_STEPS = 200, 40, 500
MIN_LESSONS = 2
_WHOLE_AFTER = 4  # lessons since the head was last trained from the start
MEASURE_FROM = 6
_MEASURE_GROWTH = 1.25  # times as many finished images as when heads were measured last
_NEWEST, _OLDER = 10, 30  # lessons of a short training
_MOST_LESSONS = 400  # of a training from the start: their vectors are copied once
_MOST_FAULTS = 20  # more than this, and the process is started anew
_MOMENT_S = 0.05  # of work at what nobody waits for
_STATUS_EVERY_S = 0.5

_log = logging.getLogger("sppnet.studio")


class _ServerGoneError(Exception):
    """Nobody listens any more."""


class Worker:
    """State of the process.

    Args:
        connection: to the server.
        model: file of the detector to start from, or None for the one that comes with the package.
        folder: where descriptions of images are kept.
        seed: of the teaching.
    """

    def __init__(self, connection: Connection, model: str | None, folder: str, seed: int = 0) -> None:
        self.connection = connection
        self.detector = SPPDetector.load(model)
        self.describer = Describer(self.detector, Path(folder))
        self.answers = Answers(self.describer)
        self.suggester = Suggester()
        self.seed = seed
        self.paths: dict[str, Path] = {}
        self.classes: list[int] = []  # numbers of the classes, in the order of the head's outputs
        self.labels: dict[str, dict[str, Any]] = {}  # of finished images
        self.lessons: dict[str, Lesson] = {}
        self.todo_lessons: deque[str] = deque()
        self.todo_images: deque[str] = deque()
        self.todo_suggestions: deque[str] = deque()
        self.requests: deque[dict[str, Any]] = deque()
        self.front: str | None = None
        self.front_fresh = False
        self.teacher: HeadTeacher | None = None
        self.taught: DetectorWeights | None = None
        self.taught_classes: list[int] = []  # of its outputs; the classes may have changed since
        self.stale = False  # something was learned that the head does not know yet
        self.since_whole = 0
        self.idle: Iterator[None] | None = None  # work that waits until there is nothing else
        self.measured = 0  # finished images when heads were measured last
        self.history: dict[int, HeldOut] = {}  # what was measured, by number of images
        self.broken: set[str] = set()
        self.described = 0
        self.started = time.perf_counter()
        self.spent = 0.0
        self.last_status = 0.0
        self.learn_seconds: float | None = None
        self._faults = 0

    # --- messages ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until the server goes away."""
        while True:
            while self.connection.poll(0 if self._busy() else 0.5):
                try:
                    message = self.connection.recv()
                except (EOFError, OSError):
                    return
                if message["op"] == "stop":
                    return
                getattr(self, f"on_{message['op']}")(**{k: v for k, v in message.items() if k != "op"})
            try:
                self._work()
            except _ServerGoneError:
                return
            except Exception:  # of one image or one computation, which is left; the others go on
                self._faults += 1
                _log.exception("a computation failed")
                if self._faults > _MOST_FAULTS:
                    raise

    def send(self, **event: Any) -> None:
        """Tell the server."""
        try:
            self.connection.send(event)
        except OSError:
            raise _ServerGoneError from None

    def on_images(self, images: list[tuple[str, str]]) -> None:
        """All images of the project."""
        # a file may be whole now, or its disk there again
        waiting = set(self.todo_lessons)
        self.todo_lessons.extend(sorted(key for key in self.broken if key in self.labels and key not in waiting))
        if self.front in self.broken:
            self.front_fresh = False
        self.broken.clear()
        self.paths = {image_id: Path(path) for image_id, path in images}
        known = [key for key in self.paths if self.describer.is_known(self.paths[key])] if len(images) <= 2000 else []
        self.described = len(known)
        ready = set(known)
        self.todo_images = deque(key for key in self.paths if key not in ready)
        self._status(force=True)

    def on_front(self, image: str) -> None:
        """The image that the person looks at."""
        if image != self.front:
            self.front, self.front_fresh = image, False

    def on_classes(self, classes: list[int]) -> None:
        """Numbers of the classes that exist."""
        if classes != self.classes:
            self.classes = classes
            self.teacher = None
            self.stale = True
            self.todo_lessons = deque(self.labels)
            self.lessons.clear()
            self.idle = None
            self.suggester.forget()
        # labels of many images may be others, too: measured anew
        self.history.clear()
        self.measured = 0

    def on_labels(
        self, image: str, done: bool, boxes: list[list[float]], labels: list[int], rejected: list[list[float]]
    ) -> None:
        """What a person said about an image. Only finished images teach."""
        if done and image in self.paths:
            first = image not in self.labels
            self.labels[image] = {"boxes": boxes, "labels": labels, "rejected": rejected}
            if first:
                self.suggester.judge(image, self.labels[image])
            if image in self.todo_lessons:
                self.todo_lessons.remove(image)
            self.todo_lessons.append(image)
        elif image in self.labels:
            del self.labels[image]
            self.lessons.pop(image, None)
            self.stale = True

    def on_request(self, **request: Any) -> None:
        """A question that somebody waits for."""
        self.requests.append(request)

    # --- work --------------------------------------------------------------------------------------------------------

    def _busy(self) -> bool:
        todo = (self.requests, self.todo_lessons, self.todo_suggestions, self.todo_images)
        front = self.front and not self.front_fresh
        return bool(any(todo) or self.stale or front or self._wants_maps() or self.idle or self._wants_idle())

    def _wants_idle(self) -> bool:
        return self._wants_whole() or self._wants_measure()

    def _wants_maps(self) -> tuple[Path, bool] | None:
        """Maps that the image in front will need when it is finished: they take longer than the lesson itself."""
        path = self.paths.get(self.front or "")
        if path is None or self.front in self.labels or self.front in self.broken:
            return None
        return next(
            ((path, mirrored) for mirrored in (False, True) if not self.describer.has_maps(path, mirrored)), None
        )

    def _wants_whole(self) -> bool:
        return self.taught is not None and self.since_whole >= _WHOLE_AFTER

    def _wants_measure(self) -> bool:
        """Whether clearly more images are finished than when it was measured last."""
        count = len(self.lessons)
        return self.taught is not None and count >= max(MEASURE_FROM, math.ceil(self.measured * _MEASURE_GROWTH))

    def _work(self) -> None:
        if self.requests:
            self._answer(self.requests.popleft())
        elif self.front and not self.front_fresh and self.front in self.paths:
            self.front_fresh = True
            self._suggest(self.front, windows=True)
        elif self.todo_lessons:
            self._take_lesson(self.todo_lessons.popleft())
        elif self.stale:
            self._learn()
        elif self.todo_suggestions:
            self._suggest_some()
        elif (wanted := self._wants_maps()) is not None:
            self.describer.maps(*wanted)
        elif self.todo_images:
            self._describe(self.todo_images.popleft())
        elif self.idle or self._wants_idle():
            self._go_on()
        self._status()

    def _describe(self, image: str) -> None:
        started = time.perf_counter()
        if self._description(image) is not None:
            self.described += 1
            self.spent += time.perf_counter() - started
            if self.taught is not None:
                self.todo_suggestions.append(image)

    def _description(self, image: str) -> Description | None:
        if image in self.broken or image not in self.paths:
            return None
        try:
            return self.describer.describe(self.paths[image])
        except (SppnetError, OSError) as error:
            self.broken.add(image)
            self.described += 1
            _log.warning("%s", error)
            return None

    def _take_lesson(self, image: str) -> None:
        said = self.labels.get(image)
        if said is None or self._description(image) is None:
            return
        place = {number: c for c, number in enumerate(self.classes)}
        labels = [place.get(number, -1) for number in said["labels"]]
        kept = [i for i, c in enumerate(labels) if c >= 0]
        boxes = np.array([said["boxes"][i] for i in kept], np.float32).reshape(-1, 4)
        rejected = np.array(said["rejected"], np.float32).reshape(-1, 4)
        self.lessons.pop(image, None)  # the newest are at the end
        self.lessons[image] = self.describer.lesson(
            self.paths[image], boxes, np.array([labels[i] for i in kept], np.int64), rejected
        )
        self.since_whole += 1
        self.stale = True

    def _learn(self) -> None:
        self.stale = False
        if not _can_teach(self.lessons):
            if self.taught is not None:
                self.taught = None
                self._forget()
            self._status(force=True)
            return
        self._status(force=True, state="learning")
        started = time.perf_counter()
        steps = NEXT_STEPS
        if self.teacher is None:
            self.teacher, steps = HeadTeacher(self.detector.weights_, len(self.classes), seed=self.seed), FIRST_STEPS
        self.teacher.learn(self._newest_lessons(), steps)
        self._swap(self.teacher, time.perf_counter() - started)

    def _newest_lessons(self) -> list[Lesson]:
        """The newest lessons and some of the older ones: a step is as fast with a thousand images as with fifty."""
        keys = list(self.lessons)
        newest, older = keys[-_NEWEST:], keys[:-_NEWEST]
        if len(older) > _OLDER:
            rng = np.random.default_rng((self.seed, len(keys)))
            older = [older[int(i)] for i in rng.choice(len(older), _OLDER, replace=False)]
        return [self.lessons[key] for key in (*older, *newest)]

    def _go_on(self) -> None:
        """Work for a moment at what nobody waits for."""
        if self.idle is None:
            self.idle = self._whole() if self._wants_whole() else self._measure()
        until = time.perf_counter() + _MOMENT_S
        for _ in self.idle:
            if time.perf_counter() > until or self.connection.poll(0):
                return
        self.idle = None

    def _whole(self) -> Iterator[None]:
        """Train from the start with all lessons: better than going on from the head that is there."""
        self.since_whole = 0
        lessons = dict(list(self.lessons.items())[-_MOST_LESSONS:])
        if not _can_teach(lessons):
            return
        teacher = HeadTeacher(self.detector.weights_, len(self.classes), seed=self.seed)
        spent = 0.0
        started = time.perf_counter()
        for _ in teacher.learning(list(lessons.values()), WHOLE_STEPS):
            spent += time.perf_counter() - started
            yield
            started = time.perf_counter()
        self.teacher = teacher
        self.suggester.forget()
        if list(lessons)[-1] == list(self.lessons)[-1]:
            self._swap(teacher, spent)
        else:
            self.stale = True  # what was finished meanwhile is learned on top

    def _measure(self) -> Iterator[None]:
        """Measure heads on images that they did not learn from, and tell."""
        self.measured = len(self.lessons)
        lessons, classes = dict(list(self.lessons.items())[-_MOST_LESSONS:]), list(self.classes)
        options = HeldOutOptions(seed=self.seed)
        result = yield from measure_held_out(self.detector.weights_, len(classes), lessons, self._look, options)
        if result is not None:
            self.history[result.images] = result
            self.send(type="quality", quality=quality_event(result, classes, list(self.history.values())))

    def _look(self, image: str) -> Looked | None:
        known = self._description(image)
        return None if known is None else Looked(known.vectors, known.windows, known.width, known.height)

    def _swap(self, teacher: HeadTeacher, seconds: float) -> None:
        self.taught, self.taught_classes = teacher.weights(), list(self.classes)
        self.learn_seconds = seconds
        self.front_fresh = False
        rest = [key for key in self.paths if key not in self.labels and key != self.front]
        self.todo_suggestions = deque(rest)
        self._status(force=True)

    def _forget(self) -> None:
        self.send(type="forget")

    # --- suggestions -------------------------------------------------------------------------------------------------

    def _suggest(self, image: str, windows: bool = False) -> None:
        known = self._description(image)
        if known is None:
            self.send(type="described", image=image, broken=True)
            return
        rows: list[list[float]] = []
        if self.taught is not None:
            rows = self.suggester.look(image, known, self.taught, self.taught_classes, all_windows=windows)
            rows = [row for row in rows if row[4] in self.classes]  # the head may know a class that is gone
        self.send(type="described", image=image, suggestions=rows)
        if windows:
            self.send(type="windows", image=image, windows=self.describer.snaps(known, self.taught))

    def _suggest_some(self) -> None:
        until = time.perf_counter() + 0.25
        while self.todo_suggestions and time.perf_counter() < until:
            image = self.todo_suggestions.popleft()
            if image in self.paths and self.describer.is_known(self.paths[image]):
                self._suggest(image)
            if self.connection.poll(0):
                return

    # --- questions ---------------------------------------------------------------------------------------------------

    def _answer(self, request: dict[str, Any]) -> None:
        try:
            value = getattr(self, f"answer_{request['what']}")(request)
            self.send(type="answer", number=request["number"], value=value)
        except SppnetError as error:
            self.send(type="answer", number=request["number"], error=str(error))
        except (OSError, ValueError, RuntimeError, LookupError):  # of one question; the work goes on
            _log.exception("a question could not be answered")
            self.send(type="answer", number=request["number"], error="that went wrong; the log of the studio says why")

    def answer_tighten(self, request: dict[str, Any]) -> list[float] | None:
        """Move a rough box to where the detectors and the windows say an object ends."""
        path = self.paths.get(request["image"])
        if path is None:
            return None
        c = request["class"]
        place = self.taught_classes.index(c) if self.taught is not None and c in self.taught_classes else None
        return self.answers.tighten(path, request["box"], self.taught, place)

    def answer_detect(self, request: dict[str, Any]) -> dict[str, Any]:
        """Objects in an image file, by the detector of the full training, or by the head that was taught."""
        model = request["model"]
        return self.answers.detect(request["data"], *self._present(request["names"]), model and Path(model))

    def answer_compare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Objects in an image, by the head that was taught and by the detector of the full training."""
        return self.answers.compare(Path(request["path"]), Path(request["model"]), *self._present(request["names"]))

    def answer_model(self, request: dict[str, Any]) -> str:
        """Write the head that was taught, as a detector file."""
        detector, _ = self._present(request["names"])
        if self.taught is not None:  # so that nobody measures it on these unawares
            paths = [self.paths[image] for image in self.lessons if image in self.paths]
            training = {
                "data": paths[0].parent.name if paths else "",
                "split": "",
                "images": len(paths),
                "seen": seen_digests(paths),
            }
            detector.metadata_ = detector.metadata_ | {"training": training}
        detector.save(request["path"])
        return str(request["path"])

    def answer_onnx(self, request: dict[str, Any]) -> str:
        """Write the detector as an ONNX file."""
        from sppnet.export.detector import export_onnx

        model = request["model"]
        detector = self._present(request["names"])[0] if model is None else SPPDetector.load(model)
        return str(export_onnx(detector, request["path"])[0])

    def _present(self, names: dict[int, str]) -> tuple[SPPDetector, tuple[str, ...]]:
        """The detector as it was taught, without classes that are gone since."""
        kept = [c for c, number in enumerate(self.taught_classes) if number in names]
        if self.taught is not None and not kept:
            raise ArgumentError("the classes that there are now are still being learned; try again in a moment")
        taught = None if self.taught is None else self.taught.of_classes(kept)
        return self.answers.present(
            taught, tuple(names[self.taught_classes[c]] for c in kept), self.suggester.calibration
        )

    def _status(self, force: bool = False, state: str | None = None) -> None:
        now = time.perf_counter()
        if not force and now - self.last_status < _STATUS_EVERY_S:
            return
        self.last_status = now
        left = len(self.todo_images)
        each = self.spent / max(1, self.described) if self.spent else None
        teaching = state or ("ready" if self.taught is not None else "waiting")
        self.send(
            type="status",
            features={"done": len(self.paths) - left, "total": len(self.paths),
                      "seconds_left": round(each * left, 1) if each else None},
            teaching={"state": teaching, "images": len(self.lessons), "seconds": self.learn_seconds, "message": ""},
        )  # fmt: skip


def _can_teach(lessons: Mapping[str, Lesson]) -> bool:
    return len(lessons) >= MIN_LESSONS and any(len(lesson.boxes) for lesson in lessons.values())


def run_worker(connection: Connection, model: str | None, folder: str, threads: int, seed: int) -> None:
    """Start the process's work; it ends when the server closes the connection."""
    torch.set_num_threads(threads)
    try:
        Worker(connection, model, folder, seed).run()
    except KeyboardInterrupt:
        return
