"""Vectors of many images in one file, read back by the safetensors library."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from safetensors.numpy import load_file

from sppnet import SPPDetector
from sppnet._types import U8
from sppnet.detection.vector_file import VectorPlan, WrittenVectors, plan_vectors, write_vectors
from sppnet.detection.vectors import window_vectors
from sppnet.errors import ArgumentError, ImageError, ProposalError
from sppnet.proposals.stored import StoredProposals
from sppnet.storage.journal import Journal
from tiny_model import save_tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
T = TypeVar("T")
WINDOWS = [[10, 20, 90, 100], [0, 0, 320, 240]]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> SPPDetector:
    return SPPDetector.load(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture
def images(toy_voc: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, source in enumerate(sorted((toy_voc / "JPEGImages").iterdir())[:3]):
        shutil.copy(source, folder / f"{i}.jpg")
    return folder


def test_plan_and_file(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    stored = StoredProposals({"0.jpg": WINDOWS, "1.jpg": WINDOWS[:1], "2.jpg": WINDOWS})
    plan = plan_vectors(detector, [images], stored=stored, kind="pooled")
    assert plan.exact
    assert plan.window_count == 5
    assert plan.size_bytes == 5 * (plan.length * 4 + 16)
    out = tmp_path / "v.safetensors"
    assert write_vectors(detector, plan, out) == WrittenVectors((), 0)
    assert 0 <= out.stat().st_size - plan.size_bytes < 2000  # the header
    got = load_file(out)
    assert got["0.jpg/windows"].tolist() == WINDOWS
    assert np.array_equal(got["0.jpg/vectors"], window_vectors(detector, images / "0.jpg", WINDOWS, kind="pooled")[1])
    assert got["1.jpg/vectors"].shape == (1, plan.length)


def test_the_detectors_own_windows(detector: SPPDetector, images: Path) -> None:
    plan = plan_vectors(detector, [images], float16=True)
    assert not plan.exact
    assert plan.window_count == 3 * 120  # of the tiny model
    assert plan.size_bytes == 360 * (plan.length * 2 + 16)


def test_vectors_are_those_of_the_image_alone(detector: SPPDetector, images: Path) -> None:
    """Also where detection looks at the mirror image, which costs nothing then."""
    both = copy.deepcopy(detector).set_params(features__mirror=True)
    fed = both.window_features().inputs
    calls = []

    def inputs(image: U8, *, flip: bool = False) -> list[U8]:
        calls.append(flip)
        return fed(image, flip=flip)

    both.window_features().inputs = inputs  # type: ignore[method-assign]
    for one, other in zip(
        window_vectors(both, images / "0.jpg"), window_vectors(detector, images / "0.jpg"), strict=True
    ):
        assert np.array_equal(one, other)
    assert calls == [False]


def test_bad_images_and_images_without_windows(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    stored = StoredProposals({"0.jpg": WINDOWS, "1.jpg": WINDOWS})
    with pytest.raises(ProposalError, match=r"no windows of .*2\.jpg"):
        plan_vectors(detector, [images], stored=stored, on_error="fail")
    plan = plan_vectors(detector, [images], stored=stored)
    assert [item.path.name for item in plan.failed] == ["2.jpg"]
    (images / "0.jpg").write_bytes(b"no image")
    out = tmp_path / "v.safetensors"
    failed = write_vectors(detector, plan, out).failed
    assert [item.path.name for item in failed] == ["2.jpg", "0.jpg"]
    assert {name.partition("/")[0] for name in load_file(out)} == {"1.jpg"}


def test_no_room_on_the_disk(
    detector: SPPDetector, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_vectors(detector, [images], stored=StoredProposals({f"{i}.jpg": WINDOWS for i in range(3)}))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=2 * plan.size_bytes - 1))
    with pytest.raises(ArgumentError, match=r"needs 0 MB more in .* while it is written, but 0 MB are free"):
        write_vectors(detector, plan, tmp_path / "v.safetensors")
    assert not (tmp_path / "v.safetensors").exists()


class _Stop:
    """Progress that stops a run when so many images are done, and counts those that it begins."""

    def __init__(self, after: int = 100) -> None:
        self.after, self.begun = after, 0

    def __call__(self, items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
        for i, item in enumerate(items):
            if i == self.after:
                raise KeyboardInterrupt
            self.begun += 1
            yield item


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    whole, out, journal = tmp_path / "whole.safetensors", tmp_path / "v.safetensors", tmp_path / "v.journal"
    body = tmp_path / "v.journal.body"
    plan = plan_vectors(detector, [images])
    write_vectors(detector, plan, whole)

    def write(stop: _Stop, *, plan: VectorPlan = plan, fresh: bool = False) -> int:
        done = write_vectors(detector, plan, out, journal=journal, fresh=fresh, progress=stop)
        assert not journal.exists()
        assert not body.exists()
        assert done == WrittenVectors((), 3 - stop.begun)
        return stop.begun

    def interrupt(after: int = 2, plan: VectorPlan = plan) -> None:
        with pytest.raises(KeyboardInterrupt):
            write(_Stop(after), plan=plan)
        assert not out.exists()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["images", journal.name, body.name, whole.name]

    interrupt()
    assert write(_Stop()) == 1
    assert out.read_bytes() == whole.read_bytes()
    out.unlink()

    interrupt(1)
    interrupt(1)  # the second image
    with body.open("ab") as file:
        file.write(b"half of an array")
    assert write(_Stop()) == 1
    assert out.read_bytes() == whole.read_bytes()
    out.unlink()

    interrupt()
    assert write(_Stop(), fresh=True) == 3
    out.unlink()

    interrupt()
    os.utime(images / "0.jpg", (1, 1))  # it isn't the one that was done
    assert write(_Stop()) == 2
    assert out.read_bytes() == whole.read_bytes()
    out.unlink()

    interrupt()
    data = bytearray(body.read_bytes())
    data[-3] ^= 1
    body.write_bytes(data)
    assert write(_Stop()) == 2
    assert out.read_bytes() == whole.read_bytes()
    out.unlink()

    interrupt()
    body.unlink()
    assert write(_Stop()) == 3
    assert out.read_bytes() == whole.read_bytes()
    out.unlink()

    windows = {f"{i}.jpg": WINDOWS for i in range(3)}
    interrupt(plan=plan_vectors(detector, [images], stored=StoredProposals(windows)))
    other = StoredProposals(windows | {"0.jpg": WINDOWS[1:]})
    assert write(_Stop(), plan=plan_vectors(detector, [images], stored=other)) == 2
    assert load_file(out)["0.jpg/windows"].tolist() == WINDOWS[1:]
    out.unlink()

    interrupt()
    half = plan_vectors(detector, [images], float16=True)
    before = body.read_bytes()
    with pytest.raises(ArgumentError, match="holds the progress of a run with another model, version or settings"):
        write(_Stop(), plan=half)
    assert body.read_bytes() == before
    assert write(_Stop(), plan=half, fresh=True) == 3


def test_where_some_images_failed_only_these_are_done_again(
    detector: SPPDetector, images: Path, tmp_path: Path
) -> None:
    out, journal, bad = tmp_path / "v.safetensors", tmp_path / "v.journal", images / "1.jpg"
    plan = plan_vectors(detector, [images])
    write_vectors(detector, plan, tmp_path / "whole.safetensors")
    content = bad.read_bytes()
    bad.write_bytes(b"no image")
    first = write_vectors(detector, plan, out, journal=journal)
    assert [item.path for item in first.failed] == [bad]
    assert len(load_file(out)) == 4
    bad.write_bytes(content)
    stop = _Stop()
    assert write_vectors(detector, plan, out, journal=journal, progress=stop) == WrittenVectors((), 2)
    assert stop.begun == 1
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    for path in images.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ImageError, match="none of 3 images could be done, so it isn't written"):
        write_vectors(detector, plan, out)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("path", ["v", "v.body"])
def test_the_journal_has_a_name_of_its_own(path: str, detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="name another journal"):
        write_vectors(detector, plan_vectors(detector, [images]), tmp_path / path, journal=tmp_path / "v")
    assert [p.name for p in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(
    "places",
    [
        [[16, "F32", [1, 4], 0]],
        [[16, "I32", [120, 4], 0]] * 2,
        [[16, "F32", [], 0]] * 2,
        [[float("inf"), "F32", [1, 4], 0]] * 2,
        "x",
        None,
    ],
)
def test_a_journal_that_somebody_changed(places: object, detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    plan, out, journal = plan_vectors(detector, [images]), tmp_path / "v.safetensors", tmp_path / "v.journal"
    with pytest.raises(KeyboardInterrupt):
        write_vectors(detector, plan, out, journal=journal, progress=_Stop(2))
    header, *lines = journal.read_text().splitlines()
    changed = [json.dumps(json.loads(line) | {"places": places}) for line in lines]
    journal.write_text("\n".join([header, *changed, ""]))
    assert write_vectors(detector, plan, out, journal=journal).resumed == 0
    write_vectors(detector, plan, tmp_path / "whole.safetensors")
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_kill_before_the_first_image_blocks_nothing(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    plan, out, journal = plan_vectors(detector, [images]), tmp_path / "v.safetensors", tmp_path / "v.journal"
    with Journal(journal, "of a run that was killed"):
        pass
    for content in (b"", b"sppnet-stream-1\n"):
        (tmp_path / "v.journal.body").write_bytes(content)
        with pytest.raises(KeyboardInterrupt):
            write_vectors(detector, plan, out, journal=journal, progress=_Stop(0))
        assert [p.name for p in tmp_path.iterdir()] == ["images"]  # nothing was done


def test_the_progress_of_a_run_over_other_images_stays(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "v.safetensors", tmp_path / "v.journal"
    with pytest.raises(KeyboardInterrupt):
        write_vectors(detector, plan_vectors(detector, [images]), out, journal=journal, progress=_Stop(2))
    shutil.copytree(images, tmp_path / "others")
    others = plan_vectors(detector, [tmp_path / "others"])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with pytest.raises(ArgumentError, match="holds the progress of a run over other images"):
        write_vectors(detector, others, out, journal=journal)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
    assert write_vectors(detector, others, out, journal=journal, fresh=True).resumed == 0
    assert not journal.exists()


def test_images_without_windows_keep_the_others(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "v.safetensors", tmp_path / "v.journal"
    windows = {f"{i}.jpg": WINDOWS for i in range(3)}
    some = StoredProposals({name: boxes for name, boxes in windows.items() if name != "1.jpg"})
    first = write_vectors(detector, plan_vectors(detector, [images], stored=some), out, journal=journal)
    assert [item.path.name for item in first.failed] == ["1.jpg"]
    plan = plan_vectors(detector, [images], stored=StoredProposals(windows))
    assert write_vectors(detector, plan, out, journal=journal) == WrittenVectors((), 2)
    assert not journal.exists()


def test_what_is_in_the_place_of_the_saved_vectors_stays(detector: SPPDetector, images: Path, tmp_path: Path) -> None:
    plan = plan_vectors(detector, [images])
    body = tmp_path / "v.journal.body"
    body.write_bytes(b"precious")
    with pytest.raises(ArgumentError, match=r"v\.journal\.body: is in the way"):
        write_vectors(detector, plan, tmp_path / "v.safetensors", journal=tmp_path / "v.journal")
    assert body.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "v.journal.body"]
    body.unlink()
    journal = tmp_path / "v.journal"
    journal.touch()  # an empty one doesn't make it ours
    body.write_bytes(b"precious")
    with pytest.raises(ArgumentError, match=r"v\.journal\.body: is in the way"):
        write_vectors(detector, plan, tmp_path / "v.safetensors", journal=journal)
    assert body.read_bytes() == b"precious"
