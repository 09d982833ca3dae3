"""Videos that lie in the folder: which of them have no images yet, and taking an image of every second."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from sppnet.datasets.video import is_video
from sppnet.errors import ArgumentError
from sppnet.storage.atomic import write_atomic
from sppnet.storage.walking import walk_files
from sppnet.studio.adding import Added, AddingLimits, take_frames

__all__ = ["Videos", "videos_in"]

_BEGUN, _TAKEN = "begun", "taken"


def videos_in(folder: Path) -> list[str]:
    """Names of the videos in a folder, with forward slashes, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in walk_files(folder) if is_video(path))


class Videos:
    """The videos of a project. What became of each is kept, so that one that a kill cut off is offered again.

    Args:
        folder: of the project.
        state: where it is kept.
    """

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self._file = state / "videos.json"
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._stop = threading.Event()

    def waiting(self, images: Iterable[str]) -> list[str]:
        """Videos of which no image, or not every one, was taken.

        Args:
            images: names of the project's images.
        """
        names = videos_in(self.folder)
        if not names:
            return []
        with self._lock:
            known, busy = self._known(), set(self._busy)
        homes = [_home(name) for name in names]
        filled = {PurePosixPath(name).parent.as_posix() for name in images}

        def taken(name: str, home: str) -> bool:
            # Images in its folder are its own, as `sppnet frames` makes them, unless two videos have one folder
            return home in filled and known.get(name, _TAKEN if homes.count(home) == 1 else _BEGUN) == _TAKEN

        return [name for name, home in zip(names, homes, strict=True) if name not in busy and not taken(name, home)]

    def take(self, name: str, limits: AddingLimits | None = None) -> Added:
        """Take the images of a video into a folder of its name. Those that are there already stay as they are.

        Args:
            name: one of :func:`videos_in`.
            limits: what is taken at most.

        Raises:
            ArgumentError: there is no such video, it is being worked on, or nothing of it can be taken.
        """
        if name not in videos_in(self.folder):
            raise ArgumentError(f"there is no video {name!r:.80} in the folder")
        with self._lock:
            if name in self._busy:
                raise ArgumentError(f"{name}: its images are being taken already; wait until they are there")
            if not self._busy:
                self._stop.clear()
            self._busy.add(name)
        try:
            self._note(name, _BEGUN)
            added = Added()
            home = self.folder / _home(name)
            whole = take_frames(
                self.folder, home, name, self.folder / name, limits or AddingLimits(), added, self._stop.is_set
            )
            if whole:
                self._note(name, _TAKEN)
        finally:
            with self._lock:
                self._busy.discard(name)
        return added

    def stop(self) -> None:
        """Stop taking images. Those that are there stay, and the video is offered again."""
        with self._lock:
            if self._busy:
                self._stop.set()

    def _known(self) -> dict[str, str]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _note(self, name: str, what: str) -> None:
        with self._lock:
            known = self._known() | {name: what}
            with write_atomic(self._file) as temporary:
                temporary.write_text(json.dumps(known), encoding="utf-8")


def _home(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
