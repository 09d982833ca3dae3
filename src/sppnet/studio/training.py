"""The full training, as a process of its own: ``sppnet train`` on the labels of the project."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sppnet.errors import ArgumentError
from sppnet.studio.project import Project

__all__ = ["FullTraining"]

_FRACTION = re.compile(r"(\d+) of (\d+) in|(\d+)/(\d+) \[")


class FullTraining:
    """Runs ``sppnet train`` and says how far it is. What it has done is kept, so that it resumes.

    Args:
        project: whose labels are learned.
        changed: called when there is something new to show.
    """

    def __init__(self, project: Project, changed: Callable[[], None]) -> None:
        self.project, self.changed = project, changed
        self.model = project.state / "trained.safetensors"
        self._process: subprocess.Popen[str] | None = None
        self._state: dict[str, Any] = {
            "state": "none", "stage": "", "fraction": 0.0, "seconds_left": None, "message": "", "before": None,
            "after": None,
        }  # fmt: skip
        self._cancelled = False

    def status(self) -> dict[str, Any]:
        """Stage, fraction done, time left, message."""
        return dict(self._state)

    def start(self) -> dict[str, Any]:
        """Start it, or go on where it was stopped.

        Raises:
            ArgumentError: it runs already, or too few images are finished.
        """
        if self._process is not None and self._process.poll() is None:
            raise ArgumentError("the training runs already")
        done = sum(labels.done for labels in self.project.all_labels().values())
        if done < 4:
            raise ArgumentError(f"finish at least 4 images first; {done} are done")
        self._cancelled = False
        command = [
            sys.executable, "-P", "-m", "sppnet", "train", str(self.project.folder), "--output", str(self.model),
            "--cache", str(self.project.state / "training"),
        ]  # fmt: skip
        self._process = subprocess.Popen(  # noqa: S603 - this Python, on a folder that the person opened
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        )  # fmt: skip
        self._set(state="running", stage="starting", fraction=0.0, message="", seconds_left=None)
        threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()
        return self.status()

    def cancel(self) -> dict[str, Any]:
        """Stop it. What it has done is kept."""
        process = self._process
        if process is not None and process.poll() is None:
            self._cancelled = True
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.poll() is None:
                process.kill()
        return self.status()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        lines: list[str] = []
        started = time.perf_counter()
        for raw in process.stdout or ():
            for line in re.split(r"[\r\n]+", raw):
                if not line.strip():
                    continue
                lines = [*lines[-200:], line]
                match = _FRACTION.search(line)
                if match:
                    done, total = (int(v) for v in match.groups() if v is not None)
                    fraction = done / max(1, total)
                    self._set(stage=line.split(":")[0][:60], fraction=fraction)
                elif len(line) < 100:
                    self._set(stage=line.strip()[:60])
        status = process.wait()
        if self._cancelled:
            self._set(state="cancelled", message="Stopped. Start it again to go on where it was.")
        elif status == 0:
            minutes = (time.perf_counter() - started) / 60
            self._set(state="done", fraction=1.0, message=f"Trained in {minutes:.1f} minutes.")
        else:
            errors = [line for line in lines if line.startswith("sppnet:")] or lines[-1:]
            self._set(state="failed", message=errors[-1].removeprefix("sppnet: ") if errors else "It failed.")

    def _set(self, **values: Any) -> None:
        self._state.update(values)
        self.changed()
