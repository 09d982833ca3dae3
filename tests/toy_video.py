"""A small video, written by PyAV: another image each second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_clip"]


def write_clip(path: Path, sources: Sequence[Path], seconds: int = 3) -> Path:
    """Write four frames of 320 x 240 a second; in each second they show the next of ``sources``. Returns ``path``."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 240, "yuv420p", 4_000_000
        for k in range(4 * seconds):
            with Image.open(sources[k // 4 % len(sources)]) as image:
                pixels = np.ascontiguousarray(np.asarray(image.convert("RGB").resize((320, 240))))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path
