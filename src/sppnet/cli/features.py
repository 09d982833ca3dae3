"""``sppnet features``: vectors of windows, as safetensors."""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import FileFailures, add_quiet, collect_images, file_for_output, positive_int, progress
from sppnet.storage.atomic import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sppnet.detection.detector import SPPDetector

__all__ = ["add_parser"]

DESCRIPTION = """\
Write a vector for each window of each photo: pooled by the pyramid, or behind the fully connected layers.

One safetensors file holds NAME/windows (K, 4), in pixels, and NAME/vectors (K, D) for every photo. Windows are those of
selective search, or those of --boxes (.npz, .json or .mat, as `sppnet proposals` has them), in their order.
How much it will be is printed first; --estimate does no more than that.
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "features", help="vectors of windows, for programs of your own", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("photos", nargs="+", metavar="PHOTO|DIR", help="picture files, or folders of them")
    parser.add_argument("--output", metavar="FILE", help="the file to write (.safetensors)")
    parser.add_argument("--model", metavar="FILE", help="a detector from `sppnet train` (default: 20 VOC classes)")
    parser.add_argument("--kind", choices=("fc", "pooled"), default="fc", help="which vectors (default: %(default)s)")
    parser.add_argument("--boxes", metavar="FILE", help="windows of each photo, by its name")
    parser.add_argument("--max-windows", type=positive_int, default=2000, metavar="N", help="a photo (%(default)s)")
    parser.add_argument("--float16", action="store_true", help="half the size, about three digits")
    parser.add_argument("--estimate", action="store_true", help="only print how large the file would be")
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.cli.proposals import unique_names
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.vectors import vector_length
    from sppnet.errors import ArgumentError
    from sppnet.proposals import load_proposals

    if not arguments.output and not arguments.estimate:
        raise ArgumentError("say where to write the vectors with --output FILE, or --estimate")
    if arguments.output:
        file_for_output(arguments.output, example="vectors.safetensors")
    photos = collect_images(arguments.photos)
    stored = load_proposals(arguments.boxes) if arguments.boxes else None
    detector = SPPDetector.load(arguments.model)
    detector.set_params(proposer__max_windows=arguments.max_windows)
    dims = vector_length(detector, arguments.kind)
    each = 2 if arguments.float16 else 4
    failures = FileFailures()
    windows: dict[Path, NDArray[np.float32] | None] = {}
    for photo in photos:
        with failures.catch(photo):
            windows[photo] = None if stored is None else stored.proposer(photo).boxes
    counts = [arguments.max_windows if boxes is None else len(boxes) for boxes in windows.values()]
    size = sum(counts) * (dims * each + 16)
    most = "at most " if stored is None else ""
    what = f"{most}{sum(counts)} windows of {len(windows)} photos, {dims} numbers each"
    print(f"{what}, float{8 * each}: {most}{_size(size)}")
    if arguments.estimate or not windows:
        return failures.exit_status
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if size > free and stored is not None:
        raise ArgumentError(f"{output}: needs {_size(size)}, and {_size(free)} are free; try --float16 or fewer photos")
    written = _write(output, arguments, detector, windows, unique_names(photos), failures, dims)
    print(f"written: {output}: {written} photos, {_size(output.stat().st_size)}")
    if failures.failed:
        print(failures.summary(len(photos)))
    return failures.exit_status


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _write(
    output: Path,
    arguments: argparse.Namespace,
    detector: SPPDetector,
    windows: dict[Path, NDArray[np.float32] | None],
    names: dict[Path, str],
    failures: FileFailures,
    dims: int,
) -> int:
    """Vectors go to the disk photo by photo, for memory may not hold all; the header is written when all are known."""
    from sppnet.detection.vectors import window_vectors

    entries: dict[str, Any] = {}
    offset = 0
    kind = "F16" if arguments.float16 else "F32"

    def parts() -> Iterator[bytes]:
        nonlocal offset
        for photo in progress(windows, "vectors", total=len(windows), quiet=arguments.quiet or len(windows) == 1):
            with failures.catch(photo):
                boxes, vectors = window_vectors(detector, photo, windows[photo], kind=arguments.kind)
                values = vectors.half() if arguments.float16 else vectors
                for name, type_, data in (("windows", "F32", boxes), ("vectors", kind, values.numpy())):
                    raw = data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
                    entries[f"{names[photo]}/{name}"] = {
                        "dtype": type_, "shape": list(data.shape), "data_offsets": [offset, offset + len(raw)],
                    }  # fmt: skip
                    offset += len(raw)
                    yield raw

    with write_atomic(output) as temporary:
        body = temporary.with_suffix(".body")
        try:
            with body.open("wb") as file:
                for raw in parts():
                    file.write(raw)
            model = Path(arguments.model).name if arguments.model else "default"
            about = {"format": "sppnet-vectors-1", "kind": arguments.kind, "model": model, "length": str(dims)}
            header = json.dumps({"__metadata__": about} | entries).encode()
            header += b" " * (-len(header) % 8)
            with temporary.open("wb") as file, body.open("rb") as source:
                file.write(struct.pack("<Q", len(header)) + header)
                shutil.copyfileobj(source, file, 1 << 20)
        finally:
            body.unlink(missing_ok=True)
    return len(entries) // 2
