"""Videos that lie in the folder: their frames are taken once, whatever they are called and whoever interrupts."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from sppnet.datasets.video import frame_name
from sppnet.errors import ArgumentError
from sppnet.studio import adding
from sppnet.studio.adding import AddingLimits
from sppnet.studio.videos import Videos

av = pytest.importorskip("av", reason="needs the extra video")


def write_video(path: Path, value: int, seconds: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 64, 48
        for i in range(5 * seconds):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value + 5 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def images(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg"))


def test_each_video_keeps_its_name_and_all_frames(folder: Path, tmp_path: Path) -> None:
    """Names that aren't allowed on other systems, and two videos whose frames have the same names."""
    names = ["a?.mp4", "a_.mp4", "clip.mov", "clip.mp4", "x: y/é.mp4"]
    for i, name in enumerate(names):
        write_video(folder / name, 20 * i)
    before = {name: (folder / name).read_bytes() for name in names}
    videos = Videos(folder, tmp_path / "state")
    for i, name in enumerate(names):
        assert videos.waiting(images(folder)) == names[i:]
        assert len(videos.take(name).names) == 3
    assert videos.waiting(images(folder)) == []
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert len(images(folder)) == 15
    again = videos.take("clip.mp4")
    assert (again.names, again.skipped) == ([], [("clip.mp4", "3 of its images are there already")])


def test_a_video_that_was_cut_off_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(folder / "clip.mp4", 0, 5)
    videos = Videos(folder, tmp_path / "state")
    count = 0

    def killed(name: str, time_s: float) -> str:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return frame_name(name, time_s)

    monkeypatch.setattr(adding, "frame_name", killed)
    with pytest.raises(KeyboardInterrupt):
        videos.take("clip.mp4")
    assert len(images(folder)) == 2
    assert Videos(folder, tmp_path / "state").waiting(images(folder)) == ["clip.mp4"]
    assert len(videos.take("clip.mp4").names) == 3
    assert Videos(folder, tmp_path / "state").waiting(images(folder)) == []


def test_two_at_once_and_a_stop(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(folder / "clip.mp4", 0, 5)
    videos = Videos(folder, tmp_path / "state")
    begun, go_on = threading.Event(), threading.Event()

    def slow(name: str, time_s: float) -> str:
        begun.set()
        assert go_on.wait(30)
        return frame_name(name, time_s)

    monkeypatch.setattr(adding, "frame_name", slow)
    found = []
    thread = threading.Thread(target=lambda: found.append(videos.take("clip.mp4")))
    thread.start()
    assert begun.wait(30)
    assert videos.waiting([]) == []  # nobody is offered what is being done
    with pytest.raises(ArgumentError, match="being taken already"):
        videos.take("clip.mp4")
    videos.stop()
    go_on.set()
    thread.join(30)
    assert found[0].names == ["clip/clip_000000000.jpg"]
    assert "stopped" in found[0].skipped[0][1]
    assert videos.waiting(images(folder)) == ["clip.mp4"]
    assert len(videos.take("clip.mp4").names) == 4


def test_what_is_no_video(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"nothing")
    write_video(folder / "cut.mp4", 0, 5)
    whole = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_video(folder / "file.mp4", 0)
    (folder / "file").write_bytes(b"")
    videos = Videos(folder, tmp_path / "state")
    for name in ("broken.mp4", "cut.mp4", "file.mp4", "../secret.mp4", "none.mp4"):
        with pytest.raises(ArgumentError, match=name.rpartition("/")[2]) as caught:
            videos.take(name)
        assert str(tmp_path) not in str(caught.value)
    assert (folder / "file").read_bytes() == b""
    write_video(folder / "long.mp4", 0, 5)
    added = videos.take("long.mp4", AddingLimits(frames=2))
    assert len(added.names) == 2
    assert "more than 2 images" in added.skipped[0][1]
