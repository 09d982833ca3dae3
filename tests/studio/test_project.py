"""Labels of the studio: safe on the disk before they are acknowledged, never overwritten silently."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.datasets.loading import load_dataset
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.datasets.writing import write_dataset
from sppnet.errors import ArgumentError, DatasetError
from sppnet.studio.labels import parse_boxes
from sppnet.studio.log import AppendLog
from sppnet.studio.project import LABELS_FILE, ConflictError, Project
from sppnet.studio.serving import _notes_on_videos, _take_existing_labels
from sppnet.studio.videos import Videos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name in ("a.jpg", "b <img onerror=alert(1)>.png", "deep/ü\nnew line.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    return tmp_path / "images"


def first(project: Project) -> str:
    return next(i.image_id for i in project.images if i.name == "a.jpg")


def test_labels_survive_without_being_closed(folder: Path) -> None:
    project = Project(folder)
    cat = project.add_class("cat")
    key = first(project)
    project.set_labels(key, 0, [[1, 2, 30, 20, cat.class_id, "snapped"]], True, [[5, 5, 9, 9, cat.class_id]])
    project._lock.release()  # as if the process had been killed: nothing else is written
    again = Project(folder)
    assert [c["name"] for c in again.class_list()] == ["cat"]
    labels = again.labels(key)
    assert (labels.version, labels.done) == (1, True)
    assert [b.as_list() for b in labels.boxes] == [[1, 2, 30, 20, cat.class_id, "snapped"]]
    assert [b.as_list()[:5] for b in labels.rejected] == [[5, 5, 9, 9, cat.class_id]]
    again.close()


def test_the_labels_file_is_a_data_set(folder: Path) -> None:
    project = Project(folder)
    cat = project.add_class("cat")
    project.set_labels(first(project), 0, [[1, 2, 31, 22, cat.class_id]], True)
    project.close()
    data = load_dataset(folder)
    assert data.class_names == ("cat",)
    assert [r.path.name for r in data] == ["a.jpg"]  # images that nobody looked at are no background
    np.testing.assert_allclose(data[0].boxes, [[1, 2, 31, 22]])


@pytest.mark.parametrize("format", ["voc", "yolo", "csv", "coco", "labelme"])
def test_labels_that_are_there_are_taken_and_then_kept_here(tmp_path: Path, format: str) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    record = ImageRecord(
        tmp_path / "1.png", np.array([[1, 2, 31, 22]], np.float32), np.array([0]), np.array([False]), 60, 40, "1"
    )
    folder = tmp_path / "labelled"
    write_dataset(DetectionDataset([record], ("cat",)), folder, format)
    project = Project(folder)
    said: list[str] = []
    _take_existing_labels(project, said.append)
    (image,) = project.images
    assert [b.as_list()[:4] for b in project.labels(image.image_id).boxes] == [[1, 2, 31, 22]]
    project.set_labels(image.image_id, 1, [[5, 5, 25, 25, 0]], True)
    project.close()
    (found,) = load_dataset(folder)  # what was there before does not count any more
    np.testing.assert_allclose(found.boxes, [[5, 5, 25, 25]])
    assert found.path == image.path


def test_a_change_on_an_old_version_is_refused(folder: Path) -> None:
    project = Project(folder)
    cat = project.add_class("cat").class_id
    key = first(project)
    project.set_labels(key, 0, [[1, 1, 9, 9, cat]], False)
    with pytest.raises(ConflictError) as caught:
        project.set_labels(key, 0, [], True)
    assert caught.value.present["boxes"] == [[1, 1, 9, 9, cat, "drawn"]]
    assert len(project.labels(key).boxes) == 1
    project.close()


def test_two_studios_do_not_share_a_folder(folder: Path) -> None:
    project = Project(folder)
    with pytest.raises(DatasetError, match="another studio"):
        Project(folder)
    project.close()
    Project(folder).close()


def test_removing_and_merging_classes(folder: Path) -> None:
    project = Project(folder)
    cat, dog, cow = (project.add_class(name).class_id for name in ("cat", "dog", "cow"))
    key = first(project)
    project.set_labels(key, 0, [[1, 1, 9, 9, cat], [2, 2, 9, 9, dog], [3, 3, 9, 9, cow]], True)
    assert project.merge_class(cat, dog) == 1
    assert project.merge_class(cow, None) == 1
    assert [b.class_id for b in project.labels(key).boxes] == [dog, dog]
    assert project.add_class("hen").class_id > cow  # numbers are not used again
    project._lock.release()
    again = Project(folder)
    assert [b.class_id for b in again.labels(key).boxes] == [dog, dog]
    assert [c["name"] for c in again.class_list()] == ["dog", "hen"]
    again.close()


def test_snapshots_bring_back_what_was(folder: Path) -> None:
    project = Project(folder)
    cat = project.add_class("cat").class_id
    key = first(project)
    project.set_labels(key, 0, [[1, 1, 9, 9, cat]], True)
    name = project.snapshot("before")
    project.merge_class(cat, None)
    assert not project.labels(key).boxes
    project.restore(name)
    assert [b.as_list() for b in project.labels(key).boxes] == [[1, 1, 9, 9, cat, "drawn"]]
    assert len(project.snapshots()) == 2  # what was there before going back is kept, too
    project.set_labels(key, project.labels(key).version, [[1, 1, 9, 9, cat]], False)
    newest = project.snapshot("now")
    found = [(item["name"], item["images"]) for item in project.snapshots()]
    assert found[0] == (newest, 1)  # one that is not finished counts
    assert found[-1] == (name, 1)
    with pytest.raises(ArgumentError, match="no snapshot"):
        project.restore("../../secret")
    project.close()


def test_an_image_that_comes_back_finds_its_labels(folder: Path) -> None:
    project = Project(folder)
    cat = project.add_class("cat").class_id
    key = first(project)
    project.set_labels(key, 0, [[1, 1, 9, 9, cat]], True)
    project.close()
    (folder / "a.jpg").rename(folder.parent / "kept.jpg")
    without = Project(folder)
    assert key not in {i.image_id for i in without.images}
    without.add_class("dog")
    without.close()
    (folder.parent / "kept.jpg").rename(folder / "a.jpg")
    project = Project(folder)
    assert len(project.labels(key).boxes) == 1
    project.close()


def test_an_image_that_is_away_keeps_its_labels(folder: Path) -> None:
    """It was moved away while the studio is open, and everything else went on."""
    project = Project(folder)
    cat, dog = (project.add_class(name).class_id for name in ("cat", "dog"))
    key = first(project)
    others = [image.image_id for image in project.images if image.image_id != key]
    for image in (key, *others):
        project.set_labels(image, 0, [[1, 1, 9, 9, cat]], True)
    snapshot = project.snapshot("all are there")
    (folder / "a.jpg").rename(folder.parent / "kept.jpg")
    project.rescan()
    project.set_labels(others[0], 1, [], True)
    project.merge_class(cat, dog)
    project.close()
    (folder.parent / "kept.jpg").rename(folder / "a.jpg")
    project = Project(folder)
    assert [b.as_list() for b in project.labels(key).boxes] == [[1, 1, 9, 9, dog, "drawn"]]
    (folder / "a.jpg").rename(folder.parent / "kept.jpg")
    project.rescan()
    project.restore(snapshot)
    (folder.parent / "kept.jpg").rename(folder / "a.jpg")
    again = list(project._log.entries())[-1]  # what a kill right now would leave
    assert again["image"] == "a.jpg"
    project.rescan()
    assert [b.as_list() for b in project.labels(key).boxes] == [[1, 1, 9, 9, cat, "drawn"]]
    project.close()


def test_labels_of_others_replace_nothing(folder: Path) -> None:
    project = Project(folder)
    cat = project.add_class("Big  cat").class_id
    drawn, undone, fresh = (image.image_id for image in project.images)
    names = {image.image_id: image.name for image in project.images}
    project.set_labels(drawn, 0, [[1, 1, 9, 9, cat]], False)
    project.set_labels(undone, 0, [[1, 1, 9, 9, cat]], True)
    project.set_labels(undone, 1, [], False)  # as undo leaves it
    theirs: dict[str, list[tuple[float, ...]]] = {
        name: [(2.0, 2.0, 20.0, 20.0, i)] for i, name in enumerate(names.values())
    }
    wrong: dict[str, list[tuple[float, ...]]] = {names[fresh]: [(2.0, 2.0, 20.0, 20.0, c) for c in range(1500)]}
    with pytest.raises(ArgumentError, match="1000 classes"):
        project.import_labels([f"c{c}" for c in range(1500)], wrong)
    assert [c["name"] for c in project.class_list()] == ["Big cat"]  # nothing of it stays
    classes = ["big   CAT", "big\u200b cat", "\u200b"]
    assert project.import_labels(classes, theirs, {names[undone]}) == 2
    assert [(c["name"], c["key"]) for c in project.class_list()] == [("Big cat", ""), ("class 2", "1")]
    assert project.labels(drawn).boxes[0].x0 == 1
    assert not project.labels(drawn).done
    assert [(p.version, p.done, len(p.boxes)) for p in map(project.labels, (undone, fresh))] == [
        (3, False, 1),
        (1, True, 1),
    ]
    project.close()


def test_a_log_drops_only_what_was_never_acknowledged(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    for n in range(5):
        log.append({"n": n})
    log.close()
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"n":99,"se')
    log = AppendLog(tmp_path / "log")
    assert [entry["n"] for entry in log.entries() if "n" in entry] == list(range(5))
    assert log.append({"n": 5}) == 6
    log.close()
    (tmp_path / "other").write_text("hello\n")
    with pytest.raises(DatasetError, match="not a log"):
        AppendLog(tmp_path / "other")


def test_another_labels_file_is_not_touched(folder: Path) -> None:
    (folder / LABELS_FILE).write_text('{"images": []}')
    with pytest.raises(DatasetError, match="move it away"):
        Project(folder)
    assert (folder / LABELS_FILE).read_text() == '{"images": []}'


@pytest.mark.parametrize(
    "boxes",
    [None, {}, "x", [[1, 2, 3]], [[1, 2, 3, float("nan"), 0]], [[1, 2, 3, 4, 7]], [[1, 2, 3, 4, True]],
     [["1", 2, 3, 4, 0]], [[5, 5, 5, 9, 0]], [[1, 1, 9, 9, 0, "magic"]], [[100, 100, 200, 200, 0]]],
)  # fmt: skip
def test_boxes_that_make_no_sense_are_refused(boxes: object) -> None:
    with pytest.raises(ArgumentError, match=r"a\.jpg"):
        parse_boxes(boxes, 60, 40, {0: None}, "a.jpg")


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 4), max_size=5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_accepted_boxes_lie_in_the_image(rows: list[tuple[float, ...]]) -> None:
    try:
        boxes = parse_boxes([[*row, 0] for row in rows], 60, 40, {0: None}, "a.jpg")
    except ArgumentError:
        return
    for b in boxes:
        assert 0 <= b.x0 < b.x1 <= 60
        assert 0 <= b.y0 < b.y1 <= 40


_KILLED = """
import sys
from pathlib import Path
from sppnet.studio.project import Project
project = Project(Path(sys.argv[1]))
key = project.images[0].image_id
cls = project.add_class("cat").class_id
version = 0
while True:
    version = project.set_labels(key, version, [[1, 1, 9, 9, cls]] * (version % 7 + 1), version % 2 == 0).version
    print(version, flush=True)
