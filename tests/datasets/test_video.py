"""Frames of a video: the right ones, at the right times; bad files give one clear error."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.cli.main import main
from sppnet.datasets.video import is_video, parse_seconds, read_frames
from sppnet.errors import ArgumentError, ImageError, MissingDependencyError

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of 10 frames each; frame k is gray 8 k."""
    path: Path = tmp_path_factory.mktemp("video") / "my clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
        for k in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("every", "expected"), [(1.0, [0, 10, 20]), (0.5, [0, 5, 10, 15, 20, 25]), (0.0, list(range(30)))]
)
def test_frames_at_an_interval(every: float, expected: list[int], clip: Path) -> None:
    frames = list(read_frames(clip, every))
    assert [round(frame.time_s * 10) for frame in frames] == expected
    assert [frame.number for frame in frames] == list(range(len(frames)))
    for frame, k in zip(frames, expected, strict=True):
        assert frame.pixels.shape == (48, 64, 3)
        assert abs(float(frame.pixels.mean()) - 8 * k) < 6


def test_on_the_command_line(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "frames", str(clip), "-o", str(tmp_path / "out"), "--every", "1s", "--quiet"]
    assert main(arguments) == 0
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["my clip_000000000.jpg", "my clip_000001000.jpg", "my clip_000002000.jpg"]
    with Image.open(tmp_path / "out" / names[1]) as image:
        assert image.size == (64, 48)
    capsys.readouterr()
    assert main(arguments) == 2
    assert "is there already and isn't replaced" in capsys.readouterr().err


def test_durations() -> None:
    assert parse_seconds("1.5 s") == 1.5
    for wrong in ("0", "-1", "x", "1 day", "", "1e99"):
        with pytest.raises(ArgumentError, match="expected a duration"):
            parse_seconds(wrong)


def test_bad_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    assert is_video("x.MP4")
    assert not is_video("x.jpg")
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 100)
    for name in ("bad.mp4", "gone.mp4"):
        with pytest.raises(ImageError, match=name):
            list(read_frames(tmp_path / name))
    with pytest.raises(ImageError, match="more than the 100 pixels"):
        list(read_frames(clip, max_pixels=100))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sppnet\[video\]'"):
        list(read_frames(clip))


def test_an_unknown_codec_and_changed_bytes(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(data.replace(b"mp4v", b"zzzz").replace(b"esds", b"zzzz"))
    with pytest.raises(ImageError, match=r"bad\.mp4: its codec isn't known"):
        list(read_frames(bad))
    draw = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        for place in draw.integers(0, len(data), 8):
            changed[place] ^= 1 << int(draw.integers(8))
        bad.write_bytes(changed)
        try:
            frames = list(read_frames(bad, 0.5))
        except ImageError as error:
            message = str(error)
        else:
            message = f"{bad}: {len(frames)} frames"
        assert message.startswith(f"{bad}: ")
