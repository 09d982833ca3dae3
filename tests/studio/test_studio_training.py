"""The full training: what its lines say, how it is stopped, and that it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.errors import ArgumentError
from sppnet.studio.project import Project
from sppnet.studio.train_lines import TrainLines
from sppnet.studio.training import FullTraining

LINES = """\
no split to measure on: 3 images of 12 are kept for that (stratified, seed 0)
objects           train measure
one                  12       2
estimate, from 4 of the images: about 40 s (windows and maps about 20 s, layers about 10 s, measuring on 3 images \
about 10 s); less if an earlier run was stopped
disk: 40 MB in /somewhere/cache while it trains (68.6 GB free)
9 images, 20 objects, 2 classes
windows and maps: 3 of 9 in 00:07, 00:13 left
windows and maps: 9 of 9 in 00:21, 00:00 left
maps and windows of 9 images take 0.03 GB in /somewhere/cache
fully connected layer: 10 of 60 in 00:02, 00:08 left
epoch 1 of 6: mean loss 1.5259
epoch 6 of 6: mean loss 0.5610
trained in 0.5 minutes (windows and maps 0.3, fully connected layer 0.2)
measuring: 1 of 3 in 00:02, 00:04 left

measured on ex12 val (3 images); a detection is a hit if its IoU is more than 0.5
class         AP voc07-11pt  AP voc-area  objects  found  missed  wrong  threshold
one                  0.8485       0.8333        2      2       0      1      0.198
mean / total         0.9242       0.9167        3      3       0      1
"""


def test_lines_say_how_far_it_is() -> None:
    lines = TrainLines()
    fractions = []
    for second, line in enumerate(LINES.splitlines()):
        lines.read(line, float(second))
        fractions.append(lines.fraction(float(second)))
    assert (lines.ap, lines.images, lines.errors) == (0.9167, 3, [])
    assert lines.seconds == (20, 10, 10)
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.75


@pytest.mark.parametrize(
    ("line", "stage", "fraction"),
    [
        ("windows and maps: 3 of 9 in 00:07, 00:13 left", "windows and maps", 0.55 / 3),
        ("epoch 3 of 6: mean loss 0.5", "layers", 0.55 + 0.15),
        ("fully connected layer: 30 of 60 in 00:02, 00:08 left", "layers", 0.55 + 0.15),
        ("measuring: 1 of 2 in 00:02, 00:02 left", "measuring", 0.85 + 0.075),
        ("something that nobody expected: 7 of 8 in 3 s", "windows and maps", 0),
        ("", "windows and maps", 0),
        ("epoch 3 of 0: odd", "layers", 0.85),
    ],
)
def test_one_line(line: str, stage: str, fraction: float) -> None:
    lines = TrainLines()
    lines.read(line, 1.0)
    assert lines.name == stage
    assert lines.fraction(1.0) == pytest.approx(fraction, abs=0.001)


def test_time_passes_between_lines() -> None:
    lines = TrainLines()
    lines.read(LINES.splitlines()[3] + "", 0.0)
    assert lines.fraction(10) == pytest.approx(0.25)
    assert lines.fraction(1000) == pytest.approx(0.45)  # not more than nine tenths of the stage
    assert lines.seconds_left(5) == pytest.approx(35)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / f"{i}.png")
    project = Project(folder)
    cls = project.add_class("cat").class_id
    for image in project.images:
        project.set_labels(image.image_id, 0, [[1, 1, 20, 20, cls]], True)
    yield project
    project.close()


def training(project: Project, code: str) -> FullTraining:
    """A training that is another program."""
    return FullTraining(project, lambda: None, lambda: 0.5, [sys.executable, "-c", code])


def ended(training: FullTraining) -> dict[str, object]:
    end = time.monotonic() + 30
    while training.status()["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.02)
    return training.status()


def test_before_and_after(project: Project) -> None:
    it = training(project, f"print({LINES!r})")
    assert it.start()["state"] == "running"
    state = ended(it)
    assert (state["state"], state["before"], state["after"], state["images"]) == ("done", 0.5, 0.9167, 3)
    assert state["fraction"] == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys; print('epoch 1 of 6'); sys.exit('sppnet: labels.coco.json: no objects; label some')",
            "no objects",
        ),
        ("import sys; print('killed by something'); sys.exit(3)", "killed by something"),
        ("import os; os._exit(9)", "status 9"),
    ],
)
def test_a_failure_is_told(project: Project, code: str, message: str) -> None:
    it = training(project, code)
    it.start()
    state = ended(it)
    assert state["state"] == "failed"
    assert message in str(state["message"])


def test_stop_and_go_on(project: Project) -> None:
    """It is stopped at once; the next start runs the same command, which finds its cache."""
    mark = project.folder / "cache-seen"
    code = (
        "import sys, time, pathlib; mark = pathlib.Path(" + repr(str(mark)) + ")\n"
        "if mark.exists(): print('mean / total 0.5000 0.6000 3 3'); sys.exit()\n"
        "mark.touch(); print('epoch 1 of 6: x', flush=True); time.sleep(60)"
    )
    it = training(project, code)
    it.start()
    with pytest.raises(ArgumentError, match="already"):
        it.start()
    end = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert it.cancel()["state"] == "cancelled"
    time.sleep(0.3)
    assert it.status()["state"] == "cancelled"
    it.start()
    assert (ended(it)["state"], it.status()["after"]) == ("done", 0.6)


def test_a_new_server_knows_of_the_training_before(project: Project) -> None:
    """What ended is shown again; what was interrupted can go on."""
    it = training(project, f"print({LINES!r})")
    it.model.write_bytes(b"")
    it.start()
    wanted = ended(it)
    assert training(project, "").status() == wanted
    it.model.unlink()  # somebody removed the detector: there is nothing to compare with
    assert training(project, "").status()["state"] == "none"
    it = training(project, "import time; time.sleep(60)")
    it.start()
    other = training(project, "").status()  # as after a kill of the server
    assert (other["state"], other["after"]) == ("cancelled", None)
    assert "go on" in str(other["message"])
    it.cancel()
    (project.state / "training.json").write_text('{"state": "done"}')  # damaged
    assert training(project, "").status()["state"] == "none"


def test_too_few_images(project: Project) -> None:
    image = project.images[0].image_id
    project.set_labels(image, 1, [], False)
    with pytest.raises(ArgumentError, match="3 are done"):
        training(project, "").start()
