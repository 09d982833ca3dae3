"""One folder of images and what a person said about them, safe on the disk at every moment.

Each change is written to a log and synced before it is acknowledged. The labels are also written as COCO JSON
(``labels.coco.json`` beside the images) a moment later, so that ``sppnet train FOLDER`` works at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sppnet.errors import ArgumentError, DatasetError
from sppnet.storage.names import real_path
from sppnet.studio.documents import (
    coco_document,
    entry_of_labels,
    labels_of_entry,
    parse_document,
)  # fmt: skip
from sppnet.studio.image_list import ImageList, StudioImage, image_id_of
from sppnet.studio.labels import BoxLabel, ClassTable, ImageLabels, StudioClass, imported_name, parse_boxes
from sppnet.studio.labels_file import LABELS_FILE, LabelsFile, refuse_link
from sppnet.studio.log import AppendLog
from sppnet.studio.snapshots import Snapshots
from sppnet.studio.state import open_state, writing_to

__all__ = ["LABELS_FILE", "ConflictError", "Project", "StudioImage"]

_WRITE_AFTER_S = 1.0  # labels.coco.json follows the log after this


class ConflictError(ArgumentError):
    """A change was made on an older version than the present one."""

    def __init__(self, message: str, present: dict[str, Any]) -> None:
        super().__init__(message)
        self.present = present


class Project:
    """Labels of the images in ``folder``.

    Args:
        folder: of images, in sub-folders too.
        listener: called with each change as a dict, from the thread that made it.

    Raises:
        DatasetError: the folder is missing, another studio has it open, or a link in it leads elsewhere.
    """

    def __init__(self, folder: Path, listener: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self.folder = real_path(folder)
        if not self.folder.is_dir():
            raise DatasetError(f"{folder}: is not a folder; name a folder of images")
        refuse_link(folder)
        self.state, self._lock = open_state(self.folder)
        self.listener = listener
        self._mutex = threading.RLock()
        self._images = ImageList(self.folder)
        self._labels: dict[str, ImageLabels] = {}
        self._unknown: dict[str, ImageLabels] = {}  # labels of images that are not there now, by name
        self.classes = ClassTable()
        self._snapshots = Snapshots(self.state / "snapshots")
        self._log = AppendLog(self.state / "changes.jsonl")
        self._written = 0  # last entry of the log that is in LABELS_FILE
        self._file = LabelsFile(self.folder, self.state)
        self._writer: threading.Timer | None = None
        self.rescan()
        self._read()

    # --- images ------------------------------------------------------------------------------------------------------

    def rescan(self) -> list[StudioImage]:
        """Look for images again. Returns those that are new."""
        with self._mutex:
            names = {image.image_id: image.name for image in self._images.all()}
            new = self._images.rescan()
            gone = [key for key in self._labels if key not in self._images]
            for key in gone:  # it may come back, after a restart too
                self._unknown[names[key]] = self._labels.pop(key)
            for image in new:
                labels = self._unknown.pop(image.name, None)
                if labels is not None:
                    self._labels[image.image_id] = labels
        return new

    @property
    def images(self) -> list[StudioImage]:
        """All images, by name."""
        return self._images.all()

    def image(self, image_id: str) -> StudioImage:
        """Find an image.

        Raises:
            ArgumentError: there is none with this id.
        """
        return self._images.get(image_id)

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height in pixels of the upright image, from its header.

        Raises:
            ImageError: it can't be read.
        """
        return self._images.size(image_id)

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
            self._log.append({"op": "labels", "image": image.name} | entry_of_labels(new))
            self._labels.pop(image_id, None)  # the dict is in the order of the last change
            self._labels[image_id] = new
            self._changed()
        self.listener({"type": "labels", "image": image_id, "author": author} | self.as_dict(image_id))
        return new

    def as_dict(self, image_id: str) -> dict[str, Any]:
        """What the page needs of an image's labels."""
        labels = self.labels(image_id)
        return entry_of_labels(labels)

    # --- classes -----------------------------------------------------------------------------------------------------

    def add_class(self, name: object, color: str = "", key: str = "") -> StudioClass:
        """Make a class.

        Raises:
            ArgumentError: the name can't be used.
        """
        with self._mutex, self._all_or_nothing():
            new = self.classes.add(name, color, key)
            self._keep_classes()
        self._tell_classes()
        return new

    def edit_class(
        self, class_id: int, name: object = None, color: str | None = None, key: str | None = None
    ) -> StudioClass:
        """Change name, colour or key of a class.

        Raises:
            ArgumentError: there is no such class, or the name is taken.
        """
        with self._mutex, self._all_or_nothing():
            self.classes.edit(class_id, name, color, key)
            self._keep_classes()
            changed = self.classes.get(class_id)
        self._tell_classes()
        return changed

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
        with self._mutex, self._all_or_nothing():
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
        self._tell_classes()
        self.listener({"type": "reload"})
        return count

    def _merge(self, class_id: int, into: int | None) -> int:
        count = 0
        for key, labels in self._labels.items():
            if labels.has_class(class_id):
                count += sum(b.class_id == class_id for b in labels.boxes)
                self._labels[key] = labels.with_class_replaced(class_id, into)
        for name, labels in self._unknown.items():  # when the image comes back, the class is gone
            if labels.has_class(class_id):
                self._unknown[name] = labels.with_class_replaced(class_id, into)
        return count

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Put everything back as it was where a change can't be written: memory and the log tell the same."""
        table = self.classes
        classes, version, next_id = dict(table.classes), table.version, table.next_id
        labels, unknown = dict(self._labels), dict(self._unknown)
        try:
            yield
        except BaseException:
            table.classes, table.version, table.next_id = classes, version, next_id
            self._labels, self._unknown = labels, unknown
            raise

    def _keep_classes(self, *more: dict[str, Any]) -> None:
        """Write the classes, and ``more`` entries with them."""
        self.classes.version += 1
        self._log.append_all([{"op": "classes"} | self._class_entry(), *more])
        self._changed()

    def _tell_classes(self) -> None:
        with self._mutex:
            event = {"type": "classes", "version": self.classes.version, "classes": self._class_list()}
        self.listener(event)

    def _class_entry(self) -> dict[str, Any]:
        return {"classes": self._class_list(), "next": self.classes.next_id}

    def _class_list(self) -> list[dict[str, Any]]:
        return [c.as_dict() for c in self.classes.classes.values()]

    def class_list(self) -> list[dict[str, Any]]:
        """The classes as the page takes them."""
        with self._mutex:
            return self._class_list()

    # --- import and export -------------------------------------------------------------------------------------------

    def import_labels(
        self, class_names: Iterable[str], boxes: dict[str, list[tuple[float, ...]]], unfinished: Container[str] = ()
    ) -> int:
        """Take labels of another data set for images that have none yet, and the classes that occur in them.

        Args:
            class_names: names of the classes, by number.
            boxes: ``(x0, y0, x1, y1, class)`` by name of the image.
            unfinished: images that are not marked as done.

        Returns:
            How many images got labels.

        Raises:
            ArgumentError: there are too many classes. Nothing was taken.
        """
        names = list(class_names)
        with self._mutex, self._all_or_nothing():
            numbers = self._numbers_of(
                {c: names[c] for c in sorted({int(r[4]) for rows in boxes.values() for r in rows})}
            )
            entries = []
            for image_name, rows in boxes.items():
                key = image_id_of(image_name)
                known = self._labels.get(key, ImageLabels())
                if key not in self._images or known.touched or known.rejected:
                    continue
                found = [
                    BoxLabel(x0, y0, x1, y1, numbers[int(c)], "imported")
                    for x0, y0, x1, y1, c in rows
                    if x1 - x0 >= 1 and y1 - y0 >= 1  # the page can't show or change a smaller one
                ]
                # one of which a box is missing isn't finished: the object would count as background
                done = image_name not in unfinished and len(found) == len(rows)
                new = self._labels[key] = ImageLabels(known.version + 1, done, tuple(found))
                entries.append({"op": "labels", "image": image_name} | entry_of_labels(new))
            self._keep_classes(*entries)
        self._tell_classes()
        return len(entries)

    def _numbers_of(self, names: dict[int, str]) -> dict[int, int]:
        """Numbers here of classes that another program named; those that are missing are made."""
        by_name = {c.name.casefold(): c.class_id for c in self.classes.classes.values()}
        numbers: dict[int, int] = {}
        for c, name in names.items():
            plain = imported_name(name, c)
            if plain.casefold() not in by_name:
                used = {item.key for item in self.classes.classes.values()}
                free = next((digit for digit in "1234567890" if digit not in used), "")
                by_name[plain.casefold()] = self.classes.add(plain, key=free).class_id
            numbers[c] = by_name[plain.casefold()]
        return numbers

    def coco(self) -> dict[str, Any]:
        """Labels of the finished images as COCO JSON. What is known of the others is beside them."""
        with self._mutex:
            entries = [(self._images.get(k).name, k, v) for k, v in self._labels.items() if k in self._images]
            entries += [(name, image_id_of(name), labels) for name, labels in self._unknown.items()]
            classes = ClassTable(dict(self.classes.classes), self.classes.version, self.classes.next_id)
            sequence = self._log.sequence
        sized = ((name, self._images.size_or_none(key) or (0, 0), labels) for name, key, labels in entries)
        return coco_document(sized, classes, sequence)

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
            kept = self._file.write(document)
            self._written = sequence
        if kept:
            what = f"another program changed {LABELS_FILE}; what it wrote is kept as {kept}"
            self.listener({"type": "problem", "message": what})

    def close(self) -> None:
        """Write what is to be written and let others open the folder."""
        self.flush()
        self._log.close()
        self._lock.release()

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot(self, why: str) -> str:
        """Keep the labels as they are now, before a risky change. Returns the snapshot's name."""
        with writing_to(self._snapshots.folder):
            return self._snapshots.keep(self.coco(), why)

    def snapshots(self) -> list[dict[str, Any]]:
        """Names of the snapshots and why they were made, newest first."""
        return self._snapshots.list()

    def restore(self, name: str) -> None:
        """Go back to a snapshot. The present state is kept as a snapshot first.

        Raises:
            ArgumentError: there is no such snapshot.
        """
        table, labels = parse_document(self._snapshots.load(name))
        self.snapshot(f"before going back to {name}")
        with self._mutex, self._all_or_nothing():
            before = (dict(self._labels), dict(self._unknown))
            self._labels.clear()
            self._unknown.clear()
            self._take(table, labels)
            for group, earlier in zip((self._labels, self._unknown), before, strict=True):
                for key in earlier.keys() | group.keys():
                    old = earlier.get(key, ImageLabels())
                    group[key] = replace(group.get(key, ImageLabels()), version=old.version + 1)
            named = [(self._images.get(key).name, present) for key, present in self._labels.items()]
            self._keep_classes(
                *({"op": "labels", "image": name} | entry_of_labels(present)
                  for name, present in (*named, *self._unknown.items()))
            )  # fmt: skip
        self._tell_classes()
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
        stored = self._file.load()
        if stored is not None:
            table, labels, self._written = stored
            self._take(table, labels)
        for entry in self._log.entries(self._written):
            self._replay(entry)
        self._log.sequence = max(self._log.sequence, self._written)

    def _take(self, table: ClassTable, labels: dict[str, ImageLabels]) -> None:
        """Replace the classes and add labels, by name of the image."""
        self.classes.classes = table.classes
        self.classes.next_id = max(self.classes.next_id, table.next_id)
        for name, known in labels.items():
            self._put(name, known)

    def _put(self, name: str, labels: ImageLabels) -> None:
        key = image_id_of(name)
        if key in self._images:
            self._labels.pop(key, None)
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
            self._put(str(entry["image"]), labels_of_entry(entry))
