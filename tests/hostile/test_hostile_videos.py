"""Videos that are small on the disk and large in memory: a bound for what is read, and one clear error for the rest."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from hostile.child import run_child
from tiny_model import save_tiny_model

av = pytest.importorskip("av")

DETECT = """
from sppnet.cli.main import main
report["status"] = main(["detect", *sys.argv[1:], "-q"])
"""
READ = """
from sppnet.datasets.video import read_frames
from sppnet.errors import ImageError
report["frames"] = 0
try:
    for frame in read_frames(sys.argv[1], 0.0):
        report["frames"] += 1
    report["error"] = ""
except ImageError as error:
    report["error"] = str(error)
"""


def write_clip(path: Path, size: tuple[int, int], count: int, pixels: str = "yuv420p", **options: str) -> Path:
    """H.264, of which a decoder must keep 16 frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        kept = "ref=16:bframes=3:keyint=250:me=dia:subme=0:partitions=none:threads=1:rc-lookahead=0:sync-lookahead=0"
        stream.options = {"preset": "ultrafast", "crf": "45", "x264-params": kept} | options
        image = np.zeros((size[1], size[0], 3), np.uint8)
        image[:, ::64] = 255
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
        for k in range(count):
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.slow
def test_the_largest_frames_that_are_read(tmp_path: Path) -> None:
    """8K, and a decoder that keeps as many frames as it may: 17 of 50 MB."""
    clip = write_clip(tmp_path / "8k.mp4", (7680, 4320), 18)
    save_tiny_model(tmp_path / "m.safetensors")
    report = run_child(DETECT, clip, "--model", tmp_path / "m.safetensors", "--every", "20s", "-o", tmp_path / "out")
    assert report["status"] == 0
    assert [path.name for path in (tmp_path / "out").glob("*.jpg")] == ["8k_000000000.jpg"]
    assert 0.8e9 < report["memory_bytes"] < 2e9


def large_png(side: int) -> bytes:
    """A PNG of 16 bits and four channels, all black; its rows are one piece of data again and again."""
    rows = 100
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(bytes(rows * (1 + 8 * side))) + packer.flush(zlib.Z_FULL_FLUSH)
    data = b"\x78\x9c" + piece * (side // rows)
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("place", ["first", "later"])
def test_frames_that_claim_absurd_sizes(place: str, tmp_path: Path) -> None:
    """The container says 64x48, a frame of 2 MB says 16000x16000 with 8 bytes a pixel."""
    clip = tmp_path / "clip.mov"
    absurd = large_png(16_000)
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for k in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                if k == 0 and place == "later":
                    container.mux(packet)
                    continue
                large = av.Packet(absurd)
                large.stream, large.time_base, large.is_keyframe = stream, packet.time_base, True
                large.pts, large.dts = packet.pts, packet.dts
                container.mux(large)
    report = run_child(READ, clip)
    assert report["error"].startswith(f"{clip}: "), report
    assert "\n" not in report["error"]
    assert report["frames"] == (place == "later")
    assert report["memory_bytes"] < 300e6


def test_a_header_that_claims_an_absurd_size(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", (64, 48), 3)
    data = bytearray(clip.read_bytes())
    place = data.index(b"avc1", data.index(b"stsd")) + 4 + 24
    assert data[place : place + 4] == struct.pack(">HH", 64, 48)
    data[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    # the sequence header too, which is what a decoder goes by: without it nothing but the claim is left
    start = data.index(b"avcC")
    data[start + 4 : start + 12] = bytes(8)
    clip.write_bytes(data)
    report = run_child(READ, clip)
    assert report["frames"] == 0
    assert report["error"].startswith(f"{clip}: "), report
    assert report["memory_bytes"] < 300e6


def test_deep_colours_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sppnet.datasets import video
    from sppnet.errors import ImageError

    clip = write_clip(tmp_path / "deep.mp4", (64, 48), 3, "yuv444p10le")
    plain = write_clip(tmp_path / "plain.mp4", (64, 48), 3)
    monkeypatch.setattr(video, "_DECODING_BYTES", 64 * 48 * 6 * 17 - 1)
    with pytest.raises(ImageError, match=r"deep\.mp4: its frames of 64x48 in yuv444p10le may take 0\.0 GB to decode"):
        list(video.read_frames(clip))
    assert len(list(video.read_frames(plain))) == 3
