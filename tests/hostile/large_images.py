"""The largest image of each format that the reader accepts, in files that are small. Run in a process of its own."""

from __future__ import annotations

import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

__all__ = ["FORMATS", "write_all"]

# By the budgets of sppnet.images: 4 bytes a pixel, 16 bytes a pixel; and the most pixels at all
_PLAIN, _WEBP, _MOST = 12_700, 6_370, 13_370


def _png(mode: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        bits, colour, channels = {"LA": (8, 4, 2), "I;16": (16, 0, 1), "P": (8, 3, 1)}[mode]
        packer, row = zlib.compressobj(1), bytes(1 + _PLAIN * channels * bits // 8)
        data = b"".join(packer.compress(row) for _ in range(_PLAIN)) + packer.flush()
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", _PLAIN, _PLAIN, bits, colour, 0, 0, 0)), (b"IDAT", data)]
        if mode == "P":
            chunks.insert(1, (b"PLTE", bytes(range(6))))
            chunks.insert(2, (b"tRNS", b"\x80"))
        parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + struct.pack(">I", 0) + b"IEND\xaeB`\x82")

    return write


def _jpeg(mode: str, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (_MOST, _MOST)).save(path, "JPEG", **options)


def _tiled_tiff(path: Path) -> None:
    """Every tile is the same one."""
    tile = 256
    across = -(-_PLAIN // tile)
    data = zlib.compress(bytes(tile * tile * 3))
    count, ifd = across * across, 8
    tags = [(256, 4, 1, _PLAIN), (257, 4, 1, _PLAIN), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 3),
            (284, 3, 1, 1), (322, 3, 1, tile), (323, 3, 1, tile)]  # fmt: skip
    after = ifd + 2 + 12 * (len(tags) + 2) + 4
    tags += [(324, 4, count, after), (325, 4, count, after + 4 * count)]
    start = after + 8 * count
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(
        b"II*\0" + struct.pack("<I", ifd) + struct.pack("<H", len(tags)) + body + bytes(4)
        + struct.pack("<I", start) * count + struct.pack("<I", len(data)) * count + data
    )  # fmt: skip


def _bmp(path: Path) -> None:
    """Run lengths: 255 pixels in two bytes."""
    row = bytes((255, 0)) * (_PLAIN // 255) + bytes((_PLAIN % 255, 0, 0, 0))
    data = row * _PLAIN + bytes((0, 1))
    start = 14 + 40 + 8
    header = struct.pack("<IiiHHIIiiII", 40, _PLAIN, _PLAIN, 1, 8, 1, len(data), 0, 0, 2, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + bytes(8) + data)


def _heic(path: Path) -> None:
    """Written once by pillow-heif, as x265 takes minutes for it."""
    shutil.copy(Path(__file__).parent / "data" / "large.heic", path)


FORMATS: dict[str, tuple[int, Callable[[Path], None]]] = {
    "gray and alpha.png": (_PLAIN, _png("LA")),
    "16 bit.png": (_PLAIN, _png("I;16")),
    "palette.png": (_PLAIN, _png("P")),
    "cmyk.jpg": (_MOST, _jpeg("CMYK")),
    "progressive.jpg": (_MOST, _jpeg("RGB", progressive=True)),
    "tiled.tif": (_PLAIN, _tiled_tiff),
    "lossless.webp": (_WEBP, lambda path: Image.new("RGB", (_WEBP,) * 2).save(path, "WEBP", lossless=True, method=0)),
    "runs.bmp": (_PLAIN, _bmp),
    "one.gif": (_PLAIN, lambda path: Image.new("P", (_PLAIN, _PLAIN)).save(path, "GIF")),
    "phone.heic": (_WEBP, _heic),
}
"""By the name of the file: its side in pixels, and what writes it."""


def write_all(folder: Path) -> None:
    """Write each file, where the library for it is there."""
    for name, (_, write) in FORMATS.items():
        try:
            write(folder / name)
        except (ImportError, KeyError, OSError) as error:
            print(f"{name}: not written ({error})", file=sys.stderr)
            (folder / name).unlink(missing_ok=True)
