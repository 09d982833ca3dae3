"""Frames of video files at an interval, with the time of each. Needs the extra ``video`` (PyAV)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sppnet._types import U8
from sppnet.errors import ArgumentError, ImageError, MissingDependencyError
from sppnet.images import VIDEO_EXTENSIONS
from sppnet.storage.atomic import write_atomic
from sppnet.storage.reading import open_regular

__all__ = ["MAX_FRAME_PIXELS", "VIDEO_EXTENSIONS", "Frame", "count_frames", "frame_name", "is_video", "parse_seconds",
           "read_frames", "write_frames"]  # fmt: skip

MAX_FRAME_PIXELS = 36_000_000
"""Videos with larger frames are refused. 8K has 33 or 35 million."""

# A decoder keeps up to 16 frames, in the form that the video has them in, and the one that it works on
_KEPT_FRAMES, _KEPT_FRAMES_ALONE = 17, 3
_DECODING_BYTES = 1_100_000_000

_MAX_VIDEO_BYTES = 1 << 40
# Files that other files can hide in (playlists, lists of files to join) are not among them
_DEMUXERS = "asf,avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,m4v,h264,hevc"
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, None: 1.0}


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        number: of the frame among those that are given out, from 0.
        time_s: when it is shown, in seconds from the beginning.
        pixels: uint8 ``(H, W, 3)`` RGB, upright.
        index: of the frame among all that are in the file, from 0.
    """

    number: int
    time_s: float
    pixels: U8
    index: int


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file is called like a video."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def parse_seconds(text: str) -> float:
    """Read a duration.

    >>> parse_seconds("1s"), parse_seconds("500ms"), parse_seconds("2 min"), parse_seconds("0.5")
    (1.0, 0.5, 120.0, 0.5)

    Raises:
        ArgumentError: it isn't one, or isn't above 0.
    """
    match = _SECONDS.fullmatch(text.strip().lower())
    value = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < value < 1e9:
        raise ArgumentError(f"got {text!r}, expected a duration above 0, as in 1s, 500ms or 2min")
    return value


def frame_name(path: str | os.PathLike[str], time_s: float) -> str:
    """Name the image of a frame: ``clip_000012500.jpg`` is shown 12.5 s from the beginning of ``clip.mp4``."""
    stem = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]', "_", Path(path).stem).strip(" .")[:100] or "video"
    return f"{stem}_{round(time_s * 1000):09d}.jpg"


def count_frames(path: str | os.PathLike[str], every_s: float = 1.0) -> int | None:
    """Estimate how many frames :func:`read_frames` gives, by the duration that the file states; None where it doesn't.

    Raises:
        MissingDependencyError: PyAV isn't installed.
        ImageError: there is no such file, or it is no video.
    """
    with _opened(Path(path)) as (container, video):
        if every_s:
            return None if container.duration is None else max(1, math.ceil(container.duration / 1e6 / every_s))
        return video.frames or None


