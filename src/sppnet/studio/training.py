"""The full training, as a process of its own: ``sppnet train`` on the labels of the project."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sppnet.errors import ArgumentError
from sppnet.studio.exporting import export_text
from sppnet.studio.project import Project
from sppnet.studio.train_lines import TrainLines

__all__ = ["FullTraining"]

LEAST_IMAGES = 4
_LINE_EVERY_S = 2  # of the command
_LOOK_EVERY_S = 1.0
_STOP_WITHIN_S = 10.0
_STOPPED = "Stopped. Start it again to go on where it was."
_INTERRUPTED = "The studio was stopped meanwhile. Start the training again to go on where it was."


class FullTraining:
    """Runs ``sppnet train`` and says how far it is. What it has done is kept, so that it goes on from there.

    Args:
        project: whose labels are learned.
        changed: called when there is something new to show.
        quick_ap: average precision of the quick teaching, for "before"; None where nobody measured it.
        command: for tests; what is run instead of ``sppnet train``.
    """

    def __init__(
        self,
        project: Project,
        changed: Callable[[], None],
        quick_ap: Callable[[], float | None] = lambda: None,
        command: list[str] | None = None,
    ) -> None:
        self.project, self.changed, self.quick_ap = project, changed, quick_ap
        self.model = project.state / "trained.safetensors"
        self._command = command or [sys.executable, "-P", "-m", "sppnet", "train", str(project.folder)]
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {
            "state": "none", "stage": "", "fraction": 0.0, "seconds_left": None, "message": "", "before": None,
            "after": None, "images": None,
        }  # fmt: skip
        self._cancelled = False
        self._kept = project.state / "training.json"
        self._recall()

    def status(self) -> dict[str, Any]:
        """Stage, fraction done, time left, message."""
        return dict(self._state)

    def start(self) -> dict[str, Any]:
        """Start it, or go on where it was stopped.

        Raises:
            ArgumentError: it runs already, or too few images are finished.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                raise ArgumentError("the training runs already")
            done = sum(labels.done for labels in self.project.all_labels().values())
            if done < LEAST_IMAGES:
                raise ArgumentError(f"finish at least {LEAST_IMAGES} images first; {done} are done")
            self.project.flush()  # it learns from the file
            self._cancelled = False
            where = ["--output", str(self.model), "--cache", str(self.project.state / "training")]
            self._process = subprocess.Popen(  # noqa: S603 - this Python, on a folder that the person opened
                [*self._command, *where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                text=True, encoding="utf-8", errors="replace",
                env=os.environ | {
                    "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1", "SPPNET_SECONDS_A_LINE": str(_LINE_EVERY_S),
                },
            )  # fmt: skip
        self._set(
            state="running", stage="starting", fraction=0.0, message="", seconds_left=None, before=self.quick_ap(),
            after=None, images=None,
        )  # fmt: skip
        threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()
        return self.status()

    def cancel(self) -> dict[str, Any]:
        """Stop it. What it has done is kept."""
        process = self._process
        if process is not None and process.poll() is None:
            self._cancelled = True
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_WITHIN_S)
            if process.poll() is None:
                process.kill()
                process.wait()
            self._set(state="cancelled", seconds_left=None, message=_STOPPED)
        return self.status()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        lines = TrainLines()
        started = time.monotonic()
        watch = threading.Thread(target=self._watch, args=(process, lines, started), daemon=True)
        watch.start()
        for raw in process.stdout or ():
            for line in re.split(r"[\r\n]+", raw):
                lines.read(line, time.monotonic() - started)
        status = process.wait()
        watch.join()
        if self._cancelled:
            return
        if status == 0:
            minutes = (time.monotonic() - started) / 60
            self._set(
                state="done", stage="", fraction=1.0, seconds_left=None, after=lines.ap, images=lines.images,
                message=f"Trained in {minutes:.1f} minutes.",
            )  # fmt: skip
        else:
            why = lines.errors[-1] if lines.errors else lines.last or f"it ended with status {status}"
            self._set(state="failed", seconds_left=None, message=why[:300])

    def _watch(self, process: subprocess.Popen[str], lines: TrainLines, started: float) -> None:
        """Show how far it is, also where no line comes for a while. It never goes back."""
        most = 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_EVERY_S)
            if process.poll() is not None:
                return
            now = time.monotonic() - started
            most = max(most, lines.fraction(now))
            left = lines.seconds_left(now)
            if not self._cancelled:
                self._set(stage=lines.name, fraction=round(most, 4), seconds_left=None if left is None else round(left))

    def _set(self, **values: Any) -> None:
        before = dict(self._state)
        after = before | values
        if after["state"] != before["state"]:
            with contextlib.suppress(OSError):  # it is only for the next start of the server
                export_text(json.dumps(after), self._kept)
        self._state.update(values)
        if after != before:
            self.changed()

    def _recall(self) -> None:
        """What an earlier server did: a training that ended, or one that was interrupted and can go on."""
        try:
            kept = json.loads(self._kept.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if not isinstance(kept, dict) or kept.keys() != self._state.keys():
            return
        if kept["state"] == "running":
            kept |= {"state": "cancelled", "seconds_left": None, "message": _INTERRUPTED}
        if kept["state"] in ("cancelled", "failed") or (kept["state"] == "done" and self.model.is_file()):
            self._state.update(kept)
