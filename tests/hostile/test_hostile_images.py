"""Images that are small on the disk and large in memory: `detect` stays below 1.5 GB, whatever lies in the folder."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from hostile.child import run_child
from hostile.large_images import FORMATS
from tiny_model import save_tiny_model

# The largest PNG that is decoded: 4 bytes a pixel, at most 650 MB
_SIDE = 12_700

_DETECT = """
from sppnet import SPPDetector
from sppnet.detection.run import detect_many
model, folder, out = sys.argv[1:]
with detect_many(SPPDetector.load(model), folder, draw_to=out, workers=4) as run:
    report["found"] = {result.path.name: [result.width, result.height] for result in run}
    report["failed"] = {item.path.name: item.message for item in run.failed}
"""

_WRITE = """
from pathlib import Path
from hostile.large_images import write_all
write_all(Path(sys.argv[1]))
"""

_DETECT_EACH = """
from pathlib import Path
from sppnet import SPPDetector
from sppnet.detection.run import detect_many
from sppnet.image_budget import give_back_memory
detector = SPPDetector.load(sys.argv[1])
for path in sorted(Path(sys.argv[2]).iterdir()):
    give_back_memory()
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    draw_to = Path(sys.argv[3]) if path.name in sys.argv[4:] else None  # takes as long as all the rest
    with detect_many(detector, [path], draw_to=draw_to) as run:
        found = [[result.width, result.height] for result in run]
    report[path.name] = {"found": found, "failed": [item.message for item in run.failed], "memory": memory_bytes()}
"""


def png(width: int, height: int, colour: int, channels: int, rows: int | None = None) -> bytes:
    """A PNG of one colour, packed row by row, so that nobody needs the memory that it takes to read it.

    Only ``rows`` of them are there, if that is given.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), bytes(1 + width * channels)
    data = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_a_folder_of_bombs(tmp_path: Path) -> None:
    model, folder = save_tiny_model(tmp_path / "m.safetensors"), tmp_path / "images"
    folder.mkdir()
    bomb = png(_SIDE, _SIDE, 4, 2)  # gray and alpha
    assert len(bomb) < 500_000
    for i in range(2):  # both at once would take more
        (folder / f"bomb{i}.png").write_bytes(bomb)
    (folder / "too large.png").write_bytes(png(60_000, 60_000, 0, 1, rows=1))
    (folder / "text.png").write_bytes(b"no image")
    report = run_child(_DETECT, model, folder, tmp_path / "out")
    assert report["found"] == {f"bomb{i}.png": [_SIDE, _SIDE] for i in range(2)}
    assert "pixels" in report["failed"]["too large.png"]
    assert report["failed"].keys() == {"too large.png", "text.png"}
    assert report["memory_bytes"] < 1.5e9


@pytest.mark.slow
def test_the_largest_image_of_each_format(tmp_path: Path) -> None:
    model, folder = save_tiny_model(tmp_path / "m.safetensors"), tmp_path / "images"
    folder.mkdir()
    run_child(_WRITE, folder, seconds=900)
    written = {path.name for path in folder.iterdir()}
    assert written >= {name for name in FORMATS if not name.endswith((".webp", ".jp2", ".heic"))}
    # What drawing takes depends on the size alone: that of all others, the most pixels at all, and the least budget
    drawn = {"16 bit.png", "cmyk.jpg", "lossless.webp"} & written
    report = run_child(_DETECT_EACH, model, folder, tmp_path / "out", *sorted(drawn), seconds=900)
    assert {path.stem for path in (tmp_path / "out").glob("*.jpg")} == {Path(name).stem for name in drawn}
    assert report.pop("memory_bytes") < 1.5e9
    assert report.keys() == written
    for name, result in report.items():
        side = FORMATS[name][0]
        read = result["found"] == [[side, side]] or (name.endswith(".heic") and "pillow" in str(result["failed"]))
        assert read, (name, result)
        assert result["memory"] < 1.5e9, (name, result)