def read_frames(
    path: str | os.PathLike[str], every_s: float = 1.0, *, max_pixels: int = MAX_FRAME_PIXELS
) -> Iterator[Frame]:
    """Yield the frames of a video at an interval: of each interval the first frame that is shown in it.

    Args:
        path: the video.
        every_s: the interval in seconds; 0 for every frame.
        max_pixels: videos with larger frames are refused.

    Raises:
        MissingDependencyError: PyAV isn't installed.
        ImageError: there is no such file, it is no video, it is damaged, or decoding it takes too much memory.
    """
    file = Path(path)
    with _opened(file) as (container, video):
        context = video.codec_context
        _check_size(file, context, context, max_pixels)
        # The decoder itself refuses frames that become larger on the way, before it takes memory for them
        most = max((context.width + 64) * (context.height + 64), _DECODING_BYTES // (8 * _KEPT_FRAMES))
        context.options = {"max_pixels": str(most)}
        rate = float(video.average_rate or 25)
        number, due, start = 0, 0, None
        for k, frame in enumerate(container.decode(video)):
            _check_size(file, frame, context, max_pixels)  # it may change on the way
            start = frame.time if start is None else start
            time_s = frame.time - (start or 0.0) if frame.time is not None else k / rate
            # A thousandth of slack: times are rounded
            if every_s and time_s + 1e-3 < due * every_s:
                continue
            due = int((time_s + 1e-3) / every_s) + 1 if every_s else 0
            turns = round(-(getattr(frame, "rotation", 0) or 0) / 90) % 4
            pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), -turns))
            yield Frame(number, round(time_s, 3), pixels, k)
            number += 1


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Any]]:
    """A video file and its first stream of images, and errors that name the file."""
    try:
        import av
    except ImportError:
        raise MissingDependencyError(f"{file}: reading videos needs PyAV: pip install 'sppnet[video]'") from None
    # Opening decodes a frame, to see what is in it
    options = {"format_whitelist": _DEMUXERS, "max_pixels": str(MAX_FRAME_PIXELS)}
    try:
        # through a stream of our own: FFmpeg takes some names for addresses
        with (
            open_regular(file, _MAX_VIDEO_BYTES, error=ImageError) as stream,
            av.open(stream, "r", options=options, metadata_errors="replace") as container,
        ):
            video = next(iter(container.streams.video), None)
            if video is None:
                raise ImageError(f"{file}: has no images in it; name a video")
            if video.codec_context is None:
                raise ImageError(f"{file}: its codec isn't known here; export it as H.264")
            if not video.codec_context.width or not video.codec_context.height:
                raise ImageError(
                    f"{file}: its frames are damaged, or have more than the {MAX_FRAME_PIXELS} pixels allowed; make "
                    "them smaller, or export it again"
                )
            yield container, video
    except FileNotFoundError:
        raise ImageError(f"{file}: no such file; check the name") from None
    except ImageError:
        raise
    except Exception as error:  # what PyAV raises on damaged files isn't only its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{file}: can't be read as a video ({reason}); get or export it again") from error


def _check_size(file: Path, frame: Any, context: Any, max_pixels: int) -> None:
    """Refuse a frame, or what the file says about its frames, that takes too much memory."""
    width, height, form = frame.width, frame.height, frame.format
    if width * height > max_pixels:
        raise ImageError(
            f"{file}: its frames of {width}x{height} have more than the {max_pixels} pixels allowed; make it smaller"
        )
    if form is None:  # known with the first frame
        return
    frames = _KEPT_FRAMES_ALONE if context.codec.intra_only else _KEPT_FRAMES
    needed = width * height * form.padded_bits_per_pixel // 8 * frames
    if needed > _DECODING_BYTES:
        raise ImageError(
            f"{file}: its frames of {width}x{height} in {form.name} may take {needed / 1e9:.1f} GB to decode, allowed "
            f"are {_DECODING_BYTES / 1e9:.1f}; make it smaller, or export it with 8 bits"
        )


def write_frames(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    every_s: float = 1.0,
    *,
    limit: int | None = None,
) -> Iterator[Path]:
    """Write frames of a video as JPEG files, and yield the path of each.

    A file is called by the video and the time in milliseconds: ``clip_000012500.jpg`` is shown 12.5 s from the
    beginning. A file of that name that is there already isn't replaced.

    Args:
        path: the video.
        destination: the folder; it is made if needed.
        every_s: the interval in seconds; 0 for every frame.
        limit: at most so many frames.

    Raises:
        ArgumentError: a file that would be written is there already.
        MissingDependencyError: PyAV isn't installed.
        ImageError: there is no such file, it is no video, or it is damaged.
    """
    for frame in read_frames(path, every_s):
        if limit is not None and frame.number >= limit:
            return
        target = Path(destination) / frame_name(path, frame.time_s)
        if os.path.lexists(target):
            raise ArgumentError(f"{target}: is there already and isn't replaced; name another folder")
        with write_atomic(target, sync=False) as temporary:
            Image.fromarray(frame.pixels).save(temporary, "JPEG", quality=95)
        yield target
