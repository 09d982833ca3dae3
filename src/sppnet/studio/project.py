"""One folder of images and what a person said about them, safe on the disk at every moment.

Each change is written to a log and synced before it is acknowledged. The labels are also written as COCO JSON
(``labels.coco.json`` beside the images) a moment later, so that ``sppnet train FOLDER`` works at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sppnet.datasets.loading import STUDIO_LABELS
from sppnet.errors import ArgumentError, DatasetError, ImageError
from sppnet.images import image_size, list_images
from sppnet.storage.atomic import write_atomic
from sppnet.studio.labels import (
    BoxLabel,
    ClassTable,
    ImageLabels,
    StudioClass,
    check_name,
    parse_boxes,
)  # fmt: skip
from sppnet.studio.log import AppendLog

__all__ = ["LABELS_FILE", "ConflictError", "Project", "StudioImage"]

LABELS_FILE = STUDIO_LABELS
_FOLDER = ".sppnet-studio"
_MARK = "made-by-sppnet-studio"
_WRITE_AFTER_S = 1.0  # labels.coco.json follows the log after this
_LABELS_LIMIT_BYTES = 1 << 30


class ConflictError(ArgumentError):
    """A change was made on an older version than the present one."""

    def __init__(self, message: str, present: dict[str, Any]) -> None:
        super().__init__(message)
        self.present = present


@dataclass(frozen=True)
class StudioImage:
    """An image of the project. ``image_id`` stands for it in addresses, so that no path ever comes from a request."""

    image_id: str
    path: Path
    name: str  # relative to the project, with forward slashes


def _id_of(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Project:
    """Labels of the images in ``folder``.

    Args:
        folder: of images, in sub-folders too.
        listener: called with each change as a dict, from the thread that made it.

    Raises:
        DatasetError: the folder is missing, or another studio has it open.
    """

    def __init__(self, folder: Path, listener: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self.folder = folder.resolve()
        if not self.folder.is_dir():
            raise DatasetError(f"{folder}: is not a folder; name a folder of images")
        self.state = self.folder / _FOLDER
        with _named(self.state):
            self.state.mkdir(exist_ok=True)
            (self.state / _MARK).touch()
        self._lock = FileLock(self.state / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DatasetError(f"{self.folder}: another studio has this folder open; close that one first") from None
        self.listener = listener
        self._mutex = threading.RLock()
        self._images: dict[str, StudioImage] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._labels: dict[str, ImageLabels] = {}
        self._unknown: dict[str, ImageLabels] = {}  # labels of images that are not there now, by name
        self.classes = ClassTable()
        self._log = AppendLog(self.state / "changes.jsonl")
        self._written = 0  # last entry of the log that is in LABELS_FILE
        self._writer: threading.Timer | None = None
        self.rescan()
        self._read()

    # --- images ------------------------------------------------------------------------------------------------------

    def rescan(self) -> list[StudioImage]:
        """Look for images again. Returns those that are new."""
        found = {}
        for path in list_images([self.folder]):
            name = path.relative_to(self.folder).as_posix()
            found[_id_of(name)] = StudioImage(_id_of(name), path, name)
        with self._mutex:
            new = [image for key, image in found.items() if key not in self._images]
            self._images = found
            for image in new:
                labels = self._unknown.pop(image.name, None)
                if labels is not None:
                    self._labels[image.image_id] = labels
        return new

    @property
    def images(self) -> list[StudioImage]:
        """All images, by name."""
        return list(self._images.values())

    def image(self, image_id: str) -> StudioImage:
        """Find an image.

        Raises:
            ArgumentError: there is none with this id.
        """
        if image_id not in self._images:
            raise ArgumentError(f"there is no image {image_id!r:.40}; it was removed from the folder")
        return self._images[image_id]

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height in pixels of the upright image, from its header.

        Raises:
            ImageError: it can't be read.
        """
        known = self._sizes.get(image_id)
        if known is None:
            height, width = image_size(self.image(image_id).path)
            known = self._sizes[image_id] = (width, height)
        return known

    # --- labels ------------------------------------------------------------------------------------------------------

    def labels(self, image_id: str) -> ImageLabels:
        """What is known of an image."""
        self.image(image_id)
        return self._labels.get(image_id, ImageLabels())

    def all_labels(self) -> dict[str, ImageLabels]:
        """Labels of all images that have some, by id."""
        with self._mutex:
            return dict(self._labels)

    def set_labels(
        self, image_id: str, version: int, boxes: object, done: bool, rejected: object = (), author: str = ""
    ) -> ImageLabels:
        """Replace the labels of an image. When this returns they are on the disk.

        Args:
            image_id: of the image.
            version: the version that the change was made on.
            boxes: see :func:`sppnet.studio.labels.parse_boxes`.
            done: whether the image is finished.
            rejected: suggestions that were turned down, as ``boxes``.
            author: which page made the change, so that it does not hear of it twice.

        Returns:
            The new labels.

        Raises:
            ConflictError: somebody else changed the image in the meantime.
            ArgumentError: the boxes make no sense.
        """
        image = self.image(image_id)
        width, height = self.size(image_id)
        with self._mutex:
            known = self.classes.classes
            parsed = parse_boxes(boxes, width, height, known, image.name)
            turned_down = parse_boxes(list(rejected) if isinstance(rejected, (list, tuple)) else rejected,
                                      width, height, known, image.name)  # fmt: skip
            old = self.labels(image_id)
            if version != old.version:
                raise ConflictError(f"{image.name}: was changed elsewhere in the meantime", self.as_dict(image_id))
            new = ImageLabels(old.version + 1, bool(done), parsed, turned_down)
            self._log.append({"op": "labels", "image": image.name} | _labels_dict(new))
            self._labels[image_id] = new
            self._changed()
        self.listener({"type": "labels", "image": image_id, "author": author} | self.as_dict(image_id))
        return new

    def as_dict(self, image_id: str) -> dict[str, Any]:
        """What the page needs of an image's labels."""
        labels = self.labels(image_id)
        return {"version": labels.version, "done": labels.done, "boxes": [b.as_list() for b in labels.boxes]}

    # --- classes -----------------------------------------------------------------------------------------------------

    def add_class(self, name: object, color: str = "", key: str = "") -> StudioClass:
        """Make a class.

        Raises:
            ArgumentError: the name can't be used.
        """
        with self._mutex:
            new = self.classes.add(name, color, key)
            self._keep_classes()
        return new

    def edit_class(
        self, class_id: int, name: object = None, color: str | None = None, key: str | None = None
    ) -> StudioClass:
        """Change name, colour or key of a class.

        Raises:
            ArgumentError: there is no such class, or the name is taken.
        """
        with self._mutex:
            self.classes.edit(class_id, name, color, key)
            self._keep_classes()
            return self.classes.get(class_id)

    def merge_class(self, class_id: int, into: int | None) -> int:
        """Give the boxes of a class to another one, or remove them, and remove the class.

        Args:
            class_id: the class that goes.
            into: the class that gets its boxes; None removes them.

        Returns:
            How many boxes were changed.

        Raises:
            ArgumentError: there is no such class.
        """
        with self._mutex:
            self.classes.get(class_id)
            if into is not None:
                self.classes.get(into)
                if into == class_id:
                    raise ArgumentError("a class can't be merged into itself; choose another one")
            del self.classes.classes[class_id]
            self.classes.version += 1
            self._log.append({"op": "merge", "class": class_id, "into": into} | self._class_entry())
            count = self._merge(class_id, into)
            self._changed()
        self.listener({"type": "classes", "version": self.classes.version, "classes": self._class_list()})
        self.listener({"type": "reload"})
        return count

    def _merge(self, class_id: int, into: int | None) -> int:
        count = 0
        for key, labels in self._labels.items():
            if not any(b.class_id == class_id for b in (*labels.boxes, *labels.rejected)):
                continue
            moved = []
            for group in (labels.boxes, labels.rejected):
                kept = [b for b in group if b.class_id != class_id]
                if into is not None:
                    kept = [replace(b, class_id=into) if b.class_id == class_id else b for b in group]
                moved.append(tuple(kept))
            count += sum(b.class_id == class_id for b in labels.boxes)
            self._labels[key] = replace(labels, version=labels.version + 1, boxes=moved[0], rejected=moved[1])
        return count

    def _keep_classes(self) -> None:
        self.classes.version += 1
        self._log.append({"op": "classes"} | self._class_entry())
        self._changed()
        self.listener({"type": "classes", "version": self.classes.version, "classes": self._class_list()})

    def _class_entry(self) -> dict[str, Any]:
        return {"classes": self._class_list(), "next": self.classes.next_id}

    def _class_list(self) -> list[dict[str, Any]]:
        return [c.as_dict() for c in self.classes.classes.values()]

    def class_list(self) -> list[dict[str, Any]]:
        """The classes as the page takes them."""
        with self._mutex:
            return self._class_list()

    # --- import and export -------------------------------------------------------------------------------------------

    def import_labels(self, class_names: Iterable[str], boxes: dict[str, list[tuple[float, ...]]]) -> int:
        """Take labels of another data set for images that have none yet.

        Args:
            class_names: names of the classes, by number.
            boxes: ``(x0, y0, x1, y1, class)`` by name of the image.

        Returns:
            How many images got labels. They are marked as done.
        """
        names = list(class_names)
        with self._mutex:
            by_name = {c.name: c.class_id for c in self.classes.classes.values()}
            for name in names:
                if name not in by_name:
                    by_name[name] = self.classes.add(name).class_id
            self._keep_classes()
            count = 0
            for image_name, rows in boxes.items():
                key = _id_of(image_name)
                if key not in self._images or key in self._labels:
                    continue
                new = ImageLabels(
                    1,
                    True,
                    tuple(
                        BoxLabel(row[0], row[1], row[2], row[3], by_name[names[int(row[4])]], "imported")
                        for row in rows
                    ),
                )
                self._log.append({"op": "labels", "image": image_name} | _labels_dict(new))
                self._labels[key] = new
                count += 1
            self._changed()
        return count

    def coco(self) -> dict[str, Any]:
        """Labels of all images that were touched, as COCO JSON. Images that nobody looked at are not in it."""
        images, annotations = [], []
        with self._mutex:
            named = {self._images[k].name: (k, v) for k, v in self._labels.items() if k in self._images}
            entries = [(name, key, labels) for name, (key, labels) in named.items()]
            entries += [(name, _id_of(name), labels) for name, labels in self._unknown.items()]
            classes = list(self.classes.classes.values())
            sequence = self._log.sequence
        number = 0
        for place, (name, key, labels) in enumerate(sorted(entries, key=lambda e: e[0]), 1):
            if not labels.touched and not labels.rejected and not labels.version:
                continue
            width, height = self._size_or_none(key) or (0, 0)
            extra = {"version": labels.version, "done": labels.done, "rejected": [b.as_list() for b in labels.rejected]}
            if labels.touched:
                images.append({"id": place, "file_name": name, "width": width, "height": height, "sppnet": extra})
            for b in labels.boxes:
                number += 1
                annotations.append({
                    "id": number, "image_id": place, "category_id": b.class_id + 1,
                    "bbox": [b.x0, b.y0, round(b.x1 - b.x0, 2), round(b.y1 - b.y0, 2)],
                    "area": round((b.x1 - b.x0) * (b.y1 - b.y0), 2), "iscrowd": 0, "segmentation": [],
                    "sppnet": {"origin": b.origin},
                })  # fmt: skip
        categories = [
            {"id": c.class_id + 1, "name": c.name, "supercategory": "", "sppnet": {"color": c.color, "key": c.key}}
            for c in classes
        ]
        extra = {"studio": 1, "seq": sequence, "next_class": self.classes.next_id}
        info = {"description": "labels made in sppnet studio", "sppnet": extra}
        return {"info": info, "images": images, "annotations": annotations, "categories": categories}

    def _size_or_none(self, key: str) -> tuple[int, int] | None:
        try:
            return self.size(key)
        except (ImageError, ArgumentError, OSError):
            return None

    def flush(self) -> None:
        """Write LABELS_FILE now."""
        with self._mutex:
            if self._writer is not None:
                self._writer.cancel()
                self._writer = None
            document = self.coco()
            sequence = document["info"]["sppnet"]["seq"]
            if sequence == self._written:
                return
            with write_atomic(self.folder / LABELS_FILE) as temporary:
                temporary.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
            self._written = sequence

    def close(self) -> None:
        """Write what is to be written and let others open the folder."""
        self.flush()
        self._log.close()
        self._lock.release()

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot(self, why: str) -> str:
        """Keep the labels as they are now, before a risky change. Returns the snapshot's name."""
        folder = self.state / "snapshots"
        with _named(folder):
            folder.mkdir(exist_ok=True)
        stamp = time.strftime("%Y-%m-%d %H.%M.%S")
        name = next(n for k in range(1000) if not (folder / (n := f"{stamp}{f' ({k})' if k else ''}.json")).exists())
        with write_atomic(folder / name) as temporary:
            temporary.write_text(json.dumps({"why": why, "labels": self.coco()}), encoding="utf-8")
        return name.removesuffix(".json")

    def snapshots(self) -> list[dict[str, Any]]:
        """Names of the snapshots and why they were made, newest first."""
        found = []
        for path in sorted((self.state / "snapshots").glob("*.json"), reverse=True):
            with contextlib.suppress(ValueError, OSError, KeyError):
                document = json.loads(path.read_text(encoding="utf-8"))
                found.append({"name": path.stem, "why": document["why"], "images": len(document["labels"]["images"])})
        return found

    def restore(self, name: str) -> None:
        """Go back to a snapshot. The present state is kept as a snapshot first.

        Raises:
            ArgumentError: there is no such snapshot.
        """
        known = {item["name"] for item in self.snapshots()}
        if name not in known:
            raise ArgumentError(f"there is no snapshot {name!r:.60}")
        document = json.loads((self.state / "snapshots" / f"{name}.json").read_text(encoding="utf-8"))["labels"]
        self.snapshot(f"before going back to {name}")
        with self._mutex:
            before = dict(self._labels)
            self._labels.clear()
            self._unknown.clear()
            self.classes.classes.clear()
            self._take(document)
            for key in before.keys() | self._labels.keys():
                old = before.get(key, ImageLabels())
                self._labels[key] = replace(self._labels.get(key, ImageLabels()), version=old.version + 1)
            self._keep_classes()
            for key, labels in self._labels.items():
                self._log.append({"op": "labels", "image": self._images[key].name} | _labels_dict(labels))
            self._changed()
        self.listener({"type": "reload"})

    # --- files -------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Write LABELS_FILE a moment from now."""
        if self._writer is None:
            self._writer = threading.Timer(_WRITE_AFTER_S, self._write_later)
            self._writer.daemon = True
            self._writer.start()

    def _write_later(self) -> None:
        self._writer = None
        try:
            self.flush()
        except OSError as error:
            self.listener({"type": "problem", "message": f"{LABELS_FILE} could not be written: {error}"})

    def _read(self) -> None:
        path = self.folder / LABELS_FILE
        if path.is_file():
            if path.stat().st_size > _LABELS_LIMIT_BYTES:
                raise DatasetError(f"{path}: is larger than {_LABELS_LIMIT_BYTES >> 30} GB; move it away")
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
                self._written = int(document["info"]["sppnet"]["seq"])
                self._take(document)
            except (ValueError, KeyError, TypeError, AttributeError, ArgumentError) as error:
                raise DatasetError(
                    f"{path}: is not a file that sppnet studio wrote ({error}); move it away, then start again"
                ) from None
        for entry in self._log.entries(self._written):
            self._replay(entry)
        self._log.sequence = max(self._log.sequence, self._written)

    def _take(self, document: dict[str, Any]) -> None:
        """Labels of a COCO document that :meth:`coco` made."""
        self.classes.next_id = max(self.classes.next_id, int(document["info"]["sppnet"].get("next_class", 0)))
        for category in document["categories"]:
            extra = category.get("sppnet", {})
            class_id = int(category["id"]) - 1
            name = check_name(category["name"], (c.name for c in self.classes.classes.values()))
            self.classes.put(StudioClass(class_id, name, str(extra.get("color", "")), str(extra.get("key", ""))))
        boxes: dict[int, list[BoxLabel]] = {}
        for annotation in document["annotations"]:
            x, y, width, height = (float(v) for v in annotation["bbox"])
            class_id = int(annotation["category_id"]) - 1
            self.classes.get(class_id)
            origin = str(annotation.get("sppnet", {}).get("origin", "imported"))
            box = BoxLabel(x, y, round(x + width, 2), round(y + height, 2), class_id, origin)
            boxes.setdefault(int(annotation["image_id"]), []).append(box)
        for image in document["images"]:
            extra = image.get("sppnet", {})
            rejected = tuple(_box_from(r) for r in extra.get("rejected", []))
            labels = ImageLabels(
                int(extra.get("version", 1)), bool(extra.get("done", True)), tuple(boxes.get(int(image["id"]), ())),
                rejected,
            )  # fmt: skip
            self._put(str(image["file_name"]), labels)

    def _put(self, name: str, labels: ImageLabels) -> None:
        key = _id_of(name)
        if key in self._images:
            self._labels[key] = labels
        else:
            self._unknown[name] = labels

    def _replay(self, entry: dict[str, Any]) -> None:
        op = entry.get("op")
        if op in ("classes", "merge"):
            self.classes.classes = {}
            for c in entry["classes"]:
                self.classes.put(StudioClass(int(c["id"]), str(c["name"]), str(c["color"]), str(c["key"])))
            self.classes.next_id = max(self.classes.next_id, int(entry["next"]))
            self.classes.version += 1
            if op == "merge":
                self._merge(int(entry["class"]), entry["into"])
        elif op == "labels":
            self._put(str(entry["image"]), _labels_from(entry))


def _labels_dict(labels: ImageLabels) -> dict[str, Any]:
    return {
        "version": labels.version, "done": labels.done, "boxes": [b.as_list() for b in labels.boxes],
        "rejected": [b.as_list() for b in labels.rejected],
    }  # fmt: skip


def _box_from(values: list[Any]) -> BoxLabel:
    x0, y0, x1, y1 = (float(v) for v in values[:4])
    return BoxLabel(x0, y0, x1, y1, int(values[4]), str(values[5]) if len(values) > 5 else "imported")


def _labels_from(entry: dict[str, Any]) -> ImageLabels:
    groups = [tuple(_box_from(b) for b in entry.get(key, [])) for key in ("boxes", "rejected")]
    return ImageLabels(int(entry["version"]), bool(entry["done"]), groups[0], groups[1])


@contextlib.contextmanager
def _named(path: Path) -> Any:
    """An OSError of the block becomes an error that names the place and what to do."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"{path}: can't be written ({error.strerror}); the studio keeps labels beside the images, so copy them "
            "to a folder that you may write to"
        ) from None
