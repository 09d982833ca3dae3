"""Images, broken ones too, for the tests of the door to many images; and results as they can be compared."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sppnet import Detections

__all__ = ["rows_of", "write_broken", "write_images"]


def write_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write small images of coloured blocks, no two alike, as JPEG and PNG."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        blocks = rng.integers(0, 256, (4, 5, 3), np.uint8)
        path = folder / f"{i:04d}.{'png' if i % 3 == 0 else 'jpg'}"
        Image.fromarray(blocks).resize((160 + 8 * (i % 5), 128), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def write_broken(folder: Path, good: Path) -> dict[Path, str]:
    """Write one file of each kind of fault; with each a word of the message."""
    folder.mkdir(parents=True, exist_ok=True)
    data = good.read_bytes()
    huge = _chunk(b"IHDR", struct.pack(">IIBBBBB", 90_000, 90_000, 8, 2, 0, 0, 0)) + _chunk(b"IDAT", b"")
    content = {
        "truncated.jpg": (data[: len(data) // 2], "damaged"),
        "text.jpg": (b"<html>not found</html>", "not an image"),
        "empty.jpg": (b"", "0 bytes"),
        "huge.png": (b"\x89PNG\r\n\x1a\n" + huge, "pixels"),
    }
    broken = {}
    for name, (bytes_, word) in content.items():
        (folder / name).write_bytes(bytes_)
        broken[folder / name] = word
    return broken | {folder / "gone.jpg": "no such file"}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rows_of(found: Detections | Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Detections, or a row of a table of them, as plain tuples that are equal only if every bit is."""
    if isinstance(found, Detections):
        numbers = np.column_stack([found.xyxy, found.confidence]).astype(np.float32).view(np.uint32).tolist()
        return [(*n, int(c), found.class_names[c]) for n, c in zip(numbers, found.class_id, strict=True)]
    rows = []
    for one in found["detections"]:
        numbers = np.array([one[k] for k in ("x0", "y0", "x1", "y1", "confidence")], np.float64)
        exact = numbers.astype(np.float32)
        assert np.array_equal(exact.astype(np.float64), numbers)  # it was a float32
        rows.append((*exact.view(np.uint32).tolist(), one["class_id"], one["class_name"]))
    return rows
