"""What a full disk refuses did not happen, and what other programs do to the folder is neither lost nor overlooked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet.errors import DatasetError
from sppnet.studio.log import AppendLog
from sppnet.studio.project import LABELS_FILE, Project


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/ü.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    return tmp_path / "images"


def first(project: Project) -> str:
    return next(i.image_id for i in project.images if i.name == "a.jpg")


# --- a disk that fails -----------------------------------------------------------------------------------------------


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"sppnet.studio.log.os.{name}", fail)


def test_what_a_full_disk_refused_leaves_nothing_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after several tries, as the page tries again and again."""
    log = AppendLog(tmp_path / "log")
    log.append({"a": 1})
    with monkeypatch.context() as patch:
        refuse(patch, "fsync")
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                log.append({"b": "refused" * 20})
    assert log.append({"c": 2}) == 2
    assert log.append_all([{"d": 3}, {"e": 4}]) == 4
    log.close()
    found = list(AppendLog(tmp_path / "log").entries())
    assert [sorted(set(entry) - {"seq"}) for entry in found] == [["a"], ["c"], ["d"], ["e"]]
    assert [entry["seq"] for entry in found] == [1, 2, 3, 4]


def test_a_part_of_a_line_is_cut_off_before_the_next(tmp_path: Path) -> None:
    """A disk that took half of a line, and then couldn't even cut it off."""
    log = AppendLog(tmp_path / "log")
    log.append({"a": 1})
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"half')
    log.append({"c": 2})
    log.close()
    assert [set(entry) - {"seq"} for entry in AppendLog(tmp_path / "log").entries()] == [{"a"}, {"c"}]


def test_a_change_that_can_not_be_written_did_not_happen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(folder)
    cat = project.add_class("cat").class_id
    dog = project.add_class("dog").class_id
    key = first(project)
    project.set_labels(key, 0, [[1, 2, 30, 20, cat, "drawn"]], True)
    name = project.snapshot("before")
    before = (project.class_list(), project.as_dict(key), project.classes.next_id)
    with monkeypatch.context() as patch:
        refuse(patch, "fsync")
        for change in (
            lambda: project.add_class("bird"),
            lambda: project.edit_class(cat, "lion"),
            lambda: project.merge_class(cat, dog),
            lambda: project.merge_class(cat, None),
            lambda: project.import_labels(["fish"], {"deep/ü.png": [(0, 0, 9, 9, 0)]}),
            lambda: project.restore(name),
        ):
            with pytest.raises((OSError, DatasetError)):
                change()
            assert (project.class_list(), project.as_dict(key), project.classes.next_id) == before
    project.close()
    again = Project(folder)
    assert (again.class_list(), again.as_dict(key)) == before[:2]
    again.close()


# --- other programs --------------------------------------------------------------------------------------------------


def test_what_another_program_wrote_over_the_labels_is_kept(folder: Path) -> None:
    told: list[dict[str, Any]] = []
    project = Project(folder, told.append)
    cat = project.add_class("cat").class_id
    project.flush()
    project.set_labels(first(project), 0, [[1, 2, 30, 20, cat, "drawn"]], True)
    project.flush()  # our own file is no other program's
    assert not [event for event in told if event["type"] == "problem"]
    (folder / LABELS_FILE).write_text('{"by": "a script"}')
    project.set_labels(first(project), 1, [], True)
    project.flush()
    (problem,) = [event for event in told if event["type"] == "problem"]
    kept = folder / problem["message"].rpartition(" as ")[2]
    assert kept.read_text() == '{"by": "a script"}'
    assert "a script" not in (folder / LABELS_FILE).read_text()
    project.close()


def test_an_image_of_which_a_box_is_too_thin_is_not_finished(folder: Path) -> None:
    project = Project(folder)
    boxes: dict[str, list[tuple[float, ...]]] = {
        "a.jpg": [(0, 0, 9, 9, 0), (20, 20, 20.4, 30, 0)],
        "deep/ü.png": [(0, 0, 9, 9, 0)],
    }
    assert project.import_labels(["cat"], boxes) == 2
    found = {image.name: project.labels(image.image_id) for image in project.images}
    assert (found["a.jpg"].done, len(found["a.jpg"].boxes)) == (False, 1)
    assert found["deep/ü.png"].done
    project.close()


def test_an_image_that_was_replaced_has_another_size(folder: Path) -> None:
    project = Project(folder)
    key = first(project)
    assert project.size(key) == (60, 40)
    Image.new("RGB", (600, 400)).save(folder / "a.jpg")
    os.utime(folder / "a.jpg", (1e9, 1e9))
    project.rescan()
    assert project.size(key) == (600, 400)
    project.close()