"""


@pytest.mark.parametrize("wait", [3, 20, 60, 150])
def test_a_kill_loses_nothing_that_was_acknowledged(folder: Path, wait: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = 0
    for line in process.stdout:
        said = int(line)
        if said >= wait:
            break
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read()
    process.wait()
    said = max([said, *(int(line) for line in rest.split("\n") if line.strip().isdigit())])
    project = Project(folder)
    labels = project.labels(project.images[0].image_id)
    assert labels.version in (said, said + 1)  # one more may have been written and not said
    assert len(labels.boxes) == (labels.version - 1) % 7 + 1
    assert labels.done == ((labels.version - 1) % 2 == 0)
    project.close()
    document: dict[str, Any] = json.loads((folder / LABELS_FILE).read_text())
    assert len(document["annotations"]) == (len(labels.boxes) if labels.done else 0)


def test_unfinished_images_are_kept_and_are_no_data_set(folder: Path) -> None:
    """What has no box in an image that nobody finished may be an object: nobody may learn that it is none."""
    with contextlib.closing(Project(folder)) as project:
        cls = project.add_class("cat").class_id
        first, second = (image.image_id for image in project.images[:2])
        project.set_labels(first, 0, [[1, 1, 9, 9, cls]], True)
        project.set_labels(second, 0, [[2, 2, 8, 8, cls]], False, [[3, 3, 9, 9, cls]])
        name = project.image(first).name
    assert [record.path.name for record in load_dataset(folder)] == [name]
    (folder / ".sppnet-studio" / "changes.jsonl").unlink()
    with contextlib.closing(Project(folder)) as project:
        known = project.labels(second)
        assert (known.done, known.version, len(known.boxes), len(known.rejected)) == (False, 1, 1, 1)


@pytest.mark.parametrize(
    "link", [LABELS_FILE, ".sppnet-studio", ".sppnet-studio/changes.jsonl", ".sppnet-studio/lock",
             ".sppnet-studio/views/ab", ".sppnet-studio/snapshots"]
)  # fmt: skip
def test_links_in_a_folder_lead_nothing_elsewhere(link: str, folder: Path, tmp_path: Path) -> None:
    """A folder that was unpacked from an archive may hold any link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    (folder / link).parent.mkdir(parents=True, exist_ok=True)
    for target in (elsewhere, elsewhere / "mine", elsewhere / "gone"):
        (folder / link).symlink_to(target)
        with pytest.raises(DatasetError, match=r"is a link.*(remove|put the file itself)"):
            Project(folder)
        (folder / link).unlink()
    assert [(p.name, p.read_text()) for p in elsewhere.iterdir()] == [("mine", "mine")]
    Project(folder).close()  # and the lock is free


def test_the_hidden_folder_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    project = Project(folder)
    project.add_class("cat")
    project.close()
    (folder / ".sppnet-studio").rename(tmp_path / "state")
    (folder / ".sppnet-studio").symlink_to(tmp_path / "state")
    project = Project(folder)
    assert [c["name"] for c in project.class_list()] == ["cat"]
    project.close()


def test_videos_among_the_images_are_told_of(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "photo.jpg")
    project = Project(tmp_path)
    assert _notes_on_videos(project) == []
    (tmp_path / "trip").mkdir()
    for name in ("trip/b.MP4", "a.mov", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    first, second = _notes_on_videos(project)
    assert first.endswith("a.mov, trip/b.MP4")
    assert "an image of every second" in second
    videos = Videos(tmp_path, project.state)
    assert videos.waiting(["photo.jpg", "trip/b/b_000000000.jpg"]) == ["a.mov"]  # the other's frames are there
    project.close()
