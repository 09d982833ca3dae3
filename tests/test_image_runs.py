"""Runs over many images go on after those that are bad, and say which they were."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from sppnet.errors import ArgumentError, ImageError
from sppnet.image_runs import FailedImage, Failures, ImageRun
from sppnet.images import find_images
from sppnet.storage.output_folder import OutputFolder

T = TypeVar("T")


def test_one_bad_file_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    errors: dict[str, Exception] = {"b": ImageError("b: damaged"), "c": OSError("disk full"), "d": MemoryError()}
    done: list[str] = []

    def work(path: Path) -> str:
        if path.name in errors:
            raise errors[path.name]
        return path.name * 2

    run = ImageRun([Path(name) for name in "abcde"], work, "working", finish=lambda: done.append("end"))
    assert next(run) == "aa"
    assert (run.failed, done) == ([], [])
    assert list(run) == ["ee"]
    assert done == ["end"]
    assert run.failed == [
        FailedImage(Path("b"), "b: damaged"),
        FailedImage(Path("c"), "c: disk full"),
        FailedImage(Path("d"), "d: not enough memory; make the image smaller, or use smaller scales"),
    ]
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(logging.WARNING, f.message) for f in run.failed]


def test_the_first_error_ends_it_if_that_is_asked_for() -> None:
    def work(path: Path) -> None:
        raise ImageError(f"{path}: damaged")

    ended: list[bool] = []
    run = ImageRun([Path("a"), Path("b")], work, "working", finish=lambda: ended.append(True), on_error="fail")
    with pytest.raises(ImageError, match="a: damaged"):
        next(run)
    assert not ended


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), BrokenPipeError()])
def test_other_errors_are_not_those_of_an_image(error: BaseException) -> None:
    failures = Failures()
    with pytest.raises(type(error)), failures.catch("a.jpg"):
        raise error
    assert failures.failed == []


def test_progress_is_told() -> None:
    told = []

    def progress(items: Iterable[T], what: str, *, total: int | None = None) -> Iterable[T]:
        told.append((what, total))
        return items

    assert list(ImageRun([Path("a"), Path("b")], str, "working", progress=progress)) == ["a", "b"]
    assert told == [("working", 2)]


def test_find_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no images in .*: looked for .*\.jpg"):
        find_images(tmp_path)
    (tmp_path / "a.jpg").touch()
    assert find_images(tmp_path) == find_images(str(tmp_path)) == [tmp_path / "a.jpg"]
    same = [tmp_path / "a.jpg", tmp_path, tmp_path / "b" / ".." / "a.jpg", tmp_path / "." / "a.jpg"]
    assert find_images(same) == [tmp_path / "a.jpg"]
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "far" / "a.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    others = [tmp_path / "a.jpg", tmp_path / "link" / ".." / "a.jpg"]  # what is above a link is another folder
    assert find_images(others) == others
    (tmp_path / "far" / "a.jpg").unlink()
    assert find_images([tmp_path, "missing.jpg"]) == [tmp_path / "a.jpg", Path("missing.jpg")]


def test_a_folder_for_output_is_made(tmp_path: Path) -> None:
    assert OutputFolder.make(tmp_path / "a" / "b").folder.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="can't be used as a folder"):
        OutputFolder.make(tmp_path / "file")
